//! Measures wmproxy beside nginx, HAProxy, Caddy and no proxy at all.
//!
//! The runner (`runner`) starts, for each scenario and round, a backend, one proxy and a load generator as
//! processes of their own: the proxy pinned to one core, backend and load to another. Backend and load are this
//! same binary in another role; where files are served there is no backend, but files (`site`). Equal work goes through each proxy, and what is compared is the CPU that the
//! proxy's processes spent on it (`procstat`), or the memory they hold. `report` and `plot` turn the samples into
//! Markdown and SVG.
//!
//! Nothing of wmproxy itself is linked in here: it is measured from outside, like its peers.
#![forbid(unsafe_code)]

mod backend;
mod child;
mod cli;
mod epoll;
mod hello;
mod identity;
mod load;
mod page;
mod pattern;
mod plot;
mod procstat;
mod proxies;
mod quic;
mod report;
mod runner;
mod sample;
mod scenario;
mod site;
mod strace;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::cli::{Cli, Role};

fn main() -> ExitCode {
    match play(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn play(cli: Cli) -> Result<()> {
    match cli.role {
        Some(Role::Backend { kind, core, dir }) => {
            child::settle_in(core)?;
            backend::run(kind, &dir)
        }
        Some(Role::Load(args)) => {
            child::settle_in(args.core)?;
            load::run(&args)
        }
        Some(Role::Exec { core, command }) => child::exec_pinned(core, &command),
        Some(Role::Pair { core, commands }) => child::run_pair(core, &commands),
        Some(Role::Sweep { dir }) => child::sweep(&dir),
        None => runner::run(&cli.run),
    }
}
