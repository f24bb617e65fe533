//! What a process and its children have used, read from /proc.

use std::collections::HashMap;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Counters of a process tree since its start.
#[derive(Clone, Copy, Default)]
pub(crate) struct Usage {
    /// User and kernel time, nanoseconds.
    pub(crate) cpu_ns: u64,
    /// The same by ticks of the clock, for the share of each.
    pub(crate) user_ticks: u64,
    pub(crate) kernel_ticks: u64,
    /// Voluntary and involuntary context switches.
    pub(crate) switches: u64,
}

/// Memory of a process tree, bytes.
#[derive(Clone, Copy, Default)]
pub(crate) struct Memory {
    pub(crate) pss: u64,
    pub(crate) rss: u64,
}

/// `root` and everything below it.
pub(crate) fn tree(root: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for pid in numbers_in("/proc") {
        if let Some(parent) = stat_field(pid, 1) {
            children.entry(parent as u32).or_default().push(pid);
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        found.extend(children.remove(&pid).unwrap_or_default());
        next += 1;
    }
    found
}

/// Waits until the tree under `root` has come to rest and returns its counters. What follows the last answer, such
/// as closing connections, belongs to the work.
pub(crate) fn usage_at_rest(root: u32) -> Result<Usage> {
    const LOOK_EVERY: Duration = Duration::from_millis(20);
    // Timers of an idle proxy may tick on; so little in a look is rest.
    const REST_NS: u64 = 100_000;
    let until = Instant::now() + Duration::from_secs(2);
    let mut before = usage(root)?;
    loop {
        sleep(LOOK_EVERY);
        let now = usage(root)?;
        if now.cpu_ns.saturating_sub(before.cpu_ns) < REST_NS || Instant::now() >= until {
            return Ok(now);
        }
        before = now;
    }
}

/// How many TCP sockets of this machine are in TIME_WAIT.
pub(crate) fn sockets_in_time_wait() -> Result<u64> {
    let text = fs::read_to_string("/proc/net/sockstat").context("sockstat")?;
    Ok(time_wait_in(&text).unwrap_or(0))
}

fn time_wait_in(sockstat: &str) -> Option<u64> {
    let line = sockstat.lines().find(|line| line.starts_with("TCP:"))?;
    line.split_whitespace().skip_while(|word| *word != "tw").nth(1)?.parse().ok()
}

/// The memory of the tree under `root`, once it has come to rest.
pub(crate) fn memory_at_rest(root: u32) -> Result<Memory> {
    usage_at_rest(root)?;
    memory(root)
}

/// The memory of the tree under `root`.
pub(crate) fn memory(root: u32) -> Result<Memory> {
    let mut memory = Memory::default();
    for pid in tree(root) {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).context("smaps_rollup")?;
        memory.pss += labelled(&text, "Pss:") * 1024;
        memory.rss += labelled(&text, "Rss:") * 1024;
    }
    Ok(memory)
}

fn usage(root: u32) -> Result<Usage> {
    let mut usage = Usage::default();
    for pid in tree(root) {
        let ticks = [11, 12, 13, 14].map(|index| stat_field(pid, index));
        let [Some(user_ticks), Some(kernel_ticks), Some(user_of_ended), Some(kernel_of_ended)] = ticks else {
            if pid == root {
                bail!("process {pid} has ended");
            }
            // What a child has used that ends just now is its parent's when that has seen it.
            continue;
        };
        let mut threads_ns = 0;
        for tid in numbers_in(&format!("/proc/{pid}/task")) {
            let task = format!("/proc/{pid}/task/{tid}");
            // A thread may end between the listing and the look.
            let schedstat = fs::read_to_string(format!("{task}/schedstat")).unwrap_or_default();
            threads_ns += schedstat.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0);
            let status = fs::read_to_string(format!("{task}/status")).unwrap_or_default();
            usage.switches += labelled(&status, "voluntary_ctxt_switches:");
            usage.switches += labelled(&status, "nonvoluntary_ctxt_switches:");
        }
        // schedstat is exact but forgets threads that have ended; stat remembers them, in ticks. Two ticks are what
        // its rounding may lack.
        let tick_ns = 1_000_000_000 / rustix::param::clock_ticks_per_second();
        usage.cpu_ns += threads_ns.max((user_ticks + kernel_ticks).saturating_sub(2) * tick_ns);
        // Children that have ended are known in ticks alone. Only a proxy with a process for each few clients has many.
        usage.cpu_ns += (user_of_ended + kernel_of_ended) * tick_ns;
        usage.user_ticks += user_ticks + user_of_ended;
        usage.kernel_ticks += kernel_ticks + kernel_of_ended;
    }
    Ok(usage)
}

/// A numeric field of /proc/PID/stat, counted from 0 at the state that follows the name.
fn stat_field(pid: u32, index: usize) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold spaces and brackets; the last bracket ends it.
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(index)?.parse().ok()
}

fn numbers_in(dir: &str) -> Vec<u32> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The number after `label` at the start of a line, or 0.
fn labelled(text: &str, label: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(label));
    value.and_then(|value| value.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_work_shows() {
        let own = std::process::id();
        let before = usage(own).unwrap();
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(50) {
            std::hint::black_box(0);
        }
        // A sleep makes the scheduler bring its count up to date.
        sleep(Duration::from_millis(1));
        assert!(usage(own).unwrap().cpu_ns - before.cpu_ns > 5_000_000);
        assert!(memory(own).unwrap().pss > 0);
    }

    #[test]
    fn sockets_in_time_wait_are_found() {
        assert_eq!(
            time_wait_in("sockets: used 1\nTCP: inuse 5 orphan 0 tw 42 alloc 6 mem 1\nUDP: inuse 1\n"),
            Some(42)
        );
        assert_eq!(time_wait_in(""), None);
    }

    #[test]
    fn labels_match_whole_words_at_the_line_start() {
        let text = "voluntary_ctxt_switches:\t3\nnonvoluntary_ctxt_switches:\t4\n";
        assert_eq!(labelled(text, "voluntary_ctxt_switches:"), 3);
        assert_eq!(labelled(text, "nonvoluntary_ctxt_switches:"), 4);
        assert_eq!(labelled(text, "Pss:"), 0);
    }
}
