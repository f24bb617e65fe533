//! Which bytes may stand where.

/// May stand in a token (RFC 9110 section 5.6.2).
const TCHAR: u8 = 1;
/// May stand in a target: every visible ASCII character but `#`, for clients send `{`, `|` and their like as they are.
const TARGET: u8 = 2;

/// May stand in the name of a host.
const HOST: u8 = 4;
/// Divides it.
const DOT: u8 = 8;

static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut classes = [0; 256];
    let mut byte = 0x21;
    while byte < 0x7f {
        if byte != b'#' {
            classes[byte as usize] |= TARGET;
        }
        if byte.is_ascii_alphanumeric() {
            classes[byte as usize] |= TCHAR | HOST;
        }
        byte += 1;
    }
    classes[b'-' as usize] |= HOST;
    classes[b'_' as usize] |= HOST;
    classes[b'.' as usize] |= HOST | DOT;
    let marks = b"!#$%&'*+-.^_`|~";
    let mut index = 0;
    while index < marks.len() {
        classes[marks[index] as usize] |= TCHAR;
        index += 1;
    }
    classes
}

/// Whether a byte may stand in a token.
#[inline]
pub(crate) fn is_tchar(byte: u8) -> bool {
    CLASSES[usize::from(byte)] & TCHAR != 0
}

/// Whether a byte may stand in the target of a request.
#[inline]
pub(crate) fn is_target_byte(byte: u8) -> bool {
    CLASSES[usize::from(byte)] & TARGET != 0
}

/// Whether a text is of labels with a dot between each two, none of them empty.
#[inline]
pub(crate) fn is_host_name(text: &[u8]) -> bool {
    // As if a dot stood before it and behind it.
    let (mut all, mut before, mut twice) = (HOST, DOT, 0);
    for &byte in text {
        let class = CLASSES[usize::from(byte)];
        all &= class;
        twice |= class & before & DOT;
        before = class;
    }
    all != 0 && (twice | (before & DOT)) == 0
}

/// Whether a text is a token (RFC 9110 section 5.6.2), as names of fields and methods are.
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&byte| is_tchar(byte))
}

/// Whether a text may be the value of a field (RFC 9110 section 5.5): no control bytes but tab, no whitespace around it.
pub fn is_value(text: &[u8]) -> bool {
    first_control(text).is_none() && text.trim_ascii().len() == text.len()
}

const fn each(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

#[inline]
fn is_control(byte: u8) -> bool {
    (byte < b' ' && byte != b'\t') || byte == 0x7f
}

/// Where the first control byte other than tab is. Eight bytes at a time, for values are most of a head; blocks of 16 and 32 for
/// vector instructions were no faster, as most values are shorter than three of them.
#[inline]
pub(crate) fn first_control(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(word) = bytes[at..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*word);
        // A high bit is set in each byte below a space, and in each 0x7f. A borrow can set more of them above the first
        // one, so only the first one counts.
        let low = word.wrapping_sub(each(b' ')) & !word;
        let delete = word ^ each(0x7f);
        let marks = (low | (delete.wrapping_sub(each(1)) & !delete)) & each(0x80);
        if marks == 0 {
            at += 8;
            continue;
        }
        at += marks.trailing_zeros() as usize / 8;
        if bytes[at] != b'\t' {
            return Some(at);
        }
        at += 1;
    }
    bytes[at..].iter().position(|&byte| is_control(byte)).map(|offset| at + offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_values_are_told_from_what_is_neither() {
        for good in ["a", "X-Forwarded-For", "!#$%&'*+-.^_`|~09"] {
            assert!(is_token(good.as_bytes()), "{good}");
        }
        for bad in ["", "a b", "a:", "a\t", "\u{e9}", "(a)", "a\"", "a/b", "a@", "{a}"] {
            assert!(!is_token(bad.as_bytes()), "{bad}");
        }
        for good in ["", "a b", "a\tb", "\u{e9}", "\"x\""] {
            assert!(is_value(good.as_bytes()), "{good}");
        }
        for bad in [" a", "a ", "\ta", "a\r\nb", "a\nb", "a\0b", "a\x7fb", "\x1b"] {
            assert!(!is_value(bad.as_bytes()), "{bad:?}");
        }
    }

    #[test]
    fn a_control_byte_is_found_wherever_it_is() {
        for byte in 0..=255u8 {
            for len in 1..20 {
                for at in 0..len {
                    for around in [b'a', b'\t', 0x80, 0xff, b' '] {
                        let mut text = vec![around; len];
                        text[at] = byte;
                        let is_control = (byte < 32 && byte != 9) || byte == 127;
                        assert_eq!(first_control(&text), is_control.then_some(at), "{text:?}");
                    }
                }
            }
        }
    }
}
