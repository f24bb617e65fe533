//! Whether this process has lately run out of descriptors or memory for sockets.
//!
//! Whoever meets the limit says so; accept loops then hold back, so that the connections that are in already get the
//! second descriptor that they need.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use wmproxy_runtime::clock::{self, Ticks};

/// How long accepting rests after the limit was met. Long enough that a process at its limit does not spin, short
/// enough that a client notices nothing: its connection waits in the accept queue.
pub(crate) const PAUSE: Duration = Duration::from_millis(100);

/// An episode is over, and the next is told of again, when there was nothing for this long.
const EPISODE: Duration = Duration::from_secs(10);

static LAST: AtomicU64 = AtomicU64::new(0);

/// Notes the failure if it is one of resources. The first of an episode is logged.
pub(crate) fn note(error: &io::Error) {
    if !is_exhaustion(error) {
        return;
    }
    let now = clock::now();
    let before = Ticks(LAST.swap(now.0, Ordering::Relaxed));
    if before.0 == 0 || now.since(before) > EPISODE {
        tracing::warn!(%error, "out of resources: accepting pauses until others are freed");
    }
}

/// Too many open files here or in the system, no socket memory.
pub(crate) fn is_exhaustion(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

/// Whether the limit was met within the last [`PAUSE`].
pub(crate) fn is_high() -> bool {
    let last = LAST.load(Ordering::Relaxed);
    last != 0 && clock::now().since(Ticks(last)) < PAUSE
}
