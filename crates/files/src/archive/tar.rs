//! tar, as POSIX.1-2017 has it under "pax": blocks of 512 bytes, with records before a head that has no room for something.

use std::io::{self, Write as _};

use super::Format;
use crate::entries::{Kind, Meta};

const BLOCK: usize = 512;
/// The longest path that the head itself has room for.
const NAME_LEN: usize = 100;
/// The greatest number that eleven octal digits can tell.
const OCTAL_MOST: u64 = 0o777_7777_7777;

/// A tar.
#[derive(Debug, Default)]
pub(super) struct Tar {
    /// How far the last block of the file is filled.
    filled: usize,
}

impl Format for Tar {
    const BEFORE_PART: usize = 0;
    const LONGEST_PART: usize = usize::MAX;

    fn begin(&mut self, path: &[u8], meta: &Meta, out: &mut Vec<u8>) -> io::Result<()> {
        let records = records(path, meta);
        if !records.is_empty() {
            head(b"././@PaxHeader", b'x', 0o644, records.len() as u64, 0, out);
            out.extend_from_slice(&records);
            pad(records.len(), out);
        }
        let (kind, mode, len) = match meta.kind {
            Kind::Directory => (b'5', 0o755, 0),
            Kind::File if meta.is_executable => (b'0', 0o755, meta.len),
            Kind::File => (b'0', 0o644, meta.len),
        };
        head(path, kind, mode, len, meta.modified, out);
        self.filled = 0;
        Ok(())
    }

    fn part(&mut self, part: &mut [u8], _is_last: bool) {
        self.filled = (self.filled + part.len()) % BLOCK;
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        pad(self.filled, out);
    }

    fn close(&mut self, _room: usize, out: &mut Vec<u8>) -> bool {
        out.resize(out.len() + 2 * BLOCK, 0);
        false
    }
}

/// Fills the last block of something so long.
fn pad(len: usize, out: &mut Vec<u8>) {
    out.resize(out.len() + len.next_multiple_of(BLOCK) - len, 0);
}

/// What the head has no room for.
fn records(path: &[u8], meta: &Meta) -> Vec<u8> {
    let mut records = Vec::new();
    // What the bytes of a name in a head mean, nobody says; those of a record are UTF-8, unless it says otherwise.
    if path.len() > NAME_LEN || !path.is_ascii() {
        if std::str::from_utf8(path).is_err() {
            record("hdrcharset", b"BINARY", &mut records);
        }
        record("path", path, &mut records);
    }
    if meta.kind == Kind::File && meta.len > OCTAL_MOST {
        record("size", meta.len.to_string().as_bytes(), &mut records);
    }
    records
}

/// A record begins with its own length.
fn record(key: &str, value: &[u8], out: &mut Vec<u8>) {
    let rest = key.len() + value.len() + " =\n".len();
    let digits = |len: usize| len.to_string().len();
    let mut len = rest + digits(rest);
    len = rest + digits(len);
    let _ = write!(out, "{len} {key}=");
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// The head of an entry. It belongs to nobody: who unpacks it owns it.
fn head(path: &[u8], kind: u8, mode: u64, len: u64, modified: u64, out: &mut Vec<u8>) {
    let mut head = [0; BLOCK];
    let name = &path[..path.len().min(NAME_LEN)];
    head[..name.len()].copy_from_slice(name);
    octal(mode, &mut head[100..107]);
    octal(0, &mut head[108..115]);
    octal(0, &mut head[116..123]);
    octal(len.min(OCTAL_MOST), &mut head[124..135]);
    octal(modified.min(OCTAL_MOST), &mut head[136..147]);
    head[156] = kind;
    head[257..265].copy_from_slice(b"ustar\x0000");
    octal(0, &mut head[329..336]);
    octal(0, &mut head[337..344]);
    // The sum counts its own place as spaces.
    head[148..156].fill(b' ');
    let sum = head.iter().map(|&byte| u64::from(byte)).sum();
    octal(sum, &mut head[148..154]);
    head[154] = 0;
    out.extend_from_slice(&head);
}

/// As many octal digits as there is place for.
fn octal(mut number: u64, place: &mut [u8]) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number & 7) as u8;
        number >>= 3;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_itself() {
        for value_len in 0..1200 {
            let mut out = Vec::new();
            record("path", &vec![b'x'; value_len], &mut out);
            let text = String::from_utf8(out).unwrap();
            assert_eq!(text.split(' ').next().unwrap(), text.len().to_string(), "of {value_len}");
        }
    }

    #[test]
    fn a_file_that_octal_digits_can_not_count_has_a_record() {
        let meta = |len| Meta { kind: Kind::File, len, modified: 0, is_executable: false };
        assert!(records(b"x", &meta(OCTAL_MOST)).is_empty());
        assert_eq!(records(b"x", &meta(8 << 30)), b"19 size=8589934592\n");
    }
}
