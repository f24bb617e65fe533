//! The proxies under test: where they are, and how they are started.

mod config;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::child::{BETWEEN, Guarded};
use crate::scenario::{Door, Feature, Front, Kind, Spec};

/// A proxy that does not answer within this has not started.
const START: Duration = Duration::from_secs(30);

/// Who carries the bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Variant {
    Wmproxy,
    /// wmproxy without the scenario's feature.
    Plain,
    /// wmproxy as a relay of layer 4, before HTTP.
    Relay,
    Nginx,
    Haproxy,
    Caddy,
    Squid,
    Tinyproxy,
    Dante,
    Microsocks,
    Rathole,
    Direct,
}

/// A proxy that is there to be measured.
pub(crate) struct Installed {
    pub(crate) variant: Variant,
    pub(crate) version: String,
    binary: PathBuf,
    /// nginx only: the line that loads the stream module, where it is a module.
    load_module: String,
}

/// A running proxy, stopped when this value goes.
pub(crate) struct Running {
    guarded: Guarded,
    pub(crate) address: SocketAddr,
}

impl Variant {
    pub(crate) const ALL: [Self; 12] = [
        Self::Wmproxy,
        Self::Plain,
        Self::Relay,
        Self::Nginx,
        Self::Haproxy,
        Self::Caddy,
        Self::Squid,
        Self::Tinyproxy,
        Self::Dante,
        Self::Microsocks,
        Self::Rathole,
        Self::Direct,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Wmproxy => "wmproxy",
            Self::Plain => "wmproxy, plain",
            Self::Relay => "wmproxy, layer 4",
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::Caddy => "Caddy",
            Self::Squid => "Squid",
            Self::Tinyproxy => "tinyproxy",
            Self::Dante => "Dante",
            Self::Microsocks => "microsocks",
            Self::Rathole => "rathole",
            Self::Direct => "direct",
        }
    }

    /// Whether it can do the work at all.
    pub(crate) fn serves(self, spec: &Spec) -> bool {
        match self {
            Self::Wmproxy => true,
            Self::Rathole => spec.carrier().is_some(),
            Self::Direct => !spec.is_memory() && !spec.is_tls() && !spec.is_files(),
            _ if spec.carrier().is_some() => false,
            Self::Nginx => spec.door().is_none(),
            // What speaks TLS to the one can't speak to the other.
            Self::Plain => {
                matches!(spec.feature, Feature::ProxyHeader | Feature::ServerName | Feature::Splice)
            }
            Self::Relay => {
                let is_http = spec.kind == Kind::HttpGet && spec.feature == Feature::Http(Front::Clear);
                is_http || spec.kind.is_bulk() && spec.door().is_some()
            }
            Self::Haproxy => !spec.is_udp() && !spec.is_files() && spec.door().is_none(),
            Self::Squid => matches!(spec.door(), Some(Door::Connect | Door::Http)),
            // A thread for each tunnel, and a process for each few: thousands of idle ones are nothing for them.
            Self::Tinyproxy => spec.door() == Some(Door::Connect) && !spec.is_memory(),
            Self::Dante => matches!(spec.door(), Some(Door::Socks5 | Door::Udp)) && !spec.is_memory(),
            Self::Microsocks => spec.door() == Some(Door::Socks5),
            // It lists ten thousand entries of a directory and no more.
            Self::Caddy => spec.is_files() && spec.kind != Kind::FileListing,
        }
    }

    /// Whether it is told by its clients where they want to go, where that is what the scenario is about.
    pub(crate) fn is_forward(self) -> bool {
        !matches!(self, Self::Relay | Self::Direct)
    }

    /// How many fields it adds to requests: the four that tell of the client, or as a forward proxy only `Via`.
    pub(crate) fn fields_added(self, spec: &Spec) -> u32 {
        match spec.feature {
            _ if matches!(self, Self::Relay | Self::Direct) => 0,
            Feature::Http(_) => 4,
            Feature::Forward(Door::Http) => 1,
            _ => 0,
        }
    }
}

impl Installed {
    /// Looks for a proxy; the error says what is missing. `Direct` is always there.
    pub(crate) fn find(variant: Variant, wmproxy: &Path) -> Result<Self> {
        let (binary, version_arg) = match variant {
            Variant::Wmproxy | Variant::Plain | Variant::Relay => (wmproxy.to_owned(), "version"),
            Variant::Nginx => (in_path("nginx").context("apt-get install nginx libnginx-mod-stream")?, "-V"),
            Variant::Haproxy => (in_path("haproxy").context("apt-get install haproxy")?, "-v"),
            Variant::Caddy => (in_path("caddy").context("apt-get install caddy")?, "version"),
            Variant::Squid => (in_path("squid").context("apt-get install squid")?, "-v"),
            Variant::Tinyproxy => (in_path("tinyproxy").context("apt-get install tinyproxy-bin")?, "-v"),
            Variant::Dante => (in_path("danted").context("apt-get install dante-server")?, "-v"),
            Variant::Microsocks => {
                let binary = in_path("microsocks").context("apt-get install microsocks")?;
                return Ok(Self {
                    variant,
                    version: packaged("microsocks"),
                    binary,
                    load_module: String::new(),
                });
            }
            Variant::Rathole => {
                (in_path("rathole").context("cargo install rathole --version 0.5.0")?, "--version")
            }
            Variant::Direct => {
                let load_module = String::new();
                return Ok(Self { variant, version: String::new(), binary: PathBuf::new(), load_module });
            }
        };
        let output = Command::new(&binary)
            .arg(version_arg)
            .output()
            .with_context(|| format!("can't run {}", binary.display()))?;
        if !output.status.success() {
            bail!("`{} {version_arg}` failed", binary.display());
        }
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let load_module = if variant == Variant::Nginx { stream_module(&text)? } else { String::new() };
        Ok(Self { variant, version: version_in(&text), binary, load_module })
    }

    /// Starts it before `backend`, where there is one, pinned to `core`, and waits until it relays. `None` for `Direct`.
    pub(crate) fn start(
        &self,
        spec: &Spec,
        backend: Option<SocketAddr>,
        core: usize,
        dir: &Path,
    ) -> Result<Option<Running>> {
        if self.variant == Variant::Direct {
            return Ok(None);
        }
        // The port is free when it is picked and may be gone when the proxy binds it; then another one is tried.
        let mut attempts = 3;
        loop {
            let started = self.start_once(spec, backend, core, dir);
            attempts -= 1;
            if started.is_ok() || attempts == 0 {
                return started.map(Some);
            }
        }
    }

    fn start_once(
        &self,
        spec: &Spec,
        backend: Option<SocketAddr>,
        core: usize,
        dir: &Path,
    ) -> Result<Running> {
        let address = free_address(spec.is_plain_udp())?;
        if let (Some(_), Some(backend)) = (spec.carrier(), backend) {
            return self.start_pair(spec, (address, backend), core, dir);
        }
        let (name, config) = config::write(self.variant, spec, (address, backend), &self.load_module, dir);
        let file = dir.join(name);
        fs::write(&file, config)?;
        let log = dir.join(format!("{name}.log"));
        self.run(core, &self.command(&file, dir, address), &log, spec, address)
    }

    /// Starts both ends of a tunnel.
    fn start_pair(
        &self,
        spec: &Spec,
        (address, backend): (SocketAddr, SocketAddr),
        core: usize,
        dir: &Path,
    ) -> Result<Running> {
        let control = free_address(false)?;
        let files = config::write_pair(self.variant, spec, (address, control, backend), dir);
        let mut command = Vec::new();
        for (name, config) in files {
            let file = dir.join(name);
            fs::write(&file, config)?;
            if !command.is_empty() {
                command.push(BETWEEN.to_owned());
            }
            command.extend(self.command(&file, dir, address));
        }
        self.run(core, &command, &dir.join("tunnel.log"), spec, address)
    }

    fn run(
        &self,
        core: usize,
        command: &[String],
        log: &Path,
        spec: &Spec,
        address: SocketAddr,
    ) -> Result<Running> {
        let mut guarded = Guarded::start_pinned(core, command, log)?;
        match await_relay(&mut guarded, spec, address) {
            Ok(()) => Ok(Running { guarded, address }),
            Err(error) => {
                let log = fs::read_to_string(log).unwrap_or_default();
                Err(error.context(format!("{} did not start: {}", self.variant.name(), log.trim())))
            }
        }
    }

    /// What to execute; Caddy, which takes that from its environment only, with one processor, and with `dir` for what it
    /// would keep in somebody's home.
    fn command(&self, config: &Path, dir: &Path, address: SocketAddr) -> Vec<String> {
        let (binary, config) = (self.binary.display().to_string(), config.display().to_string());
        let (data, home) =
            (format!("XDG_DATA_HOME={}", dir.display()), format!("XDG_CONFIG_HOME={}", dir.display()));
        let port = address.port().to_string();
        let words = match self.variant {
            Variant::Nginx => vec![&*binary, "-c", &config],
            Variant::Haproxy => vec![&*binary, "-db", "-f", &config],
            Variant::Caddy => {
                let run = [&*binary, "run", "--config", &config, "--adapter", "caddyfile"];
                [&["env", "GOMAXPROCS=1", &data, &home][..], &run].concat()
            }
            Variant::Squid => vec![&*binary, "-N", "-f", &config],
            // It makes a thread for each core that it may use, and sees only one.
            Variant::Rathole => vec!["env", "RUST_LOG=warn", &*binary, &config],
            Variant::Tinyproxy => vec![&*binary, "-d", "-c", &config],
            Variant::Dante => vec![&*binary, "-f", &config],
            // It has no config, and tells of each client on stderr.
            Variant::Microsocks => vec![&*binary, "-i", "127.0.0.1", "-p", &port],
            _ => vec![&*binary, "run", "-c", &config, "--no-admin"],
        };
        words.into_iter().map(str::to_owned).collect()
    }
}

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.guarded.pid()
    }
}

/// Waits until a connection is taken, or an echo comes back through UDP.
fn await_relay(guarded: &mut Guarded, spec: &Spec, address: SocketAddr) -> Result<()> {
    let until = Instant::now() + START;
    while Instant::now() < until {
        if guarded.has_ended()? {
            bail!("it ended");
        }
        let up = if spec.is_plain_udp() { echoes(address)? } else { TcpStream::connect(address).is_ok() };
        if up {
            return Ok(());
        }
        sleep(Duration::from_millis(5));
    }
    bail!("nothing answers at {address}")
}

fn echoes(address: SocketAddr) -> Result<bool> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    socket.connect(address)?;
    // Until the proxy listens, both fail with "connection refused".
    Ok(socket.send(&probe()).is_ok() && socket.recv(&mut [0; 8]).is_ok())
}

/// What a UDP echo returns and a QUIC server answers: a packet of a version that there is not (RFC 9000 sections 5.2.2
/// and 15).
fn probe() -> [u8; 1200] {
    let mut packet = [0; 1200];
    packet[..15].copy_from_slice(&[0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0]);
    packet
}

fn free_address(udp: bool) -> Result<SocketAddr> {
    let any = (Ipv4Addr::LOCALHOST, 0);
    Ok(if udp { UdpSocket::bind(any)?.local_addr()? } else { TcpListener::bind(any)?.local_addr()? })
}

/// The program in PATH, or where Debian keeps daemons, which is not in everybody's PATH.
fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // What is built for the benchmark lies beside what is built of this project.
    let own = ["target/peers/bin".into(), "/usr/sbin".into(), "/usr/local/sbin".into()];
    let dirs = std::env::split_paths(&path).chain(own);
    dirs.map(|dir: PathBuf| dir.join(program)).find(|file| file.is_file())
}

/// The configuration line that gives this nginx its stream module, from `nginx -V`.
fn stream_module(build: &str) -> Result<String> {
    if !build.contains("--with-stream") {
        bail!("this nginx is built without its stream module");
    }
    if !build.contains("--with-stream=dynamic") {
        return Ok(String::new());
    }
    let dirs = build.split_whitespace().filter_map(|word| word.strip_prefix("--modules-path="));
    let module = dirs.map(|dir| Path::new(dir).join("ngx_stream_module.so")).find(|file| file.is_file());
    let module = module.context("apt-get install libnginx-mod-stream")?;
    Ok(format!("load_module {};", module.display()))
}

/// The version of a program that does not tell it, as Debian's package has it.
fn packaged(program: &str) -> String {
    let output = Command::new("dpkg-query").args(["-W", "-f", "${Version}", program]).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

/// The first word that begins with a digit, after any `name/` and a `v`.
fn version_in(text: &str) -> String {
    let words = text.split_whitespace().map(|word| word.rsplit('/').next().unwrap_or(word));
    let words = words.map(|word| word.strip_prefix('v').unwrap_or(word));
    words
        .filter(|word| word.starts_with(|c: char| c.is_ascii_digit()))
        .map(|word| word.trim_end_matches('.').to_owned())
        .next()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found() {
        assert_eq!(version_in("nginx version: nginx/1.22.1\nbuilt with OpenSSL 3.0.17"), "1.22.1");
        assert_eq!(version_in("HAProxy version 2.6.12-1+deb12u4 2026/10/17"), "2.6.12-1+deb12u4");
        assert_eq!(version_in("wmproxy 0.1.0"), "0.1.0");
        assert_eq!(version_in("Dante v1.4.2.  Copyright (c) 1997 - 2014"), "1.4.2");
        assert_eq!(version_in("Squid Cache: Version 5.7"), "5.7");
        assert_eq!(version_in("v2.6.2 h1:wKoFIxpmOJLGl3QXoo6PNbYvGW4xLEgo32GPBEjWL8o="), "2.6.2");
    }

    #[test]
    fn a_built_in_stream_module_needs_no_line() {
        assert_eq!(stream_module("configure arguments: --with-stream --prefix=/x").unwrap(), "");
        assert!(stream_module("configure arguments: --prefix=/x").is_err());
    }
}
