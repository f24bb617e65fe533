//! `[[forward]]` in a config: what `check` refuses, what a reload changes under load, what status, metrics and logs tell, and
//! `wmproxy proxy` and `hash-password` on the command line.

use std::fmt::Display;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use wmproxy_testkit::exec::{Finished, Service, run_in};
use wmproxy_testkit::tcp::free_port;
use wmproxy_testkit::{Addr, Backend, Conn, TempDir, eventually};

use super::{TO_LOOPBACK, forward, listener};
use crate::{ACCESS_LOG, BIN, setup, start};

/// A bcrypt hash, of the least cost, of `open sesame`.
const HASH: &str = "$2b$04$kTdzpt9CBs2wt1Q.TZMY5.kruU25yIzQEaF0Qs.U87IFxwCtxfReu";

/// A user who may come, with further keys.
pub(super) fn user(name: &str, more: &str) -> String {
    format!("{name} = {{ password = \"{HASH}\"{more} }}")
}

/// Asks a proxy for a tunnel; gives back the status and the connection behind the head of the answer.
pub(super) fn tunnel(proxy: &Addr, to: impl Display, user: Option<&str>) -> (u16, Conn) {
    let conn = Conn::connect(proxy);
    let login = user.map_or(String::new(), |user| {
        let pair = STANDARD.encode(format!("{user}:open sesame"));
        format!("Proxy-Authorization: Basic {pair}\r\n")
    });
    conn.send(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n{login}\r\n").as_bytes());
    let status = conn.line().split(' ').nth(1).unwrap().parse().unwrap();
    while !conn.line().trim().is_empty() {}
    (status, conn)
}

fn check(text: &str, more: &[&str]) -> Finished {
    let dir = TempDir::new();
    dir.write("c.toml", text);
    run_in(dir.path(), BIN, &[&["check", "-c", "c.toml"], more].concat())
}

#[test]
fn a_proxy_that_others_can_reach_says_who_may_use_it() {
    let open_to_all = "[[forward]]\nlisten = \":0\"\n";
    let refused = check(open_to_all, &[]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("whoever reaches :0 could use this proxy"), "{}", refused.stderr);
    assert!(refused.stderr.contains("open = true"), "{}", refused.stderr);
    for more in [
        "open = true".to_owned(),
        "allow = [\"10.0.0.0/8\"]".to_owned(),
        format!("users = {{ {} }}", user("alice", "")),
    ] {
        check(&format!("{open_to_all}{more}\n"), &[]).success();
    }
    // An optional certificate keeps nobody out who comes without TLS, and no users at all are none.
    for (more, said) in [
        ("users = {}", "whoever reaches"),
        ("deny = [\"10.0.0.0/8\"]", "whoever reaches"),
        ("tls_optional = true\ntls = { cert = \"self-signed\", client_ca = \"c.toml\" }", "client_ca"),
    ] {
        let refused = check(&format!("{open_to_all}{more}\n"), &[]);
        assert_eq!(refused.code, Some(1), "{more}");
        assert!(refused.stderr.contains(said), "{more}: {}", refused.stderr);
    }
    let dir = TempDir::new();
    dir.write("c.toml", open_to_all);
    let started = run_in(dir.path(), BIN, &["run", "-c", "c.toml", "--no-admin"]);
    assert_eq!(started.code, Some(1), "it must not start, either");
}

#[test]
fn a_reload_changes_users_and_rules_and_keeps_tunnels() {
    let backend = Backend::echo();
    let to = backend.addr();
    let config =
        |users: &str, egress: &str| format!("{egress}{}", listener(format!("users = {{ {users} }}")));
    let both = format!("{}, {}", user("alice", ""), user("bob", ""));
    let proxy = start(&config(&both, TO_LOOPBACK));
    let addr = proxy.tcp("f");
    let (done, tunnels, wrong) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        // Bob may come under each of these configs, and his tunnel outlives them all.
        let old = scope.spawn(|| {
            let (status, conn) = tunnel(&addr, to, Some("bob"));
            assert_eq!(status, 200);
            while !done.load(Ordering::SeqCst) {
                conn.echo(b"still here");
            }
            conn.finish();
            conn.expect_end();
        });
        let new = scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                let (status, conn) = tunnel(&addr, to, Some("bob"));
                tunnels.fetch_add(1, Ordering::SeqCst);
                if status != 200 {
                    wrong.fetch_add(1, Ordering::SeqCst);
                    continue;
                }
                conn.echo(b"hello");
                conn.finish();
                conn.expect_end();
            }
        });
        let (status, alices) = tunnel(&addr, to, Some("alice"));
        assert_eq!(status, 200);
        for round in 0..3 {
            proxy.reload_with(&config(&user("bob", ""), TO_LOOPBACK));
            assert_eq!(tunnel(&addr, to, Some("alice")).0, 407, "round {round}");
            alices.echo(b"what is open goes on");
            proxy.reload_with(&config(&both, TO_LOOPBACK));
            assert_eq!(tunnel(&addr, to, Some("alice")).0, 200, "round {round}");
        }
        let before = tunnels.load(Ordering::SeqCst);
        eventually("tunnels go on", || tunnels.load(Ordering::SeqCst) > before + 3);
        done.store(true, Ordering::SeqCst);
        old.join().unwrap();
        new.join().unwrap();
        alices.finish();
    });
    assert_eq!(wrong.load(Ordering::SeqCst), 0, "of {}", tunnels.load(Ordering::SeqCst));
    // Other rules count at once; those that can't be read change nothing.
    proxy.reload_with(&config(&both, ""));
    assert_eq!(tunnel(&addr, to, Some("bob")).0, 403);
    let said = proxy.reload_refused(&config(&both, "[egress.default]\nallow = [\"a b\"]\n"));
    assert!(said.contains("neither an address nor a name"), "{said}");
    assert_eq!(tunnel(&addr, to, Some("bob")).0, 403);
    proxy.reload_with(&config(&both, &format!("[egress.default]\nallow = [\"{to}\"]\n")));
    assert_eq!(tunnel(&addr, to, Some("bob")).0, 200);
    proxy.finish();
}

#[test]
fn status_and_metrics_tell_of_users_and_no_secrets() {
    let backend = Backend::echo();
    let users = format!("users = {{ {} }}", user("alice", ", quota = \"1m/day\""));
    let chain = "[chain.out]\nhops = [\"socks5://me:s3cret@127.0.0.1:9\"]\n\
                 [[egress.default.route]]\ndomains = [\"*.onion\"]\nvia = \"out\"\n";
    let config = format!("{ACCESS_LOG}{}{chain}", forward(users));
    let proxy = setup(&config).env("STATE_DIRECTORY", "{dir}").start();
    let addr = proxy.tcp("f");
    let (status, conn) = tunnel(&addr, backend.addr(), Some("alice"));
    assert_eq!(status, 200);
    conn.echo(&[7; 1000]);
    let of = |key: &str| proxy.status()["users"][0][key].clone();
    eventually("her bytes are counted", || of("bytes").as_u64() >= Some(2000));
    assert_eq!((of("name"), of("connections")), ("alice".into(), 1.into()));
    assert_eq!(of("quota")["limit"], 1 << 20);
    let metrics = proxy.metrics();
    assert_eq!(metrics.sum("wmproxy_user_connections", &[("user", "alice")]), 1.0);
    // 25 is denied whatever is open.
    let (status, denied) = tunnel(&addr, Addr::local(25), Some("alice"));
    assert_eq!(status, 403);
    drop(denied);
    assert_eq!(tunnel(&addr, backend.addr(), Some("mallory")).0, 407);
    let metrics = proxy.metrics();
    assert!(metrics.sum("wmproxy_egress_denials_total", &[("reason", "deny_port")]) >= 1.0);
    assert!(metrics.sum("wmproxy_user_logins_total", &[("result", "wrong")]) >= 1.0);
    let told = proxy.command(&["status"]).success().stdout;
    assert!(told.contains("USER") && told.contains("alice"), "{told}");
    conn.finish();
    conn.expect_end();
    let log = proxy.access_log(3);
    let line = log.iter().find(|line| line["outcome"] == "done" && line["status"] == 200).unwrap();
    assert_eq!((&line["kind"], &line["user"]), (&"connect".into(), &"alice".into()));
    assert_eq!(line["destination"], backend.addr().to_string());
    assert_eq!((&line["way"], &line["peer"]), (&"direct".into(), &backend.addr().to_string().into()));
    let printed = proxy.command(&["check", "-c", "wmproxy.toml", "--print"]);
    let everything = [
        proxy.api("GET", "/api/v1/status").body,
        proxy.api("GET", "/metrics").body,
        proxy.file_lines("access.log").join("\n"),
        proxy.log().text(),
        told,
        printed.text(),
    ];
    for text in everything {
        for secret in ["s3cret", "sesame", "kTdzpt9CBs2wt1Q"] {
            assert!(!text.contains(secret), "{secret} is in\n{text}");
        }
    }
    proxy.finish();
}

#[test]
fn the_command_line_makes_a_proxy_that_goes_through_another() {
    let backend = Backend::echo();
    let parent = start(&format!("{ACCESS_LOG}{}", forward(format!("users = {{ {} }}", user("me", "")))));
    let dir = TempDir::new();
    let addr = Addr::local(free_port());
    let server = format!("socks5://me:open%20sesame@{}", parent.tcp("f"));
    let mut command = Command::new(BIN);
    command.current_dir(dir.path()).args(["proxy", "-b", &addr.to_string(), "-S", &server]);
    command.args(["--user", "you", "--allow-private", "--no-admin"]).env("WMPROXY_PASS", "open sesame");
    let proxy = Service::start(&mut command, &dir.join("said"));
    let said = || std::fs::read_to_string(dir.join("said")).unwrap_or_default();
    eventually("it says what to try", || said().contains("curl -U you -x socks5h://"));
    assert_eq!(tunnel(&addr, backend.addr(), None).0, 407);
    let (status, conn) = tunnel(&addr, backend.addr(), Some("you"));
    assert_eq!(status, 200);
    conn.echo(b"through both");
    conn.finish();
    conn.expect_end();
    let line = &parent.access_log(1)[0];
    assert_eq!((&line["kind"], &line["user"]), (&"socks5".into(), &"me".into()));
    drop(proxy);
    assert!(!said().contains("sesame"), "{}", said());
    parent.finish();
}

#[test]
fn a_password_becomes_what_a_config_holds() {
    for (args, start) in [(&["hash-password"][..], "$argon2id$"), (&["hash-password", "--bcrypt"], "$2")] {
        let mut command = Command::new(BIN);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"open sesame\n").unwrap();
        let output = child.wait_with_output().unwrap();
        let hash = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && hash.starts_with(start), "{hash}");
        let config = listener(format!("users = {{ a = {{ password = '{}' }} }}", hash.trim()));
        check(&config, &[]).success();
    }
    let dir = TempDir::new();
    let empty = run_in(dir.path(), BIN, &["hash-password"]);
    assert_eq!(empty.code, Some(1), "{}", empty.text());
}
