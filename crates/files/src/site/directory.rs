//! A directory that was found, open.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::Effort;
use crate::beneath::Node;
use crate::site::Site;

/// A directory below the root, open.
///
/// What is in it is opened by one segment relative to `fd`, and without following a link that is no way out. A link is opened
/// from the root (`open_linked`).
#[derive(Debug)]
pub struct Directory {
    pub(crate) fd: OwnedFd,
    pub(crate) site: Arc<Site>,
    /// Its path below the root, decoded, without slashes around it.
    pub(crate) path: Vec<u8>,
}

impl Directory {
    /// One that was opened in this one by its name.
    pub(crate) fn child(&self, name: &[u8], fd: OwnedFd) -> Directory {
        Directory { fd, site: Arc::clone(&self.site), path: self.path_of(name) }
    }

    /// Opens what a link in this directory leads to, if it is a file or a directory and stays below the root, and the site
    /// follows links. It may wait for a disk.
    pub(crate) fn open_linked(&self, name: &[u8]) -> io::Result<OwnedFd> {
        let root = self.site.root(Effort::Full)?;
        let (beneath, path) = (&self.site.beneath, self.path_of(name));
        Ok(match beneath.look(root.as_fd(), &path, Effort::Full)? {
            Node::File(_) => beneath.file(root.as_fd(), &path, Effort::Full)?.0,
            Node::Directory => beneath.directory(root.as_fd(), &path, Effort::Full)?,
        })
    }

    fn path_of(&self, name: &[u8]) -> Vec<u8> {
        match &self.path[..] {
            b"" => name.to_vec(),
            path => [path, b"/", name].concat(),
        }
    }
}
