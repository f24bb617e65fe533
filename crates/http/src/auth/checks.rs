//! The work of comparing passwords, beside the workers.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};

use tokio::sync::Semaphore;

use super::hash::Hash;

/// How many passwords are compared at once: half of the cores, so that whoever sends names and passwords without end leaves
/// the workers the other half; and with it the memory that argon2 takes has a limit.
static SLOTS: LazyLock<Arc<Semaphore>> =
    LazyLock::new(|| Arc::new(Semaphore::new((wmproxy_runtime::worker::default_count() / 2).max(1))));

/// How many wait for that or are at it. With the usual 50 ms for each the last one waits some seconds.
const MOST: usize = 64;

static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// A password that is being compared, or waits for it. If it is dropped it is not compared, unless that has begun.
pub struct Running {
    work: Pin<Box<dyn Future<Output = bool> + Send>>,
}

/// Counts as one until it is dropped.
struct Counted;

impl Counted {
    fn new() -> Option<Counted> {
        let room = |running| (running < MOST).then_some(running + 1);
        RUNNING.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).ok().map(|_| Counted)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Running {
    /// Begins to compare; none when there are too many at it.
    pub fn start(hash: Arc<Hash>, password: Box<[u8]>) -> Option<Running> {
        let counted = Counted::new()?;
        let work = async move {
            // It is never closed.
            let Ok(slot) = SLOTS.clone().acquire_owned().await else { return false };
            let compare = move || {
                let is_right = hash.verify(&password);
                // Not before: who is gone has its password compared all the same.
                drop((slot, counted));
                is_right
            };
            // It fails when it panics, and then nothing was right.
            tokio::task::spawn_blocking(compare).await.unwrap_or(false)
        };
        Some(Running { work: Box::pin(work) })
    }
}

impl Future for Running {
    /// Whether it is right.
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        self.work.as_mut().poll(cx)
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Running")
    }
}
