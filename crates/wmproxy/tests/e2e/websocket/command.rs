//! `wmproxy ws-proxy`.

use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use wmproxy_testkit::tcp::free_port;
use wmproxy_testkit::{Addr, Backend, Conn, eventually, exec};

use crate::BIN;

/// A running command, ended with the test.
struct Running(Child, Addr);

impl Running {
    fn start(to: &Addr, args: &[&str]) -> Running {
        let from: Addr = format!("127.0.0.1:{}", free_port()).parse().unwrap();
        let mut command = Command::new(BIN);
        command.args(["ws-proxy", "--no-admin", "-f", &from.to_string(), "-t", &to.to_string()]).args(args);
        let child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("it to listen", || Conn::try_connect(&from).is_ok());
        Running(child, from)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_raw(self.0.id() as i32).unwrap(), Signal::TERM);
        let _ = self.0.wait();
    }
}

#[test]
fn two_commands_make_a_tunnel() {
    let backend = Backend::echo();
    let inner = Running::start(backend.addr(), &["--mode", "ws2tcp", "--path", "/x", "--host", "h.example"]);
    let with = ["--mode", "tcp2ws", "--path", "/x", "--host", "h.example:81", "--ping", "30s"];
    let outer =
        Running::start(&inner.1, &[&with[..], &["--header", "X-A: b", "--subprotocol", "binary"]].concat());
    let conn = Conn::connect(&outer.1);
    conn.echo(b"over two bridges");
    conn.finish();
    conn.expect_end();
    drop(conn);
    // Another path is not theirs.
    let other = Running::start(&inner.1, &["--mode", "tcp2ws", "--host", "h.example"]);
    Conn::connect(&other.1).expect_closed();
}

#[test]
fn wrong_usage_is_told_before_it_starts() {
    for (args, part) in [
        (&["-f", ":0", "-t", "a:1"][..], "--mode"),
        (&["-f", ":0", "-t", "ws://a/x", "--mode", "tcp2ws"], "no scheme"),
        (&["-f", ":0", "-t", "a:1", "--mode", "tcp2ws", "--host", "a b"], "--host a b"),
        (&["-f", ":0", "-t", "a:1", "--mode", "tcp2ws", "--insecure"], "--insecure are for --mode tcp2wss"),
        (&["-f", ":0", "-t", "a:1", "--mode", "ws2tcp", "--header", "Host: x"], "--header: `Host` belongs"),
        (&["-f", "udp://:0", "-t", "a:1", "--mode", "ws2tcp"], "a bridge is for tcp"),
    ] {
        let dir = wmproxy_testkit::TempDir::new();
        let all: Vec<&str> = ["ws-proxy"].into_iter().chain(args.iter().copied()).collect();
        let finished = exec::run_in(dir.path(), BIN, &all);
        assert_eq!(finished.code, Some(2), "{args:?}: {}", finished.text());
        assert!(finished.stderr.contains(part), "{args:?}: {}", finished.stderr);
    }
}

#[test]
fn what_is_wrong_with_a_bridge_is_told_once_and_where() {
    let refused = |lines: &str| {
        let dir = wmproxy_testkit::TempDir::new();
        dir.write("c.toml", &format!("[[stream]]\nname = \"t\"\n{lines}\n"));
        let finished = exec::run_in(dir.path(), BIN, &["check", "-c", "c.toml"]);
        assert_eq!(finished.code, Some(1), "{lines}: {}", finished.text());
        assert_eq!(finished.stderr.matches("error").count(), 1, "{lines}: {}", finished.stderr);
        finished.stderr
    };
    for (lines, part) in [
        ("listen = \"udp://:1\"\nupstream = \"a:1\"\nbridge = \"ws2tcp\"", "a bridge is for tcp"),
        ("listen = \":1\"\nbridge = \"tcp2ws\"\nbridge_url = \"http://a/\"", "expected a URL like"),
        ("listen = \":1\"\nupstream = \"a:1\"\nbridge = \"tcp2ws\"", "needs a `bridge_url`"),
        ("listen = \":1\"\nupstream = \"a:1\"\nbridge_ping = \"5s\"", "has no effect without `bridge`"),
        ("listen = \":1\"\nbridge = \"ws2tcp\"", "`upstream` is missing"),
        (
            "listen = \":1\"\nupstream = \"a:1\"\nbridge = \"ws2tcp\"\nbridge_headers = { \"Sec-WebSocket-Key\" = \"s3cr3t\" }",
            "belongs to the handshake",
        ),
    ] {
        let said = refused(lines);
        assert!(said.contains(part) && !said.contains("s3cr3t"), "{lines}: {said}");
    }
}
