//! Processes: pinning, a guard that ends what it started, and the sweeper that removes the run's directory.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Resource, Rlimit, Signal};
use rustix::thread::CpuSet;

use crate::procstat;

/// How long a process may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(3);

/// 10,000 flows are as many descriptors in a proxy and in the load, and 4,000 sessions 8,000; the rest is room for their
/// own.
const DESCRIPTORS: u64 = 16_384;

/// Between both commands of a pair.
pub(crate) const BETWEEN: &str = "%%";

/// A process that ends, with its children, when this value goes.
pub(crate) struct Guarded {
    child: Child,
}

/// This binary in another role, spoken to by lines.
pub(crate) struct Helper {
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    guarded: Guarded,
}

/// A directory for configs and logs, removed by a process of its own so that it goes whatever ends the run.
pub(crate) struct Workdir {
    path: PathBuf,
    sweeper: Child,
}

impl Guarded {
    /// Starts `command` pinned to `core`.
    pub(crate) fn start_pinned(core: usize, command: &[String], log: &Path) -> Result<Self> {
        let role = if command.iter().any(|word| word == BETWEEN) { "pair" } else { "exec" };
        let file = std::fs::File::create(log)?;
        let child = Command::new(std::env::current_exe()?)
            .args([role, "--core", &core.to_string(), "--"])
            .args(command)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("can't start {}", command[0]))?;
        Ok(Self { child })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Sends `signal` to the process alone.
    pub(crate) fn signal(&self, signal: Signal) {
        signal_to(self.child.id(), signal);
    }

    /// Waits until the process has ended, at most `limit`; whether it did.
    pub(crate) fn wait(&mut self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        loop {
            match self.child.try_wait() {
                Ok(Some(_)) | Err(_) => return true,
                Ok(None) if Instant::now() >= until => return false,
                Ok(None) => sleep(Duration::from_millis(2)),
            }
        }
    }
}

impl From<Child> for Guarded {
    fn from(child: Child) -> Self {
        Self { child }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if let Ok(Some(_)) = self.child.try_wait() {
            return;
        }
        // The children are looked up first: once their parent is gone nothing connects them to us.
        let tree = procstat::tree(self.child.id());
        self.signal(Signal::TERM);
        if !self.wait(GRACE) {
            for pid in tree {
                signal_to(pid, Signal::KILL);
            }
        }
        // Killed or ended: either way it can be reaped, and there is nobody left to tell of an error.
        let _ = self.child.wait();
    }
}

impl Helper {
    /// Starts this binary with `args`.
    pub(crate) fn start(args: &[String]) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("can't start a helper process")?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let guarded = Guarded::from(child);
        let output = BufReader::new(output.context("no stdout")?);
        Ok(Self { input, output, guarded })
    }

    /// The next line it prints.
    pub(crate) fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            self.guarded.wait(GRACE);
            bail!("the helper process ended early; its reason is above");
        }
        Ok(line.trim_end().to_owned())
    }

    pub(crate) fn send(&mut self, line: &str) -> Result<()> {
        let input = self.input.as_mut().context("stdin is closed")?;
        Ok(writeln!(input, "{line}")?)
    }

    /// Lets it end by itself: its stdin is closed and its end awaited.
    pub(crate) fn finish(mut self) {
        self.input = None;
        self.guarded.wait(GRACE);
    }
}

impl Workdir {
    pub(crate) fn create() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("wmproxy-bench-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        let sweeper = Command::new(std::env::current_exe()?)
            .arg("sweep")
            .arg(&path)
            // Its own group: Ctrl-C at the terminal must not reach it before it has done its work.
            .process_group(0)
            .stdin(Stdio::piped())
            .spawn()
            .context("can't start the sweeper")?;
        Ok(Self { path, sweeper })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Workdir {
    fn drop(&mut self) {
        drop(self.sweeper.stdin.take());
        let _ = self.sweeper.wait();
    }
}

/// The role `sweep`: waits for the end of stdin, that is of the runner, and removes `dir`.
pub(crate) fn sweep(dir: &Path) -> Result<()> {
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(std::fs::remove_dir_all(dir)?)
}

/// The role `exec`: pins this process and becomes `command`.
pub(crate) fn exec_pinned(core: usize, command: &[String]) -> Result<()> {
    pin(core)?;
    // If the runner dies, whatever it started goes too; SIGTERM, so that a master process takes its workers along.
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
    let error = Command::new(&command[0]).args(&command[1..]).exec();
    Err(error).with_context(|| format!("can't run {}", command[0]))
}

/// The role `pair`: pins this process and runs both commands until one of them ends.
pub(crate) fn run_pair(core: usize, commands: &[String]) -> Result<()> {
    pin(core)?;
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
    let mut pair = Vec::new();
    for command in commands.split(|word| word == BETWEEN) {
        // They are pinned with this process, and go when it does.
        let core = core.to_string();
        let exec = Command::new(std::env::current_exe()?)
            .args(["exec", "--core", &core, "--"])
            .args(command)
            .spawn();
        pair.push(exec.with_context(|| format!("can't start {}", command[0]))?);
    }
    loop {
        for child in &mut pair {
            if let Some(status) = child.try_wait()? {
                bail!("an end has ended: {status}");
            }
        }
        // It has nothing else to do, and must not cost what is measured.
        sleep(Duration::from_millis(200));
    }
}

/// What the roles `backend` and `load` do first.
pub(crate) fn settle_in(core: usize) -> Result<()> {
    pin(core)?;
    Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// The first two cores this process may use: the proxy's, and the one of load and backend.
pub(crate) fn two_cores() -> Result<(usize, usize)> {
    let allowed = rustix::thread::sched_getaffinity(None)?;
    let mut cores = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
    match (cores.next(), cores.next()) {
        (Some(proxy), Some(load)) => Ok((proxy, load)),
        _ => bail!("two cores are needed, one for the proxy and one for load and backend"),
    }
}

/// Raises the descriptor limit of this process and all it starts.
pub(crate) fn raise_descriptors() -> Result<()> {
    let now = rustix::process::getrlimit(Resource::Nofile);
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= DESCRIPTORS);
    if enough(now.current) {
        return Ok(());
    }
    let maximum = if enough(now.maximum) { now.maximum } else { Some(DESCRIPTORS) };
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: Some(DESCRIPTORS), maximum })
        .with_context(|| format!("{DESCRIPTORS} open files are needed; raise the hard limit (ulimit -Hn)"))
}

fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    rustix::thread::sched_setaffinity(None, &set).with_context(|| format!("can't pin to core {core}"))
}

fn signal_to(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    // It may have ended by itself between the look and the signal.
    let _ = pid.map(|pid| rustix::process::kill_process(pid, signal));
}
