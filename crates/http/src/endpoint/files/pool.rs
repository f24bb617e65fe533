//! What may wait for a disk is done beside the workers.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tokio::time::Sleep;
use wmproxy_runtime::scope::{Leash, Scope};

/// How much is done at once, on all workers together: a disk has about as many requests in its queue (32 with SATA), so that
/// more would wait there, each with a thread.
const AT_ONCE: usize = 32;

/// And so much of what works rather than waits, as to put the names of a large directory in order: more at once would be done
/// no sooner, and what only waits for a disk would stand behind it.
const TOILS_AT_ONCE: usize = 4;

/// Of these, so many are for one file system: a quarter of the places and half of a worker's threads. If it hangs, as the
/// mount of a server that is gone does, others have what is left.
const FOR_ONE: usize = 8;

/// And so many of those.
const TOILS_FOR_ONE: usize = 2;

/// What has not come by then will not: disks give up sooner, by an error (SCSI after 30 s), and a client that is kept longer
/// than `timeouts.write` lets it keep us waits in vain.
const PATIENCE: Duration = Duration::from_secs(30);

/// To look at each file of a large directory takes a disk that turns some milliseconds each, and nothing is shown before.
const PATIENCE_FOR_TOIL: Duration = Duration::from_secs(5 * 60);

static SLOTS: Semaphore = Semaphore::const_new(AT_ONCE);
static TOILS: Semaphore = Semaphore::const_new(TOILS_AT_ONCE);

/// The file systems that roots are on, by their numbers.
static DISKS: Mutex<BTreeMap<u64, Weak<Disk>>> = Mutex::new(BTreeMap::new());

thread_local! {
    /// The tasks that wait for a slot, or for what is being done in one.
    static WAITING: Scope = Scope::new();
}

/// A file system, and what of it is being done. Sites on the same one share it, also with those of a config that was replaced.
#[derive(Debug)]
pub(super) struct Disk {
    works: Line,
    toils: Line,
}

/// Who waits for their turn, and how long.
#[derive(Debug)]
struct Line {
    own: Arc<Semaphore>,
    all: &'static Semaphore,
    patience: Duration,
}

/// Something that is being done, or waits for its turn. If it is dropped it is not done, unless that has begun.
#[derive(Debug)]
pub(super) struct Work<T> {
    done: oneshot::Receiver<T>,
    late: Pin<Box<Sleep>>,
    _waits: Leash,
}

/// Why nothing came of some work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Undone {
    /// It takes too long: the file system hangs, or others have kept it busy.
    Late,
    /// It panicked.
    Panicked,
}

impl From<Undone> for io::Error {
    fn from(undone: Undone) -> Self {
        match undone {
            Undone::Late => io::ErrorKind::TimedOut.into(),
            Undone::Panicked => io::ErrorKind::Other.into(),
        }
    }
}

impl Disk {
    /// The one that a directory is on.
    ///
    /// # Errors
    /// Nobody knows which that is.
    pub(super) fn of(directory: &Path) -> io::Result<Arc<Disk>> {
        let number = std::fs::metadata(directory)?.dev();
        let mut disks = DISKS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = disks.get(&number).and_then(Weak::upgrade) {
            return Ok(known);
        }
        disks.retain(|_, disk| disk.strong_count() > 0);
        let disk = Arc::new(Disk::new(PATIENCE, PATIENCE_FOR_TOIL));
        disks.insert(number, Arc::downgrade(&disk));
        Ok(disk)
    }

    fn new(patience: Duration, patience_for_toil: Duration) -> Disk {
        let line = |own, all, patience| Line { own: Arc::new(Semaphore::new(own)), all, patience };
        Disk { works: line(FOR_ONE, &SLOTS, patience), toils: line(TOILS_FOR_ONE, &TOILS, patience_for_toil) }
    }

    /// One that is waited for no longer than a moment.
    #[cfg(test)]
    pub(super) fn impatient() -> Arc<Disk> {
        let moment = Duration::from_millis(20);
        Arc::new(Disk::new(moment, moment))
    }

    /// Has something done. It waits for its turn in a task of its own: who asks for what comes of it may be long in coming, as
    /// when a client takes nothing, and would hold the slot that it was given meanwhile.
    pub(super) fn start<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Work<T> {
        self.start_in(&self.works, work)
    }

    /// The same of something that keeps a processor busy.
    pub(super) fn start_toil<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Work<T> {
        self.start_in(&self.toils, work)
    }

    fn start_in<T: Send + 'static>(
        self: &Arc<Self>,
        line: &Line,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Work<T> {
        let (tell, done) = oneshot::channel();
        let (disk, own, all) = (Arc::clone(self), Arc::clone(&line.own), line.all);
        let late = Box::pin(tokio::time::sleep(line.patience));
        let task = async move {
            // They are never closed. Its own line first: behind a disk that hangs nobody holds a place of all.
            let Ok(own) = own.acquire_owned().await else { return };
            let Ok(slot) = all.acquire().await else { return };
            let run = move || {
                let done = work();
                // Not before: who is gone has it done all the same. The disk is known for as long as it has something to do.
                drop((own, slot, disk));
                // Who is gone hears nothing of it.
                let _ = tell.send(done);
            };
            // Whether it panicked, the other end of the channel says.
            let _ = tokio::task::spawn_blocking(run).await;
        };
        Work { done, late, _waits: WAITING.with(|scope| scope.spawn_leashed(task)) }
    }
}

impl<T> Work<T> {
    /// What came of it.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, Undone>> {
        if let Poll::Ready(done) = Pin::new(&mut self.done).poll(cx) {
            return Poll::Ready(done.map_err(|_| Undone::Panicked));
        }
        self.late.as_mut().poll(cx).map(|()| Err(Undone::Late))
    }
}

#[cfg(test)]
mod tests;
