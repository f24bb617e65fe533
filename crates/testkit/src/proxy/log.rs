//! What the proxy says, line by line.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use crate::PATIENCE;

/// The captured standard error; standard output is kept apart.
#[derive(Debug, Clone)]
pub struct Log {
    stderr: Arc<Lines>,
    stdout: Arc<Lines>,
}

#[derive(Debug, Default)]
struct Lines {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<String>,
    ended: bool,
}

impl Log {
    pub(super) fn collect(stderr: impl Read + Send + 'static, stdout: impl Read + Send + 'static) -> Self {
        Log { stderr: Lines::collect(stderr), stdout: Lines::collect(stdout) }
    }

    /// The lines of standard error so far.
    pub fn lines(&self) -> Vec<String> {
        self.stderr.state.lock().unwrap().lines.clone()
    }

    /// The lines of standard output so far.
    pub fn stdout(&self) -> Vec<String> {
        self.stdout.state.lock().unwrap().lines.clone()
    }

    /// All of standard error so far.
    pub fn text(&self) -> String {
        self.lines().join("\n")
    }

    /// How many lines contain `text`.
    pub fn count(&self, text: &str) -> usize {
        self.lines().iter().filter(|line| line.contains(text)).count()
    }

    /// Waits for a line that contains `text`, and returns it.
    ///
    /// # Panics
    /// When none comes.
    pub fn wait(&self, text: &str) -> String {
        let end = Instant::now() + PATIENCE;
        let mut state = self.stderr.state.lock().unwrap();
        loop {
            if let Some(line) = state.lines.iter().find(|line| line.contains(text)) {
                return line.clone();
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(
                !state.ended && !left.is_zero(),
                "no line with {text:?} in the log:\n{}",
                state.lines.join("\n")
            );
            state = self.stderr.changed.wait_timeout(state, left).unwrap().0;
        }
    }

    /// Waits until both outputs have ended, which is when the process has.
    pub(super) fn wait_end(&self) {
        for lines in [&self.stderr, &self.stdout] {
            let state = lines.state.lock().unwrap();
            let _ = lines.changed.wait_timeout_while(state, PATIENCE, |state| !state.ended).unwrap();
        }
    }
}

impl Lines {
    fn collect(from: impl Read + Send + 'static) -> Arc<Lines> {
        let lines = Arc::new(Lines::default());
        let shared = lines.clone();
        std::thread::spawn(move || {
            let mut from = BufReader::new(from);
            let mut line = Vec::new();
            while matches!(from.read_until(b'\n', &mut line), Ok(1..)) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                shared.state.lock().unwrap().lines.push(text);
                shared.changed.notify_all();
                line.clear();
            }
            shared.state.lock().unwrap().ended = true;
            shared.changed.notify_all();
        });
        lines
    }
}
