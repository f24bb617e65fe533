//! dnsdist, which speaks the PROXY protocol over UDP: behind the proxy and in front of it.
//!
//! It puts a header on every datagram, for many clients share its sockets towards a server.

use std::net::SocketAddr;

use wmproxy_testkit::exec::Service;
use wmproxy_testkit::tcp::free_port;
use wmproxy_testkit::{TempDir, UdpBackend, eventually};

use super::{asked, call, program};
use crate::{ACCESS_LOG, group, start, udp};

/// dnsdist on a port of its own, with `config` in its language.
fn start_dnsdist(dir: &TempDir, port: u16, config: &str) -> Service {
    let common = format!("setLocal(\"127.0.0.1:{port}\")\nsetSecurityPollSuffix(\"\")\n{config}");
    let path = dir.write("dnsdist.conf", &common);
    let mut command = std::process::Command::new(program("dnsdist"));
    command.args(["--supervised", "--disable-syslog", "-C"]).arg(path);
    Service::start(&mut command, &dir.path().join("dnsdist.log"))
}

/// What `dig` is told at `port` when it asks from `client`.
fn dig(client: &str, port: u16) -> Option<String> {
    let port = port.to_string();
    let args = ["+short", "+time=2", "+tries=1", "-b", client, "@127.0.0.1", "-p", &port, "who.test"];
    let finished = call("dig", &args);
    (finished.code == Some(0)).then(|| finished.stdout.trim().to_owned())
}

#[test]
fn dnsdist_behind_the_proxy_sees_the_clients() {
    if !asked() {
        return;
    }
    let dir = TempDir::new();
    let own = free_port();
    let answers = "setProxyProtocolACL({\"127.0.0.0/8\"})\nsetACL({\"127.0.0.0/8\"})\n\
                   addAction({\"127.0.0.9/32\"}, SpoofAction(\"192.0.2.9\"))\n\
                   addAction(AllRule(), SpoofAction(\"192.0.2.1\"))\n";
    let _service = start_dnsdist(&dir, own, answers);
    // Until it listens it is asked in vain, which is not to count against it.
    let more = "send_proxy_protocol = \"v2\"\nmax_fails = 0";
    let upstream = group("g", &[format!("127.0.0.1:{own}")], more);
    let each = "udp = { proxy_protocol_every_datagram = true }";
    let proxy = start(&format!("{upstream}{}", udp("g", each)));
    let port = proxy.udp("u").port();
    eventually("dnsdist", || dig("127.0.0.1", port).is_some());
    for _ in 0..3 {
        assert_eq!(dig("127.0.0.9", port).as_deref(), Some("192.0.2.9"));
        assert_eq!(dig("127.0.0.8", port).as_deref(), Some("192.0.2.1"));
    }
}

#[test]
fn dnsdist_before_the_proxy_names_the_clients() {
    if !asked() {
        return;
    }
    let dir = TempDir::new();
    // An answer without content: the question with two bits set.
    let server = UdpBackend::start(|question, _| {
        let mut answer = question.to_vec();
        answer[2] |= 0x80;
        answer[3] |= 0x80;
        vec![answer]
    });
    let proxy =
        start(&format!("{ACCESS_LOG}{}", udp(server.addr(), "accept_proxy_protocol = [\"127.0.0.0/8\"]")));
    let to: SocketAddr = proxy.udp("u");
    let own = free_port();
    let forwards = format!(
        "newServer({{address=\"{to}\", useProxyProtocol=true, healthCheckMode=\"up\"}})\nsetACL({{\"127.0.0.0/8\"}})\n"
    );
    let _service = start_dnsdist(&dir, own, &forwards);
    eventually("dnsdist", || dig("127.0.0.2", own).is_some());
    let clients: Vec<String> = (3..9).map(|host| format!("127.0.0.{host}")).collect();
    for client in &clients {
        assert!(dig(client, own).is_some(), "{client} gets its answer");
    }
    // Its own health checks come with headers that name nobody.
    let line = |client: &str| proxy.access_log(1).into_iter().find(|line| line["client_ip"] == client);
    for client in &clients {
        eventually("a line of each client", || line(client).is_some());
        let via = line(client).unwrap()["via"].as_str().unwrap().to_owned();
        assert!(via.starts_with("127.0.0.1:"), "{client} came via {via}");
    }
    assert_eq!(proxy.metrics().sum("wmproxy_udp_dropped_total", &[]), 0.0);
}
