//! What openat2(2) does, for kernels that have it not: a name is opened segment by segment, and no call follows a link.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, fstat, openat, readlinkat};
use rustix::io::{Errno, Result, retry_on_intr};

/// As many links as the kernel follows (path_resolution(7)).
const LINKS_MAX: usize = 40;
/// The kernel's limit for a path, which for a name that is taken apart nobody else keeps.
const PATH_MAX: usize = 4096;

/// Opens what `name` stands for below `root`, with the flags of openat(2). Links are followed as long as they stay below it.
pub(crate) fn open(root: BorrowedFd<'_>, name: &[u8], flags: OFlags, follow: bool) -> Result<OwnedFd> {
    if name.len() >= PATH_MAX {
        return Err(Errno::NAMETOOLONG);
    }
    let mut walk = Walk { root, way: Vec::new(), ahead: Vec::new(), links: 0 };
    walk.push(name);
    while let Some(segment) = walk.ahead.pop() {
        match &segment[..] {
            b"." => {}
            // Only a link says that. It is the directory that we came from, whatever is above by now.
            b".." => drop(walk.way.pop().ok_or(Errno::XDEV)?),
            _ => {
                if let Some(opened) = walk.step(&segment, flags, follow)? {
                    return Ok(opened);
                }
            }
        }
    }
    retry_on_intr(|| openat(walk.top(), c".", flags, Mode::empty()))
}

struct Walk<'root> {
    root: BorrowedFd<'root>,
    /// The directories between the root and where we are.
    way: Vec<OwnedFd>,
    /// The segments that come, the next one last.
    ahead: Vec<Box<[u8]>>,
    /// How many links were followed.
    links: usize,
}

impl Walk<'_> {
    fn top(&self) -> BorrowedFd<'_> {
        self.way.last().map_or(self.root, AsFd::as_fd)
    }

    /// Puts the segments of a path in front. A slash at its end is a segment too: only a directory has a `.`.
    fn push(&mut self, path: &[u8]) {
        let path = path.split(|&byte| byte == b'/').rev().enumerate();
        self.ahead.extend(path.filter_map(|(behind, segment)| match segment {
            b"" if behind == 0 => Some(b".".as_slice().into()),
            b"" => None,
            segment => Some(segment.into()),
        }));
    }

    /// Goes to a segment. What is there, opened, if it is the last one and no directory.
    fn step(&mut self, segment: &[u8], flags: OFlags, follow: bool) -> Result<Option<OwnedFd>> {
        let look = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let node = retry_on_intr(|| openat(self.top(), segment, look, Mode::empty()))?;
        match FileType::from_raw_mode(fstat(&node)?.st_mode) {
            FileType::Directory => {
                self.way.push(node);
                Ok(None)
            }
            FileType::Symlink => {
                self.links += 1;
                if !follow || self.links > LINKS_MAX {
                    return Err(Errno::LOOP);
                }
                let target = readlinkat(&node, c"", Vec::new())?;
                if target.as_bytes().first() == Some(&b'/') {
                    return Err(Errno::XDEV);
                }
                self.push(target.as_bytes());
                Ok(None)
            }
            _ if !self.ahead.is_empty() => Err(Errno::NOTDIR),
            _ if flags.contains(OFlags::PATH) => Ok(Some(node)),
            // What has come in its place meanwhile is no link at least.
            _ => {
                let flags = flags | OFlags::NOFOLLOW;
                retry_on_intr(|| openat(self.top(), segment, flags, Mode::empty())).map(Some)
            }
        }
    }
}
