//! `wmproxy file-server`, started as a user does, and asked at the address that it prints.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use wmproxy_testkit::{Addr, TempDir, exec};

use super::ask_at;
use crate::BIN;

/// A running command, ended with the test.
struct Running {
    child: Child,
    /// What it says, behind what was read of it.
    said: BufReader<std::process::ChildStdout>,
    addr: Addr,
    /// What it said up to its end of telling how to stop it.
    banner: String,
}

impl Running {
    fn start(dir: &Path, args: &[&str]) -> Running {
        let mut command = Command::new(BIN);
        command.current_dir(dir).args(["file-server", "--no-admin", "-l", "127.0.0.1:0"]).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut banner = String::new();
        while !banner.contains("Ctrl-C") {
            assert!(said.read_line(&mut banner).unwrap() > 0, "it ended: {banner}");
        }
        let url = banner.split_whitespace().find(|word| word.contains("://")).unwrap();
        let addr = url.split("://").nth(1).unwrap().trim_end_matches('/').parse().unwrap();
        Running { child, said, addr, banner }
    }

    fn get(&self, target: &str) -> (u16, String) {
        let answer = ask_at(&self.addr, "GET", target, "");
        (answer.status(), answer.text().to_owned())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_raw(self.child.id() as i32).unwrap(), Signal::TERM);
        let _ = self.child.wait();
    }
}

fn site() -> TempDir {
    let dir = TempDir::new();
    dir.write("public/index.html", "the start");
    dir.write("public/.env", "the secret");
    dir.write("public/sub/note.txt", "a note");
    dir.write("beside.txt", "beside the root");
    dir
}

#[test]
fn a_directory_is_served_where_it_says() {
    let dir = site();
    let server = Running::start(dir.path(), &["-r", "public"]);
    let root = dir.join("public").canonicalize().unwrap();
    assert!(server.banner.contains(&format!("Serving {} at", root.display())), "{}", server.banner);
    assert_eq!(server.get("/"), (200, "the start".to_owned()));
    assert_eq!(server.get("/sub/note.txt"), (200, "a note".to_owned()));
    for target in ["/.env", "/sub/", "/none", "/beside.txt"] {
        assert_eq!(server.get(target).0, 404, "{target}");
    }
    assert_eq!(server.get("/%2e%2e/beside.txt").0, 400);
}

#[test]
fn flags_change_what_is_served() {
    let dir = site();
    let server = Running::start(&dir.join("public"), &["--browse", "--hidden", "--cors"]);
    assert!(server.get("/sub/").1.contains("note.txt"));
    assert_eq!(server.get("/.env"), (200, "the secret".to_owned()));
    let answer = ask_at(&server.addr, "GET", "/", "Origin: https://a.example\r\n");
    assert_eq!(answer.head.get("access-control-allow-origin"), Some("*"));
    let server = Running::start(dir.path(), &["-r", "public", "--spa", "index.html"]);
    assert_eq!(server.get("/users/7"), (200, "the start".to_owned()));
}

#[test]
fn requests_are_printed_when_that_is_asked_for() {
    let dir = site();
    let mut server = Running::start(&dir.join("public"), &["--access-log"]);
    server.get("/sub/note.txt");
    let mut line = String::new();
    while !line.contains("GET") {
        line.clear();
        assert!(server.said.read_line(&mut line).unwrap() > 0);
    }
    assert!(line.contains("127.0.0.1:") && line.contains("GET /sub/note.txt -> 200 "), "{line}");
}

#[test]
fn what_is_wrong_is_told_before_it_starts() {
    let dir = site();
    for (args, code, part) in [
        (&["-r", "nowhere"][..], 1, "error: can't serve nowhere: there is no such directory"),
        (&["-r", "beside.txt"], 1, "error: can't serve beside.txt: it is not a directory"),
        (&["--spa", "../x.html"], 2, "--spa: this leads out of the root"),
        (&["-l", "udp://:0"], 2, "clients come over tcp"),
        (&["public"], 2, "unexpected argument 'public'"),
    ] {
        let all: Vec<&str> = ["file-server", "--no-admin"].into_iter().chain(args.iter().copied()).collect();
        let finished = exec::run_in(dir.path(), BIN, &all);
        assert_eq!(finished.code, Some(code), "{args:?}: {}", finished.text());
        assert!(finished.stderr.contains(part), "{args:?}: {}", finished.stderr);
    }
}
