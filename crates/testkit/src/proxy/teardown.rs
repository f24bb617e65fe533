//! The end of a test: the proxy must be as clean as it was at its start.

use rustix::process::Signal;

use super::{Baseline, Proxy};
use crate::PATIENCE;
use crate::wait::holds_within;

/// Ends of pipes that a worker may keep for the next bulk transfer. More is a leak.
const POOLED_PIPES: usize = 2 * 16;

impl Proxy {
    /// Ends the proxy with TERM after the checks of the teardown. What a drop does, where a test wants it sooner.
    pub fn finish(mut self) {
        self.teardown();
    }

    /// Waits until no connection or flow is open and neither a task nor a descriptor is left over. Idle connections to
    /// peers, those that wait for visitors of a tunnel and files that are held open may stay, as many as are told of.
    ///
    /// # Panics
    /// When that does not come about.
    pub fn assert_clean(&self) {
        assert!(holds_within(PATIENCE, || self.active() == 0), "still active: {}", self.status());
        let Baseline { descriptors: baseline, tasks, waiting } = *self.baseline.lock().unwrap();
        // Where visitors came faster than a tunnel's client connects, more wait afterwards: the next visitors take them.
        let more = || self.waiting().saturating_sub(waiting);
        let ended = holds_within(PATIENCE, || self.tasks() <= tasks + more());
        assert!(ended, "tasks leaked: {tasks} at the start, {} now", self.tasks());
        let workers = self.status()["workers"].as_u64().unwrap() as usize;
        let clean = holds_within(PATIENCE, || {
            let now = self.fds();
            let metrics = self.metrics();
            let idle = metrics.sum("wmproxy_upstream_idle_connections", &[])
                + metrics.sum("wmproxy_forward_idle_connections", &[]);
            let files = metrics.sum("wmproxy_files_open", &[]) as usize;
            now.sockets <= baseline.sockets + idle as usize + more() as usize
                && now.others <= baseline.others + files
                && now.pipes <= baseline.pipes + workers * POOLED_PIPES
        });
        assert!(clean, "descriptors leaked: {baseline:?} at the start, {:?} now", self.fds());
    }

    /// # Panics
    /// On a line of the log that the test did not expect.
    pub fn assert_quiet(&self) {
        let expected = self.expected.lock().unwrap().clone();
        let bad =
            |line: &String| is_alarming(line) && !expected.iter().any(|text| line.contains(text.as_str()));
        let bad: Vec<String> = self.log.lines().into_iter().filter(bad).collect();
        assert!(
            bad.is_empty(),
            "unexpected in the log:\n{}\nthe whole log:\n{}",
            bad.join("\n"),
            self.log.text()
        );
    }

    fn teardown(&mut self) {
        if self.running() && !self.done {
            self.assert_clean();
            self.signal(Signal::TERM);
            let code = self.wait();
            assert_eq!(code, Some(0), "the exit code after TERM; the log:\n{}", self.log.text());
        }
        self.done = true;
        self.log.wait_end();
        self.assert_quiet();
    }

    fn abandon(&mut self) {
        let mut child = self.child.lock().unwrap();
        let _ = child.kill();
        let _ = child.wait();
        self.log.wait_end();
    }
}

/// A warning, an error or a panic, in the text or the JSON form of the log.
fn is_alarming(line: &str) -> bool {
    let upper = line.to_ascii_uppercase();
    let level = |word: &str| {
        upper.split(|c: char| !c.is_ascii_alphanumeric()).take(16).any(|part| part == word)
            && has_level(line, word)
    };
    level("WARN") || level("ERROR") || line.contains("panicked at")
}

/// The level's word as logs write it: capitals in text, after `"level":` in JSON.
fn has_level(line: &str, word: &str) -> bool {
    line.contains(word) || line.contains(&format!("\"level\":\"{}\"", word.to_ascii_lowercase()))
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.abandon();
            eprintln!("--- the proxy's log ---\n{}\n--- end of the log ---", self.log.text());
        } else if !self.done {
            // Should a check panic, the process still must not outlive the test.
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.teardown()));
            if let Err(panic) = outcome {
                self.abandon();
                std::panic::resume_unwind(panic);
            }
        } else {
            self.log.wait_end();
            self.assert_quiet();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_alarming;

    #[test]
    fn levels_are_told_from_words() {
        assert!(is_alarming("2026-01-02 03:04:05.678  WARN wmproxy: port taken"));
        assert!(is_alarming("2026-01-02 03:04:05.678 ERROR wmproxy: x"));
        assert!(is_alarming(r#"{"timestamp":"2026","level":"error","fields":{}}"#));
        assert!(is_alarming(r#"{"timestamp":"2026","level":"WARN","fields":{}}"#));
        assert!(is_alarming("thread 'w' panicked at src/x.rs:1:2:"));
        assert!(!is_alarming("2026-01-02 03:04:05.678  INFO wmproxy: no error, no warning"));
    }
}
