//! Where a text may hold secrets, and messages without them.
//!
//! What looks like the key of a secret hides the rest of its line: where its value ends is a matter of syntax, and the
//! lines that are shown are those whose syntax is wrong. Too many stars cost a look into the file; too few cost a
//! secret.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::mask::STARS;

/// A longer text in front of a separator is no key.
const MAX_KEY: usize = 64;

/// A value that is shorter is found in any message by chance, and is no secret.
const MIN_VALUE: usize = 4;

/// Where what must not be shown lies in a text, in order and without overlap.
pub(super) fn secrets(text: &str) -> Vec<Range<usize>> {
    let mut found = values(text);
    let anchors: HashSet<&str> = found.iter().filter_map(|range| alias(&text[range.clone()])).collect();
    found.extend(anchored(text, &anchors));
    found.extend(userinfo(text));
    found.retain(|range| !range.is_empty());
    found.sort_unstable_by_key(|range| range.start);
    let mut merged: Vec<Range<usize>> = Vec::with_capacity(found.len());
    for range in found {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// A message that may quote the config: without passwords of URLs, and without the texts in `hidden`.
pub(super) fn clean(message: String, hidden: &[String]) -> String {
    let mut clean = String::with_capacity(message.len());
    let mut at = 0;
    for range in userinfo(&message).into_iter().chain(quoted_userinfo(&message)) {
        if range.start >= at {
            clean.push_str(&message[at..range.start]);
            clean.push_str(STARS);
            at = range.end;
        }
    }
    clean.push_str(&message[at..]);
    for value in hidden.iter().filter(|value| value.len() >= MIN_VALUE) {
        clean = clean.replace(value.as_str(), STARS);
    }
    clean
}

/// A key as a message may show it: what follows the name of a secret may be its value (`token abc: 1`).
pub(super) fn clean_key(key: &str) -> String {
    let end = key.find(|c| !is_word(c)).unwrap_or(key.len());
    if end < key.len() && is_secret_name(&key[..end]) {
        return format!("{} {STARS}", &key[..end]);
    }
    key.to_owned()
}

/// Also names that are mistyped: `tokn` is refused as unknown, but its value is a secret.
pub(super) fn is_secret_name(name: &str) -> bool {
    // No option's name is longer; a distance to such a text would only cost time.
    if name.is_empty() || name.len() > MAX_KEY {
        return false;
    }
    let name = name.to_lowercase();
    if name.ends_with("_file") || name.ends_with("-file") || name == "hash_key" {
        return false;
    }
    let words = [
        "token",
        "secret",
        "password",
        "passwd",
        "passphrase",
        "credential",
        "authorization",
        "bridge_headers",
    ];
    words.iter().any(|word| name.contains(word))
        || name.ends_with("key")
        || ["token", "secret", "password"].into_iter().any(|word| is_mistyped(&name, word))
}

fn is_mistyped(name: &str, word: &str) -> bool {
    name.len().abs_diff(word.len()) <= 1 && strsim::damerau_levenshtein(name, word) <= 1
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '-'
}

/// The values behind what looks like keys of secrets.
fn values(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    // The same few words make up a config, and a distance between words is costly.
    let mut known: HashMap<&str, (bool, bool)> = HashMap::new();
    let (mut at, mut line) = (0, 0);
    while let Some(start) = text[at..].find(|c| is_word(c) || c == '\\').map(|start| at + start) {
        line = text[at..start].rfind('\n').map_or(line, |newline| at + newline + 1);
        let end = text[start..].find(|c| !is_word(c)).map_or(text.len(), |end| start + end);
        let word = &text[start..end];
        let (is_secret, is_admin) = *known
            .entry(word)
            .or_insert_with(|| (is_secret_name(word), is_mistyped(&word.to_lowercase(), "admin")));
        let value = match word {
            // Nobody writes a key with escapes but to hide what it is.
            "" => escaped_key_value(text, start),
            _ if is_secret => key_value(text, start, end),
            _ if is_admin => admin_value(text, start, end),
            _ => None,
        };
        at = end.max(start + 1);
        if let Some(from) = value {
            let range = from..value_end(text, line, from);
            line = text[at..range.end.max(at)].rfind('\n').map_or(line, |newline| at + newline + 1);
            at = range.end.max(at);
            found.push(range);
        }
    }
    found
}

/// Where the value of the key at `start..end` begins, if this may be a key: it has a separator or a gap behind it.
fn key_value(text: &str, start: usize, end: usize) -> Option<usize> {
    let mut at = end;
    // The rest of a dotted key, if it is one.
    if text[at..].starts_with('.') {
        let tail = text[at..].find(|c: char| !is_word(c) && !matches!(c, '.' | '"' | '\'' | ' ' | '\t'))?;
        return text[at + tail..].starts_with('=').then(|| skip_blanks(text, at + tail + 1));
    }
    let before = text[..start].chars().next_back();
    if before.is_some_and(|quote| matches!(quote, '"' | '\'') && text[at..].starts_with(quote)) {
        at += 1;
    }
    let blanks = skip_blanks(text, at);
    match text[blanks..].chars().next()? {
        '=' | ':' => Some(skip_blanks(text, blanks + 1)),
        '\n' | '\r' => {
            // The separator may be on the next line.
            let next = blanks + text[blanks..].find(|c: char| !c.is_whitespace())?;
            text[next..].starts_with(['=', ':']).then(|| skip_blanks(text, next + 1))
        }
        // What ends a text in which the word stands is no value of it.
        '"' | '\'' if blanks == at => is_key_place(text, start).then_some(blanks),
        _ => (blanks > at).then_some(blanks),
    }
}

/// Whether nothing of a value stands before `start` on its line.
fn is_key_place(text: &str, start: usize) -> bool {
    let before = text[..start].trim_end_matches([' ', '\t']);
    before.is_empty() || before.ends_with(['\n', '{', ',', '.'])
}

/// `admin = "abc"`: the token, written where its table should be.
fn admin_value(text: &str, start: usize, end: usize) -> Option<usize> {
    let value = key_value(text, start, end)?;
    let rest = text[value..].lines().next().unwrap_or_default().trim_end_matches([',', '}', ' ', '\t']);
    let is_table = rest.is_empty() || rest.starts_with(['{', '#']);
    (!is_table && !matches!(rest, "false" | "true")).then_some(value)
}

/// Where the value begins of a quoted key that has a backslash at `at`.
fn escaped_key_value(text: &str, at: usize) -> Option<usize> {
    let limit = text.floor_char_boundary(text.len().min(at + MAX_KEY));
    let close = at + text[at..limit].find('"')? + 1;
    let next = close + text[close..].find(|c: char| !c.is_whitespace())?;
    text[next..].starts_with(['=', ':']).then(|| skip_blanks(text, next + 1))
}

fn skip_blanks(text: &str, from: usize) -> usize {
    text.len() - text[from..].trim_start_matches([' ', '\t']).len()
}

/// Where the value that begins at `start` ends at the latest; its key is on the line that begins at `line`.
fn value_end(text: &str, line: usize, start: usize) -> usize {
    let rest = &text[start..];
    let line_end = |from: usize| text[from..].find('\n').map_or(text.len(), |at| from + at);
    for quotes in ["\"\"\"", "'''"] {
        if let Some(inner) = rest.strip_prefix(quotes) {
            return line_end(start + inner.find(quotes).map_or(rest.len(), |at| at + 2 * quotes.len()));
        }
    }
    let end = line_end(start);
    let trimmed = start + text[start..end].trim_end().len();
    match rest.as_bytes().first() {
        Some(quote @ (b'"' | b'\'')) if is_closed(&text[start + 1..end], *quote) => trimmed,
        // JSON may have its value on the next line, indented or not.
        None | Some(b'\n' | b'\r') => match rest.find(|c: char| !c.is_whitespace()) {
            Some(at) if rest[at..].starts_with('"') => line_end(start + at),
            _ => block_end(text, line, end),
        },
        // A YAML text of several lines: it goes on while lines are indented further than the key.
        _ => block_end(text, line, end).max(trimmed),
    }
}

/// Whether the text behind an opening quote has the closing one.
fn is_closed(text: &str, quote: u8) -> bool {
    let mut escaped = false;
    text.bytes().any(|byte| {
        let is_end = byte == quote && !escaped;
        escaped = byte == b'\\' && quote == b'"' && !escaped;
        is_end
    })
}

fn block_end(text: &str, key_line: usize, line_end: usize) -> usize {
    let indent = |line: &str| line.len() - line.trim_start_matches([' ', '\t', '-']).len();
    let own = indent(&text[key_line..]);
    // The end of the last line that belongs to it, without its line break.
    let (mut end, mut at) = (line_end, line_end + 1);
    for line in text.get(at..).unwrap_or_default().split_inclusive('\n') {
        if !line.trim().is_empty() {
            if indent(line) <= own {
                break;
            }
            end = at + line.trim_end().len();
        }
        at += line.len();
    }
    end
}

/// The name in a value that is a YAML alias.
fn alias(value: &str) -> Option<&str> {
    let name = value.strip_prefix('*')?;
    name.split(|c: char| c.is_whitespace() || matches!(c, ',' | ']' | '}')).next()
}

/// What stands behind these anchors.
fn anchored(text: &str, anchors: &HashSet<&str>) -> Vec<Range<usize>> {
    if anchors.is_empty() {
        return Vec::new();
    }
    let start = |(at, _): (usize, &str)| {
        let name = text[at + 1..].split(char::is_whitespace).next()?;
        anchors.contains(name).then(|| skip_blanks(text, at + 1 + name.len()))
    };
    let range = |from: usize| {
        let line = text[..from].rfind('\n').map_or(0, |newline| newline + 1);
        from..value_end(text, line, from)
    };
    text.match_indices('&').filter_map(start).map(range).collect()
}

/// `user:password` of `scheme://user:password@host`, with or without the scheme.
fn userinfo(text: &str) -> Vec<Range<usize>> {
    let is_end = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '<' | '>');
    let mut found: Vec<Range<usize>> = Vec::new();
    let (mut word, mut seen) = (0, 0);
    for (at, _) in text.match_indices('@') {
        if let Some((end, c)) = text[seen..at].char_indices().rfind(|(_, c)| is_end(*c)) {
            word = seen + end + c.len_utf8();
        }
        seen = at;
        let from = text[word..at].find("://").map_or(word, |scheme| word + scheme + 3);
        if from > word || text[word..at].contains(':') {
            match found.last_mut() {
                Some(last) if last.start == from => last.end = at,
                _ => found.push(from..at),
            }
        }
    }
    found
}

/// Parts of such a text: an address is quoted by the half that is wrong.
fn quoted_userinfo(message: &str) -> Option<Range<usize>> {
    let (open, close) = (message.find('`')? + 1, message.rfind('`')?);
    let at = message.get(open..close)?.rfind('@')?;
    let scheme = message[open..open + at].find("://").map_or(0, |scheme| scheme + 3);
    Some(open + scheme..open + at)
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
    fn the_rest_of_the_line_behind_a_secrets_key_is_hidden() {
        for (text, expected) in [
            ("token = \"abc\" # why", "token = ***"),
            ("token=\"abc\"REST\nx = 1", "token=***\nx = 1"),
            ("token: \"abc\" REST\nlisten: x", "token: ***\nlisten: x"),
            ("token \"abc\"", "token ***"),
            ("token abc", "token ***"),
            ("token\"abc\"", "token***"),
            ("a = 1, tokn = 'x y', b = 2", "a = 1, tokn = ***"),
            ("{\"token\": \"a\\\"b\", \"listen\": \":1\"}", "{\"token\": ***"),
            ("{\"tok\\u0065n\": \"abc\"}", "{\"tok\\u0065n\": ***"),
            ("{\"token\"\n:\n\"abc\"}\n1", "{\"token\"\n:***\n1"),
            ("{\"token\":\n\"abc\"}\n1", "{\"token\":***\n1"),
            ("token: plain text\n  goes on\nlisten: x", "token: ***\nlisten: x"),
            ("token = \"open\nnext = 1", "token = ***\nnext = 1"),
            ("admin.token.x = \"abc\"", "admin.token.x = ***"),
            ("api_key = 5", "api_key = ***"),
            ("token = \"\"\"a\nb\"\"\"\nx = 1", "token = ***\nx = 1"),
            ("token = \"\"\"a\nb", "token = ***"),
            ("admin=\"abc\"", "admin=***"),
            ("x: &t abc\nadmin:\n  token: *t\n  listen: x", "x: &t ***\nadmin:\n  token: ***\n  listen: x"),
            ("upstream=\"http://user:abc@h:1\"", "upstream=\"http://***@h:1\""),
            ("upstream=\"user:a@bc@h:1\"", "upstream=\"***@h:1\""),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
        let block = shown("admin:\n  token: |\n    abc\n    def\n  listen: x\n");
        assert!(!block.contains("abc") && !block.contains("def") && block.contains("listen: x"), "{block}");
    }

    #[test]
    fn what_is_no_secret_stays() {
        for text in [
            "token_file = \"x\"",
            "hash_key = \"client_ip\"",
            "listen = \":1\"",
            "admin:\n  listen: x",
            "admin = false",
            "admin = { listen = \":1\" }",
            "[admin]\nlisten = \":1\"",
            "[upstream.secret]\nservers = []",
            "file = \"C:\\\\logs\"",
            "upstream = \"my-secret\"",
        ] {
            assert_eq!(shown(text), text);
        }
    }

    #[test]
    fn messages_do_not_quote_secrets() {
        let hidden = ["s3cret".to_owned()];
        for (message, expected) in [
            ("`http://u:abc@h` is no host", "`http://***@h` is no host"),
            ("`abc@h` is no port", "`***@h` is no port"),
            ("no upstream named `s3cret`", "no upstream named `***`"),
            ("can't read /etc/a@b.toml", "can't read /etc/a@b.toml"),
        ] {
            assert_eq!(clean(message.to_owned(), &hidden), expected);
        }
        assert_eq!(clean_key("token abc"), "token ***");
        assert_eq!(clean_key("tokn"), "tokn");
    }
}
