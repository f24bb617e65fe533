//! wmproxy: one binary that moves bytes between networks.
//!
//! This crate knows all the others and is known by none. It reads the command line ([`cli`]) and the config
//! ([`config`]), builds generations of listeners and upstream groups from it ([`generation`], [`modes`]), and runs
//! them ([`process`]) in sight of the outside ([`admin`], [`observe`]).

mod admin;
mod cli;
mod config;
mod demo;
mod file_server;
mod generation;
mod http_args;
mod modes;
mod observe;
mod passwords;
mod process;
mod proxy;
mod reverse_proxy;
mod source;
mod tunnel;
mod tunnel_command;
mod watch;
mod ws_proxy;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use admin::command::Action;
use cli::{Cli, Command, Global, print};
use file_server::FileServerArgs;
use observe::screen;
use process::{Banner, Run};
use proxy::ProxyArgs;
use source::Source;
use tunnel_command::TunnelCommand;

/// Small and steady where many threads allocate and free small things; see docs/benchmarks.md for the memory.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The config that is run when nothing else is asked for.
const DEFAULT_CONFIG: &str = "wmproxy.toml";

fn main() -> ExitCode {
    let Cli { global, command } = Cli::parse();
    match command {
        None if Path::new(DEFAULT_CONFIG).exists() => {
            run(Source::File(PathBuf::from(DEFAULT_CONFIG)), global, false, None)
        }
        None => match demo::start() {
            Ok(demo) => {
                let banner: Banner = Box::new(|_, _| demo.banner);
                run(Source::Demo(demo.config), global, false, Some(banner))
            }
            Err(error) => {
                eprintln!("error: the demonstration can't start: {error}");
                ExitCode::FAILURE
            }
        },
        Some(Command::Run { config, watch }) => run(Source::File(config), global, watch, None),
        Some(Command::Stream { specs }) => run(Source::Streams(specs), global, false, None),
        Some(Command::WsProxy(args)) => match args.check() {
            Ok(()) => run(Source::WsProxy(Box::new(args)), global, false, None),
            Err(error) => error.exit(),
        },
        Some(Command::ReverseProxy(args)) => match args.check() {
            Ok(()) => run(Source::ReverseProxy(Box::new(args)), global, false, None),
            Err(error) => error.exit(),
        },
        Some(Command::FileServer(args)) => serve_files(args, global),
        Some(Command::Proxy(args)) => proxy(args, global),
        Some(Command::Tunnel(command)) => tunnel(command, global),
        Some(Command::Check { config, print, json }) => check(config, &global, print, json),
        Some(Command::Reload(remote)) => admin::remote::run(Action::Reload, &remote, &global),
        Some(Command::Stop { remote, now, wait }) => {
            admin::remote::run(Action::Stop { now, wait }, &remote, &global)
        }
        Some(Command::Status(remote)) => admin::remote::run(Action::Status, &remote, &global),
        Some(Command::HashPassword(args)) => match args.run() {
            Ok(hash) => say(format!("{hash}\n")),
            Err(error) => fail(&error),
        },
        Some(Command::Schema) => say(format!("{:#}\n", config::schema())),
        Some(Command::Completions { shell }) => say(cli::completions(shell)),
        Some(Command::Version) => say(format!("wmproxy {}\n", env!("CARGO_PKG_VERSION"))),
    }
}

fn run(source: Source, global: Global, watch: bool, banner: Option<Banner>) -> ExitCode {
    raise_descriptor_limit();
    process::run(Run { source, global, watch, banner, display: false })
}

fn serve_files(args: Box<FileServerArgs>, global: Global) -> ExitCode {
    if let Err(error) = args.check() {
        error.exit();
    }
    // The config says the same, but not in the words of the command line.
    if let Some(problem) = args.root_problem() {
        eprintln!("error: {problem}");
        return ExitCode::FAILURE;
    }
    let told = args.clone();
    run(Source::FileServer(args), global, false, Some(Box::new(move |listeners, _| told.banner(listeners))))
}

fn proxy(mut args: Box<ProxyArgs>, global: Global) -> ExitCode {
    if let Err(error) = args.check() {
        error.exit();
    }
    if let Err(error) = args.prepare() {
        return fail(&error);
    }
    let told = args.clone();
    run(Source::Proxy(args), global, false, Some(Box::new(move |listeners, _| told.banner(listeners))))
}

fn tunnel(command: TunnelCommand, global: Global) -> ExitCode {
    let (source, banner): (Source, Option<Banner>) = match command {
        TunnelCommand::Server(mut args) => {
            if let Err(error) = args.prepare() {
                return fail(&error);
            }
            let told = args.clone();
            let banner: Banner = Box::new(move |listeners, tunnels| {
                told.banner(listeners.iter().map(|listener| &**listener), tunnels.fingerprint())
            });
            (Source::TunnelServer(args), Some(banner))
        }
        TunnelCommand::Client(mut args) => {
            if let Err(error) = args.check() {
                error.exit();
            }
            if let Err(error) = args.prepare() {
                return fail(&error);
            }
            (Source::TunnelClient(args), None)
        }
    };
    raise_descriptor_limit();
    process::run(Run { source, global, watch: false, banner, display: screen::is_there() })
}

fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

fn say(text: impl AsRef<[u8]>) -> ExitCode {
    match print(text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Tells every problem of a config, or what it comes to.
fn check(path: PathBuf, global: &Global, print: bool, json: bool) -> ExitCode {
    let color = std::io::stderr().is_terminal();
    match Source::File(path.clone()).load(global) {
        Ok(loaded) if json => say(format!("{:#}\n", loaded.warnings.to_json())),
        Ok(loaded) => {
            if !loaded.warnings.list.is_empty() {
                eprintln!("{}", loaded.warnings.render(color).trim_end());
            }
            if print { say(loaded.print()) } else { say(format!("{}: ok\n", path.display())) }
        }
        Err(problems) => {
            if json {
                let _ = say(format!("{:#}\n", problems.to_json()));
            } else {
                eprintln!("{}", problems.render(color).trim_end());
            }
            ExitCode::FAILURE
        }
    }
}

/// A connection takes two descriptors; the soft limit of most systems, 1024, is meant for programs that use select(2).
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Without the right to do so the limit stays, and accepting pauses when it is met.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
