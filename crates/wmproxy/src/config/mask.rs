//! A line of a config as it may be shown: without the secrets in it.
//!
//! This goes by the text, not by the tree, for a file that is too broken for a tree may hold secrets as well.

use std::ops::Range;

/// A line with stars for secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Masked {
    pub(super) line: String,
    /// What is meant in it.
    pub(super) range: Range<usize>,
}

pub(super) const STARS: &str = "***";

/// Of a longer line, such as JSON without line breaks, only the surroundings are shown.
const MAX_LINE: usize = 240;

impl Masked {
    /// The line `line` of `text` with what is `meant` in it; `secrets` are those of the text.
    pub(super) fn new(text: &str, secrets: &[Range<usize>], line: Range<usize>, meant: Range<usize>) -> Self {
        let around = around(text, line, meant.clone());
        let mut shown = Masked { line: String::new(), range: 0..0 };
        let (mut start, mut end) = (None, None);
        let mut at = around.start;
        for secret in secrets.iter().filter(|s| s.start < around.end && s.end > around.start) {
            let secret = secret.start.max(at)..secret.end.min(around.end);
            shown.copy(text, at..secret.start, &meant, &mut start, &mut end);
            let stars = shown.line.len();
            if secret.contains(&meant.start) {
                start.get_or_insert(stars);
            }
            shown.line.push_str(STARS);
            if secret.contains(&meant.end) || secret.end == meant.end {
                end.get_or_insert(shown.line.len());
            }
            at = secret.end;
        }
        shown.copy(text, at..around.end, &meant, &mut start, &mut end);
        let start = start.unwrap_or(shown.line.len());
        shown.range = start..end.unwrap_or(shown.line.len()).max(start);
        // The line break of Windows is no part of what is meant.
        if shown.line.ends_with('\r') {
            shown.line.pop();
        }
        let length = shown.line.len();
        shown.range = shown.range.start.min(length)..shown.range.end.min(length);
        shown
    }

    /// Where what is meant begins in what is shown: in characters, from 1.
    pub(super) fn column(&self) -> usize {
        self.line[..self.range.start].chars().count() + 1
    }

    /// Copies a part that is no secret, and notes where the ends of what is meant come to lie.
    fn copy(
        &mut self,
        text: &str,
        part: Range<usize>,
        meant: &Range<usize>,
        start: &mut Option<usize>,
        end: &mut Option<usize>,
    ) {
        for (edge, place) in [(meant.start, start), (meant.end, end)] {
            if (part.start..=part.end).contains(&edge) && place.is_none() {
                *place = Some(self.line.len() + edge - part.start);
            }
        }
        self.line.push_str(&text[part]);
    }
}

fn around(text: &str, line: Range<usize>, meant: Range<usize>) -> Range<usize> {
    if line.len() <= MAX_LINE {
        return line;
    }
    let start = text.floor_char_boundary(meant.start.saturating_sub(MAX_LINE / 4).max(line.start));
    start..text.floor_char_boundary((start + MAX_LINE).min(line.end))
}

#[cfg(test)]
mod tests {
    use super::super::secrets::secrets;
    use super::*;

    #[test]
    fn what_is_meant_stays_marked() {
        let text = "admin = { listne = 1, token = \"abcdefgh\" }";
        let at = text.find("listne").unwrap();
        let masked = Masked::new(text, &secrets(text), 0..text.len(), at..at + 6);
        assert_eq!(&masked.line[masked.range.clone()], "listne");
        let at = text.find("\"abc").unwrap();
        let masked = Masked::new(text, &secrets(text), 0..text.len(), at..at + 10);
        assert_eq!(&masked.line[masked.range], STARS);
    }

    #[test]
    fn a_long_line_is_shown_in_part() {
        let text = format!("{}here{}", "ä".repeat(5000), "ö".repeat(5000));
        let masked = Masked::new(&text, &[], 0..text.len(), 10_000..10_004);
        assert!(masked.line.len() <= MAX_LINE);
        assert_eq!(&masked.line[masked.range], "here");
    }
}
