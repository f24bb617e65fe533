//! What may wait for a disk is done beside the workers.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};

use tokio::sync::Semaphore;

/// How much is done at once, on all workers together: a disk has about as many requests in its queue (32 with SATA), so that
/// more would wait there, each with a thread.
const AT_ONCE: usize = 32;

static SLOTS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(AT_ONCE)));

/// Something that is being done, or waits for its turn. If it is dropped it is not done, unless that has begun.
pub(super) struct Work<T> {
    work: Pin<Box<dyn Future<Output = Option<T>>>>,
    done: Option<Option<T>>,
}

impl<T: Send + 'static> Work<T> {
    /// Has something done. It begins when it is first polled.
    pub(super) fn start(work: impl FnOnce() -> T + Send + 'static) -> Work<T> {
        let work = async move {
            // It is never closed.
            let slot = SLOTS.clone().acquire_owned().await.ok()?;
            let run = move || {
                let done = work();
                // Not before: who is gone has it done all the same.
                drop(slot);
                done
            };
            tokio::task::spawn_blocking(run).await.ok()
        };
        Work { work: Box::pin(work), done: None }
    }

    /// Begins, for somebody who asks later.
    pub(super) fn begin(&mut self, cx: &mut Context<'_>) {
        if let Poll::Ready(done) = self.work.as_mut().poll(cx) {
            self.done = Some(done);
        }
    }

    /// What came of it; none when it panicked.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        match self.done.take() {
            Some(done) => Poll::Ready(done),
            None => self.work.as_mut().poll(cx),
        }
    }
}

impl<T> fmt::Debug for Work<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Work")
    }
}
