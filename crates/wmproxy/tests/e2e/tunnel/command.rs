//! Both ends by the command line alone, and how they are seen: the line to paste, status, metrics, the terminal.

use std::path::{Path, PathBuf};
use std::process::Command;

use wmproxy_testkit::exec::Service;
use wmproxy_testkit::tcp::free_port;
use wmproxy_testkit::wait::eventually;
use wmproxy_testkit::{Addr, Backend, Conn, TempDir, exec};

use super::{Server, tcp, web};
use crate::BIN;

/// A tunnel server of the command line.
struct Public {
    _service: Service,
    said: PathBuf,
}

impl Public {
    fn start(dir: &Path, port: u16) -> Public {
        let said = dir.join("server");
        let mut command = Command::new(BIN);
        command.current_dir(dir).env("STATE_DIRECTORY", dir.join("state"));
        command.args(["tunnel", "server", "--no-admin", "-l", &format!("127.0.0.1:{port}")]);
        let service = Service::start(&mut command, &said);
        Public { _service: service, said }
    }

    /// What it tells to run at home, without the program and the service that it takes as an example.
    fn line(&self) -> Vec<String> {
        let mut found = Vec::new();
        eventually("the line is printed", || {
            let said = std::fs::read_to_string(&self.said).unwrap();
            let line = said.lines().find_map(|line| line.trim().strip_prefix("wmproxy tunnel client "));
            let args = line.and_then(|line| line.split_once(" --tcp")).map(|(args, _)| args);
            found = args.unwrap_or_default().split(' ').map(str::to_owned).collect();
            args.is_some()
        });
        found
    }
}

fn home(dir: &Path, line: &[String]) -> Command {
    let mut command = Command::new(BIN);
    command.current_dir(dir).env("STATE_DIRECTORY", dir.join("home")).args([
        "tunnel",
        "client",
        "--no-admin",
    ]);
    command.args(line);
    command
}

#[test]
fn a_server_prints_what_to_run_at_home() {
    let (dir, backend, port, place) = (TempDir::new(), Backend::echo(), free_port(), free_port());
    let server = Public::start(dir.path(), port);
    let line = server.line();
    assert_eq!(line[..3], ["-S".to_owned(), format!("127.0.0.1:{port}"), "--fingerprint".to_owned()]);
    let mut command = home(dir.path(), &line);
    command.args(["--tcp", &format!("echo={}:{place}", backend.addr().port())]);
    let _client = Service::start(&mut command, &dir.join("client"));
    eventually("the service is there", || Conn::try_connect(&Addr::local(place)).is_ok());
    Conn::connect(&Addr::local(place)).echo(b"hello");
    let said = std::fs::read_to_string(dir.join("client")).unwrap();
    assert!(!said.contains('\x1b'), "no terminal, no orders for one: {said}");
    // It is known by the same identity and key the next time.
    drop(server);
    let again = Public::start(dir.path(), port);
    assert_eq!(again.line(), line);
}

#[test]
fn a_wrong_key_and_another_servers_identity_are_told() {
    let (dir, port) = (TempDir::new(), free_port());
    let server = Public::start(dir.path(), port);
    let line = server.line();
    for (at, value, why) in [
        (3, format!("sha256:{}", "ab".repeat(32)), "fingerprint"),
        (5, "another key that nobody guesses".to_owned(), "its key is wrong"),
    ] {
        let mut args = line.clone();
        args[at] = value;
        let mut command = home(dir.path(), &args);
        command.args(["--tcp", "9:0"]);
        let said = dir.join("wrong");
        let _client = Service::start(&mut command, &said);
        eventually(why, || std::fs::read_to_string(&said).unwrap().contains(why));
    }
}

#[test]
fn sessions_and_services_are_in_status_and_metrics() {
    let (backend, port) = (Backend::echo(), free_port());
    let server = Server::start();
    let services = tcp("echo", backend.addr(), port, "")
        + &web("site", backend.addr(), "site.test", "")
        + &tcp("closed", backend.addr(), 0, "secret = \"a secret that nobody guesses\"")
            .replace("port = 0\n", "");
    let client = server.home("", services);
    let conn = Conn::connect(&Addr::local(port));
    conn.echo(b"hello");
    let status = server.proxy.status();
    let home = &status["tunnel_server"]["clients"][0];
    assert_eq!((&home["name"], &home["session"]["transport"]), (&"home".into(), &"tcp".into()));
    let echo = &home["services"][0];
    assert_eq!((&echo["type"], &echo["up"], &echo["visitors"]), (&"tcp".into(), &true.into(), &1.into()));
    assert_eq!(echo["places"][0], format!("tcp://127.0.0.1:{port}"));
    assert_eq!(home["services"][1]["places"][0].as_str().unwrap().split(':').next(), Some("http"));
    assert_eq!(home["services"][2]["private"], true);
    let own = &client.status()["tunnel_client"];
    assert_eq!((&own["sessions"][0]["state"], &own["services"][0]["visitors"]), (&"open".into(), &1.into()));
    let scrape = server.proxy.metrics();
    assert!(scrape.has("wmproxy_tunnel_client_up", &[("client", "home")]));
    let visitors = scrape.sum("wmproxy_tunnel_visitors", &[("client", "home"), ("service", "echo")]);
    assert!((visitors - 1.0).abs() < f64::EPSILON);
    assert!(scrape.sum("wmproxy_tunnel_events_total", &[("event", "logins")]) >= 1.0);
    let scrape = client.metrics();
    assert!(scrape.has("wmproxy_tunnel_session_up", &[("server", &format!("127.0.0.1:{}", server.port))]));
    conn.finish();
    conn.expect_end();
}

#[test]
fn a_terminal_shows_what_is_where() {
    let (dir, backend, port, place) = (TempDir::new(), Backend::echo(), free_port(), free_port());
    let server = Public::start(dir.path(), port);
    let line = server.line().join(" ");
    for (colour, no_colour) in [(true, ""), (false, "1")] {
        let said = dir.join("screen");
        let client = format!(
            "{BIN} tunnel client --no-admin {line} --tcp echo={}:{place} --log-level warn",
            backend.addr().port()
        );
        let mut command = Command::new("script");
        command.env("TERM", "xterm").env("NO_COLOR", no_colour).env("STATE_DIRECTORY", dir.join("home"));
        command.args(["-q", "-f", "-e", "-c", &format!("exec {client}"), "/dev/null"]);
        let shown = Service::start(&mut command, &said);
        let row = format!("tcp://127.0.0.1:{place}");
        let text = || String::from_utf8_lossy(&std::fs::read(&said).unwrap()).into_owned();
        eventually("the service is shown", || text().contains(&row));
        let screen = text();
        assert!(screen.contains("VISITORS") && screen.contains("open"), "{screen:?}");
        assert_eq!(screen.contains("\x1b[32m"), colour, "{screen:?}");
        drop(shown);
        eventually("the place is free again", || is_refused(place));
    }
}

fn is_refused(port: u16) -> bool {
    Conn::try_connect(&Addr::local(port)).is_err()
}

#[test]
fn wrong_usage_and_missing_keys_are_told() {
    let dir = TempDir::new();
    let run = |args: &[&str]| {
        let mut command = Command::new(BIN);
        command.current_dir(dir.path()).env_remove("WMPROXY_KEY").args(["tunnel"]).args(args);
        exec::run(&mut command, wmproxy_testkit::PATIENCE)
    };
    let none = run(&["client", "-S", "127.0.0.1:1", "--key", "x"]);
    assert_eq!(none.code, Some(2));
    assert!(none.stderr.contains("nothing is offered"), "{}", none.stderr);
    let keyless = run(&["client", "-S", "127.0.0.1:1", "--tcp", "22:1"]);
    assert_eq!(keyless.code, Some(1));
    assert!(keyless.stderr.contains("no key is given"), "{}", keyless.stderr);
    let short = run(&["client", "-S", "127.0.0.1:1", "--key", "tooshort", "--tcp", "22:1"]);
    assert_eq!(short.code, Some(1));
    assert!(short.stderr.contains("fingerprint") && !short.stderr.contains("tooshort"), "{}", short.stderr);
}
