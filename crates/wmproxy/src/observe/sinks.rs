//! Every sink of the process: logs that name one file share its writer, across reloads too.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::sink::{Handle, Shared, Sink, SinkCounters, Target};

/// How long the end of the process waits for the logs when nobody said otherwise.
const LAST_FLUSH: Duration = Duration::from_secs(2);

/// The registry of sinks. Dropping it waits shortly for what is still queued, unless a flush has just waited in vain.
#[derive(Debug, Default)]
pub(crate) struct Sinks {
    open: Mutex<Vec<Entry>>,
    counters: Arc<SinkCounters>,
    /// The last flush ran out of time.
    stuck: AtomicBool,
}

/// The writer is kept while it has lines left; the handle only tells whether somebody still uses it.
#[derive(Debug)]
struct Entry {
    handle: Weak<Handle>,
    shared: Arc<Shared>,
}

impl Sinks {
    /// A registry without sinks.
    pub(crate) fn new() -> Self {
        Sinks::default()
    }

    /// The sink of this target: the one in use, or a new one.
    ///
    /// # Errors
    /// When the file can't be opened; nothing has changed then.
    pub(crate) fn open(&self, target: &Target) -> io::Result<Sink> {
        let target = canonical(target);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|entry| !entry.shared.finished());
        let used = open.iter().filter(|entry| entry.shared.target == target);
        if let Some(handle) = used.filter_map(|entry| entry.handle.upgrade()).next() {
            return Ok(Sink::from_handle(handle));
        }
        let sink = Sink::open(target, self.counters.clone())?;
        let handle = sink.handle();
        open.push(Entry { handle: Arc::downgrade(handle), shared: handle.shared.clone() });
        Ok(sink)
    }

    /// Has every file opened anew before its next line, after a rotation (SIGUSR1). Returns at once.
    pub(crate) fn reopen(&self) {
        for shared in self.writers() {
            shared.reopen();
        }
    }

    /// Waits until everything queued so far is written, `limit` at most. Whether it is.
    pub(crate) fn flush(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        // All of them get their turn, also behind one that is stuck.
        let done = self.writers().iter().filter(|shared| !shared.flush(deadline)).count() == 0;
        self.stuck.store(!done, Ordering::Relaxed);
        done
    }

    /// What all sinks have counted since the start.
    pub(crate) fn counters(&self) -> &SinkCounters {
        &self.counters
    }

    fn writers(&self) -> Vec<Arc<Shared>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.iter().map(|entry| entry.shared.clone()).collect()
    }
}

impl Drop for Sinks {
    fn drop(&mut self) {
        // Whoever waited in vain a moment ago need not wait again.
        if !*self.stuck.get_mut() {
            self.flush(LAST_FLUSH);
        }
    }
}

/// One spelling for each file. The file itself need not exist and may be a link to be followed at each
/// opening, so only its folder is resolved; what can't be resolved fails when it is opened.
fn canonical(target: &Target) -> Target {
    let resolve = |path: &Path| -> Option<PathBuf> {
        let name = path.file_name()?;
        let absolute = std::path::absolute(path).ok()?;
        Some(absolute.parent()?.canonicalize().ok()?.join(name))
    };
    match target {
        Target::File(path) => Target::File(resolve(path).unwrap_or_else(|| path.clone())),
        other => other.clone(),
    }
}
