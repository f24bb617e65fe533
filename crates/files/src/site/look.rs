//! Which file stands for a path.
//!
//! In this order: the file of that name; for a directory, asked for with a slash at its end, the first index file that is there,
//! or its listing; at last the file of the single-page application. What is hidden, a link where none is followed, or leads
//! out of the root, is as missing as what is not there, so that nobody learns what is.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::Stat;
use wmproxy_wire::head::coding::{Encoding, Preferred};

use crate::beneath::{Node, Refused};
use crate::file::{File, Version};
use crate::path::PathName;
use crate::site::{Directory, Found, LookError, Site};
use crate::{Effort, mime};

/// One look for something.
struct Look<'a> {
    site: &'a Arc<Site>,
    root: Arc<OwnedFd>,
    preferred: &'a Preferred,
    effort: Effort,
}

impl Site {
    /// What a path names, for a client that takes these encodings.
    ///
    /// With [`Effort::Cached`] it asks only for what the kernel has in memory.
    ///
    /// # Errors
    /// See [`LookError`].
    pub fn look(
        self: &Arc<Self>,
        path: &PathName,
        preferred: &Preferred,
        effort: Effort,
    ) -> Result<Found, LookError> {
        let found = self.root(effort).and_then(|root| {
            let look = Look { site: self, root, preferred, effort };
            match look.find(path) {
                Err(Refused::Missing) => look.fall_back(path),
                found => found,
            }
        });
        match found {
            Ok(found) => Ok(found),
            Err(Refused::Missing) => Ok(Found::Missing),
            Err(Refused::Forbidden) => Ok(Found::Forbidden),
            Err(Refused::Unknown(error)) => Err(error),
        }
    }

    /// The page that stands for an error, if there is one. It comes as it is, whatever the client takes.
    ///
    /// # Errors
    /// See [`LookError`].
    pub fn error_page(self: &Arc<Self>, status: u16, effort: Effort) -> Result<Option<Arc<File>>, LookError> {
        let Some(name) = self.spec.error_pages.get(&status) else {
            return Ok(None);
        };
        let page = self.root(effort).and_then(|root| {
            let look = Look { site: self, root, preferred: &Preferred::default(), effort };
            let (fd, stat) = look.open(name.as_bytes())?;
            Ok(Arc::new(look.file(name.as_bytes(), fd, &stat, None)))
        });
        match page {
            Ok(page) => Ok(Some(page)),
            Err(Refused::Missing | Refused::Forbidden) => Ok(None),
            Err(Refused::Unknown(error)) => Err(error),
        }
    }
}

impl Look<'_> {
    fn find(&self, path: &PathName) -> Result<Found, Refused> {
        if path.is_hidden() && !self.site.spec.hidden {
            return Err(Refused::Missing);
        }
        let name = path.as_bytes();
        match self.node(name)? {
            Node::File(_) if path.is_directory() => Err(Refused::Missing),
            Node::File(original) => self.serve(name, &original).map(Found::File),
            Node::Directory => self.directory(name, path.shows_directory()),
        }
    }

    /// A directory: by its index, or as a list. Without a slash at the end of the path the links of a page would lead
    /// elsewhere, so it has to be asked for with one.
    fn directory(&self, name: &[u8], has_slash: bool) -> Result<Found, Refused> {
        let spec = &self.site.spec;
        for index in &spec.index {
            let index = join(name, index.as_bytes());
            match self.node(&index) {
                Ok(Node::File(_)) if !has_slash => return Ok(Found::NoSlash),
                Ok(Node::File(original)) => return self.serve(&index, &original).map(Found::File),
                Ok(Node::Directory) | Err(Refused::Missing) => {}
                Err(error) => return Err(error),
            }
        }
        match (spec.browse, has_slash) {
            (false, _) => Err(Refused::Missing),
            (true, false) => Ok(Found::NoSlash),
            (true, true) => Ok(Found::Directory(Directory {
                fd: self.site.beneath.directory(self.root(), name, self.effort)?,
                site: Arc::clone(self.site),
                path: name.to_vec(),
            })),
        }
    }

    /// The file of a single-page application, for paths that its pages may have. Those end in a name without a dot: what asks
    /// for a script or an image that is not there gets no page in its place.
    fn fall_back(&self, path: &PathName) -> Result<Found, Refused> {
        match &self.site.spec.spa {
            Some(page) if !path.last().contains(&b'.') => match self.node(page.as_bytes())? {
                Node::File(original) => self.serve(page.as_bytes(), &original).map(Found::File),
                Node::Directory => Err(Refused::Missing),
            },
            _ => Err(Refused::Missing),
        }
    }

    /// The file itself, or the compressed form of it that the client likes best.
    fn serve(&self, name: &[u8], original: &Stat) -> Result<Arc<File>, Refused> {
        let (fd, stat, encoding) = match self.compressed(name, original)? {
            Some((fd, stat, encoding)) => (fd, stat, Some(encoding)),
            None => {
                let (fd, stat) = self.site.beneath.file_seen(self.root(), name, self.effort)?;
                (fd, stat, None)
            }
        };
        let mut file = self.file(name, fd, &stat, encoding);
        // Whether there are other forms now is not asked: caches keep this one while they come.
        file.varies = !self.site.spec.precompressed.is_empty();
        Ok(Arc::new(file))
    }

    fn compressed(&self, name: &[u8], original: &Stat) -> Result<Option<(OwnedFd, Stat, Encoding)>, Refused> {
        let ours = &self.site.spec.precompressed;
        for encoding in self.preferred.iter().flatten().filter(|encoding| ours.contains(encoding)) {
            match self.open(&[name, ending(*encoding)].concat()) {
                // One that is older was made of what the file was before.
                Ok((fd, stat)) if !Version::of(&stat).is_older(&Version::of(original)) => {
                    return Ok(Some((fd, stat, *encoding)));
                }
                Ok(_) | Err(Refused::Missing | Refused::Forbidden) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn file(&self, name: &[u8], fd: OwnedFd, stat: &Stat, encoding: Option<Encoding>) -> File {
        File::new(fd, Version::of(stat), mime::of(name, &self.site.spec.mime), encoding)
    }

    fn node(&self, name: &[u8]) -> Result<Node, Refused> {
        self.site.beneath.look(self.root(), name, self.effort)
    }

    fn open(&self, name: &[u8]) -> Result<(OwnedFd, Stat), Refused> {
        self.site.beneath.file(self.root(), name, self.effort)
    }

    fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    match directory {
        b"" => name.to_vec(),
        _ => [directory, b"/", name].concat(),
    }
}

/// What the name of a compressed form ends with.
fn ending(encoding: Encoding) -> &'static [u8] {
    match encoding {
        Encoding::Zstd => b".zst",
        Encoding::Br => b".br",
        Encoding::Gzip => b".gz",
    }
}
