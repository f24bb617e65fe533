//! A start that can't succeed: exit 1, and every reason.

use std::net::{TcpListener, UdpSocket};
use std::path::Path;

use wmproxy_testkit::exec::{Finished, run_in};
use wmproxy_testkit::{Backend, TempDir, UdpBackend};

use crate::{BIN, start, stream};

/// Runs a config that must not start, in a directory of its own.
fn refused(config: &str) -> Finished {
    let dir = TempDir::new();
    refused_in(dir.path(), config)
}

fn refused_in(dir: &Path, config: &str) -> Finished {
    std::fs::write(dir.join("refused.toml"), config).unwrap();
    let finished = run_in(dir, BIN, &["run", "-c", "refused.toml", "--no-admin"]);
    assert_eq!(finished.code, Some(1), "a start failure exits 1; it said:\n{}", finished.text());
    assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
    finished
}

fn assert_names(finished: &Finished, words: &[&str]) {
    for word in words {
        assert!(finished.stderr.contains(word), "{word:?} is missing in:\n{}", finished.stderr);
    }
}

#[test]
fn a_taken_tcp_port_is_named() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = holder.local_addr().unwrap().to_string();
    assert_names(&refused(&stream("t", &addr, "127.0.0.1:9", "")), &[&addr, "in use"]);
}

#[test]
fn a_taken_udp_port_is_named() {
    let holder = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = holder.local_addr().unwrap().to_string();
    assert_names(&refused(&stream("t", &format!("udp://{addr}"), "127.0.0.1:9", "")), &[&addr, "in use"]);
}

#[test]
fn two_instances_on_one_port_refuse_each_other() {
    let (tcp, udp) = (Backend::echo(), UdpBackend::echo());
    let port = wmproxy_testkit::tcp::free_port();
    let config = stream("t", &format!("127.0.0.1:{port}"), tcp.addr(), "")
        + &stream("u", &format!("udp://127.0.0.1:{port}"), udp.addr(), "idle_timeout = \"1s\"");
    let first = start(&config);
    // The very same config, and wildcards that the kernel would let stand beside it under SO_REUSEPORT.
    for (listen, upstream) in [
        (format!("127.0.0.1:{port}"), tcp.addr().to_string()),
        (format!("udp://127.0.0.1:{port}"), udp.addr().to_string()),
        (format!("0.0.0.0:{port}"), tcp.addr().to_string()),
        (format!(":{port}"), tcp.addr().to_string()),
        (format!("udp://0.0.0.0:{port}"), udp.addr().to_string()),
        (format!("udp://:{port}"), udp.addr().to_string()),
    ] {
        let finished = refused(&stream("second", &listen, upstream, ""));
        assert_names(&finished, &[&port.to_string(), "in use"]);
    }
    // The first one noticed nothing.
    wmproxy_testkit::Conn::connect(&first.tcp("t")).echo(b"hello");
    wmproxy_testkit::UdpClient::connect(first.udp("u")).echo(b"hello");
}

#[test]
fn two_instances_refuse_each_other_when_the_first_has_the_wildcard() {
    let tcp = Backend::echo();
    let first = start(&stream("t", ":0", tcp.addr(), ""));
    let port = first.addrs("t", "tcp")[0].port();
    let finished = refused(&stream("second", &format!("127.0.0.1:{port}"), tcp.addr(), ""));
    assert_names(&finished, &[&port.to_string(), "in use"]);
}

#[test]
fn two_live_instances_do_not_share_a_unix_socket() {
    let tcp = Backend::echo();
    let first = start(&stream("t", "unix:{dir}/t.sock", tcp.addr(), ""));
    let path = first.tcp("t").to_string();
    assert_names(&refused(&stream("second", &path, tcp.addr(), "")), &["in use"]);
    wmproxy_testkit::Conn::connect(&first.tcp("t")).echo(b"still the first");
}

#[test]
fn every_problem_of_a_file_is_reported_in_one_go() {
    let config = "workers = \"many\"\n\
                  [[stream]]\n\
                  name = \"a\"\n\
                  listen = \"127.0.0.1:99999\"\n\
                  upstrem = \"nowhere\"\n\
                  idle_timeout = \"1 fortnight\"\n\
                  [[stream]]\n\
                  name = \"b\"\n\
                  listen = \"127.0.0.1:0\"\n\
                  upstream = \"nowhere\"\n";
    let finished = refused(config);
    for place in
        ["refused.toml:1:", "refused.toml:4:", "refused.toml:5:", "refused.toml:6:", "refused.toml:10:"]
    {
        assert_names(&finished, &[place]);
    }
    // A hint for what was probably meant.
    assert_names(&finished, &["upstrem", "upstream", "99999", "fortnight", "nowhere"]);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let dir = TempDir::new();
    let finished = run_in(dir.path(), BIN, &["run", "-c", "absent.toml"]);
    assert_eq!(finished.code, Some(1));
    assert_names(&finished, &["absent.toml"]);
}

#[test]
fn half_a_start_leaves_nothing_bound() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap();
    let free = wmproxy_testkit::tcp::free_port();
    let config = stream("good", &format!("127.0.0.1:{free}"), "127.0.0.1:9", "")
        + &stream("bad", &taken.to_string(), "127.0.0.1:9", "");
    refused(&config);
    TcpListener::bind(("127.0.0.1", free)).unwrap();
}

#[test]
fn an_open_admin_address_without_a_token_is_refused() {
    let config =
        format!("[admin]\nlisten = \"0.0.0.0:0\"\n{}", stream("t", "127.0.0.1:0", "127.0.0.1:9", ""));
    let dir = TempDir::new();
    dir.write("open.toml", &config);
    let finished = run_in(dir.path(), BIN, &["run", "-c", "open.toml"]);
    assert_eq!(finished.code, Some(1), "{}", finished.text());
    assert_names(&finished, &["token"]);
}
