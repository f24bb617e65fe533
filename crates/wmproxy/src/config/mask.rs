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

const STARS: &str = "***";

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

/// Where the values of keys lie that sound secret, in order.
pub(super) fn secrets(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let (mut at, mut line) = (0, 0);
    while let Some(separator) = text[at..].find(['=', ':']).map(|found| at + found) {
        line = text[at..separator].rfind('\n').map_or(line, |newline| at + newline + 1);
        at = separator + 1;
        let before = text[..separator].trim_end_matches([' ', '\t']).trim_end_matches(['"', '\'']);
        let name = before
            .rfind(|c: char| !is_word(c))
            .map_or(0, |p| p + before[p..].chars().next().map_or(1, char::len_utf8));
        if is_secret_name(&before[name..]) {
            let value = value_range(text, line, at);
            line = text[at..value.end].rfind('\n').map_or(line, |newline| at + newline + 1);
            at = value.end;
            found.push(value);
        }
    }
    found
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '-'
}

/// Also names that are mistyped: `tokn` is refused as unknown, but its value is a secret.
fn is_secret_name(name: &str) -> bool {
    // No option's name is longer; a distance to such a text would only cost time.
    if name.is_empty() || name.len() > 64 {
        return false;
    }
    let name = name.to_lowercase();
    if name.ends_with("_file") || name.ends_with("-file") || name == "hash_key" {
        return false;
    }
    let words = ["token", "secret", "password", "passwd", "passphrase", "credential"];
    let mistyped =
        |word: &str| name.len().abs_diff(word.len()) <= 1 && strsim::damerau_levenshtein(&name, word) <= 1;
    words.iter().any(|word| name.contains(word))
        || name.ends_with("key")
        || ["token", "secret", "password"].into_iter().any(mistyped)
}

/// The value behind a separator that ends before `from`; its key is on the line that begins at `line`.
fn value_range(text: &str, line: usize, from: usize) -> Range<usize> {
    let rest = &text[from..];
    let start = from + rest.len() - rest.trim_start_matches([' ', '\t']).len();
    let rest = &text[start..];
    let line_end = start + rest.find('\n').unwrap_or(rest.len());
    for quotes in ["\"\"\"", "'''"] {
        if let Some(inner) = rest.strip_prefix(quotes) {
            return start..start + inner.find(quotes).map_or(rest.len(), |at| at + 2 * quotes.len());
        }
    }
    match rest.as_bytes().first() {
        Some(quote @ (b'"' | b'\'')) => start..closing(text, start, *quote).unwrap_or(line_end),
        // A YAML block, or a value on lines of its own: it goes on while lines are indented further than the key.
        None | Some(b'\n' | b'\r' | b'#' | b'|' | b'>') => start..block_end(text, line, line_end),
        _ => start..start + text[start..line_end].trim_end().len(),
    }
}

/// Just behind the quote that closes the one at `open`, if that is on the same line.
fn closing(text: &str, open: usize, quote: u8) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in (open + 1..).zip(text[open + 1..].bytes()) {
        match byte {
            b'\n' => return None,
            _ if escaped => escaped = false,
            b'\\' if quote == b'"' => escaped = true,
            _ if byte == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

fn block_end(text: &str, key_line: usize, line_end: usize) -> usize {
    let indent = |line: &str| line.len() - line.trim_start_matches([' ', '\t', '-']).len();
    let own = indent(&text[key_line..]);
    let mut end = line_end;
    for line in text[line_end..].split_inclusive('\n').skip(1) {
        if !line.trim().is_empty() && indent(line) <= own {
            break;
        }
        end += line.len();
    }
    end.min(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let mut masked = text.to_owned();
        for secret in secrets(text).into_iter().rev() {
            masked.replace_range(secret, STARS);
        }
        masked
    }

    #[test]
    fn values_of_secret_keys_are_masked_in_every_notation() {
        for (text, expected) in [
            ("token = \"abc\" # why", "token = *** # why"),
            ("a = 1, tokn = 'x y', b = 2", "a = 1, tokn = ***, b = 2"),
            ("{\"token\": \"a\\\"b\", \"listen\": \":1\"}", "{\"token\": ***, \"listen\": \":1\"}"),
            ("token: plain text\nlisten: x", "token: ***\nlisten: x"),
            ("token = \"open\nnext = 1", "token = ***\nnext = 1"),
            ("api_key = 5", "api_key = ***"),
            ("token = \"\"\"a\nb\"\"\"\nx = 1", "token = ***\nx = 1"),
            ("token = \"\"\"a\nb", "token = ***"),
            ("token_file = \"x\"", "token_file = \"x\""),
            ("hash_key = \"client_ip\"", "hash_key = \"client_ip\""),
            ("listen = \":1\"", "listen = \":1\""),
        ] {
            assert_eq!(shown(text), expected);
        }
        let block = shown("admin:\n  token: |\n    abc\n    def\n  listen: x\n");
        assert!(!block.contains("abc") && !block.contains("def") && block.contains("listen: x"), "{block}");
    }

    #[test]
    fn what_is_meant_stays_marked() {
        let text = "admin = { token = \"abcdefgh\", listne = 1 }";
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
