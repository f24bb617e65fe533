//! A tree of files that is served, and what a path names in it.
//!
//! What lives here: the [site](Site) with its `root`, the rules (`look`) by which a path names a file, and the
//! [directories](Directory) that are listed. What must not: how a name is opened without a way out of the root, which is
//! `beneath`'s part.

mod directory;
mod look;
mod root;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::Effort;
use crate::beneath::{Beneath, Refused, Way};
use crate::file::File;
use crate::options::FilesSpec;

pub use directory::Directory;
use root::Root;

/// A tree of files that is served, and how.
#[derive(Debug)]
pub struct Site {
    spec: FilesSpec,
    root: Root,
    beneath: Beneath,
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

/// Why nobody knows what a path names.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// Not without waiting: with [`Effort::Full`] it may be found out.
    #[error("that is not known without asking a disk")]
    WouldBlock,
    /// Others rename what it goes through all the time, or hold a lease on it (fcntl(2)): a 503.
    #[error("others are busy with it")]
    Busy,
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
        Site::with(spec, None, root::TRUSTED)
    }

    /// With a way to keep the bounds, the best one if it is none, and how long a root is trusted to be the one at its path.
    fn with(spec: FilesSpec, way: Option<Way>, trusted: Duration) -> io::Result<Arc<Site>> {
        let root = Root::new(&spec.root, trusted)?;
        let way = match way {
            Some(way) => way,
            None => Way::of(root.held(Way::Walk, Effort::Full)?.as_fd()),
        };
        let beneath = Beneath { way, follow: spec.follow_symlinks };
        Ok(Arc::new(Site { spec, root, beneath }))
    }

    /// Its options.
    pub fn spec(&self) -> &FilesSpec {
        &self.spec
    }

    fn root(&self, effort: Effort) -> Result<Arc<OwnedFd>, Refused> {
        self.root.held(self.beneath.way, effort)
    }
}
