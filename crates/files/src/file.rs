//! A file that was found, open: what was checked is what is served.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::fs::{AtFlags, Stat, StatxFlags, fstat, fstatfs, statx};
use rustix::io::{Errno, ReadWriteFlags, pread, preadv2, retry_on_intr};
use wmproxy_wire::head::coding::Encoding;
use wmproxy_wire::head::{DATE_LEN, date};

use crate::Effort;

/// Which bytes a file has: two that have the same of all are taken for the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// The file system.
    pub device: u64,
    /// The file in it.
    pub inode: u64,
    /// Its length in bytes.
    pub len: u64,
    /// When its bytes were changed last, in nanoseconds since 1970.
    pub modified: i128,
    /// When anything of it was, which nobody can set back.
    pub changed: i128,
}

/// A regular file, open for reading, with what its head says ready to be written.
#[derive(Debug)]
pub struct File {
    pub(crate) fd: OwnedFd,
    pub(crate) memory: Memory,
    /// The version that was found.
    pub version: Version,
    /// The type of its contents.
    pub content_type: Box<str>,
    /// How it is encoded, where it is the compressed form of the one that was asked for.
    pub encoding: Option<Encoding>,
    /// Whether another client could have got another form of it.
    pub varies: bool,
    /// Its strong entity tag, with quotes (RFC 9110 section 8.8.3). It says nothing of the file system, so that servers with
    /// copies of the same file, times included, agree on it.
    pub etag: Box<str>,
    /// When it was modified, as `Last-Modified` says it.
    pub last_modified: [u8; DATE_LEN],
}

/// How the bytes of a file that are in memory are told from the rest: what is known of that, one of the constants below.
#[derive(Debug, Default)]
pub(crate) struct Memory(AtomicU8);

/// The kernel is asked with `RWF_NOWAIT`.
const ASK: u8 = 0;
/// All of them are, for the file system is nowhere else.
const ALL: u8 = 1;
/// The file system doesn't tell.
const UNKNOWN: u8 = 2;

/// In a second.
const NANOSECONDS: i128 = 1_000_000_000;

/// The file systems that live in memory, by their magic numbers (statfs(2)).
const TMPFS: u32 = 0x0102_1994;
const RAMFS: u32 = 0x8584_58f6;

/// Why no bytes came of a file.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Not without waiting: with [`Effort::Full`] they may.
    #[error("the bytes are not in memory")]
    WouldBlock,
    /// The file is shorter than it was.
    #[error("the file has become shorter")]
    Shorter,
    /// The disk failed.
    #[error(transparent)]
    Failed(#[from] io::Error),
}

impl Version {
    pub(crate) fn of(stat: &Stat) -> Version {
        Version {
            device: stat.st_dev,
            inode: stat.st_ino,
            len: u64::try_from(stat.st_size).unwrap_or(0),
            modified: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
            changed: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
        }
    }

    /// Whether it was modified before another one. A time of whole seconds is taken for one that was cut off: so some tools
    /// hand on the time of what they compress (brotli before 1.1).
    pub(crate) fn is_older(&self, other: &Version) -> bool {
        let other = match self.modified % NANOSECONDS {
            0 => other.modified - other.modified.rem_euclid(NANOSECONDS),
            _ => other.modified,
        };
        self.modified < other
    }

    fn etag(&self, encoding: Option<Encoding>) -> Box<str> {
        let (dash, coding) = encoding.map_or(("", ""), |encoding| ("-", encoding.token()));
        format!("\"{:x}-{:x}{dash}{coding}\"", self.modified, self.len).into()
    }

    fn last_modified(&self) -> [u8; DATE_LEN] {
        date(u64::try_from(self.modified.max(0) / NANOSECONDS).unwrap_or(u64::MAX))
    }
}

fn nanoseconds(seconds: i64, rest: u64) -> i128 {
    i128::from(seconds) * NANOSECONDS + i128::from(rest)
}

impl File {
    pub(crate) fn new(
        fd: OwnedFd,
        version: Version,
        content_type: Box<str>,
        encoding: Option<Encoding>,
    ) -> File {
        File {
            fd,
            memory: Memory::default(),
            version,
            content_type,
            encoding,
            varies: false,
            etag: version.etag(encoding),
            last_modified: version.last_modified(),
        }
    }

    /// Reads bytes from `offset` on, at least one where `buffer` has room and the file, as long as it was when it was found,
    /// has more. Of one that has grown there is no more.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read_at(&self, buffer: &mut [u8], offset: u64, effort: Effort) -> Result<usize, ReadError> {
        let left = self.version.len.saturating_sub(offset);
        let room = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let Some(buffer) = buffer.get_mut(..room).filter(|buffer| !buffer.is_empty()) else {
            return Ok(0);
        };
        let read = match effort {
            Effort::Full => retry_on_intr(|| pread(&self.fd, &mut *buffer, offset)),
            Effort::Cached => self.memory.read_at(self.fd.as_fd(), buffer, offset),
        };
        match read {
            Ok(0) => Err(ReadError::Shorter),
            Ok(read) => Ok(read),
            Err(Errno::AGAIN) if effort == Effort::Cached => Err(ReadError::WouldBlock),
            Err(errno) => Err(ReadError::Failed(errno.into())),
        }
    }

    /// Whether it has still the bytes that were found, by its length and its time: asked before the last bytes of a response go.
    ///
    /// When it was changed in another way does not count, for a file is also changed by another that is put in its place: who
    /// is being sent the old one gets all of it. Whoever writes into a file and sets its time back to the nanosecond goes
    /// unnoticed here, as by its entity tag.
    pub fn is_unchanged(&self) -> bool {
        // On a worker: of a file of another machine or program, what the kernel knows of it has to do.
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let seen = match statx(&self.fd, c"", flags, StatxFlags::SIZE | StatxFlags::MTIME) {
            Ok(now) => Some((now.stx_size, nanoseconds(now.stx_mtime.tv_sec, now.stx_mtime.tv_nsec.into()))),
            // A sandbox that does not know the call.
            Err(Errno::NOSYS | Errno::PERM) => fstat(&self.fd).ok().map(|stat| {
                let now = Version::of(&stat);
                (now.len, now.modified)
            }),
            Err(_) => None,
        };
        seen == Some((self.version.len, self.version.modified))
    }

    /// Whether `other`, found at the same path, is the same in all that a client sees of it: what is cached of this one goes
    /// on being true.
    pub fn is_same(&self, other: &File) -> bool {
        self.version == other.version && self.encoding == other.encoding
    }

    /// For sendfile(2).
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Memory {
    fn read_at(&self, fd: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
        loop {
            let read = match self.0.load(Ordering::Relaxed) {
                ASK => retry_on_intr(|| {
                    preadv2(fd, &mut [IoSliceMut::new(buffer)], offset, ReadWriteFlags::NOWAIT)
                }),
                ALL => return retry_on_intr(|| pread(fd, &mut *buffer, offset)),
                _ => return Err(Errno::AGAIN),
            };
            // A kernel before 4.6 has no call for it, a file system may have no answer.
            if !matches!(read, Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL)) {
                return read;
            }
            let is_memory = fstatfs(fd).is_ok_and(|system| matches!(system.f_type as u32, TMPFS | RAMFS));
            self.0.store(if is_memory { ALL } else { UNKNOWN }, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
