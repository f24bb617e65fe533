//! ssh, iperf3, dig, curl and Chromium, through each of the carriers.

use std::process::Command;

use serde_json::Value;
use wmproxy_testkit::exec::{Service, run};
use wmproxy_testkit::http::{Origin, Reply};
use wmproxy_testkit::tcp::free_port;
use wmproxy_testkit::{Addr, Conn, TempDir, eventually};

use super::super::chromium::Page;
use super::super::dns::start_dnsmasq;
use super::super::visitors::Ssh;
use super::super::{asked, call, program};
use super::{CARRIERS, client, end, server, service, settle};
use crate::websocket::echo_server;

/// The bytes that each transfer has to bring at least in two seconds, by a debug build on a machine that is busy otherwise. One
/// that stands still brings a window.
const LEAST: u64 = 4 << 20;

#[test]
fn ssh_goes_through_every_carrier() {
    if !asked() {
        return;
    }
    let ssh = Ssh::start();
    for carrier in CARRIERS {
        let (control, port) = (free_port(), free_port());
        let _public = end(&server(format!("127.0.0.1:{control}"), "transports = [\"tcp\", \"quic\"]"));
        let local = format!("127.0.0.1:{}", ssh.port);
        let home = end(&client(format!("127.0.0.1:{control}"), carrier, service("ssh", "tcp", local, port)));
        eventually("sshd greets", || {
            Conn::try_connect(&Addr::local(port)).is_ok_and(|conn| {
                conn.patience(std::time::Duration::from_secs(1));
                let mut greeting = [0; 4];
                std::io::Read::read_exact(&mut conn.socket(), &mut greeting).is_ok() && greeting == *b"SSH-"
            })
        });
        settle(&home);
        let mut command = Command::new(program("ssh"));
        command
            .args(ssh.words(port))
            .args(["root@127.0.0.1", "head -c 20000000 /dev/zero | tee /dev/stderr"]);
        let said = run(&mut command, super::super::visitors::PATIENCE).success();
        assert_eq!((said.stdout.len(), said.stderr.len()), (20_000_000, 20_000_000), "{carrier}");
    }
}

/// A server of iperf3, which takes one test at a time.
fn iperf3(dir: &TempDir, port: u16) -> Service {
    let mut command = Command::new(program("iperf3"));
    command.args(["-s", "-B", "127.0.0.1", "-p", &port.to_string()]);
    let service = Service::start(&mut command, &dir.join("iperf3.log"));
    // A mere connection is a test for it: look for the listener instead of connecting.
    eventually("iperf3", || {
        let wanted = format!(":{port:04X} 00000000:0000 0A");
        std::fs::read_to_string("/proc/net/tcp").unwrap().contains(&wanted)
    });
    service
}

#[test]
fn iperf3_goes_both_ways_over_tcp_and_udp() {
    if !asked() {
        return;
    }
    let (dir, own) = (TempDir::new(), free_port());
    let _service = iperf3(&dir, own);
    for carrier in CARRIERS {
        let (control, port) = (free_port(), free_port());
        let _public = end(&server(format!("127.0.0.1:{control}"), "transports = [\"tcp\", \"quic\"]"));
        let local = format!("127.0.0.1:{own}");
        // iperf3 wants the same number for both.
        let services = service("iperf", "tcp", &local, port) + &service("datagrams", "udp", &local, port);
        let home = end(&client(format!("127.0.0.1:{control}"), carrier, services));
        eventually("both services are there", || home.log().text().matches(&format!(":{port}")).count() >= 2);
        settle(&home);
        let port = port.to_string();
        let test = |args: &[&str]| -> Value {
            let args: Vec<&str> =
                ["-c", "127.0.0.1", "-p", &port, "-t", "2", "-J"].iter().chain(args).copied().collect();
            let said = call("iperf3", &args).success().stdout;
            serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
        };
        for args in [&[][..], &["-R"], &["-P", "4"]] {
            // On a busy machine iperf3 now and then ends well, and without a sum.
            let mut said = Vec::new();
            let passes = (0..3).any(|_| {
                said.push(test(args));
                let bytes = said.last().and_then(|said| said["end"]["sum_received"]["bytes"].as_u64());
                bytes.is_some_and(|bytes| bytes > LEAST)
            });
            assert!(passes, "{carrier} {args:?}: {said:#?}");
        }
        for args in [&["-u", "-b", "10M", "-l", "1200"][..], &["-u", "-b", "10M", "-l", "1200", "-R"]] {
            // Whenever the machine gives iperf3 no turn for long, datagrams are lost behind us.
            let mut sums = Vec::new();
            let passes = (0..3).any(|_| {
                let said = test(args);
                let sum = &said["end"]["sum"];
                // There is none where its first datagram was lost.
                let passes = sum["packets"].as_u64().is_some_and(|packets| packets > 1_000)
                    && sum["lost_percent"].as_f64().is_some_and(|lost| lost < 2.0);
                sums.push(if sum.is_null() { said } else { sum.clone() });
                passes
            });
            assert!(passes, "{carrier} {args:?}: {sums:#?}");
        }
        settle(&home);
    }
}

#[test]
fn dig_and_curl_and_chromium_come_through() {
    if !asked() {
        return;
    }
    let (dir, dns) = (TempDir::new(), free_port());
    let hosts = dir.write("hosts", "10.1.2.3 a.test\n");
    let _dnsmasq = start_dnsmasq(dir.path(), dns, &hosts);
    let origin = Origin::start(|call| {
        let body = match call.head.target() {
            "/answer" => "the answer",
            _ => "<!doctype html><title>a site</title>",
        };
        call.reply(&Reply::with(200, "Content-Type: text/html\r\n", body))
    });
    let sockets = echo_server();
    for carrier in CARRIERS {
        let (control, web, names) = (free_port(), free_port(), free_port());
        let more = format!("transports = [\"tcp\", \"quic\"]\nhttp = \"127.0.0.1:{web}\"");
        let grant = "hosts = [\"*.test\"]\n";
        let mut public = end(&(server(format!("127.0.0.1:{control}"), more) + grant));
        let site = |name: &str, local: &dyn std::fmt::Display, host: &str| {
            format!(
                "[[tunnel_client.service]]\nname = \"{name}\"\ntype = \"http\"\nlocal = \"{local}\"\nhosts = \"{host}\"\n"
            )
        };
        let services = service("dns", "udp", format!("127.0.0.1:{dns}"), names)
            + &site("site", &origin.addr(), "site.test")
            + &site("sockets", &sockets.addr(), "*.ws.test");
        let home = end(&client(format!("127.0.0.1:{control}"), carrier, services));
        let names = names.to_string();
        let dig = || call("dig", &["+short", "+time=2", "+tries=5", "@127.0.0.1", "-p", &names, "a.test"]);
        eventually("dig hears", || dig().stdout.trim() == "10.1.2.3");
        let fetch = |host: &str| {
            let (url, at) = (format!("http://{host}:{web}/answer"), format!("{host}:{web}:127.0.0.1"));
            call("curl", &["-sS", "-m", "10", "-w", " %{http_code}", "--resolve", &at, &url]).stdout
        };
        eventually("curl fetches", || fetch("site.test") == "the answer 200");
        assert!(fetch("nobody.test").ends_with(" 404"), "{carrier}: {}", fetch("nobody.test"));
        let place = TempDir::new();
        let mut page =
            Page::open_with(&place, &[&format!("--host-resolver-rules=MAP *.test 127.0.0.1:{web}")]);
        page.visit("http://site.test/");
        assert_eq!(page.eval("document.title"), "a site", "{carrier}");
        assert_eq!(page.eval("fetch('/answer').then(answer => answer.text())"), "the answer", "{carrier}");
        let said = page.eval(
            "new Promise((done, failed) => { const socket = new WebSocket('ws://one.ws.test/'); \
             socket.onerror = failed; socket.onopen = () => socket.send('through'); \
             socket.onmessage = event => done(event.data) })",
        );
        assert_eq!(said, "through", "{carrier}");
        drop(page);
        // The connections that wait for further requests go with the server's front.
        public.signal(rustix::process::Signal::TERM);
        home.expect_warn("tunnel");
        assert_eq!(public.wait(), Some(0));
        settle(&home);
    }
}
