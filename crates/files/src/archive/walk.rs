//! Everything below a directory, one by one.

use std::fs::File;
use std::io;

use crate::entries::{Entries, Meta, Opened};
use crate::site::Directory;

/// So deep it goes. Each level holds a descriptor and the names that are still to come, and trees of source code with all they
/// depend on are hardly half as deep.
const MOST_LEVELS: usize = 64;
/// So many descriptors a walk holds: one for each level, one more for what it reads or has found, and one for the list of the
/// level that is read. Only a directory too large to be put in order keeps its list open below it, too.
pub(super) const DESCRIPTORS: usize = MOST_LEVELS + 2;
/// What an archive without a name of its own has all its files in, and is called.
const ROOT: &[u8] = b"files";

/// A walk, as far as it has come.
#[derive(Debug)]
pub(super) struct Walk {
    top: Option<Directory>,
    levels: Vec<Level>,
    /// The path in the archive of what was found last: it begins with the name of the directory that it all lies in, and a
    /// directory's ends with a slash.
    path: Vec<u8>,
}

#[derive(Debug)]
struct Level {
    entries: Entries,
    /// How much of the path is the directory's own.
    path_len: usize,
}

/// What was found.
#[derive(Debug)]
pub(super) enum Found {
    Directory(Meta),
    File(File, Meta),
}

/// What an archive of a directory is called, and has all its files in.
pub(super) fn name(directory: &Directory) -> &[u8] {
    match directory.path.rsplit(|&byte| byte == b'/').next() {
        None | Some(b"") => ROOT,
        Some(name) => name,
    }
}

impl Walk {
    /// From a directory on.
    pub(super) fn new(directory: Directory) -> Self {
        let mut path = name(&directory).to_vec();
        path.push(b'/');
        Walk { top: Some(directory), levels: Vec::new(), path }
    }

    /// The path in the archive of what was found last.
    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }

    /// The next one.
    ///
    /// # Errors
    /// The disk failed, there are no descriptors, or the tree is deeper than one goes.
    pub(super) fn next(&mut self) -> io::Result<Option<Found>> {
        if let Some(directory) = self.top.take() {
            self.enter(directory)?;
        }
        while let Some(level) = self.levels.last_mut() {
            self.path.truncate(level.path_len);
            let Some(name) = level.entries.next()? else {
                self.levels.pop();
                continue;
            };
            let opened = level.entries.open(name)?;
            self.path.extend_from_slice(level.entries.text(name));
            match opened {
                None => {}
                Some(Opened::File(file, meta)) => return Ok(Some(Found::File(file, meta))),
                // What links to directories hold would be in it once for each way to it, and a few links in each of a few
                // directories make millions of ways.
                Some(Opened::Directory(..)) if name.is_link() => {}
                Some(Opened::Directory(directory, meta)) => {
                    self.path.push(b'/');
                    self.enter(directory)?;
                    return Ok(Some(Found::Directory(meta)));
                }
            }
        }
        Ok(None)
    }

    fn enter(&mut self, directory: Directory) -> io::Result<()> {
        if self.levels.len() == MOST_LEVELS {
            return Err(io::Error::other("the directories are nested too deep for an archive"));
        }
        let mut entries = Entries::new(directory)?;
        while !entries.read(usize::MAX)? {}
        entries.sort();
        self.levels.push(Level { entries, path_len: self.path.len() });
        Ok(())
    }
}
