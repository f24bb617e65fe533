'use strict'
{
  const GROUP = 200
  const find = document.querySelector('.find')
  const input = find.querySelector('input')
  const status = document.querySelector('[role=status]')
  const none = document.querySelector('.none')
  const up = document.querySelector('.u a')
  const table = document.querySelector('table')
  const heads = [...table.querySelectorAll('th')]
  const summary = document.querySelector('footer p').textContent
  const number = new Intl.NumberFormat()
  const plain = text => text.normalize().toLowerCase()

  // The entries, in the order in which they are shown, and which of them are.
  let groups = [...table.querySelectorAll('.r')]
  const items = groups.flatMap(group => [...group.rows]).map((row, place) => ({ row, place, isFolder: row.className === 'd', isShown: true }))
  const show = () => {
    const active = document.activeElement
    const rows = items.filter(item => item.isShown).map(item => item.row)
    groups.forEach(group => group.remove())
    groups = []
    for (let at = 0; at < rows.length; at += GROUP) {
      const group = document.createElement('tbody')
      group.className = 'r'
      group.append(...rows.slice(at, at + GROUP))
      group.style.setProperty('--rows', group.rows.length)
      groups.push(group)
    }
    table.append(...groups)
    if (active.isConnected) active.focus()
  }
  groups.forEach(group => group.style.setProperty('--rows', group.rows.length))

  // The server's order is that of names, unless there were too many for it to put in order.
  let isPlaced = 'inOrder' in groups[0].dataset
  const place = () => {
    if (isPlaced) return
    isPlaced = true
    const { compare } = new Intl.Collator(undefined, { numeric: true })
    const names = items.map(item => ({ item, name: item.row.firstChild.textContent }))
    names.sort((a, b) => compare(a.name, b.name)).forEach(({ item }, place) => { item.place = place })
  }

  // Sorting. Folders stay in front, and what is equal keeps the order of names. Sizes and times begin with the greatest.
  const keys = [
    item => item.place,
    item => Number(item.row.children[1].title.replace(/\D/g, '')),
    item => Date.parse(item.row.lastElementChild.firstElementChild.dateTime),
  ]
  const sort = column => {
    const head = heads[column]
    const was = head.getAttribute('aria-sort')
    const isDown = was ? was === 'ascending' : column > 0
    heads.forEach(other => other.removeAttribute('aria-sort'))
    head.setAttribute('aria-sort', isDown ? 'descending' : 'ascending')
    place()
    items.forEach(item => { item.key = keys[column](item) })
    const way = isDown ? -1 : 1
    items.sort((a, b) => b.isFolder - a.isFolder || way * (a.key - b.key) || a.place - b.place)
    show()
  }
  heads.forEach((head, column) => {
    const button = document.createElement('button')
    button.type = 'button'
    button.textContent = head.firstChild.textContent.trim()
    button.addEventListener('click', () => sort(column))
    head.replaceChildren(button)
  })
  if (isPlaced) heads[0].setAttribute('aria-sort', 'ascending')

  // Filtering: every word has to be in the name.
  const filter = () => {
    const words = plain(input.value).split(/\s+/).filter(word => word)
    let count = 0
    let hasChanged = false
    for (const item of items) {
      item.name ??= plain(item.row.firstChild.textContent)
      const isShown = words.every(word => item.name.includes(word))
      hasChanged ||= isShown !== item.isShown
      item.isShown = isShown
      count += isShown
    }
    if (hasChanged) show()
    status.textContent = words.length ? `${number.format(count)} of ${number.format(items.length)} shown` : summary
    if (items.length) none.hidden = count > 0
  }
  let isDue = false
  input.addEventListener('input', () => {
    if (isDue) return
    isDue = true
    requestAnimationFrame(() => { isDue = false; filter() })
  })
  find.hidden = false
  status.textContent = summary

  // Times of where the reader is, a few at a time so that the page stays quick.
  const two = part => String(part).padStart(2, '0')
  const times = items.map(item => item.row.lastElementChild.firstElementChild)
  let next = 0
  const localise = () => {
    for (const end = performance.now() + 8; next < times.length && performance.now() < end;) {
      for (const stop = Math.min(next + 100, times.length); next < stop; next++) {
        const at = new Date(times[next].dateTime)
        times[next].firstChild.data = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${two(at.getHours())}:${two(at.getMinutes())}`
      }
    }
    if (next < times.length) setTimeout(localise)
  }
  localise()
  document.addEventListener('mouseover', ({ target }) => {
    if (target.matches('time:not([title])')) {
      target.title = new Date(target.dateTime).toLocaleString(undefined, { dateStyle: 'full', timeStyle: 'long' })
    }
  })

  // The keyboard. Where no row has the focus, the first one in view is next.
  const first = () => groups[0]?.firstElementChild
  const inView = () => {
    const { left, bottom } = table.tHead.getBoundingClientRect()
    return document.elementFromPoint(left + 8, Math.max(bottom, 0) + 8)?.closest('tbody tr') ?? first()
  }
  const below = row => row.nextElementSibling ?? row.parentNode.nextElementSibling?.firstElementChild
  const above = row => {
    if (row.previousElementSibling) return row.previousElementSibling
    const group = row.parentNode.previousElementSibling
    return group === table.tHead ? null : group.lastElementChild
  }
  const link = row => row?.querySelector('a')
  const clear = () => {
    if (!input.value) return input.blur()
    input.value = ''
    filter()
  }
  const keysOfPage = {
    '/': () => { input.focus(); input.select() },
    Escape: clear,
    ArrowDown: row => link(row ? below(row) : inView())?.focus(),
    ArrowUp: row => (link(row ? above(row) : inView()) ?? input).focus(),
    ArrowLeft: () => up?.click(),
    Backspace: () => up?.click(),
    ArrowRight: row => row?.className === 'd' && link(row).click(),
  }
  const keysOfInput = {
    Escape: clear,
    ArrowDown: () => link(first())?.focus(),
    Enter: () => input.value && link(first())?.click(),
  }
  document.addEventListener('keydown', event => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return
    const act = (event.target === input ? keysOfInput : keysOfPage)[event.key]
    if (!act) return
    event.preventDefault()
    act(event.target.closest?.('tbody tr'))
  })
}
