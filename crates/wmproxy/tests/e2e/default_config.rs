//! Bare `wmproxy` in an empty folder: the embedded default, and the commands that it prints.
//!
//! It listens on fixed ports of loopback by design, so it runs in a network of its own where the system allows one.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use wmproxy_testkit::exec::run;

use crate::BIN;

fn allowed(flags: &str) -> bool {
    Command::new("unshare").args([flags, "ip", "link"]).output().is_ok_and(|output| output.status.success())
}

#[test]
fn the_embedded_default_answers_the_commands_that_it_prints() {
    let Some(flags) = ["-n", "-rn"].into_iter().find(|flags| allowed(flags)) else {
        assert!(
            std::env::var_os("WMPROXY_INTEROP").is_none(),
            "no network namespace, and WMPROXY_INTEROP is set"
        );
        eprintln!("not run: this system gives no network namespace");
        return;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/try-default");
    let mut command = Command::new("unshare");
    command.args([flags, "sh", "-c", "ip link set lo up && exec bash \"$0\" \"$1\""]).arg(script).arg(BIN);
    let finished = run(&mut command, Duration::from_secs(120)).success();
    assert!(finished.stdout.to_lowercase().contains("wmproxy"), "{}", finished.stdout);
}
