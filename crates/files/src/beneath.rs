//! Opening what a name stands for below a directory, without a way out of it.
//!
//! The kernel keeps the bounds (openat2(2)); where it is too old for that, or forbidden to, [`walk`] does.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat, fstat, fstatfs, openat2};
use rustix::io::{Errno, retry_on_intr};

use crate::Effort;
use crate::site::LookError;
use crate::walk;

/// Without a number of its own the kernel gives up when a name goes up again (`..` in a link) while anything at all is renamed.
/// Each try has a new chance, so that so many in a row don't fail by accident.
const TRIES: u32 = 64;

/// Who keeps the bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// The kernel.
    Kernel {
        /// Whether it can be asked for what it has in memory only (since Linux 5.12), and the file system is one of which it
        /// knows all that it knows names of.
        cached: bool,
    },
    /// We do, segment by segment.
    Walk,
}

/// Opens below a directory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Beneath {
    pub(crate) way: Way,
    /// Whether symbolic links are followed, as long as they stay below: an absolute one never does.
    pub(crate) follow: bool,
}

/// What something is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// To see what it is: that changes nothing and waits for nobody, even if it is a device or a fifo.
    Look,
    Read,
    List,
}

/// What a name stands for.
#[derive(Debug)]
pub(crate) enum Node {
    /// A regular file.
    File(Stat),
    Directory,
}

/// Why a name gave nothing.
#[derive(Debug)]
pub(crate) enum Refused {
    /// There is nothing, or what there is isn't served.
    Missing,
    /// It may not be read.
    Forbidden,
    /// Nobody knows.
    Unknown(LookError),
}

impl Way {
    /// The best one that can be had.
    pub(crate) fn of(directory: BorrowedFd<'_>) -> Way {
        let ask = |more| {
            openat2(
                directory,
                c".",
                OFlags::PATH | OFlags::CLOEXEC,
                Mode::empty(),
                ResolveFlags::BENEATH | more,
            )
        };
        // ENOSYS before Linux 5.6, EPERM from seccomp filters that don't know it.
        match (ask(ResolveFlags::empty()), ask(ResolveFlags::CACHED)) {
            (Err(_), _) => Way::Walk,
            (Ok(opened), cached) => Way::Kernel {
                cached: !matches!(cached, Err(Errno::INVAL)) && !is_served_elsewhere(opened.as_fd()),
            },
        }
    }

    /// Whether it finds anything without waiting. Where it doesn't, that is known without asking the kernel; where a file
    /// system always has to ask, it costs one call that fails.
    pub(crate) fn is_able(self, effort: Effort) -> bool {
        effort == Effort::Full || self == Way::Kernel { cached: true }
    }
}

/// Whether a file system belongs to a program or to another machine. To open a file, or to ask what it is, they are asked
/// each time, even where the kernel has its name in memory.
fn is_served_elsewhere(directory: BorrowedFd<'_>) -> bool {
    // By their magic numbers (statfs(2)): FUSE with virtiofs, NFS, SMB by both its clients, 9P, Ceph, Lustre, AFS, Coda.
    const ELSEWHERE: [u32; 9] = [
        0x6573_5546,
        0x6969,
        0xff53_4d42,
        0xfe53_4d42,
        0x0102_1997,
        0x00c3_6400,
        0x0bd0_0bd0,
        0x5346_414f,
        0x7375_7245,
    ];
    // The kernel itself never fails to say it.
    fstatfs(directory).map_or(true, |system| ELSEWHERE.contains(&(system.f_type as u32)))
}

impl Purpose {
    fn flags(self) -> OFlags {
        OFlags::CLOEXEC
            | match self {
                Purpose::Look => OFlags::PATH,
                Purpose::Read => OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY,
                Purpose::List => OFlags::RDONLY | OFlags::DIRECTORY,
            }
    }
}

impl Beneath {
    /// What a name stands for. An empty one stands for the directory itself.
    pub(crate) fn look(&self, root: BorrowedFd<'_>, name: &[u8], effort: Effort) -> Result<Node, Refused> {
        let stat = fstat(self.open(root, name, Purpose::Look, effort)?)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(Node::File(stat)),
            FileType::Directory => Ok(Node::Directory),
            _ => Err(Refused::Missing),
        }
    }

    /// Opens a regular file for reading: the descriptor, and what is known of that very file.
    pub(crate) fn file(
        &self,
        root: BorrowedFd<'_>,
        name: &[u8],
        effort: Effort,
    ) -> Result<(OwnedFd, Stat), Refused> {
        // To open a device may do something to it, and whoever waits for a reader of a fifo goes on: so it is looked at first.
        let Node::File(_) = self.look(root, name, effort)? else {
            return Err(Refused::Missing);
        };
        self.file_seen(root, name, effort)
    }

    /// Opens a regular file that was looked at before. The name may stand for something else by now: this one is served.
    pub(crate) fn file_seen(
        &self,
        root: BorrowedFd<'_>,
        name: &[u8],
        effort: Effort,
    ) -> Result<(OwnedFd, Stat), Refused> {
        let fd = self.open(root, name, Purpose::Read, effort)?;
        let stat = fstat(&fd)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok((fd, stat)),
            _ => Err(Refused::Missing),
        }
    }

    /// Opens a directory for reading.
    pub(crate) fn directory(
        &self,
        root: BorrowedFd<'_>,
        name: &[u8],
        effort: Effort,
    ) -> Result<OwnedFd, Refused> {
        self.open(root, name, Purpose::List, effort)
    }

    fn open(
        &self,
        root: BorrowedFd<'_>,
        name: &[u8],
        purpose: Purpose,
        effort: Effort,
    ) -> Result<OwnedFd, Refused> {
        let name = if name.is_empty() { b"." } else { name };
        if !self.way.is_able(effort) {
            return Err(Refused::Unknown(LookError::WouldBlock));
        }
        let flags = purpose.flags();
        if self.way == Way::Walk {
            return Ok(walk::open(root, name, flags, self.follow)?);
        }
        let mut resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        resolve.set(ResolveFlags::NO_SYMLINKS, !self.follow);
        resolve.set(ResolveFlags::CACHED, effort == Effort::Cached);
        let open = || retry_on_intr(|| openat2(root, name, flags, Mode::empty(), resolve));
        if effort == Effort::Cached {
            return Ok(open()?);
        }
        for _ in 0..TRIES {
            match open() {
                Err(Errno::AGAIN) => {}
                opened => return Ok(opened?),
            }
        }
        // A lease that somebody holds on the file is the other reason.
        Err(Refused::Unknown(LookError::Busy))
    }
}

impl From<Errno> for Refused {
    fn from(errno: Errno) -> Self {
        match errno {
            // A link, where none is followed, and one that leads out.
            Errno::LOOP | Errno::XDEV => Refused::Missing,
            Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG => Refused::Missing,
            // What a file system takes for no name, and files that can't be opened: sockets, devices that are not there.
            Errno::INVAL | Errno::ILSEQ | Errno::NXIO | Errno::NODEV => Refused::Missing,
            Errno::ACCESS | Errno::PERM => Refused::Forbidden,
            Errno::AGAIN => Refused::Unknown(LookError::WouldBlock),
            Errno::MFILE | Errno::NFILE | Errno::NOMEM => {
                Refused::Unknown(LookError::Resources(errno.into()))
            }
            _ => Refused::Unknown(LookError::Failed(errno.into())),
        }
    }
}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Missing => io::ErrorKind::NotFound.into(),
            Refused::Forbidden => io::ErrorKind::PermissionDenied.into(),
            Refused::Unknown(LookError::WouldBlock | LookError::Busy) => io::ErrorKind::WouldBlock.into(),
            Refused::Unknown(LookError::Resources(error) | LookError::Failed(error)) => error,
        }
    }
}
