//! Where lines of text leave the process: a file, stdout or stderr, each behind a thread of its own.
//!
//! Whoever writes a line copies it into a queue and goes on; only the writer's thread ever waits for a disk,
//! a pipe or a terminal. When that falls behind, lines are dropped and counted, never the traffic.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use wmproxy_runtime::counter::Counter;

use super::writer::{self, Writer};
use crate::config::plan::LogFile;

/// How many bytes may wait for one writer: some 20,000 lines of an access log, which is a second of a disk
/// that stalls at 20,000 connections a second.
pub(super) const QUEUE_BYTES: usize = 4 << 20;

/// A quarter full: the writer is woken before its pause is over.
const HURRY_BYTES: usize = QUEUE_BYTES / 4;

/// How long the writer gathers lines before the next write. Fifty milliseconds bound the wakeups of a busy
/// log to twenty a second, and a reader still sees it flow. The first line after a silence does not wait.
pub(super) const GATHER: Duration = Duration::from_millis(50);

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    /// The process's standard error.
    Stderr,
    /// The process's standard output.
    Stdout,
    /// The end of a file, made with mode 0640 if it is not there. Its folder must exist.
    File(PathBuf),
}

impl From<&LogFile> for Target {
    fn from(file: &LogFile) -> Target {
        match file {
            LogFile::Stdout => Target::Stdout,
            LogFile::Path(path) => Target::File(path.clone()),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Stderr => f.write_str("stderr"),
            Target::Stdout => f.write_str("stdout"),
            Target::File(path) => path.display().fmt(f),
        }
    }
}

/// What all sinks of the process have counted.
#[derive(Debug, Default)]
pub(crate) struct SinkCounters {
    /// Lines that found their queue full.
    pub(crate) dropped: Counter,
    /// Writes that failed; the lines of such a write are lost.
    pub(crate) failed: Counter,
}

/// A handle to one writer. Clones share it; when the last one is gone the writer writes what is queued, closes
/// its file and ends.
#[derive(Debug, Clone)]
pub(crate) struct Sink {
    handle: Arc<Handle>,
}

/// Held by the sinks only, so that its drop tells the writer that nobody will write again.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) shared: Arc<Shared>,
}

/// What sinks and their writer share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) target: Target,
    pub(super) counters: Arc<SinkCounters>,
    queue: Mutex<Queue>,
    /// For the writer: there is something to do.
    wake: Condvar,
    /// For those who flush: `written` has moved.
    moved: Condvar,
    /// Whether the target is a terminal.
    terminal: AtomicBool,
}

/// The lines that wait, one after the other in one buffer: a line costs its copy and no allocation.
#[derive(Debug, Default)]
struct Queue {
    bytes: Vec<u8>,
    /// Lines dropped and not yet reported.
    dropped: u64,
    /// Bytes ever queued and ever written (or lost to an error).
    queued: u64,
    written: u64,
    /// The writer sleeps until it is woken.
    idle: bool,
    /// Somebody waits for the queue to be written.
    hurry: bool,
    reopen: bool,
    closing: bool,
    finished: bool,
}

/// What the writer found to do.
pub(super) struct Work {
    /// Lines dropped since the last report, if it is time to say so.
    pub(super) dropped: u64,
    pub(super) reopen: bool,
    /// Nobody will write again: this is the last of it.
    pub(super) last: bool,
}

impl Sink {
    /// Opens the target and starts its writer.
    ///
    /// # Errors
    /// When the file can't be opened or the thread not started.
    pub(super) fn open(target: Target, counters: Arc<SinkCounters>) -> io::Result<Sink> {
        let file = writer::open(&target)?;
        Sink::over(target, file, counters)
    }

    /// A sink over a file that is open already.
    pub(super) fn over(target: Target, file: File, counters: Arc<SinkCounters>) -> io::Result<Sink> {
        let terminal = AtomicBool::new(io::IsTerminal::is_terminal(&file));
        let shared = Arc::new(Shared {
            target,
            counters,
            queue: Mutex::default(),
            wake: Condvar::new(),
            moved: Condvar::new(),
            terminal,
        });
        let writer = Writer::new(shared.clone(), file);
        thread::Builder::new().name("log-writer".into()).spawn(move || writer.run())?;
        Ok(Sink { handle: Arc::new(Handle { shared }) })
    }

    /// Queues one line, which ends with a newline. Never waits for the target: when the queue is full the
    /// line is dropped and counted.
    pub(crate) fn write(&self, line: &[u8]) {
        let shared = &self.handle.shared;
        let mut queue = shared.lock();
        if queue.bytes.len() + line.len() > QUEUE_BYTES {
            queue.dropped += 1;
            drop(queue);
            shared.counters.dropped.add(1);
            return;
        }
        let before = queue.bytes.len();
        queue.bytes.extend_from_slice(line);
        queue.queued += line.len() as u64;
        // A wakeup is a system call, so only where the writer would not come by itself.
        let wake = queue.idle || (before < HURRY_BYTES && queue.bytes.len() >= HURRY_BYTES);
        queue.idle = false;
        drop(queue);
        if wake {
            shared.wake.notify_one();
        }
    }

    /// Whether the lines are read on a terminal.
    pub(crate) fn is_terminal(&self) -> bool {
        self.handle.shared.is_terminal()
    }

    pub(super) fn handle(&self) -> &Arc<Handle> {
        &self.handle
    }

    pub(super) fn from_handle(handle: Arc<Handle>) -> Sink {
        Sink { handle }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Does not wait: the last handle may well be dropped on a worker.
        self.shared.lock().closing = true;
        self.shared.wake.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing in here panics half way, so a poisoned queue is a whole one.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the writer open its file anew before the next line.
    pub(super) fn reopen(&self) {
        self.lock().reopen = true;
        self.wake.notify_one();
    }

    /// Whether the lines are read on a terminal.
    pub(super) fn is_terminal(&self) -> bool {
        self.terminal.load(Ordering::Relaxed)
    }

    /// Whether the writer has ended.
    pub(super) fn finished(&self) -> bool {
        self.lock().finished
    }

    /// Waits until what is queued now has been written, or `deadline`. Whether it has.
    pub(super) fn flush(&self, deadline: Instant) -> bool {
        let mut queue = self.lock();
        let goal = queue.queued;
        if queue.written < goal {
            queue.hurry = true;
            self.wake.notify_one();
        }
        while queue.written < goal && !queue.finished {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            queue = self.moved.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Waits for something to do; `batch`, which is empty, then holds the lines to write. `report` says
    /// from when on drops may be reported again.
    pub(super) fn next(&self, batch: &mut Vec<u8>, report: Instant) -> Work {
        let mut queue = self.lock();
        loop {
            let due = queue.dropped > 0 && (queue.closing || report <= Instant::now());
            if !queue.bytes.is_empty() || queue.reopen || queue.closing || due {
                break;
            }
            queue.idle = true;
            queue = if queue.dropped > 0 {
                let left = report.saturating_duration_since(Instant::now());
                self.wake.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0
            } else {
                self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner)
            };
        }
        queue.idle = false;
        std::mem::swap(batch, &mut queue.bytes);
        let due = queue.closing || report <= Instant::now();
        Work {
            dropped: if due { std::mem::take(&mut queue.dropped) } else { 0 },
            reopen: std::mem::take(&mut queue.reopen),
            last: queue.closing,
        }
    }

    /// Tells those who flush that `bytes` more are out, then waits a little for company for the next line.
    pub(super) fn wrote(&self, bytes: usize) {
        let mut queue = self.lock();
        queue.written += bytes as u64;
        self.moved.notify_all();
        let until = Instant::now() + GATHER;
        while !(queue.hurry || queue.closing || queue.reopen || queue.bytes.len() >= HURRY_BYTES) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            queue = self.wake.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        if queue.bytes.is_empty() {
            queue.hurry = false;
        }
    }

    /// The writer's last word.
    pub(super) fn finish(&self) {
        self.lock().finished = true;
        self.moved.notify_all();
    }
}
