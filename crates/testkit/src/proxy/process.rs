//! What `/proc` knows of the proxy.

use std::time::Duration;

use super::Proxy;
use crate::wait::holds_within;

/// Open descriptors by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Descriptors {
    /// Sockets: each connection and flow has at least one.
    pub sockets: usize,
    /// Ends of pipes, which the relay keeps for its next bulk transfer.
    pub pipes: usize,
    /// Everything else.
    pub others: usize,
}

impl Descriptors {
    fn of(pid: u32) -> Self {
        let mut all = Descriptors::default();
        let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return all };
        for target in entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok()) {
            match target.to_string_lossy() {
                name if name.starts_with("socket:") => all.sockets += 1,
                name if name.starts_with("pipe:") => all.pipes += 1,
                _ => all.others += 1,
            }
        }
        all
    }

    /// All together.
    pub fn total(&self) -> usize {
        self.sockets + self.pipes + self.others
    }
}

impl Proxy {
    /// The descriptors that it holds now.
    pub fn fds(&self) -> Descriptors {
        Descriptors::of(self.pid())
    }

    /// The same, once two looks in a row agree: the socket of our own admin request closes a moment after its answer.
    pub(super) fn settled(&self) -> Descriptors {
        let mut last = self.fds();
        holds_within(Duration::from_secs(2), || {
            std::thread::sleep(Duration::from_millis(10));
            std::mem::replace(&mut last, self.fds()) == last
        });
        last
    }

    /// What it holds of memory of its own in KiB: heap and stacks. Resident pages of the program's file are left out:
    /// they come with the first use of a piece of code, a debug build has megabytes of them, and they tell of no leak.
    pub fn memory_kb(&self) -> u64 {
        self.proc_status("RssAnon:")
    }

    /// The most that was ever resident of it, in KiB: what it held and gave back counts, too.
    pub fn peak_rss_kb(&self) -> u64 {
        self.proc_status("VmHWM:")
    }

    /// How many threads it has.
    pub fn threads(&self) -> u64 {
        self.proc_status("Threads:")
    }

    fn proc_status(&self, key: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// CPU time that it has used, in clock ticks of 10 ms.
    pub fn cpu_ticks(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // The name in parentheses may hold spaces; utime and stime are fields 14 and 15 of proc(5).
        let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }
}
