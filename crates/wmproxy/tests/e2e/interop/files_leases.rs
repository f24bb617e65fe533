//! Files that another program has a lease on, as Samba does.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::{asked, program};
use crate::files::{Tree, get};

/// Takes a lease on a file, which it gives back at its end only, and says so.
const HOLD: &str = r#"
import fcntl, os, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
file = os.open(sys.argv[1], os.O_RDWR)
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print('held', flush=True)
sys.stdin.read()
"#;

#[test]
fn a_leased_file_is_a_503_and_others_are_there() {
    if !asked() {
        return;
    }
    let tree = Tree::new(&[("leased", "leased"), ("other", "other")]);
    let proxy = tree.serve("", "");
    let mut holder = Command::new(program("python3"))
        .args(["-c", HOLD])
        .arg(tree.path("leased"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "held\n");
    for _ in 0..3 {
        assert_eq!(get(&proxy, "/leased", "").head.status(), 503);
        assert_eq!(get(&proxy, "/other", "").body, b"other");
    }
    drop(holder.stdin.take());
    assert!(holder.wait().unwrap().success());
    assert_eq!(get(&proxy, "/leased", "").body, b"leased");
}
