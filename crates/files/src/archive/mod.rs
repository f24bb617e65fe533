//! A directory with all below it as one file: tar and zip, made while they are sent.
//!
//! What lives here: the two formats, and what goes into them: the same entries that listings have. Each file is opened when
//! its turn comes and goes in as long as it is then: what it grows by is left out, and where it has become shorter the
//! response ends broken, so that nobody takes it for whole. What must not: compression, for what is large mostly is
//! compressed already, and the route may compress a tar on its way.

mod tar;
mod walk;
mod zip;

#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use wmproxy_wire::head::{Known, Response};

use crate::entries::Meta;
use crate::listing;
use crate::produce::Produce;
use crate::site::Directory;
use tar::Tar;
use walk::{Found, Walk};
use zip::Zip;

/// A piece ends before it is longer than this: with fewer bytes the hand-over would show, with more a slow client would hold
/// more memory.
const PIECE: usize = 64 << 10;
/// What is left of a piece has to be so much for another part or entry to begin in it: nothing is won by small parts, and the
/// head of an entry seldom is longer.
const ROOM: usize = 12 << 10;

/// Begins a tar (POSIX.1-2017, pax).
pub(crate) fn tar(directory: Directory, response: &mut Response) -> Box<dyn Produce> {
    put_head(&directory, "tar", "application/x-tar", response);
    Box::new(Archive::new(directory, Tar::default()))
}

/// Begins a zip (APPNOTE 6.3.10).
pub(crate) fn zip(directory: Directory, response: &mut Response) -> Box<dyn Produce> {
    put_head(&directory, "zip", "application/zip", response);
    Box::new(Archive::new(directory, Zip::default()))
}

/// The type, and the name to save it by (RFC 6266): for old clients in ASCII, for others in UTF-8 (RFC 8187).
fn put_head(directory: &Directory, end: &str, content_type: &str, response: &mut Response) {
    response.fields.set(Known::ContentType, content_type.as_bytes());
    let name = String::from_utf8_lossy(walk::name(directory));
    let is_safe = |c: char| c.is_ascii_alphanumeric() || " -._".contains(c);
    let plain: String = name.chars().map(|c| if is_safe(c) { c } else { '_' }).collect();
    let mut value = format!("attachment; filename=\"{plain}.{end}\"; filename*=UTF-8''").into_bytes();
    listing::link(name.as_bytes(), &mut value);
    value.push(b'.');
    value.extend_from_slice(end.as_bytes());
    response.fields.set_named(b"Content-Disposition", &value);
}

/// How files become one.
trait Format: Debug + Send {
    /// So many bytes stand before each part of a file's bytes.
    const BEFORE_PART: usize;
    /// So many bytes a part has at most.
    const LONGEST_PART: usize;

    /// What stands before a file's bytes, or for a directory, whose path ends with a slash.
    fn begin(&mut self, path: &[u8], meta: &Meta, out: &mut Vec<u8>) -> io::Result<()>;

    /// A part of a file's bytes, behind the place for what stands before it.
    fn part(&mut self, part: &mut [u8], is_last: bool);

    /// What stands behind a file's bytes.
    fn end(&mut self, out: &mut Vec<u8>);

    /// What stands behind everything, so many bytes of it, and what little comes last. False when that was all.
    fn close(&mut self, room: usize, out: &mut Vec<u8>) -> bool;

    /// Tells how long the archive is by now.
    fn has_grown(&mut self, _by: usize) {}
}

/// An archive, as far as it has come.
#[derive(Debug)]
struct Archive<F> {
    format: F,
    walk: Walk,
    /// The file that goes in now.
    open: Option<Inside>,
}

/// A file that has gone in up to `at`.
#[derive(Debug)]
struct Inside {
    file: File,
    at: u64,
    len: u64,
}

impl<F: Format> Archive<F> {
    fn new(directory: Directory, format: F) -> Self {
        Archive { format, walk: Walk::new(directory), open: None }
    }

    /// Goes on by a part of a file, by an entry or by what stands behind them. False when it has come to its end.
    fn step(&mut self, room: usize, out: &mut Vec<u8>) -> io::Result<bool> {
        if let Some(mut inside) = self.open.take() {
            let longest = F::LONGEST_PART.min(room.saturating_sub(F::BEFORE_PART)).max(1);
            let is_last = inside.read(F::BEFORE_PART, longest, out, &mut self.format)?;
            match is_last {
                true => self.format.end(out),
                false => self.open = Some(inside),
            }
            return Ok(true);
        }
        let Some(found) = self.walk.next()? else {
            return Ok(self.format.close(room, out));
        };
        let (Found::Directory(meta) | Found::File(_, meta)) = &found;
        self.format.begin(self.walk.path(), meta, out)?;
        if let Found::File(file, meta) = found {
            match meta.len {
                0 => self.format.end(out),
                len => self.open = Some(Inside { file, at: 0, len }),
            }
        }
        Ok(true)
    }
}

impl Inside {
    /// Adds a part of it. True when it was the last one.
    fn read(
        &mut self,
        before: usize,
        longest: usize,
        out: &mut Vec<u8>,
        format: &mut impl Format,
    ) -> io::Result<bool> {
        let start = out.len();
        let longest = usize::try_from(self.len - self.at).unwrap_or(usize::MAX).min(longest);
        out.resize(start + before + longest, 0);
        let read = loop {
            match self.file.read_at(&mut out[start + before..], self.at) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a file has become shorter"));
        }
        out.truncate(start + before + read);
        self.at += read as u64;
        let is_last = self.at == self.len;
        format.part(&mut out[start..], is_last);
        Ok(is_last)
    }
}

impl<F: Format> Produce for Archive<F> {
    fn produce(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        let begin = out.len();
        loop {
            let before = out.len();
            let room = (begin + PIECE).saturating_sub(before);
            let goes_on = self.step(room, out)?;
            self.format.has_grown(out.len() - before);
            if !goes_on || out.len() + ROOM > begin + PIECE {
                return Ok(goes_on);
            }
        }
    }

    fn descriptors(&self) -> usize {
        walk::DESCRIPTORS
    }
}
