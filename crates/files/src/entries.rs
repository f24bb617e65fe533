//! What is in a directory: read, put in order, looked at and opened one by one.
//!
//! What lives here: which entries of a directory there are to whoever asks, for [listings](crate::listing) and
//! [archives](crate::archive) alike. What must not: how they are shown.

use std::cmp::Ordering;
use std::fs::File;
use std::io;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::site::Directory;

/// So many names are put in order. With names of common length they take 8 MB; a directory with more comes in the order of
/// its file system, for who asks would wait a second or more, and we hold the more memory the more ask.
const MOST_IN_ORDER: usize = 200_000;
/// And so many bytes of them, which keeps those of the greatest length within bounds, too.
const MOST_BYTES: usize = 16 << 20;
/// So many names are read at once where no order is kept: some 64 KB of them.
const BATCH: usize = 2000;

/// What an entry is. Nothing else is ever served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
}

/// What is known of a file or directory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Meta {
    pub(crate) kind: Kind,
    /// In bytes; of a file only.
    pub(crate) len: u64,
    /// When it was modified, in seconds since 1970; what was before is then.
    pub(crate) modified: u64,
    /// Whether its owner may run it.
    pub(crate) is_executable: bool,
}

/// An entry, opened.
#[derive(Debug)]
pub(crate) enum Opened {
    /// A file, and what was known when it was opened.
    File(File, Meta),
    /// A directory.
    Directory(Directory, Meta),
}

/// The entries of a directory that is open.
#[derive(Debug)]
pub(crate) struct Entries {
    directory: Directory,
    /// What is still to be read.
    unread: Option<Dir>,
    /// Names, one behind the other.
    bytes: Vec<u8>,
    names: Vec<Name>,
    next: usize,
    is_in_order: bool,
}

/// A name, and what it is the name of as far as reading the directory told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Name {
    start: u32,
    len: u16,
    kind: Kind,
    is_link: bool,
}

impl Entries {
    /// Those of a directory. Nothing is read yet.
    pub(crate) fn new(directory: Directory) -> io::Result<Self> {
        // A handle of its own, for the place where reading has come to belongs to the handle.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let unread = Dir::new(rustix::fs::openat(&directory.fd, c".", flags, Mode::empty())?)?;
        Ok(Entries {
            directory,
            unread: Some(unread),
            bytes: Vec::new(),
            names: Vec::new(),
            next: 0,
            is_in_order: false,
        })
    }

    /// Reads up to so many names. True when there are no more to be read for putting them in order: all are there, or there
    /// are too many.
    pub(crate) fn read(&mut self, most: usize) -> io::Result<bool> {
        let most = most.min(MOST_IN_ORDER.saturating_sub(self.names.len()));
        for _ in 0..most {
            let Some(entry) = self.unread.as_mut().and_then(Dir::read) else {
                self.unread = None;
                return Ok(true);
            };
            let entry = entry?;
            self.keep(entry.file_name().to_bytes(), entry.file_type());
        }
        Ok(self.names.len() >= MOST_IN_ORDER || self.bytes.len() >= MOST_BYTES)
    }

    /// Puts directories first, and names as people do, if all are there.
    pub(crate) fn sort(&mut self) {
        if self.unread.is_none() {
            let bytes = &self.bytes;
            self.names.sort_unstable_by(|one, other| {
                one.kind.cmp(&other.kind).then_with(|| natural(one.of(bytes), other.of(bytes)))
            });
            self.is_in_order = true;
        }
    }

    /// Whether they come in order.
    pub(crate) fn is_in_order(&self) -> bool {
        self.is_in_order
    }

    /// The next one.
    pub(crate) fn next(&mut self) -> io::Result<Option<Name>> {
        while self.next == self.names.len() {
            if self.unread.is_none() {
                return Ok(None);
            }
            (self.next, self.bytes, self.names) = (0, Vec::new(), Vec::new());
            self.read(BATCH)?;
        }
        self.next += 1;
        Ok(self.names.get(self.next - 1).copied())
    }

    /// The text of the one that came last.
    pub(crate) fn text(&self, name: Name) -> &[u8] {
        name.of(&self.bytes)
    }

    /// Looks at it. None where it is gone, or nothing that is served: what can't be looked at can't be had, either.
    pub(crate) fn look(&self, name: Name) -> Option<Meta> {
        let text = self.text(name);
        let stat = match name.is_link {
            true => rustix::fs::fstat(self.directory.open_linked(text).ok()?).ok()?,
            false => rustix::fs::statat(&self.directory.fd, text, AtFlags::SYMLINK_NOFOLLOW).ok()?,
        };
        Meta::of(&stat)
    }

    /// Opens it. None where it is gone, nothing that is served, or not for us.
    ///
    /// # Errors
    /// There are no descriptors, or the disk failed.
    pub(crate) fn open(&self, name: Name) -> io::Result<Option<Opened>> {
        match self.try_open(name) {
            Ok(opened) => Ok(opened),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::IO) => Err(error),
                _ => Ok(None),
            },
        }
    }

    fn try_open(&self, name: Name) -> io::Result<Option<Opened>> {
        let text = self.text(name);
        let fd = match name.is_link {
            true => self.directory.open_linked(text)?,
            // A name is one segment, so there is no way out of the directory but a link, which is not followed. A fifo that
            // has just taken the file's place does not make us wait.
            false => rustix::fs::openat(&self.directory.fd, text, read_only(), Mode::empty())?,
        };
        let Some(meta) = Meta::of(&rustix::fs::fstat(&fd)?) else { return Ok(None) };
        Ok(Some(match meta.kind {
            Kind::File => Opened::File(File::from(fd), meta),
            Kind::Directory => Opened::Directory(self.directory.child(text, fd), meta),
        }))
    }

    /// Keeps a name, if it is one that is served.
    fn keep(&mut self, text: &[u8], file_type: FileType) {
        let spec = self.directory.site.spec();
        // No request can name what has a backslash in it, and some programs that unpack take it for a slash.
        let is_served = match text {
            b"." | b".." => false,
            [b'.', ..] if !spec.hidden => false,
            _ => !text.contains(&b'\\'),
        };
        let is_link = file_type == FileType::Symlink;
        if !is_served || (is_link && !spec.follow_symlinks) {
            return;
        }
        let (Ok(start), Ok(len)) = (u32::try_from(self.bytes.len()), u16::try_from(text.len())) else {
            return;
        };
        self.bytes.extend_from_slice(text);
        let mut name = Name { start, len, kind: Kind::File, is_link };
        let kind = match file_type {
            FileType::RegularFile => Some(Kind::File),
            FileType::Directory => Some(Kind::Directory),
            // Links, and what the file system does not tell at once.
            FileType::Symlink => self.look(name).map(|meta| meta.kind),
            FileType::Unknown => self.look_at_unknown(&mut name),
            _ => None,
        };
        match kind {
            Some(kind) => self.names.push(Name { kind, ..name }),
            None => self.bytes.truncate(start as usize),
        }
    }

    fn look_at_unknown(&self, name: &mut Name) -> Option<Kind> {
        let text = self.text(*name);
        let stat = rustix::fs::statat(&self.directory.fd, text, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        name.is_link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
        match name.is_link {
            true if !self.directory.site.spec().follow_symlinks => None,
            _ => self.look(*name).map(|meta| meta.kind),
        }
    }
}

impl Name {
    /// Whether it is that of a symbolic link.
    pub(crate) fn is_link(self) -> bool {
        self.is_link
    }

    fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start as usize..][..usize::from(self.len)]
    }
}

impl Meta {
    /// None for what is neither a file nor a directory.
    fn of(stat: &Stat) -> Option<Meta> {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            _ => return None,
        };
        Some(Meta {
            kind,
            len: u64::try_from(stat.st_size).ok()?,
            modified: u64::try_from(stat.st_mtime).unwrap_or(0),
            is_executable: stat.st_mode & 0o100 != 0,
        })
    }
}

fn read_only() -> OFlags {
    OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC
}

/// Names as people order them: numbers by their value, letters without regard to case. Names that differ in nothing else
/// are ordered by their bytes.
fn natural(one: &[u8], other: &[u8]) -> Ordering {
    // Most names of a large directory begin alike, and that is soon passed: up to the number in which they differ.
    let same = one.iter().zip(other).take_while(|(a, b)| a == b).count();
    let digits = one[..same].iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let (mut left, mut right) = (&one[same - digits..], &other[same - digits..]);
    loop {
        let order = match (left, right) {
            ([], []) => return one.cmp(other),
            ([], _) => Ordering::Less,
            (_, []) => Ordering::Greater,
            ([a, ..], [b, ..]) if a.is_ascii_digit() && b.is_ascii_digit() => {
                let (a, b) = (take_number(&mut left), take_number(&mut right));
                a.len().cmp(&b.len()).then_with(|| a.cmp(b))
            }
            ([a, rest @ ..], [b, behind @ ..]) => {
                (left, right) = (rest, behind);
                a.to_ascii_lowercase().cmp(&b.to_ascii_lowercase())
            }
        };
        if order.is_ne() {
            return order;
        }
    }
}

/// Takes the digits off the front, and gives them without zeros in front.
fn take_number<'a>(text: &mut &'a [u8]) -> &'a [u8] {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    *text = rest;
    let zeros = digits.iter().take_while(|&&digit| digit == b'0').count();
    &digits[zeros..]
}

#[cfg(test)]
mod tests;
