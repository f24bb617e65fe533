//! The page of a directory in Chromium: what people do with it, and what names can't do to them.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use wmproxy_testkit::{Proxy, TempDir};

use super::asked;
use super::chromium::Page;
use crate::assert_quick;
use crate::files::Tree;

/// Names that would run if they were anything but names.
const NAMES: &[&str] = &[
    "\"><script>alert(1)<",
    "<img src=x onerror=alert(2)>",
    "<svg onload=alert(3)>",
    "'onfocus='alert(4)' autofocus='",
    "javascript:alert(5)",
    "<!-- comment",
    "&lt;i&gt; \u{202e}gnp.exe",
];

/// The names of the rows that are shown, in their order.
const SHOWN: &str = "[...document.querySelectorAll('.r tr')].filter(row => !row.hidden).map(row => row.querySelector('a').textContent)";

struct Site {
    dir: TempDir,
    proxy: Proxy,
    _tree: Tree,
}

impl Site {
    fn new() -> Self {
        let tree = Tree::new(&[
            ("notes.txt", "some notes"),
            ("file10.txt", "0123456789"),
            ("file9.txt", "012345678901234567890"),
            ("film.mp4", ""),
            ("song.ogg", "a song"),
            ("archive.tar.gz", "packed"),
            ("main.rs", "fn main() {}"),
            ("Photos/summer.jpg", "a picture"),
            ("Photos/2024/a file.txt", "in a folder"),
            ("Documents/letter.pdf", "a letter"),
        ]);
        for name in NAMES {
            tree.file(name, name);
        }
        tree.file("large.iso", vec![0; 3 << 20]);
        tree.file(format!("a very long name {}.txt", "that goes on and on and ".repeat(8)), "long");
        tree.file(format!("{}.bin", "x".repeat(180)), "long, and without a space");
        let proxy = tree.serve("browse = true", "");
        Site { dir: TempDir::new(), proxy, _tree: tree }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.proxy.tcp("h"))
    }

    /// Where a picture goes: where `WMPROXY_SCREENSHOTS` says so, for people to look at.
    fn picture(&self, name: &str) -> PathBuf {
        let folder = std::env::var_os("WMPROXY_SCREENSHOTS").map(PathBuf::from);
        folder.unwrap_or_else(|| self.dir.path().to_owned()).join(name)
    }
}

#[test]
fn names_stay_names_and_nothing_comes_from_elsewhere() {
    if !asked() {
        return;
    }
    let site = Site::new();
    let mut page = Page::open(&site.dir);
    page.visit(&site.url("/"));
    let shown = page.eval(SHOWN);
    let shown: Vec<&str> = shown.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    for name in NAMES {
        let name = name.replace('\u{202e}', "\u{fffd}");
        assert!(shown.contains(&name.as_str()), "{name:?} in {shown:#?}");
    }
    assert_eq!(
        page.eval("document.querySelectorAll('img, iframe, object, [onload], [onerror], [onfocus]').length"),
        0
    );
    assert_eq!(page.eval("document.scripts.length"), 1);
    // Each of them is followed, as a click does it.
    let hrefs = page.eval("[...document.querySelectorAll('.r a')].map(link => link.href)");
    let base = site.url("/");
    for href in hrefs.as_array().unwrap() {
        assert!(href.as_str().unwrap().starts_with(&base), "{href}");
    }
    for name in NAMES {
        let quoted = json!(name.replace('\u{202e}', "\u{fffd}"));
        let link =
            format!("[...document.querySelectorAll('.r a')].find(link => link.textContent === {quoted})");
        let got = page.eval(&format!("{link}.href"));
        let answer = super::call("curl", &["-sf", got.as_str().unwrap()]).success().stdout;
        assert_eq!(answer, *name);
    }
    // A script that got in all the same would do nothing: the policy knows only the page's own.
    page.eval("(() => { const s = document.createElement('script'); s.textContent = 'window.ran = 1'; document.body.append(s) })()");
    assert_eq!(page.eval("window.ran === undefined"), true);
    page.eval("(() => { const i = document.createElement('img'); i.setAttribute('onerror', 'window.ran = 1'); i.src = 'data:,'; document.body.append(i) })()");
    page.eval("new Promise(done => setTimeout(done, 100))");
    assert_eq!(page.eval("window.ran === undefined"), true);
    assert!(page.events("Page.javascriptDialogOpening").is_empty());
    for request in page.events("Network.requestWillBeSent") {
        let url = request["request"]["url"].as_str().unwrap();
        assert!(url.starts_with(&base) || url.starts_with("data:"), "{url}");
    }
}

#[test]
fn rows_are_sorted_and_filtered() {
    if !asked() {
        return;
    }
    let site = Site::new();
    let mut page = Page::open(&site.dir);
    page.resize(1280, 800);
    page.visit(&site.url("/"));
    let order = |page: &mut Page, names: &[&str]| {
        let shown = page.eval(SHOWN);
        let shown: Vec<_> =
            shown.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect();
        let places: Vec<_> = names
            .iter()
            .map(|name| {
                shown.iter().position(|other| other == name).unwrap_or_else(|| panic!("{name} in {shown:#?}"))
            })
            .collect();
        assert!(places.is_sorted(), "{names:?}: {places:?} in {shown:#?}");
    };
    let heads = "[...document.querySelectorAll('th')].map(head => head.ariaSort)";
    order(&mut page, &["Documents", "Photos", "archive.tar.gz", "file9.txt", "file10.txt", "notes.txt"]);
    assert_eq!(page.eval(heads), json!(["ascending", null, null]));
    page.eval("document.querySelectorAll('th button')[0].click()");
    order(&mut page, &["Photos", "Documents", "notes.txt", "file10.txt", "file9.txt", "archive.tar.gz"]);
    assert_eq!(page.eval(heads), json!(["descending", null, null]));
    page.eval("document.querySelectorAll('th button')[1].click()");
    order(&mut page, &["Documents", "large.iso", "file9.txt", "file10.txt", "song.ogg", "film.mp4"]);
    page.eval("document.querySelectorAll('th button')[1].click()");
    order(&mut page, &["Documents", "film.mp4", "song.ogg", "file10.txt", "file9.txt", "large.iso"]);
    assert_eq!(page.eval(heads), json!([null, "ascending", null]));
    page.shoot(&site.picture("sorted.png"));
    // A slash leads to the filter, and Escape away from it.
    page.press("/");
    assert_eq!(page.eval("document.activeElement.type"), "search");
    for letter in ["f", "I", "l", "e", "1"] {
        page.press(letter);
    }
    page.until("[...document.querySelectorAll('.r tr')].filter(row => !row.hidden).length === 1");
    assert_eq!(page.eval(SHOWN), json!(["file10.txt"]));
    let status = page.eval("document.querySelector('[role=status]').textContent");
    assert!(status.as_str().unwrap().starts_with("1 of "), "{status}");
    page.shoot(&site.picture("filtered.png"));
    for letter in ["z", "z"] {
        page.press(letter);
    }
    page.until("!document.querySelector('.none').hidden");
    page.press("Escape");
    let all = page.eval("document.querySelectorAll('.r tr').length");
    assert_eq!(page.eval(&format!("{SHOWN}.length")), all);
}

#[test]
fn the_keyboard_is_enough() {
    if !asked() {
        return;
    }
    let site = Site::new();
    let mut page = Page::open(&site.dir);
    page.visit(&site.url("/"));
    let focus = "document.activeElement.textContent";
    page.press("ArrowDown");
    assert_eq!(page.eval(focus), "Documents");
    page.press("ArrowDown");
    assert_eq!(page.eval(focus), "Photos");
    let ring = page.eval("(s => s.outlineStyle !== 'none' || s.boxShadow !== 'none' || getComputedStyle(document.activeElement.closest('tr')).outlineStyle !== 'none')(getComputedStyle(document.activeElement))");
    assert_eq!(ring, true, "where the focus is can be seen");
    page.press("ArrowUp");
    assert_eq!(page.eval(focus), "Documents");
    page.press("ArrowDown");
    page.press("Enter");
    page.until("location.pathname === '/Photos/' && document.readyState === 'complete'");
    page.eval("[...document.querySelectorAll('.r a')].find(link => link.textContent === '2024').click()");
    page.until("location.pathname === '/Photos/2024/' && document.readyState === 'complete'");
    let crumbs = page.eval("[...document.querySelectorAll('nav a')].map(link => link.pathname)");
    assert_eq!(crumbs, json!(["/", "/Photos/"]));
    page.shoot(&site.picture("folder.png"));
    page.press("Backspace");
    page.until("location.pathname === '/Photos/' && document.readyState === 'complete'");
    page.press("ArrowLeft");
    page.until("location.pathname === '/' && document.readyState === 'complete'");
}

#[test]
fn it_looks_right_by_night_and_on_phones() {
    if !asked() {
        return;
    }
    let site = Site::new();
    let mut page = Page::open(&site.dir);
    // Whether text is read with ease: the contrast of WCAG 2.2 is at least 4.5.
    let contrast = "(() => {
        const light = text => { const [r, g, b] = text.match(/[\\d.]+/g).map(v => v / 255)
            .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b }
        const back = node => { for (; node; node = node.parentElement) { const c = getComputedStyle(node).backgroundColor
            if (!/, 0\\)|transparent/.test(c)) return c } return canvas }
        const probe = document.body.appendChild(document.createElement('i')); probe.style.backgroundColor = 'Canvas'
        const canvas = getComputedStyle(probe).backgroundColor; probe.remove()
        let least = 99
        for (const node of document.querySelectorAll('.r a, .r td, .r time, th button, footer p, nav a, nav h1, .get a')) {
            const [a, b] = [light(getComputedStyle(node).color), light(back(node))]
            least = Math.min(least, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)) }
        return least })()";
    let mut backs = Vec::new();
    for scheme in ["light", "dark"] {
        page.prefer(scheme);
        page.resize(1280, 800);
        page.visit(&site.url("/"));
        let least = page.eval(contrast).as_f64().unwrap();
        assert!(least >= 4.5, "{scheme}: a contrast of {least}");
        backs.push(page.eval("(n => getComputedStyle(n).backgroundColor)(document.body) + getComputedStyle(document.querySelector('.r a')).color"));
        page.shoot(&site.picture(&format!("wide-{scheme}.png")));
        page.resize(360, 740);
        page.visit(&site.url("/Photos/"));
        page.visit(&site.url("/"));
        let (content, width) = (page.eval("document.documentElement.scrollWidth"), page.eval("innerWidth"));
        assert!(content.as_u64() <= width.as_u64() && width == 360, "{content} of {width}");
        let least = page.eval("Math.min(...[...document.querySelectorAll('.r a, nav a, .get a, th button, .find')].filter(n => n.offsetParent).map(n => n.getBoundingClientRect().height))");
        assert!(least.as_f64().unwrap() >= 43.9, "{scheme}: a finger needs more than {least}");
        page.shoot(&site.picture(&format!("phone-{scheme}.png")));
    }
    assert_ne!(backs[0], backs[1], "light and dark");
}

#[test]
fn many_rows_are_no_trouble() {
    if !asked() {
        return;
    }
    const ROWS: usize = 30_000;
    let tree = Tree::new(&[("row 0.txt", "")]);
    for number in 1..ROWS {
        std::fs::hard_link(tree.path("row 0.txt"), tree.path(format!("row {number}.txt"))).unwrap();
    }
    let (dir, proxy) = (TempDir::new(), tree.serve("browse = true", ""));
    let mut page = Page::open(&dir);
    page.visit(&format!("http://{}/", proxy.tcp("h")));
    assert_eq!(page.eval("document.querySelectorAll('.r tr').length"), ROWS);
    let timed = |page: &mut Page, action: &str| {
        let script = format!(
            "(async () => {{ const begun = performance.now(); {action}; await new Promise(requestAnimationFrame); \
             await new Promise(requestAnimationFrame); return performance.now() - begun }})()"
        );
        Duration::from_secs_f64(page.eval(&script).as_f64().unwrap() / 1_000.0)
    };
    for action in [
        "document.querySelector('th button').click()",
        "(i => { i.value = '777'; i.dispatchEvent(new Event('input')) })(document.querySelector('.find input'))",
        "(i => { i.value = ''; i.dispatchEvent(new Event('input')) })(document.querySelector('.find input'))",
    ] {
        assert_quick(Duration::from_secs(3), || timed(&mut page, action));
    }
}
