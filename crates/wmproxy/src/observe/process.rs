//! What the system knows of this process, under the names that every Prometheus client library gives it.

use std::fs;
use std::io;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};

/// A reading of `/proc/self` (proc(5)).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct ProcessStats {
    /// Descriptors in use.
    pub(crate) open_fds: u64,
    /// How many there may be; none for no limit.
    pub(crate) max_fds: Option<u64>,
    /// Bytes of memory in use.
    pub(crate) resident_bytes: u64,
    /// Bytes of address space.
    pub(crate) virtual_bytes: u64,
    /// CPU time so far, user and kernel.
    pub(crate) cpu: Duration,
    /// Threads.
    pub(crate) threads: u64,
}

impl ProcessStats {
    /// Reads them now.
    ///
    /// # Errors
    /// When `/proc` is not there or says what nobody expects.
    pub(crate) fn read() -> io::Result<ProcessStats> {
        let odd = || io::Error::new(io::ErrorKind::InvalidData, "/proc/self/stat is not as expected");
        let stat = fs::read_to_string("/proc/self/stat")?;
        // The second field is the program's name in brackets and may hold anything, brackets and blanks too.
        let (_, rest) = stat.rsplit_once(')').ok_or_else(odd)?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // `rest` begins with the third field of proc(5).
        let field = |n: usize| fields.get(n - 3).and_then(|text| text.parse::<u64>().ok()).ok_or_else(odd);
        let ticks = field(14)? + field(15)?;
        let per_second = rustix::param::clock_ticks_per_second().max(1);
        let nanos = u128::from(ticks) * 1_000_000_000 / u128::from(per_second);
        Ok(ProcessStats {
            open_fds: open_fds()?,
            max_fds: getrlimit(Resource::Nofile).current,
            resident_bytes: field(24)? * rustix::param::page_size() as u64,
            virtual_bytes: field(23)?,
            cpu: Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)),
            threads: field(20)?,
        })
    }
}

fn open_fds() -> io::Result<u64> {
    // Since Linux 6.2 the folder's size is the count; listing a hundred thousand entries takes milliseconds.
    match fs::metadata("/proc/self/fd")?.len() {
        // The listing itself holds one open.
        0 => Ok((fs::read_dir("/proc/self/fd")?.count() as u64).saturating_sub(1)),
        count => Ok(count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readings_are_plausible() {
        let stats = ProcessStats::read().unwrap();
        assert!(stats.open_fds >= 3 && stats.max_fds.is_none_or(|max| stats.open_fds <= max), "{stats:?}");
        assert!(stats.resident_bytes > 100_000 && stats.resident_bytes <= stats.virtual_bytes, "{stats:?}");
        assert!(stats.threads >= 1);
        let held: Vec<_> = (0..50).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        assert!(ProcessStats::read().unwrap().open_fds >= 50);
        drop(held);
    }
}
