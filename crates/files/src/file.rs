//! A file that was found, open: what was checked is what is served.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use wmproxy_wire::head::DATE_LEN;
use wmproxy_wire::head::coding::Encoding;

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
    /// The version that was found.
    pub version: Version,
    /// The type of its contents.
    pub content_type: Box<str>,
    /// How it is encoded, where it is the compressed form of the one that was asked for.
    pub encoding: Option<Encoding>,
    /// Whether another client could have got another form of it.
    pub varies: bool,
    /// Its strong entity tag, with quotes (RFC 9110 section 8.8.3).
    pub etag: Box<str>,
    /// When it was modified, as `Last-Modified` says it.
    pub last_modified: [u8; DATE_LEN],
}

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

impl File {
    /// Reads bytes from `offset` on, at least one where `buffer` has room.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read_at(&self, _buffer: &mut [u8], _offset: u64, _effort: Effort) -> Result<usize, ReadError> {
        todo!("CONTAIN")
    }

    /// Whether it is still the version that was found: asked before the last bytes of a response go.
    pub fn is_unchanged(&self) -> bool {
        todo!("CONTAIN")
    }

    /// For sendfile(2).
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        use std::os::fd::AsFd;
        self.fd.as_fd()
    }
}
