//! Whether this process has lately run out of descriptors or memory for sockets.
//!
//! Whoever meets the limit says so; accept loops then hold back, so that the connections that are in already get the
//! second descriptor that they need. The last few descriptors are not for connections at all: without one the admin
//! API could not be asked what is wrong just when something is.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::process::{Resource, getrlimit};
use wmproxy_runtime::clock::{self, Ticks};

/// How long accepting rests after the limit was met. Long enough that a process at its limit does not spin, short
/// enough that a client notices nothing: its connection waits in the accept queue.
pub(crate) const PAUSE: Duration = Duration::from_millis(100);

/// An episode is over, and the next is told of again, when there was nothing for this long.
const EPISODE: Duration = Duration::from_secs(10);

/// Descriptors that connections and flows leave to the rest of the process: requests to the admin API, the files of a
/// reload, look-ups of names. Few enough that nobody misses them, many enough for all of these at once.
const RESERVE: u64 = 16;

static LAST: AtomicU64 = AtomicU64::new(0);

/// The same for ports. It pauses nobody: towards other peers there may be ports.
static LAST_PORT: AtomicU64 = AtomicU64::new(0);

/// Notes the failure if it is one of resources. The first of an episode is logged.
pub fn note(error: &io::Error) {
    if is_exhaustion(error) && begins(&LAST) {
        tracing::warn!(%error, "out of resources: accepting pauses until others are freed");
    } else if Errno::from_io_error(error) == Some(Errno::ADDRNOTAVAIL) && begins(&LAST_PORT) {
        tracing::warn!(%error, "out of resources: no local port is free towards a peer");
    }
}

/// Moves the last failure to now, and says whether an episode begins with it.
fn begins(last: &AtomicU64) -> bool {
    let now = clock::now();
    let before = Ticks(last.swap(now.0, Ordering::Relaxed));
    before.0 == 0 || now.since(before) > EPISODE
}

/// Too many open files here or in the system, no socket memory.
pub(crate) fn is_exhaustion(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

/// Fails as the kernel would when `fd`, just opened for a connection, is one of the reserve: a new descriptor is always
/// the lowest that is free (open(2)), so its number tells how many are left.
///
/// # Errors
/// Too many open files.
pub fn check(fd: impl AsFd) -> io::Result<()> {
    if is_reserved(fd.as_fd().as_raw_fd()) { Err(Errno::MFILE.into()) } else { Ok(()) }
}

/// Whether a descriptor opened now would fail or be one of the reserve. `fd` is any open one.
pub(crate) fn is_short(fd: impl AsFd) -> bool {
    fcntl_dupfd_cloexec(fd, 0).map_or(true, |fd| is_reserved(fd.as_raw_fd()))
}

fn is_reserved(fd: i32) -> bool {
    static FIRST: OnceLock<u64> = OnceLock::new();
    let first = *FIRST.get_or_init(|| {
        // Under a very low limit connections still get most of it.
        let limit = descriptors();
        limit - RESERVE.min(limit / 4)
    });
    fd as u64 >= first
}

/// How many descriptors the process may have.
pub fn descriptors() -> u64 {
    static LIMIT: OnceLock<u64> = OnceLock::new();
    // Raised once, before the first connection.
    *LIMIT.get_or_init(|| getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
}

/// Whether the limit was met within the last tenth of a second.
pub fn is_high() -> bool {
    let last = LAST.load(Ordering::Relaxed);
    last != 0 && clock::now().since(Ticks(last)) < PAUSE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_descriptors_are_not_for_connections() {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        assert!(!is_reserved(limit / 2));
        assert!(is_reserved(limit - 1) || limit == i32::MAX);
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(check(&file).is_ok() && !is_short(&file));
    }
}
