//! The real binary, started on a config of the test's own.
//!
//! [`Proxy`] starts it with an admin socket in a directory of its own, learns the bound addresses from there, and at
//! its end takes a strict teardown: anything unexpected in the log, a connection that is still counted, a
//! task that is still alive, a descriptor that is still open or a bad exit fails the test.

mod log;
mod process;
mod teardown;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::PATIENCE;
use crate::admin::{self, Answer};
use crate::dir::TempDir;
use crate::exec::{self, Finished};
use crate::metrics::Metrics;
use crate::tcp::Addr;

pub use log::Log;
pub use process::Descriptors;

/// The config's name in the proxy's directory.
const CONFIG: &str = "wmproxy.toml";

/// What to start, and how.
#[derive(Debug)]
pub struct Setup {
    binary: PathBuf,
    config: String,
    dir: TempDir,
    args: Vec<String>,
    nofile: Option<u64>,
    expected: Vec<String>,
    env: Vec<(String, String)>,
}

impl Setup {
    /// The binary at `binary` with a config. `{dir}` in the config stands for the proxy's own directory.
    pub fn new(binary: impl Into<PathBuf>, config: &str) -> Self {
        Setup {
            binary: binary.into(),
            config: config.to_owned(),
            dir: TempDir::new(),
            args: Vec::new(),
            nofile: None,
            expected: Vec::new(),
            env: Vec::new(),
        }
    }

    /// A variable of its environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A further argument.
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// Limits the proxy's descriptors.
    pub fn nofile(mut self, limit: u64) -> Self {
        self.nofile = Some(limit);
        self
    }

    /// Lets warnings and errors that contain `text` pass the teardown.
    pub fn expect_warn(mut self, text: &str) -> Self {
        self.expected.push(text.to_owned());
        self
    }

    /// A file beside the config.
    pub fn file(self, name: &str, text: &str) -> Self {
        self.dir.write(name, text);
        self
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts it and waits until it serves.
    ///
    /// # Panics
    /// When it ends instead; prints what it said.
    pub fn start(self) -> Proxy {
        let Setup { binary, config, dir, args, nofile, expected, env } = self;
        let path = dir.write(CONFIG, &place(&config, dir.path()));
        let admin = Addr::Unix(dir.join("admin.sock"));
        let mut command = mortal(&binary, nofile);
        command.args(["run", "-c"]).arg(path).arg("--admin").arg(admin.to_string()).args(args).envs(env);
        command.current_dir(dir.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let log = Log::collect(child.stderr.take().unwrap(), child.stdout.take().unwrap());
        let mut proxy = Proxy {
            binary,
            dir,
            admin,
            child: Mutex::new(child),
            log,
            expected: Mutex::new(expected),
            baseline: Mutex::default(),
            done: false,
        };
        proxy.wait_ready();
        proxy.rebase();
        proxy
    }
}

/// The binary, which dies with the thread that starts it, and so with a killed test run, too; under a limit of descriptors
/// where one is asked for. `setpriv` and `prlimit` become the binary, so the pid stays.
fn mortal(binary: &Path, nofile: Option<u64>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]);
    if let Some(limit) = nofile {
        command.arg("prlimit").arg(format!("--nofile={limit}:{limit}")).arg("--");
    }
    command.arg(binary);
    command
}

fn place(config: &str, dir: &Path) -> String {
    config.replace("{dir}", &dir.display().to_string())
}

/// What it has when nobody uses it.
#[derive(Debug, Clone, Copy, Default)]
struct Baseline {
    descriptors: Descriptors,
    tasks: u64,
    /// Connections that wait in the pools of a tunnel's client.
    waiting: u64,
}

/// A running proxy. Its end, or its drop, is a strict teardown.
#[derive(Debug)]
pub struct Proxy {
    binary: PathBuf,
    dir: TempDir,
    admin: Addr,
    child: Mutex<Child>,
    log: Log,
    expected: Mutex<Vec<String>>,
    baseline: Mutex<Baseline>,
    done: bool,
}

impl Proxy {
    /// Starts the binary with a config; see [`Setup`] for more.
    pub fn start(binary: impl Into<PathBuf>, config: &str) -> Self {
        Setup::new(binary, config).start()
    }

    fn wait_ready(&mut self) {
        // A binary with all its debugging information comes from the disk first, while others may be built beside it.
        let end = Instant::now() + 3 * PATIENCE;
        while !matches!(admin::exchange(&self.admin, "GET", "/api/v1/status"), Ok(answer) if answer.status == 200)
        {
            let ended = self.child.lock().unwrap().try_wait().unwrap();
            if ended.is_some() || Instant::now() > end {
                self.done = true;
                let _ = self.child.lock().unwrap().kill();
                let status = self.child.lock().unwrap().wait();
                panic!("the proxy did not start ({ended:?}, {status:?}); it said:\n{}", self.log.text());
            }
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    /// Takes what is open and alive now as the baseline of the teardown: after a reload that adds or removes listeners.
    pub fn rebase(&self) {
        let baseline = Baseline { descriptors: self.settled(), tasks: self.tasks(), waiting: self.waiting() };
        *self.baseline.lock().unwrap() = baseline;
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.lock().unwrap().id()
    }

    /// The proxy's own directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where the admin API listens.
    pub fn admin(&self) -> &Addr {
        &self.admin
    }

    /// One exchange with the admin API.
    ///
    /// # Panics
    /// When it can't be reached.
    pub fn api(&self, method: &str, path: &str) -> Answer {
        admin::exchange(&self.admin, method, path)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}; the log:\n{}", self.log.text()))
    }

    /// `GET /api/v1/status`.
    ///
    /// # Panics
    /// When it is not answered with JSON.
    pub fn status(&self) -> Value {
        let answer = self.api("GET", "/api/v1/status");
        assert_eq!(answer.status, 200, "{}", answer.body);
        serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.body))
    }

    /// `GET /metrics`.
    pub fn metrics(&self) -> Metrics {
        let answer = self.api("GET", "/metrics");
        assert_eq!(answer.status, 200, "{}", answer.body);
        Metrics::parse(&answer.body)
    }

    /// Every address that the listeners of `name` with this protocol (`tcp` or `udp`) are bound to.
    pub fn addrs(&self, name: &str, protocol: &str) -> Vec<Addr> {
        let status = self.status();
        let listeners = status["listeners"].as_array().unwrap_or_else(|| panic!("no listeners in {status}"));
        listeners
            .iter()
            .filter(|listener| listener["name"] == name && listener["protocol"] == protocol)
            .map(|listener| listener["address"].as_str().unwrap().parse().unwrap())
            .collect()
    }

    /// The address of the one TCP listener of that name.
    ///
    /// # Panics
    /// When there is none, or more.
    pub fn tcp(&self, name: &str) -> Addr {
        self.only(name, "tcp")
    }

    /// The address of the one UDP listener of that name.
    ///
    /// # Panics
    /// When there is none, or more.
    pub fn udp(&self, name: &str) -> SocketAddr {
        self.only(name, "udp").inet()
    }

    fn only(&self, name: &str, protocol: &str) -> Addr {
        let mut addrs = self.addrs(name, protocol);
        assert_eq!(addrs.len(), 1, "listeners {name} over {protocol}: {}", self.status());
        addrs.remove(0)
    }

    /// The number at `key` of a listener in the status, over all its addresses.
    pub fn listener_number(&self, name: &str, key: &str) -> u64 {
        let status = self.status();
        let listeners = status["listeners"].as_array().unwrap();
        listeners.iter().filter(|listener| listener["name"] == name).map(|l| l[key].as_u64().unwrap()).sum()
    }

    /// Connections and flows that are open now, over all listeners.
    pub fn active(&self) -> u64 {
        let status = self.status();
        status["listeners"]
            .as_array()
            .unwrap()
            .iter()
            .map(|listener| listener["active"].as_u64().unwrap())
            .sum()
    }

    /// Tasks that are alive: one for each connection and flow, and those of the listeners.
    pub fn tasks(&self) -> u64 {
        self.metrics().sum("wmproxy_tasks", &[]) as u64
    }

    /// Connections that wait for visitors in the pools of a tunnel's client, each with a task.
    pub(crate) fn waiting(&self) -> u64 {
        let status = self.status();
        let sessions = status["tunnel_client"]["sessions"].as_array();
        sessions.into_iter().flatten().filter_map(|session| session["pool"].as_u64()).sum()
    }

    /// Which generation of the config is live.
    pub fn generation(&self) -> u64 {
        self.status()["generation"].as_u64().unwrap()
    }

    /// Writes another config over the first one, without a reload. The file is replaced, as editors do.
    pub fn rewrite(&self, config: &str) {
        let next = self.dir.write("next.toml", &place(config, self.dir.path()));
        std::fs::rename(next, self.dir.join(CONFIG)).unwrap();
    }

    /// Runs the binary with `args` and `--admin` of this proxy, in its directory.
    pub fn command(&self, args: &[&str]) -> Finished {
        let admin = self.admin.to_string();
        let args: Vec<&str> = args.iter().copied().chain(["--admin", &admin]).collect();
        exec::run_in(self.dir.path(), &self.binary, &args)
    }

    /// Reloads by the command line.
    ///
    /// # Panics
    /// When that fails.
    pub fn reload(&self) {
        self.command(&["reload"]).success();
    }

    /// Writes another config and reloads it.
    pub fn reload_with(&self, config: &str) {
        self.rewrite(config);
        self.reload();
    }

    /// Reloads a config that must be refused; the refusal is what the command says. The log may warn of it.
    ///
    /// # Panics
    /// When the reload succeeds.
    pub fn reload_refused(&self, config: &str) -> String {
        self.expect_warn("reload");
        self.rewrite(config);
        let finished = self.command(&["reload"]);
        assert_eq!(finished.code, Some(1), "a refused reload exits 1; it said:\n{}", finished.text());
        finished.text()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.pid() as i32).unwrap(), signal).unwrap();
    }

    /// Waits for its end; says its exit code, none when a signal ended it.
    ///
    /// # Panics
    /// When it does not end.
    pub fn wait(&mut self) -> Option<i32> {
        let status = exec::wait(&mut self.child.lock().unwrap(), PATIENCE);
        let status =
            status.unwrap_or_else(|| panic!("the proxy does not end; its log:\n{}", self.log.text()));
        self.done = true;
        status.code()
    }

    /// Whether it still runs.
    pub fn running(&self) -> bool {
        self.child.lock().unwrap().try_wait().unwrap().is_none()
    }

    /// What it logged so far.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Lets warnings and errors that contain `text` pass the teardown.
    pub fn expect_warn(&self, text: &str) {
        self.expected.lock().unwrap().push(text.to_owned());
    }

    /// The lines of a file in its directory; none when there is no such file.
    pub fn file_lines(&self, name: &str) -> Vec<String> {
        std::fs::read_to_string(self.dir.join(name)).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// The access log `access.log` in JSON, once it has `count` lines.
    ///
    /// # Panics
    /// When they do not come, or a line is no JSON.
    pub fn access_log(&self, count: usize) -> Vec<Value> {
        let full = || self.file_lines("access.log").len() >= count;
        let came = crate::wait::holds_within(PATIENCE, full);
        let lines = self.file_lines("access.log");
        assert!(came, "{} of {count} lines in the access log: {lines:#?}", lines.len());
        lines
            .iter()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect()
    }
}
