//! The command line: the runner's options, and the hidden roles this binary plays for itself.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::scenario::{Door, Kind};

/// Measures wmproxy beside nginx, HAProxy, Caddy, Squid, tinyproxy, Dante, microsocks, rathole and direct.
#[derive(Parser)]
#[command(version, about, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) role: Option<Role>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

#[derive(Args)]
pub(crate) struct RunArgs {
    /// Scenarios to run, comma separated, each by its name or the beginning of several; all when absent
    #[arg(long, value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Alternating rounds of each scenario
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,
    /// One short round that only shows the bench works; nothing is judged
    #[arg(long, conflicts_with = "rounds")]
    pub(crate) quick: bool,
    /// The wmproxy binary to measure
    #[arg(long, default_value = "target/release/wmproxy")]
    pub(crate) wmproxy: PathBuf,
    /// Add a short pass under `strace -c` that counts syscalls
    #[arg(long)]
    pub(crate) strace: bool,
    /// Write the tables to this Markdown file, plots and raw samples to `bench/` beside it
    #[arg(long, value_name = "FILE", conflicts_with = "quick")]
    pub(crate) write: Option<PathBuf>,
}

#[derive(Subcommand)]
pub(crate) enum Role {
    /// Serve as the origin behind the proxies
    #[command(hide = true)]
    Backend {
        #[arg(long)]
        kind: Kind,
        #[arg(long)]
        core: usize,
        #[arg(long)]
        dir: PathBuf,
    },
    /// Put load on a proxy
    #[command(hide = true)]
    Load(LoadArgs),
    /// Pin this process to a core, then become the command
    #[command(hide = true)]
    Exec {
        #[arg(long)]
        core: usize,
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Pin this process to a core and run two commands, which `--` is between, until one of them ends
    #[command(hide = true)]
    Pair {
        #[arg(long)]
        core: usize,
        #[arg(last = true, required = true)]
        commands: Vec<String>,
    },
    /// Remove a directory once stdin ends
    #[command(hide = true)]
    Sweep { dir: PathBuf },
}

#[derive(Args, Clone)]
pub(crate) struct LoadArgs {
    #[arg(long)]
    pub(crate) kind: Kind,
    #[arg(long)]
    pub(crate) core: usize,
    #[arg(long)]
    pub(crate) target: SocketAddr,
    /// Bytes of one message or datagram; entries of a listing
    #[arg(long)]
    pub(crate) size: usize,
    /// Connections or client sockets kept busy at once
    #[arg(long)]
    pub(crate) parallel: usize,
    /// Requests, echoes, bytes, connections or sessions, by kind
    #[arg(long)]
    pub(crate) work: u64,
    /// Work of the same sort done before the clock starts
    #[arg(long)]
    pub(crate) warmup: u64,
    /// Datagrams: the share that may be lost before the run has failed
    #[arg(long, default_value_t = 0.1)]
    pub(crate) may_lose: f64,
    /// HTTP: how many fields the proxies on the way add to a request
    #[arg(long, default_value_t = 0)]
    pub(crate) added: u32,
    /// Forward proxies: how to say where to go
    #[arg(long, requires = "origin")]
    pub(crate) door: Option<Door>,
    /// Forward proxies: where to go
    #[arg(long)]
    pub(crate) origin: Option<SocketAddr>,
    /// Paced kinds: requests a second; without it, as many as get through
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// The run's directory, which has the certificate
    #[arg(long)]
    pub(crate) dir: PathBuf,
}
