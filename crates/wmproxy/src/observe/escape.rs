//! Texts of others made harmless: what a client or a peer sent must neither end a line, nor move a cursor,
//! nor look like a field of its own.

use std::fmt::{self, Write};
use std::io;

/// Where a text will stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Context {
    /// In a line for people: control characters are escaped.
    Plain,
    /// In such a line as one word of it, with quotes around it or not: blanks, quotes and backslashes are escaped too.
    Word,
    /// In quotes in such a line: quotes and backslashes are escaped too.
    Quoted,
    /// In quotes in JSON (RFC 8259 section 7).
    Json,
}

/// Escapes what is written to it, and passes it on.
pub(super) struct Escape<'a> {
    out: &'a mut Vec<u8>,
    context: Context,
}

impl<'a> Escape<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>, context: Context) -> Self {
        Escape { out, context }
    }
}

impl Write for Escape<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        // Nearly every text needs no escape, and that is quickly seen from its bytes.
        let blank = if self.context == Context::Word { b'!' } else { b' ' };
        if text.bytes().all(|b| (blank..=b'~').contains(&b) && b != b'"' && b != b'\\') {
            self.out.extend_from_slice(text.as_bytes());
            return Ok(());
        }
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| self.context.escapes(*c)) {
            self.out.extend_from_slice(&rest.as_bytes()[..at]);
            self.context.escape(c, self.out);
            rest = &rest[at + c.len_utf8()..];
        }
        self.out.extend_from_slice(rest.as_bytes());
        Ok(())
    }
}

impl Context {
    fn escapes(self, c: char) -> bool {
        match c {
            '"' | '\\' => self != Context::Plain,
            ' ' => self == Context::Word,
            '!'..='~' => false,
            // The line separators, and the marks that turn the direction of writing around.
            '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
            c => c.is_control(),
        }
    }

    fn escape(self, c: char, out: &mut Vec<u8>) {
        let short = match c {
            '"' => Some(b'"'),
            '\\' => Some(b'\\'),
            '\n' => Some(b'n'),
            '\r' => Some(b'r'),
            '\t' => Some(b't'),
            _ => None,
        };
        match short {
            Some(letter) => out.extend_from_slice(&[b'\\', letter]),
            // All that is escaped lies in the basic plane, so four digits do in JSON as well.
            None if self == Context::Json => push(out, format_args!("\\u{:04x}", u32::from(c))),
            None => push(out, format_args!("\\u{{{:x}}}", u32::from(c))),
        }
    }
}

/// Appends a text as it is.
pub(super) fn push(out: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    // A vector takes everything; only a `Display` that fails by itself could end this early.
    let _ = io::Write::write_fmt(out, text);
}

/// Appends a number. Lines of access logs are mostly numbers, and this takes a fifth of the time of `push`.
pub(super) fn push_number(out: &mut Vec<u8>, number: u64) {
    push_digits(out, number, 1);
}

/// Appends a number with zeroes in front up to `width` digits.
pub(super) fn push_digits(out: &mut Vec<u8>, mut number: u64, width: usize) {
    // 20 digits are the longest of 64 bits.
    let mut digits = [b'0'; 20];
    let mut at = digits.len();
    while number > 0 {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    out.extend_from_slice(&digits[at.min(digits.len() - width)..]);
}

/// Appends a text, escaped for where it stands.
pub(super) fn push_escaped(out: &mut Vec<u8>, context: Context, text: impl fmt::Display) {
    // See `push`.
    let _ = write!(Escape::new(out, context), "{text}");
}

/// Appends what may be no text, escaped for where it stands.
pub(super) fn push_bytes(out: &mut Vec<u8>, context: Context, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        push_escaped(out, context, chunk.valid());
        for byte in chunk.invalid() {
            match context {
                // JSON has no word for a byte, and this says at least that there was one.
                Context::Json => out.extend_from_slice("\u{fffd}".as_bytes()),
                Context::Plain | Context::Word | Context::Quoted => push(out, format_args!("\\x{byte:02x}")),
            }
        }
    }
}

/// Appends a text in quotes, escaped for JSON.
pub(super) fn push_json(out: &mut Vec<u8>, text: impl fmt::Display) {
    out.push(b'"');
    push_escaped(out, Context::Json, text);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(context: Context, text: &str) -> String {
        let mut out = Vec::new();
        push_escaped(&mut out, context, text);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn nothing_ends_a_line_or_moves_the_cursor() {
        assert_eq!(
            escaped(Context::Plain, "a\nb\r\x1b[2J\u{202e}\u{9b}ü\"\\"),
            "a\\nb\\r\\u{1b}[2J\\u{202e}\\u{9b}ü\"\\"
        );
        assert_eq!(escaped(Context::Word, "h2 \"x\\\n"), "h2\\u{20}\\\"x\\\\\\n");
        assert_eq!(escaped(Context::Word, "http/1.1"), "http/1.1");
        assert_eq!(escaped(Context::Quoted, "say \"x\\\""), "say \\\"x\\\\\\\"");
    }

    #[test]
    fn numbers_are_written_as_the_library_does() {
        for number in [0, 1, 9, 10, 1234, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            push_number(&mut out, number);
            push_digits(&mut out, number, 6);
            assert_eq!(String::from_utf8(out).unwrap(), format!("{number}{number:06}"));
        }
    }

    #[test]
    fn what_is_no_text_is_shown_byte_by_byte() {
        let of = |context| {
            let mut out = Vec::new();
            push_bytes(&mut out, context, b"a\xff\n\xc3\xa9\xc3");
            String::from_utf8(out).unwrap()
        };
        assert_eq!(of(Context::Plain), "a\\xff\\n\u{e9}\\xc3");
        assert_eq!(of(Context::Json), "a\u{fffd}\\n\u{e9}\u{fffd}");
    }

    #[test]
    fn json_reads_back_what_was_written() {
        for text in ["", "plain", "a\n\t\"\\\u{0}\u{7f}\u{2028}\u{1f600}é"] {
            let mut out = Vec::new();
            push_json(&mut out, text);
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }
}
