//! A tree of files that is served, and what a path names in it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use wmproxy_wire::head::coding::Preferred;

use crate::Effort;
use crate::file::File;
use crate::options::FilesSpec;
use crate::path::PathName;

/// A tree of files that is served, and how.
#[derive(Debug)]
pub struct Site {
    spec: FilesSpec,
}

/// What a path names.
#[derive(Debug)]
pub enum Found {
    /// A file, or the one that stands for a directory or for everything that is not there.
    File(Arc<File>),
    /// A directory that is to be listed.
    Directory(Directory),
    /// A directory that was asked for without a slash at its end.
    NoSlash,
    /// Nothing, or nothing that is served.
    Missing,
    /// Something that may not be read.
    Forbidden,
}

/// A directory below the root, open.
#[derive(Debug)]
pub struct Directory {
    pub(crate) fd: OwnedFd,
    pub(crate) site: Arc<Site>,
    /// Its path below the root, decoded, without slashes around it.
    pub(crate) path: Vec<u8>,
}

/// Why nobody knows what a path names.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// Not without waiting: with [`Effort::Full`] it may be found out.
    #[error("that is not known without asking a disk")]
    WouldBlock,
    /// There are no descriptors or no memory: a 503.
    #[error("no resources: {0}")]
    Resources(io::Error),
    /// The disk failed: a 500.
    #[error(transparent)]
    Failed(io::Error),
}

impl Site {
    /// A site. It opens its root.
    ///
    /// # Errors
    /// The root is no directory, or can't be opened.
    pub fn new(spec: FilesSpec) -> io::Result<Arc<Site>> {
        Ok(Arc::new(Site { spec }))
    }

    /// Its options.
    pub fn spec(&self) -> &FilesSpec {
        &self.spec
    }

    /// What a path names, for a client that takes these encodings.
    ///
    /// # Errors
    /// See [`LookError`].
    pub fn look(
        self: &Arc<Self>,
        _path: &PathName,
        _preferred: &Preferred,
        _effort: Effort,
    ) -> Result<Found, LookError> {
        todo!("CONTAIN")
    }

    /// The page that stands for an error, if there is one.
    ///
    /// # Errors
    /// See [`LookError`].
    pub fn error_page(
        self: &Arc<Self>,
        _status: u16,
        _effort: Effort,
    ) -> Result<Option<Arc<File>>, LookError> {
        todo!("CONTAIN")
    }
}
