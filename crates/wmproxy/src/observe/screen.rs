//! A block of lines at the end of a terminal, drawn again in its place; the lines of logs go above it.
//!
//! The terminal is left in the mode that it has: lines end where it ends, so that nothing has to be put back, however the
//! process ends.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

use rustix::termios::tcgetwinsize;

/// A piece of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) text: String,
    pub(crate) style: Style,
}

/// How a piece looks, where there are colours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Style {
    #[default]
    Plain,
    Bold,
    Dim,
    Good,
    Bad,
    Busy,
}

/// A line of the block.
pub(crate) type Line = Vec<Part>;

/// How many columns and rows a terminal has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) columns: usize,
    pub(crate) rows: usize,
}

/// What is on the screen.
struct Shown {
    lines: Vec<Line>,
    size: Size,
}

static SHOWN: Mutex<Option<Shown>> = Mutex::new(None);

/// What terminals have had since there are terminals.
const USUAL: Size = Size { columns: 80, rows: 24 };

impl Part {
    /// A piece of this style. What a terminal could take for an order is replaced.
    pub(crate) fn new(text: impl AsRef<str>, style: Style) -> Part {
        let clean =
            |c: char| if c.is_ascii_graphic() || c == ' ' || "…·↑↓—".contains(c) { c } else { '?' };
        Part { text: text.as_ref().chars().map(clean).collect(), style }
    }

    fn len(&self) -> usize {
        self.text.chars().count()
    }
}

/// Whether a block can be drawn: stdout is a terminal that knows how.
pub(crate) fn is_there() -> bool {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    io::stdout().is_terminal() && !dumb
}

/// The size of the terminal now.
pub(crate) fn size() -> Size {
    match tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
            Size { columns: size.ws_col.into(), rows: size.ws_row.into() }
        }
        _ => USUAL,
    }
}

/// Draws these lines in the place of those that are there.
pub(crate) fn show(lines: Vec<Line>) {
    let mut shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let size = size();
    if shown.as_ref().is_some_and(|shown| shown.lines == lines && shown.size == size) {
        return;
    }
    let mut text = shown.as_ref().map_or_else(String::new, |shown| erase(&shown.lines, shown.size, size));
    let lines = fit(lines, size);
    draw(&mut text, &lines, size, has_colour());
    write(&text);
    *shown = Some(Shown { lines, size });
}

/// Has something written above the block, by who writes to the same terminal.
pub(crate) fn above<R>(write_lines: impl FnOnce() -> R) -> R {
    let shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(shown) = &*shown else { return write_lines() };
    let size = size();
    write(&erase(&shown.lines, shown.size, size));
    let done = write_lines();
    let mut text = String::new();
    draw(&mut text, &shown.lines, size, has_colour());
    write(&text);
    done
}

/// Leaves the block as it is: whatever comes goes below it.
pub(crate) fn close() {
    *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

fn write(text: &str) {
    let mut out = io::stdout().lock();
    // Who has closed the terminal sees nothing anyway.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Colours are for those who want them (no-color.org).
fn has_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// As many lines as there is room for, with a word on the others. The last row is the cursor's.
fn fit(mut lines: Vec<Line>, size: Size) -> Vec<Line> {
    let most = size.rows.saturating_sub(1).max(1);
    if lines.len() > most {
        let more = lines.len() - (most - 1);
        lines.truncate(most - 1);
        lines.push(vec![Part::new(format!("… {more} more lines"), Style::Dim)]);
    }
    lines
}

/// Goes to where the lines begin and clears what is below. A terminal that has become narrower since has broken them.
fn erase(lines: &[Line], then: Size, now: Size) -> String {
    let rows = |line: &Line| {
        let columns = line.iter().map(Part::len).sum::<usize>().min(then.columns);
        columns.div_ceil(now.columns.max(1)).max(1)
    };
    let rows: usize = lines.iter().map(rows).sum();
    match rows.min(now.rows.saturating_sub(1)) {
        0 => "\r\x1b[J".to_owned(),
        rows => format!("\r\x1b[{rows}A\x1b[J"),
    }
}

fn draw(text: &mut String, lines: &[Line], size: Size, colour: bool) {
    for line in lines {
        let mut left = size.columns;
        let whole = line.iter().map(Part::len).sum::<usize>() <= size.columns;
        for part in line {
            let room = if whole { left } else { left.saturating_sub(1) };
            let shown: String = part.text.chars().take(room).collect();
            left -= shown.chars().count();
            match part.style.code().filter(|_| colour) {
                Some(code) => text.push_str(&format!("\x1b[{code}m{shown}\x1b[0m")),
                None => text.push_str(&shown),
            }
        }
        if !whole && left > 0 {
            text.push('…');
        }
        text.push('\n');
    }
}

impl Style {
    fn code(self) -> Option<u8> {
        match self {
            Style::Plain => None,
            Style::Bold => Some(1),
            Style::Dim => Some(2),
            Style::Good => Some(32),
            Style::Bad => Some(31),
            Style::Busy => Some(33),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(texts: &[&str]) -> Vec<Line> {
        texts.iter().map(|text| vec![Part::new(text, Style::Plain)]).collect()
    }

    fn drawn(lines: &[Line], columns: usize, colour: bool) -> String {
        let mut text = String::new();
        draw(&mut text, lines, Size { columns, rows: 24 }, colour);
        text
    }

    #[test]
    fn lines_end_where_the_terminal_does() {
        assert_eq!(drawn(&lines(&["abcdef", "ab"]), 6, true), "abcdef\nab\n");
        assert_eq!(drawn(&lines(&["abcdef"]), 4, true), "abc…\n");
        assert_eq!(drawn(&lines(&["abc"]), 1, true), "…\n");
        let parts = vec![vec![Part::new("ab", Style::Good), Part::new("cdef", Style::Plain)]];
        assert_eq!(drawn(&parts, 4, true), "\x1b[32mab\x1b[0mc…\n");
        assert_eq!(drawn(&parts, 4, false), "abc…\n");
    }

    #[test]
    fn what_is_erased_is_what_was_drawn_and_how_it_broke_since() {
        let (wide, narrow) = (Size { columns: 10, rows: 24 }, Size { columns: 4, rows: 24 });
        let shown = lines(&["abcdefgh", "", "ab"]);
        assert_eq!(erase(&shown, wide, wide), "\r\x1b[3A\x1b[J");
        assert_eq!(erase(&shown, wide, narrow), "\r\x1b[4A\x1b[J");
        assert_eq!(erase(&shown, wide, Size { columns: 10, rows: 3 }), "\r\x1b[2A\x1b[J");
        assert_eq!(erase(&[], wide, wide), "\r\x1b[J");
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let fitted = fit(lines(&["a", "b", "c", "d"]), Size { columns: 80, rows: 3 });
        assert_eq!(fitted.len(), 2);
        assert_eq!(fitted[1][0].text, "… 3 more lines");
    }

    #[test]
    fn a_terminal_gets_no_orders_from_others() {
        assert_eq!(Part::new("a\x1b[2J\u{9b}2J\nb", Style::Plain).text, "a?[2J?2J?b");
    }
}
