//! Users: who they are, and how much they may use up, over reloads and restarts.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use wmproxy_testkit::http::{Client, Message};
use wmproxy_testkit::tls::{Authority, TlsClient};
use wmproxy_testkit::{Addr, Backend, Conn, Proxy, TempDir, eventually};

use super::forward;
use crate::{ACCESS_LOG, BIN, setup, start};

/// `open sesame`, of a cost that takes next to no time.
const HASH: &str = "$2b$04$kTdzpt9CBs2wt1Q.TZMY5.kruU25yIzQEaF0Qs.U87IFxwCtxfReu";
/// `alice:open sesame`, and `alice:` with other passwords.
const ALICE: &str = "Basic YWxpY2U6b3BlbiBzZXNhbWU=";
const WRONG: [&str; 12] = [
    "YWxpY2U6MA==",
    "YWxpY2U6MQ==",
    "YWxpY2U6Mg==",
    "YWxpY2U6Mw==",
    "YWxpY2U6NA==",
    "YWxpY2U6NQ==",
    "YWxpY2U6Ng==",
    "YWxpY2U6Nw==",
    "YWxpY2U6OA==",
    "YWxpY2U6OQ==",
    "YWxpY2U6YQ==",
    "YWxpY2U6Yg==",
];

/// A listener that only alice may use, who has further keys.
fn of_alice(more: &str) -> String {
    forward(format!("users = {{ alice = {{ password = \"{HASH}\"{more} }} }}"))
}

fn setup_in(directory: &TempDir, config: &str) -> Proxy {
    let directory = directory.path().to_str().unwrap();
    setup(&format!("{ACCESS_LOG}{config}")).env("STATE_DIRECTORY", directory).start()
}

/// Asks for a tunnel to `to`, with a name and a password.
fn ask(proxy: &Proxy, to: &Addr, who: &str) -> Client<Conn> {
    let mut client = Client::connect(&proxy.tcp("f"));
    client.send(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\nProxy-Authorization: {who}\r\n\r\n"));
    client
}

/// A tunnel that was granted.
fn tunnel(proxy: &Proxy, to: &Addr) -> Client<Conn> {
    let mut client = ask(proxy, to, ALICE);
    assert_eq!(client.head().status(), 200);
    client
}

/// How many bytes come through a tunnel before its end, be that a reset.
fn drain(tunnel: Client<Conn>) -> u64 {
    let (rest, before) = tunnel.into_parts();
    let mut got = before.len() as u64;
    let mut buffer = vec![0; 1 << 16];
    while let Ok(n @ 1..) = rest.socket().read(&mut buffer) {
        got += n as u64;
    }
    got
}

/// What is said instead of a tunnel.
fn refused(proxy: &Proxy, to: &Addr, who: &str) -> Message {
    ask(proxy, to, who).response()
}

/// How many bytes of alice's quota the proxy has counted.
fn used(proxy: &Proxy) -> u64 {
    proxy.status()["users"][0]["quota"]["used"].as_u64().unwrap()
}

#[test]
fn a_quota_ends_tunnels_and_outlives_restarts_and_reloads() {
    let (state, source) = (TempDir::new(), Backend::source(1, 300_000));
    let endless = Backend::source(2, 64 << 20);
    let config = of_alice(", quota = \"1000000/month\"");
    let proxy = setup_in(&state, &config);
    assert_eq!(drain(tunnel(&proxy, source.addr())), 300_000);
    // Bytes are counted at the end of the turn in which they went. What was said to get the tunnel counts as well.
    eventually("all of it is counted", || used(&proxy) >= 300_000);
    let first = used(&proxy);
    assert!((300_000..300_300).contains(&first), "{first}");
    proxy.finish();

    let proxy = setup_in(&state, &config);
    assert_eq!(used(&proxy), first, "of the month, not of the process");
    drain(tunnel(&proxy, source.addr()));
    eventually("the second tunnel is counted", || used(&proxy) >= first + 300_000);
    let second = used(&proxy);
    proxy.reload_with(&format!(
        "{ACCESS_LOG}{}",
        of_alice(", quota = \"2000000/month\", max_connections = 7")
    ));
    assert_eq!(used(&proxy), second);
    // The end is a reset, which may overtake what came before.
    let rest = 2_000_000 - second;
    assert!(drain(tunnel(&proxy, endless.addr())) <= rest);
    let last = proxy.access_log(2).pop().unwrap();
    assert_eq!(used(&proxy), 2_000_000, "to the byte");
    assert_eq!((&last["outcome"], &last["user"]), (&"quota".into(), &"alice".into()));
    assert!((rest - 300..=rest).contains(&last["bytes_out"].as_u64().unwrap()), "{last}");
    let answer = refused(&proxy, source.addr(), ALICE);
    assert_eq!(answer.status(), 429);
    assert!(answer.text().contains("quota for the month is used up"), "{}", answer.text());
    proxy.finish();
}

#[test]
fn a_user_that_a_reload_takes_away_keeps_tunnels_and_gets_no_more() {
    let echo = Backend::echo();
    let proxy = start(&of_alice(", max_connections = 2"));
    let mut one = tunnel(&proxy, echo.addr());
    let two = tunnel(&proxy, echo.addr());
    let answer = refused(&proxy, echo.addr(), ALICE);
    assert!(answer.status() == 429 && answer.text().contains("connections"), "{}", answer.text());
    drop(two);
    // Its place is free when the proxy has seen that it is gone.
    eventually("a free place", || proxy.status()["users"][0]["connections"] == 1);
    drop(tunnel(&proxy, echo.addr()));
    let others = forward(format!("users = {{ bob = {{ password = \"{HASH}\" }} }}"));
    proxy.reload_with(&others);
    assert_eq!(refused(&proxy, echo.addr(), ALICE).status(), 407);
    one.send("still here");
    assert_eq!(one.recv(10), b"still here");
}

#[test]
fn who_guesses_has_to_wait_and_who_was_right_does_not() {
    let echo = Backend::echo();
    let proxy = setup(&of_alice("")).expect_warn("wrong passwords").start();
    drop(tunnel(&proxy, echo.addr()));
    for wrong in &WRONG[..10] {
        assert_eq!(refused(&proxy, echo.addr(), &format!("Basic {wrong}")).status(), 407);
    }
    // The first wait may be over on a machine that is slow; the second is twice as long.
    let answers = WRONG[10..].iter().map(|wrong| refused(&proxy, echo.addr(), &format!("Basic {wrong}")));
    let last = answers.last().unwrap();
    assert_eq!((last.status(), last.head.get("retry-after").is_some()), (429, true));
    drop(tunnel(&proxy, echo.addr()));
    let log = proxy.log();
    // A thread of its own writes it.
    eventually("it is told", || log.count("wrong passwords") > 0);
    assert_eq!(log.count("wrong passwords"), 1);
    assert!(!log.text().contains("sesame") && !log.text().contains("YWxpY2U6"));
}

#[test]
fn a_certificate_is_as_good_as_a_password() {
    let (authority, echo) = (Authority::new(), Backend::echo());
    let pair = authority.issue("proxy", &["proxy.test"]);
    let ca = authority.ca();
    let tls = format!(
        "{{ cert = \"{}\", key = \"{}\", client_ca = \"{}\" }}",
        pair.cert.display(),
        pair.key.display(),
        ca.display()
    );
    let proxy =
        start(&format!("{ACCESS_LOG}{}", forward(format!("tls = {tls}\nusers = {{ alice = {{}} }}"))));
    for (file, status) in [("alice", 200), ("mallory", 407)] {
        let certified = TlsClient::with_cert(&authority, &authority.issue(file, &[file]));
        let mut client = Client::over(certified.connect(&proxy.tcp("f"), "proxy.test").unwrap());
        client.send(format!("CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\n", echo.addr()));
        assert_eq!(client.head().status(), status, "{file}");
    }
    let line = proxy.access_log(2).into_iter().find(|line| line["status"] == 200).unwrap();
    assert_eq!(line["user"], "alice");
}

#[test]
fn a_password_is_hashed_for_a_config() {
    let echo = Backend::echo();
    for more in [&[][..], &["--bcrypt"]] {
        let mut child = Command::new(BIN)
            .arg("hash-password")
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(b"open sesame\n").unwrap();
        let hash = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        let proxy =
            start(&forward(format!("users = {{ alice = {{ password = \"{}\" }} }}", hash.trim_end())));
        drop(tunnel(&proxy, echo.addr()));
        assert_eq!(refused(&proxy, echo.addr(), &format!("Basic {}", WRONG[0])).status(), 407);
    }
}
