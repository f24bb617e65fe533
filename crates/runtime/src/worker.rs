//! The data workers: one pinned thread each, with a single-threaded runtime of its own.
//!
//! Nothing that a worker owns is shared with another, so tasks need not be `Send` and buffers need no lock. Work from
//! outside arrives as closures that run on the worker's thread.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot};

use crate::moderation;

/// Threads of a worker for what may wait for a disk, or takes long. Who has such work counts how much of it runs at once on
/// all workers together; but a thread that is just done is not yet taken for free, so that without a limit of their own
/// several times as many are started, each with a heap that it keeps.
const BLOCKING_THREADS: usize = 16;

thread_local! {
    static SLOT: Cell<usize> = const { Cell::new(0) };
}

/// The calling thread's slot in [`crate::counter::Sharded`]: a worker's index plus one, 0 for every other thread.
#[inline]
pub fn slot() -> usize {
    SLOT.with(Cell::get)
}

type Command = Box<dyn FnOnce() + Send>;

/// The running workers. Dropping it ends them and whatever tasks they still have.
#[derive(Debug)]
pub struct Workers {
    workers: Vec<Worker>,
}

/// Runs closures on the workers for as long as they are there, and does not keep them.
#[derive(Debug, Clone)]
pub struct Handle {
    workers: Arc<[mpsc::WeakUnboundedSender<Command>]>,
}

#[derive(Debug)]
struct Worker {
    /// Taken when the worker is told to end.
    commands: Option<mpsc::UnboundedSender<Command>>,
    thread: Option<JoinHandle<()>>,
}

impl Workers {
    /// Starts `count` workers. They are pinned, each to a core of its own, when there is one worker for each core that
    /// this process may use; with fewer or more the scheduler knows better than we do.
    ///
    /// # Errors
    /// A thread or its event queue could not be made.
    pub fn start(count: usize) -> io::Result<Workers> {
        let cores = usable_cores();
        let pinned = cores.len() == count;
        let mut workers = Vec::with_capacity(count);
        for index in 0..count {
            let core = if pinned { cores.get(index).copied() } else { None };
            workers.push(Worker::start(index, core)?);
        }
        Ok(Workers { workers })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.workers.len()
    }

    /// What reaches the workers from anywhere.
    pub fn handle(&self) -> Handle {
        let weak = |worker: &Worker| worker.commands.as_ref().map(mpsc::UnboundedSender::downgrade);
        Handle { workers: self.workers.iter().filter_map(weak).collect() }
    }

    /// Runs `make(index)`'s closure on every worker and waits until all have run; answers in the order of the workers.
    ///
    /// A closure may start tasks there (see [`crate::scope::Scope::spawn`]) but must not block. An answer is missing
    /// when the closure panicked.
    pub async fn on_each<R, F>(&self, make: impl FnMut(usize) -> F) -> Vec<Option<R>>
    where
        R: Send + 'static,
        F: FnOnce() -> R + Send + 'static,
    {
        self.handle().on_each(make).await
    }

    /// Ends the workers: their tasks are dropped where they stand. Returns when the threads are gone.
    pub fn end(mut self) {
        self.join();
    }

    fn join(&mut self) {
        for worker in &mut self.workers {
            worker.commands.take();
        }
        for worker in &mut self.workers {
            if let Some(thread) = worker.thread.take() {
                // A panic outside a task was logged by the hook.
                let _ = thread.join();
            }
        }
    }
}

impl Handle {
    /// How many workers there are, or were.
    pub fn count(&self) -> usize {
        self.workers.len()
    }

    /// Has the worker with this index, from 0 on, run a closure, behind those that it was given before. False if there is no
    /// such worker, or none any more: the closure is then dropped, as it is when the worker ends first.
    pub fn run(&self, worker: usize, closure: impl FnOnce() + Send + 'static) -> bool {
        let commands = self.workers.get(worker).and_then(mpsc::WeakUnboundedSender::upgrade);
        commands.is_some_and(|commands| commands.send(Box::new(closure)).is_ok())
    }

    /// Does [`Workers::on_each`]. An answer is missing, too, when its worker has ended.
    pub async fn on_each<R, F>(&self, mut make: impl FnMut(usize) -> F) -> Vec<Option<R>>
    where
        R: Send + 'static,
        F: FnOnce() -> R + Send + 'static,
    {
        let ask = |index| {
            let (tell, answer) = oneshot::channel();
            let closure = make(index);
            // A closure that does not run drops its end; the answer is then missing.
            self.run(index, move || drop(tell.send(closure())));
            answer
        };
        // All are asked before the first is waited for.
        let answers: Vec<_> = (0..self.count()).map(ask).collect();
        let mut results = Vec::with_capacity(answers.len());
        for answer in answers {
            results.push(answer.await.ok());
        }
        results
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.join();
    }
}

impl Worker {
    fn start(index: usize, core: Option<usize>) -> io::Result<Worker> {
        let (commands, mut inbox) = mpsc::unbounded_channel::<Command>();
        let (ready, started) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            SLOT.set(index + 1);
            if let Some(core) = core {
                pin_to(core);
            }
            moderation::prepare();
            let mut builder = Builder::new_current_thread();
            builder.enable_all().max_blocking_threads(BLOCKING_THREADS).on_thread_park(moderation::rest);
            let runtime = match builder.build_local(LocalOptions::default()) {
                Ok(runtime) => runtime,
                Err(error) => return drop(ready.send(Err(error))),
            };
            drop(ready.send(Ok(())));
            runtime.block_on(async {
                while let Some(command) = inbox.recv().await {
                    // A panic in a command must not take the worker and every connection on it along.
                    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(command));
                }
            });
        })?;
        match started.recv() {
            Ok(Ok(())) => Ok(Worker { commands: Some(commands), thread: Some(thread) }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::Error::other("the worker's thread ended at its start")),
        }
    }
}

/// The cores that this process may run on, in order.
fn usable_cores() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(None) else { return Vec::new() };
    (0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect()
}

fn pin_to(core: usize) {
    let mut set = CpuSet::new();
    set.set(core);
    if let Err(error) = sched_setaffinity(None, &set) {
        tracing::debug!(core, %error, "could not pin a worker");
    }
}

/// One worker for each core, or as many as the container's CPU quota allows.
pub fn default_count() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scope::Scope;

    #[test]
    fn closures_run_on_their_worker_and_tasks_are_dropped_at_the_end() {
        let control = Builder::new_current_thread().build().expect("a runtime");
        let workers = Workers::start(3).expect("workers");
        let slots = control.block_on(workers.on_each(|_| slot));
        assert_eq!(slots, [Some(1), Some(2), Some(3)]);
        assert_eq!(slot(), 0);

        let scope = Scope::new();
        control.block_on(workers.on_each(|_| {
            let scope = scope.clone();
            move || scope.spawn(std::future::pending())
        }));
        assert_eq!(scope.live(), 3);
        workers.end();
        assert_eq!(scope.live(), 0);
    }

    #[test]
    fn a_panicking_command_leaves_the_worker_running() {
        let control = Builder::new_current_thread().build().expect("a runtime");
        let workers = Workers::start(1).expect("workers");
        let answer = control.block_on(workers.on_each(|_| || -> u8 { panic!("on purpose") }));
        assert_eq!(answer, [None]);
        assert_eq!(control.block_on(workers.on_each(|_| || 7)), [Some(7)]);
    }

    #[test]
    fn a_handle_reaches_one_worker_and_keeps_none() {
        let control = Builder::new_current_thread().build().expect("a runtime");
        let workers = Workers::start(2).expect("workers");
        let handle = workers.handle();
        let (tell, told) = std::sync::mpsc::channel();
        assert!(handle.run(1, move || tell.send(slot()).expect("somebody waits")));
        assert_eq!(told.recv(), Ok(2));
        assert!(!handle.run(2, || {}), "there is no third");
        // One worker's closure may use the handle for the other.
        let other = handle.clone();
        let (tell, told) = std::sync::mpsc::channel();
        handle.run(0, move || {
            other.run(1, move || tell.send(slot()).expect("somebody waits"));
        });
        assert_eq!(told.recv(), Ok(2));
        workers.end();
        assert!(!handle.run(0, || {}));
        assert_eq!(handle.count(), 2);
        assert_eq!(control.block_on(handle.on_each(|_| || 7)), [None, None]);
    }
}
