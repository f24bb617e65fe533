//! The thread behind a sink: takes what is queued, writes it in one go, opens the file anew when asked to.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;

use super::screen;
use super::sink::{Shared, Target};

/// How often drops are reported at most: a log that is too slow must not fill itself with complaints.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// A buffer that grew beyond this in a burst is given back after it.
const KEEP_BYTES: usize = 256 << 10;

/// How long one wait for a full pipe lasts before the writer looks again. Whoever holds a pipe without
/// reading it stops this writer only.
const PIPE_WAIT: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Owners read and write, the group reads; nobody else sees who connects where.
const FILE_MODE: u32 = 0o640;

pub(super) struct Writer {
    shared: Arc<Shared>,
    file: File,
    /// The last write ended inside a line, so the next one begins with a newline.
    torn: bool,
    /// The present outage has been told of.
    told: bool,
}

/// Opens what a target names, for appending.
pub(super) fn open(target: &Target) -> io::Result<File> {
    let standard = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().map(File::from);
    match target {
        Target::Stderr => standard(io::stderr().as_fd()),
        Target::Stdout => standard(io::stdout().as_fd()),
        Target::File(path) => OpenOptions::new()
            .append(true)
            .create(true)
            .mode(FILE_MODE)
            // A fifo that nobody reads is then an error and not a hang; files do not care.
            .custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32)
            .open(path),
    }
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, file: File) -> Writer {
        Writer { shared, file, torn: false, told: false }
    }

    pub(super) fn run(mut self) {
        let mut batch = Vec::new();
        let mut report = Instant::now();
        loop {
            let work = self.shared.next(&mut batch, report);
            self.write(&batch);
            if work.reopen {
                self.reopen();
            }
            let bytes = batch.len();
            batch.clear();
            if batch.capacity() > KEEP_BYTES {
                batch = Vec::new();
            }
            if work.dropped > 0 {
                report = Instant::now() + REPORT_EVERY;
                tracing::warn!(
                    log = %self.shared.target,
                    lines = work.dropped,
                    "a log is written slower than it is fed: lines were dropped",
                );
            }
            if work.last {
                break;
            }
            self.shared.wrote(bytes);
        }
        self.shared.finish();
    }

    /// Writes everything or counts and tells the failure.
    fn write(&mut self, batch: &[u8]) {
        if batch.is_empty() {
            return;
        }
        let written = match self.shared.is_terminal() {
            true => screen::above(|| self.write_whole(batch)),
            false => self.write_whole(batch),
        };
        match written {
            Ok(()) => {
                self.torn = false;
                // What fails from here on is another outage.
                self.told = false;
            }
            Err(error) => {
                self.shared.counters.failed.add(1);
                if !std::mem::replace(&mut self.told, true) {
                    complain(&format!(
                        "can't write {}: {error}; lines are lost until it works again",
                        self.shared.target
                    ));
                }
            }
        }
    }

    fn write_whole(&mut self, batch: &[u8]) -> io::Result<()> {
        if self.torn {
            self.write_all(b"\n")?;
        }
        self.write_all(batch)
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.file.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => {
                    self.torn = bytes[n - 1] != b'\n';
                    bytes = &bytes[n..];
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    let mut fds = [PollFd::new(&self.file, PollFlags::OUT)];
                    // An interrupted or failed wait only means that the write is tried sooner.
                    let _ = rustix::event::poll(&mut fds, Some(&PIPE_WAIT));
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// A rotated file: the old one has been moved away, a new one takes its name. If that can't be opened the
    /// old one stays in use.
    fn reopen(&mut self) {
        if !matches!(self.shared.target, Target::File(_)) {
            return;
        }
        match open(&self.shared.target) {
            Ok(file) => {
                self.file = file;
                self.torn = false;
                self.told = false;
            }
            Err(error) => complain(&format!(
                "can't reopen {}: {error}; writing to the old file goes on",
                self.shared.target
            )),
        }
    }
}

/// The log itself is in trouble, so this goes past it.
fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "wmproxy: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::sink::{Sink, SinkCounters};

    #[test]
    fn each_outage_is_told_of_once() {
        let device = |path: &str| open(&Target::File(path.into())).unwrap();
        let sink =
            Sink::over(Target::Stderr, device("/dev/null"), Arc::new(SinkCounters::default())).unwrap();
        let mut writer = Writer::new(sink.handle().shared.clone(), device("/dev/full"));
        for _ in 0..2 {
            writer.write(b"lost\n");
            assert!(writer.told);
        }
        writer.file = device("/dev/null");
        writer.write(b"written\n");
        assert!(!writer.told, "a second outage would be kept quiet");
        writer.file = device("/dev/full");
        writer.write(b"lost\n");
        assert!(writer.told);
    }
}
