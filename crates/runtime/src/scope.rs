//! The only way to start a task: it is counted until it ends, so that a drain can wait for the last one.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinHandle};

/// Counts the tasks that were started through it. Clones share the count.
#[derive(Debug, Clone, Default)]
pub struct Scope(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    live: AtomicUsize,
    emptied: Notify,
}

/// Counts as one task until it is dropped.
#[derive(Debug)]
pub struct Held(Arc<Inner>);

impl Drop for Held {
    fn drop(&mut self) {
        // Release and acquire: who sees zero also sees what the tasks did.
        if self.0.live.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.emptied.notify_waiters();
        }
    }
}

/// Ends its task when it is dropped.
#[derive(Debug)]
pub struct Leash(AbortHandle);

impl Drop for Leash {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Scope {
    /// A scope without tasks.
    pub fn new() -> Self {
        Scope::default()
    }

    /// Holds the scope open without a task.
    pub fn hold(&self) -> Held {
        self.0.live.fetch_add(1, Ordering::Relaxed);
        Held(self.0.clone())
    }

    /// How many tasks are alive.
    pub fn live(&self) -> usize {
        self.0.live.load(Ordering::Acquire)
    }

    /// Waits until no task is left.
    pub async fn empty(&self) {
        loop {
            let emptied = self.0.emptied.notified();
            tokio::pin!(emptied);
            // Registered before the count is read, or an end in between would be missed.
            emptied.as_mut().enable();
            if self.live() == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// Starts a task on the calling worker. A panic in it ends it alone; see [`crate::panic`].
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.spawn_boxed(Box::pin(task));
    }

    /// Like [`Scope::spawn`], for a future that has its own box already.
    pub fn spawn_boxed(&self, task: Task) {
        spawn_local(Counted { task, _held: self.hold() });
    }

    /// Like [`Scope::spawn`], for a task that must not outlive its owner.
    pub fn spawn_leashed(&self, task: impl Future<Output = ()> + 'static) -> Leash {
        Leash(spawn_local(Counted { task: Box::pin(task), _held: self.hold() }).abort_handle())
    }

    /// Starts a task on the control runtime.
    pub fn spawn_control(&self, task: impl Future<Output = ()> + Send + 'static) -> Leash {
        let counted = Counted { task: Box::pin(task), _held: self.hold() };
        #[expect(clippy::disallowed_methods, reason = "this is the place that others are sent to")]
        let handle = tokio::spawn(counted);
        Leash(handle.abort_handle())
    }
}

/// A task of a worker.
pub type Task = Pin<Box<dyn Future<Output = ()>>>;

/// A task and its place in the count. Boxed, so that the wrapper adds no second copy of a large future.
struct Counted<F: ?Sized> {
    task: Pin<Box<F>>,
    _held: Held,
}

impl<F: Future<Output = ()> + ?Sized> Future for Counted<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.task.as_mut().poll(cx)
    }
}

fn spawn_local(task: impl Future<Output = ()> + 'static) -> JoinHandle<()> {
    #[expect(clippy::disallowed_methods, reason = "this is the place that others are sent to")]
    tokio::task::spawn_local(task)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;

    fn on_local_runtime<F: Future>(test: F) -> F::Output {
        tokio::runtime::LocalRuntime::new().expect("a runtime").block_on(test)
    }

    #[test]
    fn a_panicking_task_ends_alone_and_is_counted() {
        crate::panic::install_hook();
        on_local_runtime(async {
            let scope = Scope::new();
            let before = crate::panic::count();
            let other = Rc::new(Cell::new(false));
            let seen = other.clone();
            scope.spawn(async { panic!("on purpose") });
            scope.spawn(async move {
                tokio::task::yield_now().await;
                seen.set(true);
            });
            scope.empty().await;
            assert!(other.get());
            assert_eq!(crate::panic::count(), before + 1);
            assert_eq!(scope.live(), 0);
        });
    }

    #[test]
    fn a_leash_ends_its_task() {
        on_local_runtime(async {
            let scope = Scope::new();
            let leash = scope.spawn_leashed(std::future::pending());
            assert_eq!(scope.live(), 1);
            drop(leash);
            scope.empty().await;
        });
    }
}
