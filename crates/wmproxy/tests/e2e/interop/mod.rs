//! Real services behind the proxy, from the system's packages.
//!
//! They run where `WMPROXY_INTEROP` is set, as `.ci/run` does after installing the packages: a missing program then
//! fails its test. Without it the tests say that nobody asked for them.

mod associations;
mod chromium;
mod databases;
mod dns;
mod dnsdist;
mod files_archives;
mod files_browser;
mod files_leases;
mod files_nginx;
mod forward_browser;
mod health;
pub(crate) mod http;
mod iperf;
mod netns;
mod parents;
mod preface;
mod tls;
mod tunnel;
mod visitors;
mod web;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use wmproxy_testkit::exec::{Finished, run};

/// Whether these tests are asked for; says so when they are not.
pub(crate) fn asked() -> bool {
    let asked = std::env::var_os("WMPROXY_INTEROP").is_some_and(|value| value != "0");
    if !asked {
        eprintln!("not asked for: set WMPROXY_INTEROP=1");
    }
    asked
}

/// A program of the system, which must be there.
pub(crate) fn program(name: &str) -> PathBuf {
    let path = std::env::var("PATH").unwrap_or_default();
    // Debian keeps servers out of a user's path.
    let folders = path.split(':').chain(["/usr/sbin", "/usr/local/sbin", "/sbin"]);
    folders
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("{name} is not installed, and WMPROXY_INTEROP asks for it"))
}

/// Runs a program of the system to its end, for at most a minute.
fn call(name: &str, args: &[&str]) -> Finished {
    run(Command::new(program(name)).args(args), Duration::from_secs(60))
}
