//! What may wait for a disk is done beside the workers.

use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};

use tokio::sync::{Semaphore, oneshot};
use wmproxy_runtime::scope::{Leash, Scope};

/// How much is done at once, on all workers together: a disk has about as many requests in its queue (32 with SATA), so that
/// more would wait there, each with a thread.
const AT_ONCE: usize = 32;

/// And so much of what works rather than waits, as to put the names of a large directory in order: more at once would be done
/// no sooner, and what only waits for a disk would stand behind it.
const TOILS_AT_ONCE: usize = 4;

static SLOTS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(AT_ONCE)));
static TOILS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(TOILS_AT_ONCE)));

thread_local! {
    /// The tasks that wait for a slot, or for what is being done in one.
    static WAITING: Scope = Scope::new();
}

/// Something that is being done, or waits for its turn. If it is dropped it is not done, unless that has begun.
#[derive(Debug)]
pub(super) struct Work<T> {
    done: oneshot::Receiver<T>,
    _waits: Leash,
}

impl<T: Send + 'static> Work<T> {
    /// Has something done. It waits for its turn in a task of its own: who asks for what comes of it may be long in coming, as
    /// when a client takes nothing, and would hold the slot that it was given meanwhile.
    pub(super) fn start(work: impl FnOnce() -> T + Send + 'static) -> Work<T> {
        Work::start_in(&SLOTS, work)
    }

    /// The same of something that keeps a processor busy.
    pub(super) fn start_toil(work: impl FnOnce() -> T + Send + 'static) -> Work<T> {
        Work::start_in(&TOILS, work)
    }

    fn start_in(slots: &Arc<Semaphore>, work: impl FnOnce() -> T + Send + 'static) -> Work<T> {
        let (tell, done) = oneshot::channel();
        let slots = Arc::clone(slots);
        let task = async move {
            // It is never closed.
            let Ok(slot) = slots.acquire_owned().await else { return };
            let run = move || {
                let done = work();
                // Not before: who is gone has it done all the same.
                drop(slot);
                // Who is gone hears nothing of it.
                let _ = tell.send(done);
            };
            // Whether it panicked, the other end of the channel says.
            let _ = tokio::task::spawn_blocking(run).await;
        };
        Work { done, _waits: WAITING.with(|scope| scope.spawn_leashed(task)) }
    }

    /// What came of it; none when it panicked.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        Pin::new(&mut self.done).poll(cx).map(Result::ok)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn who_does_not_ask_for_what_comes_holds_nobody_up() {
        tokio::runtime::LocalRuntime::new().unwrap().block_on(async {
            let (go, gate) = mpsc::channel::<()>();
            let gate = Arc::new(std::sync::Mutex::new(gate));
            let mut first = Vec::new();
            for _ in 0..AT_ONCE {
                let gate = Arc::clone(&gate);
                first.push(Work::start(move || {
                    let _ = gate.lock().unwrap().recv();
                }));
            }
            let mut behind: Vec<_> = (0..AT_ONCE).map(|_| Work::start(|| 1)).collect();
            // They wait in line, and nobody asks for them again.
            for work in &mut behind {
                assert!(poll_fn(|cx| Poll::Ready(work.poll(cx))).await.is_pending());
            }
            drop(go);
            for work in &mut first {
                assert_eq!(poll_fn(|cx| work.poll(cx)).await, Some(()));
            }
            let mut last = Work::start(|| 2);
            let come = tokio::time::timeout(std::time::Duration::from_secs(10), poll_fn(|cx| last.poll(cx)));
            assert_eq!(come.await.ok().flatten(), Some(2));
        });
    }

    #[test]
    fn who_waits_for_a_disk_does_not_stand_behind_toil() {
        tokio::runtime::LocalRuntime::new().unwrap().block_on(async {
            let (go, gate) = mpsc::channel::<()>();
            let gate = Arc::new(std::sync::Mutex::new(gate));
            let toil = |_| {
                let gate = Arc::clone(&gate);
                Work::start_toil(move || gate.lock().unwrap().recv().is_ok())
            };
            let toils: Vec<_> = (0..2 * AT_ONCE).map(toil).collect();
            let mut work = Work::start(|| 1);
            let come = tokio::time::timeout(std::time::Duration::from_secs(10), poll_fn(|cx| work.poll(cx)));
            assert_eq!(come.await.ok().flatten(), Some(1));
            drop(go);
            for mut toil in toils {
                assert_eq!(poll_fn(|cx| toil.poll(cx)).await, Some(false));
            }
        });
    }

    #[test]
    fn what_panics_comes_to_nothing() {
        tokio::runtime::LocalRuntime::new().unwrap().block_on(async {
            let mut work = Work::<()>::start(|| panic!("on purpose"));
            assert_eq!(poll_fn(|cx| work.poll(cx)).await, None);
        });
    }
}
