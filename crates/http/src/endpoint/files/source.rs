//! Bodies that come from a file.
//!
//! They are read as they are sent. A piece that is not in memory is read beside the worker. Large ones go from the file to a
//! plain socket by the kernel alone, but for their end; see [`TAIL`].

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use wmproxy_files::Effort;
use wmproxy_files::file::{File, ReadError};
use wmproxy_files::reply::Parts;
use wmproxy_net::stream::Stream;
use wmproxy_wire::head::Fields;

use super::pool::{Disk, Work};
use crate::exchange::{Broken, Piece, Source};
use crate::scratch::{ROOM, Scratch};

/// From so much on the kernel sends by itself. Below that copying costs no more than the calls around it, and the end would be
/// copied in any case.
const BULK: u64 = 512 * 1024;

/// So much goes with the head of what the kernel sends by itself.
const FIRST: usize = 16 * 1024;

/// What the kernel sends at a time. Both its ends have to be in memory; what lies between them mostly is, for the kernel reads
/// ahead, and forgets, in runs.
const STRETCH: u64 = 1024 * 1024;

/// The end of a body is copied. What the kernel sends by itself lies in the socket's queue as pages of the file, and changes
/// with it. So these should be gone when the file is looked at for the last time: with no more than [`UNSENT`] left in the
/// queue behind them they were sent, if not yet acknowledged. Left is what is sent again, and a client on this machine, whose
/// own queue has the very pages: who overwrites files in their place is warned of that in the docs.
const TAIL: u64 = 256 * 1024;

/// What may lie unsent in the queue while the end goes.
const UNSENT: u32 = 128 * 1024;

/// A part of a file, or all of it, as a body.
#[derive(Debug)]
pub(super) struct FileSource {
    disk: Arc<Disk>,
    file: Arc<File>,
    at: u64,
    end: u64,
    sending: Sending,
    /// Up to here the bytes were in memory when it was last asked.
    known: u64,
    reading: Option<Reading>,
}

/// Whether the kernel sends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    /// It will behind the first piece, if the body goes to a plain socket.
    Planned,
    /// It will, or would if that were so.
    Next,
    /// It does.
    Begun,
    /// It does not, or no more.
    Off,
}

/// What is read beside the worker.
#[derive(Debug)]
enum Reading {
    Underway(Work<Read>),
    /// It has come; from there on it is to be sent.
    Come(Vec<u8>, usize),
}

type Read = (Vec<u8>, Result<usize, ReadError>);

impl FileSource {
    /// The bytes of a file in a range, which it has.
    pub(super) fn new(disk: Arc<Disk>, file: Arc<File>, range: Range<u64>) -> FileSource {
        let is_bulk = range.end - range.start >= BULK;
        FileSource {
            disk,
            file,
            at: range.start,
            end: range.end,
            sending: if is_bulk { Sending::Planned } else { Sending::Off },
            known: 0,
            reading: None,
        }
    }

    /// A piece that has been read. The last one is none if the file is not what it was.
    fn piece(&mut self, scratch: &Scratch, n: usize) -> Result<Piece, Broken> {
        self.at += n as u64;
        if self.sending == Sending::Planned {
            self.sending = Sending::Next;
        }
        let is_last = self.at == self.end;
        if is_last && !self.file.is_unchanged() {
            return Err(Broken::Changed);
        }
        Ok(Piece { place: scratch.read(n), is_last })
    }

    /// Has the next bytes read beside the worker.
    fn read_aside(&self) -> Work<Read> {
        let (file, at) = (Arc::clone(&self.file), self.at);
        let room = usize::try_from(self.end - at).unwrap_or(usize::MAX).min(ROOM);
        self.disk.start(move || {
            let mut bytes = vec![0; room];
            let read = file.read_at(&mut bytes, at, Effort::Full);
            (bytes, read)
        })
    }

    /// As if nothing of it were in memory.
    #[cfg(test)]
    pub(super) fn forget(&mut self) {
        self.reading = Some(Reading::Underway(self.read_aside()));
    }

    /// Whether the next bytes are in memory, so that the kernel does not wait for them.
    fn is_known(&mut self) -> bool {
        if self.at < self.known {
            return true;
        }
        let end = (self.end - TAIL).min(self.at + STRETCH);
        let is_there = |at| matches!(self.file.read_at(&mut [0], at, Effort::Cached), Ok(1));
        let is_known = is_there(self.at) && is_there(end - 1);
        if is_known {
            self.known = end;
        }
        is_known
    }
}

impl Source for FileSource {
    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        most: usize,
        _: &mut Fields,
    ) -> Poll<Result<Piece, Broken>> {
        let most = if self.sending == Sending::Planned { most.min(FIRST) } else { most };
        loop {
            match &mut self.reading {
                None if self.at == self.end => return Poll::Ready(Ok(Piece::end(scratch))),
                None => {
                    let room = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(most).min(ROOM);
                    match self.file.read_at(&mut scratch.room()[..room], self.at, Effort::Cached) {
                        Ok(n) => return Poll::Ready(self.piece(scratch, n)),
                        Err(ReadError::WouldBlock) => {
                            self.reading = Some(Reading::Underway(self.read_aside()));
                        }
                        Err(error) => return Poll::Ready(Err(broken(error))),
                    }
                }
                Some(Reading::Underway(work)) => match ready!(work.poll(cx)) {
                    Ok((mut bytes, Ok(n))) => {
                        bytes.truncate(n);
                        self.reading = Some(Reading::Come(bytes, 0));
                    }
                    Ok((_, Err(error))) => return Poll::Ready(Err(broken(error))),
                    Err(undone) => return Poll::Ready(Err(Broken::Unreadable(undone.into()))),
                },
                Some(Reading::Come(bytes, sent)) => {
                    let room = scratch.room();
                    let n = (bytes.len() - *sent).min(room.len()).min(most);
                    room[..n].copy_from_slice(&bytes[*sent..][..n]);
                    *sent += n;
                    if *sent == bytes.len() {
                        self.reading = None;
                    }
                    return Poll::Ready(self.piece(scratch, n));
                }
            }
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, to: &Stream) -> Poll<Result<usize, Broken>> {
        if self.sending == Sending::Off || self.reading.is_some() {
            return Poll::Ready(Ok(0));
        }
        if self.end - self.at <= TAIL {
            self.sending = Sending::Off;
            to.limit_unsent(Some(UNSENT));
            return Poll::Ready(Ok(0));
        }
        if self.sending != Sending::Begun {
            // The end of the response before may have left another.
            to.limit_unsent(None);
            self.sending = Sending::Begun;
        }
        if !self.is_known() {
            return Poll::Ready(Ok(0));
        }
        let most = usize::try_from(self.known - self.at).unwrap_or(usize::MAX);
        match ready!(to.poll_send_file(cx, self.file.descriptor(), self.at, most)) {
            Ok(n) if n > 0 => {
                self.at += n as u64;
                Poll::Ready(Ok(n))
            }
            Err(error) if is_of_a_socket(&error) => Poll::Ready(Err(Broken::Failed(error))),
            // The file is shorter, or none that can be sent so. Reading says which.
            _ => {
                self.sending = Sending::Off;
                Poll::Ready(Ok(0))
            }
        }
    }
}

/// Whether sending a file failed for its socket's sake.
fn is_of_a_socket(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, TimedOut};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | TimedOut)
}

fn broken(error: ReadError) -> Broken {
    match error {
        ReadError::Shorter => Broken::Changed,
        ReadError::Failed(error) => Broken::Unreadable(error),
        ReadError::WouldBlock => Broken::Unreadable(io::ErrorKind::WouldBlock.into()),
    }
}

/// Several parts of a file, each behind a head of its own, as a body.
#[derive(Debug)]
pub(super) struct PartsSource {
    parts: std::vec::IntoIter<(Vec<u8>, Range<u64>)>,
    /// What stands behind the last.
    end: Option<Vec<u8>>,
    /// What goes before the bytes of the file, and how much of it went.
    text: (Vec<u8>, usize),
    bytes: FileSource,
}

impl PartsSource {
    /// These parts of a file.
    pub(super) fn new(disk: Arc<Disk>, file: Arc<File>, parts: Parts) -> PartsSource {
        PartsSource {
            parts: parts.parts.into_iter(),
            end: Some(parts.end),
            text: (Vec::new(), 0),
            bytes: FileSource::new(disk, file, 0..0),
        }
    }
}

impl Source for PartsSource {
    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        most: usize,
        trailers: &mut Fields,
    ) -> Poll<Result<Piece, Broken>> {
        loop {
            let (text, sent) = &mut self.text;
            if *sent < text.len() {
                let room = scratch.room();
                let n = (text.len() - *sent).min(room.len()).min(most);
                room[..n].copy_from_slice(&text[*sent..][..n]);
                *sent += n;
                let is_last = self.end.is_none() && *sent == text.len();
                return Poll::Ready(Ok(Piece { place: scratch.read(n), is_last }));
            }
            if self.bytes.at < self.bytes.end {
                let Piece { place, .. } = ready!(self.bytes.poll_piece(cx, scratch, most, trailers))?;
                return Poll::Ready(Ok(Piece { place, is_last: false }));
            }
            let (text, range) = match (self.parts.next(), self.end.take()) {
                (Some(part), end) => {
                    self.end = end;
                    part
                }
                (None, Some(end)) => (end, 0..0),
                (None, None) => return Poll::Ready(Ok(Piece::end(scratch))),
            };
            self.text = (text, 0);
            // By pieces: what goes between the parts is ours.
            let (disk, file) = (Arc::clone(&self.bytes.disk), Arc::clone(&self.bytes.file));
            self.bytes = FileSource { sending: Sending::Off, ..FileSource::new(disk, file, range) };
        }
    }
}
