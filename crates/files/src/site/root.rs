//! The directory that everything is below, as long as it is there.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use rustix::io::retry_on_intr;

use crate::Effort;
use crate::beneath::{Refused, Way};
use crate::site::LookError;

/// How long a root is taken for the one at its path: who puts a new one there waits no longer, and a busy site asks but once.
pub(crate) const TRUSTED: Duration = Duration::from_secs(1);

/// The directory at a path, which may be another one tomorrow: deployments replace it, or the link that its path is.
#[derive(Debug)]
pub(crate) struct Root {
    /// With `/.` behind it: that needs the right to search it, not only to see it.
    path: PathBuf,
    state: ArcSwap<State>,
    made: Instant,
    /// When it was looked at last, in milliseconds since it was made.
    looked: AtomicU64,
    trusted: Duration,
}

#[derive(Debug)]
enum State {
    There {
        fd: Arc<OwnedFd>,
        /// Its file system, and its number in it.
        identity: (u64, u64),
    },
    /// Vanished, or no directory.
    Missing,
    Forbidden,
}

impl Root {
    /// Opens it.
    pub(crate) fn new(path: &Path, trusted: Duration) -> io::Result<Root> {
        let path = path.join(".");
        let state = match open(&path, Effort::Full, Way::Walk)? {
            State::Missing => return Err(io::ErrorKind::NotFound.into()),
            State::Forbidden => return Err(io::ErrorKind::PermissionDenied.into()),
            there => there,
        };
        Ok(Root {
            path,
            state: ArcSwap::from_pointee(state),
            made: Instant::now(),
            looked: AtomicU64::new(0),
            trusted,
        })
    }

    /// The one of now.
    pub(crate) fn held(&self, way: Way, effort: Effort) -> Result<Arc<OwnedFd>, Refused> {
        let state = self.state.load();
        // One that is gone is asked for each time, so that it is back as soon as it is.
        if !matches!(**state, State::There { .. }) || self.is_due() {
            self.look(&state, way, effort)?;
        }
        match &**self.state.load() {
            State::There { fd, .. } => Ok(Arc::clone(fd)),
            State::Missing => Err(Refused::Missing),
            State::Forbidden => Err(Refused::Forbidden),
        }
    }

    /// Whether it is time to look again. One of all who ask gets to hear it.
    fn is_due(&self) -> bool {
        let now = u64::try_from(self.made.elapsed().as_millis()).unwrap_or(u64::MAX);
        let looked = self.looked.load(Ordering::Relaxed);
        Duration::from_millis(now.saturating_sub(looked)) >= self.trusted
            && self.looked.compare_exchange(looked, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn look(&self, old: &State, way: Way, effort: Effort) -> Result<(), Refused> {
        let new = match open(&self.path, effort, way) {
            Ok(new) => new,
            Err(Refused::Unknown(LookError::WouldBlock)) => {
                // Whoever asks next is told to look too.
                self.looked.store(0, Ordering::Relaxed);
                return Err(Refused::Unknown(LookError::WouldBlock));
            }
            // Without a free descriptor, or with an error of the disk, nobody knows: the old one stays.
            Err(error) => return Err(error),
        };
        if new.is_same(old) {
            return Ok(());
        }
        let new = Arc::new(new);
        let old = self.state.swap(Arc::clone(&new));
        self.tell(&old, &new);
        Ok(())
    }

    /// A line for each change that somebody might wonder about.
    fn tell(&self, old: &State, new: &State) {
        let root = self.path.components().as_path().display();
        match (old, new) {
            (State::Missing, State::Missing) | (State::Forbidden, State::Forbidden) => {}
            (_, State::Missing) => {
                tracing::warn!(%root, "the root is gone; it is answered with 404 until it is back")
            }
            (_, State::Forbidden) => {
                tracing::warn!(%root, "the root may not be searched; it is answered with 403 until it may");
            }
            (State::There { .. }, State::There { .. }) => {
                tracing::debug!(%root, "the root is another directory")
            }
            (_, State::There { .. }) => tracing::info!(%root, "the root is back"),
        }
    }
}

/// The directory at a path, or that there is none. Links are followed: the path is the operator's.
fn open(path: &Path, effort: Effort, way: Way) -> Result<State, Refused> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = match effort {
        Effort::Full => retry_on_intr(|| openat(CWD, path, flags, Mode::empty())),
        Effort::Cached if way.is_able(effort) => {
            openat2(CWD, path, flags, Mode::empty(), ResolveFlags::CACHED)
        }
        Effort::Cached => return Err(Refused::Unknown(LookError::WouldBlock)),
    };
    match opened.map_err(Refused::from) {
        Ok(fd) => {
            let stat = fstat(&fd)?;
            Ok(State::There { fd: Arc::new(fd), identity: (stat.st_dev, stat.st_ino) })
        }
        Err(Refused::Missing) => Ok(State::Missing),
        Err(Refused::Forbidden) => Ok(State::Forbidden),
        Err(unknown) => Err(unknown),
    }
}

impl State {
    fn is_same(&self, other: &State) -> bool {
        match (self, other) {
            // The old one is held open, so nothing else can have got its number.
            (State::There { identity, .. }, State::There { identity: other, .. }) => identity == other,
            (State::Missing, State::Missing) | (State::Forbidden, State::Forbidden) => true,
            _ => false,
        }
    }
}
