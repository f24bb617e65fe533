//! `user`: as root the proxy binds, and then is somebody else for good.

use std::net::TcpListener;

use wmproxy_testkit::exec::run_in;
use wmproxy_testkit::{Backend, Conn, Proxy, TempDir};

use crate::{BIN, start, stream};

/// The ids of user, group or further groups in every thread of the proxy.
fn ids(proxy: &Proxy, key: &str) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", proxy.pid())).unwrap();
    let mut all: Vec<String> = tasks
        .map(|task| {
            let text = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        })
        .collect();
    all.sort();
    all.dedup();
    all
}

fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

#[test]
fn every_thread_becomes_the_user_and_keeps_the_privileged_port() {
    if !is_root() {
        // Whoever is not root can't become anybody: that is a start failure with its reason.
        let dir = TempDir::new();
        dir.write("c.toml", &format!("user = \"root\"\n{}", stream("t", "127.0.0.1:0", "127.0.0.1:9", "")));
        let finished = run_in(dir.path(), BIN, &["run", "-c", "c.toml", "--no-admin"]);
        assert_eq!(finished.code, Some(1), "{}", finished.text());
        assert!(finished.stderr.contains("user"), "{}", finished.stderr);
        return;
    }
    let backend = Backend::echo();
    let port = (600..1024)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port below 1024");
    let config = |more: &str| {
        format!("user = \"nobody\"\n{}", stream("t", &format!("127.0.0.1:{port}"), backend.addr(), more))
    };
    let proxy = start(&config(""));
    // Nobody may not remove a file from root's folder.
    proxy.expect_warn("a socket's file stays behind");
    let nobody = run_in("/".as_ref(), "id", &["-u", "nobody"]).success().stdout.trim().to_owned();
    let group = run_in("/".as_ref(), "id", &["-g", "nobody"]).success().stdout.trim().to_owned();
    // Real, effective, saved and for files.
    assert_eq!(ids(&proxy, "Uid:"), [[nobody.as_str(); 4].join(" ")]);
    assert_eq!(ids(&proxy, "Gid:"), [[group.as_str(); 4].join(" ")]);
    assert_eq!(ids(&proxy, "Groups:"), [""]);
    Conn::connect(&proxy.tcp("t")).echo(b"hello");
    // A port that it could not bind any more is kept through a reload.
    proxy.reload_with(&config("idle_timeout = \"5s\""));
    assert_eq!(proxy.tcp("t").port(), port);
    Conn::connect(&proxy.tcp("t")).echo(b"hello");
}

#[test]
fn an_unknown_user_is_a_start_failure() {
    let dir = TempDir::new();
    let config = format!("user = \"no-such-user\"\n{}", stream("t", "127.0.0.1:0", "127.0.0.1:9", ""));
    dir.write("c.toml", &config);
    let finished = run_in(dir.path(), BIN, &["run", "-c", "c.toml", "--no-admin"]);
    assert_eq!(finished.code, Some(1), "{}", finished.text());
    assert!(finished.stderr.contains("no-such-user"), "{}", finished.stderr);
}
