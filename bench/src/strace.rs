//! The optional pass that counts syscalls: a shorter load while `strace -c` looks on. Being watched slows a proxy
//! down, so nothing else is taken from this pass.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::child::Guarded;
use crate::procstat;
use crate::proxies::{Installed, Variant};
use crate::runner::{Bench, Stage, Task};
use crate::scenario::Spec;

/// The share of the scenario's work that is done under strace, one in so many.
const SHARE: u64 = 20;

/// Syscalls a unit of work, of each proxy that can be watched.
pub(crate) fn pass(bench: &Bench, spec: &Spec, proxies: &[Installed]) -> Vec<(Variant, f64)> {
    let mut counts = Vec::new();
    for proxy in proxies.iter().filter(|proxy| proxy.variant != Variant::Direct && proxy.variant.serves(spec))
    {
        match count(bench, spec, proxy) {
            Ok(count) => {
                println!("{} strace {:8} {count:.2} syscalls/{}", spec.slug, proxy.variant.name(), spec.unit);
                counts.push((proxy.variant, count));
            }
            Err(error) => println!("{} strace {:8} failed: {error:#}", spec.slug, proxy.variant.name()),
        }
    }
    counts
}

fn count(bench: &Bench, spec: &Spec, proxy: &Installed) -> Result<f64> {
    let work = (spec.work(bench.quick) / SHARE).max(1);
    let mut stage = Stage::set(bench, spec, proxy, Task { work, rate: None })?;
    let root = stage.proxy.as_ref().context("nothing to watch")?.pid();
    let summary = bench.dir.path().join("strace.txt");
    let mut command = Command::new("strace");
    command.args(["-c", "-f", "-o"]).arg(&summary);
    for pid in procstat::tree(root) {
        command.args(["-p", &pid.to_string()]);
    }
    let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().context("strace")?;
    let mut said = BufReader::new(child.stderr.take().context("no stderr")?);
    let mut strace = Guarded::from(child);
    // It says "Process N attached" once for each process; only then may the load begin.
    for _ in procstat::tree(root) {
        let mut line = String::new();
        if said.read_line(&mut line)? == 0 || !line.contains("attached") {
            bail!("{}", line.trim());
        }
    }
    let report = stage.play()?;
    procstat::usage_at_rest(root)?;
    strace.signal(Signal::INT);
    if !strace.wait(Duration::from_secs(5)) {
        bail!("strace did not end");
    }
    stage.strike();
    let calls = total_calls(&fs::read_to_string(&summary)?).context("no total in strace's summary")?;
    Ok(calls / (report.done as f64 * spec.units_per_work))
}

/// The number of calls in the last line, `100.00 SECONDS USECS CALLS [ERRORS] total`.
fn total_calls(summary: &str) -> Option<f64> {
    let total = summary.lines().rfind(|line| line.ends_with(" total"))?;
    total.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_found_with_and_without_errors() {
        assert_eq!(total_calls("100.00    0.000123           1       456        12 total\n"), Some(456.0));
        assert_eq!(total_calls("100.00    0.000123           1       456           total\n"), Some(456.0));
        assert_eq!(total_calls("nothing"), None);
    }
}
