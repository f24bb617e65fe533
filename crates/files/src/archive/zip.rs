//! zip (APPNOTE 6.3.10), made from front to back: what only the end of a file tells stands behind it.
//!
//! The bytes of a file go in as blocks of deflate that are stored as they are (RFC 1951 section 3.2.4). That costs five bytes
//! for 64 KB, and unlike zip's own way to store they end by themselves, so that programs that read from front to back can
//! unpack it, too.

use std::io;

use crc32fast::Hasher;

use super::Format;
use crate::entries::{Kind, Meta};
use crate::moment::Moment;

/// Before each block: whether it is the last one and that it is stored, its length, and that again inverted.
const BLOCK_HEAD: usize = 5;
const BLOCK_MOST: usize = u16::MAX as usize;
/// From here on a number needs the eight bytes of zip64.
const LARGE: u64 = u32::MAX as u64;
/// The list of all files stands at the end, and grows in memory until then. So many bytes of it are some 200,000 files: who
/// has more takes the tar.
const MOST_LISTED: usize = 32 << 20;

const STORED: u16 = 0;
const DEFLATED: u16 = 8;
/// What the checksum and the lengths are stands behind the bytes.
const TOLD_LATER: u16 = 1 << 3;
const IS_UTF8: u16 = 1 << 11;
/// 4.5, for zip64.
const VERSION: u16 = 45;
const MADE_ON_UNIX: u16 = 3 << 8;

/// A zip.
#[derive(Debug, Default)]
pub(super) struct Zip {
    /// Its length so far.
    len: u64,
    /// The list of files.
    list: Vec<u8>,
    /// Where it begins in the archive, once it does.
    list_start: Option<u64>,
    count: u64,
    entry: Option<Entry>,
}

/// The file that goes in.
#[derive(Debug)]
struct Entry {
    path: Vec<u8>,
    meta: Meta,
    /// Where it begins in the archive.
    offset: u64,
    is_large: bool,
    sum: Hasher,
    /// How many bytes its blocks have.
    packed: u64,
}

impl Format for Zip {
    const BEFORE_PART: usize = BLOCK_HEAD;
    const LONGEST_PART: usize = BLOCK_MOST;

    fn begin(&mut self, path: &[u8], meta: &Meta, out: &mut Vec<u8>) -> io::Result<()> {
        if self.list.len() > MOST_LISTED {
            return Err(io::Error::other("there are too many files for a zip"));
        }
        // With a twentieth to spare for the heads of blocks, however short they were.
        let is_large = meta.len.saturating_add(meta.len / 20) >= LARGE;
        let entry = Entry {
            path: path.to_vec(),
            meta: *meta,
            offset: self.len,
            is_large,
            sum: Hasher::new(),
            packed: 0,
        };
        out.extend_from_slice(b"PK\x03\x04");
        entry.put_common(out);
        let size = if is_large { u32::MAX } else { 0 };
        put(out, [0, size, size].map(u32::to_le_bytes).as_flattened());
        put(out, &(path.len() as u16).to_le_bytes());
        put(out, &(TIME_LEN + if is_large { 20 } else { 0 }).to_le_bytes());
        put(out, path);
        entry.put_time(out);
        if is_large {
            put_large(&[0, 0], out);
        }
        match meta.kind {
            Kind::Directory => self.list(&entry),
            Kind::File => self.entry = Some(entry),
        }
        Ok(())
    }

    fn part(&mut self, part: &mut [u8], is_last: bool) {
        let Some(entry) = &mut self.entry else { return };
        entry.packed += part.len() as u64;
        let (head, bytes) = part.split_at_mut(BLOCK_HEAD);
        let len = bytes.len() as u16;
        head[0] = u8::from(is_last);
        head[1..3].copy_from_slice(&len.to_le_bytes());
        head[3..].copy_from_slice(&(!len).to_le_bytes());
        entry.sum.update(bytes);
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        let Some(entry) = self.entry.take() else { return };
        if entry.flags() & TOLD_LATER != 0 {
            out.extend_from_slice(b"PK\x07\x08");
            put(out, &entry.sum.clone().finalize().to_le_bytes());
            for len in [entry.packed, entry.meta.len] {
                match entry.is_large {
                    true => put(out, &len.to_le_bytes()),
                    false => put(out, &(len as u32).to_le_bytes()),
                }
            }
        }
        self.list(&entry);
    }

    fn close(&mut self, room: usize, out: &mut Vec<u8>) -> bool {
        let start = *self.list_start.get_or_insert(self.len);
        let given = (self.len - start) as usize;
        let rest = &self.list[given..];
        if rest.len() > room {
            put(out, &rest[..room]);
            return true;
        }
        put(out, rest);
        let list_len = self.list.len() as u64;
        if self.count >= u64::from(u16::MAX) || start + list_len >= LARGE {
            out.extend_from_slice(b"PK\x06\x06");
            // The length of what follows, who made it and what it takes, and no other disks.
            put(out, &44_u64.to_le_bytes());
            put(out, &[MADE_ON_UNIX | VERSION, VERSION].map(u16::to_le_bytes).concat());
            put(out, &[0; 8]);
            put(out, [self.count, self.count, list_len, start].map(u64::to_le_bytes).as_flattened());
            out.extend_from_slice(b"PK\x06\x07\0\0\0\0");
            put(out, &(start + list_len).to_le_bytes());
            put(out, &1_u32.to_le_bytes());
        }
        out.extend_from_slice(b"PK\x05\x06\0\0\0\0");
        let count = self.count.min(u64::from(u16::MAX)) as u16;
        put(out, [count; 2].map(u16::to_le_bytes).as_flattened());
        put(out, &short(list_len).to_le_bytes());
        put(out, &short(start).to_le_bytes());
        put(out, &[0; 2]);
        false
    }

    fn has_grown(&mut self, by: usize) {
        self.len += by as u64;
    }
}

impl Zip {
    /// Adds a file to the list.
    fn list(&mut self, entry: &Entry) {
        let list = &mut self.list;
        self.count += 1;
        list.extend_from_slice(b"PK\x01\x02");
        put(list, &(MADE_ON_UNIX | VERSION).to_le_bytes());
        entry.put_common(list);
        put(list, &entry.sum.clone().finalize().to_le_bytes());
        // All three where one of them is too large: which of them are there is what programs get wrong.
        let large = [entry.meta_len(), entry.packed, entry.offset];
        let is_large = entry.is_large || entry.offset >= LARGE;
        let lens = if is_large { [u32::MAX; 2] } else { [short(entry.packed), short(entry.meta_len())] };
        put(list, lens.map(u32::to_le_bytes).as_flattened());
        put(list, &(entry.path.len() as u16).to_le_bytes());
        put(list, &(TIME_LEN + if is_large { 28 } else { 0 }).to_le_bytes());
        // No comment, the first disk, and nothing about whether it is text.
        put(list, &[0; 6]);
        let (mode, dos) = match entry.meta.kind {
            Kind::Directory => (0o40_755_u32, 0x10),
            Kind::File if entry.meta.is_executable => (0o100_755, 0),
            Kind::File => (0o100_644, 0),
        };
        put(list, &(mode << 16 | dos).to_le_bytes());
        put(list, &if is_large { u32::MAX } else { short(entry.offset) }.to_le_bytes());
        put(list, &entry.path);
        entry.put_time(list);
        if is_large {
            put_large(&large, list);
        }
    }
}

/// How long the field with the time is.
const TIME_LEN: u16 = 9;

impl Entry {
    fn meta_len(&self) -> u64 {
        if self.meta.kind == Kind::File { self.meta.len } else { 0 }
    }

    fn flags(&self) -> u16 {
        let utf8 = if std::str::from_utf8(&self.path).is_ok() { IS_UTF8 } else { 0 };
        utf8 | if self.meta_len() > 0 { TOLD_LATER } else { 0 }
    }

    /// What stands in the same order before the file and in the list: version, flags, method and time.
    fn put_common(&self, out: &mut Vec<u8>) {
        let method = if self.meta_len() > 0 { DEFLATED } else { STORED };
        let at = Moment::at(self.meta.modified);
        // Years from 1980 to 2107, and every other second.
        let year = at.year.clamp(1980, 2107) - 1980;
        let time = (at.hour << 11 | at.minute << 5 | (at.second / 2)) as u16;
        let date = (year << 9 | at.month << 5 | at.day) as u16;
        put(out, [VERSION, self.flags(), method, time, date].map(u16::to_le_bytes).as_flattened());
    }

    /// The field with the time as Unix has it, in UTC; the other one is meant in the time of where it is unpacked.
    fn put_time(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"UT\x05\0\x01");
        put(out, &i32::try_from(self.meta.modified).unwrap_or(i32::MAX).to_le_bytes());
    }
}

/// The field with large numbers.
fn put_large(numbers: &[u64], out: &mut Vec<u8>) {
    out.extend_from_slice(b"\x01\0");
    put(out, &(8 * numbers.len() as u16).to_le_bytes());
    numbers.iter().for_each(|number| put(out, &number.to_le_bytes()));
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(bytes);
}

/// A number, or the one that says that it is elsewhere.
fn short(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
