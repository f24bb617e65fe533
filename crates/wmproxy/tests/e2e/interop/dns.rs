//! dnsmasq behind the proxy, asked by `dig` and dnsperf; and as the resolver of upstream names.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use wmproxy_testkit::exec::Service;
use wmproxy_testkit::tcp::free_port;
use wmproxy_testkit::{Addr, Backend, Conn, TempDir, eventually};

use super::{asked, call, program};
use crate::{start, tcp};

/// dnsmasq on a port of its own, with the names of `hosts` at a TTL of one second.
pub(super) fn start_dnsmasq(dir: &Path, port: u16, hosts: &Path) -> Service {
    let mut command = Command::new(program("dnsmasq"));
    command
        .args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root"])
        .args(["--listen-address=127.0.0.1", "--bind-interfaces", "--local-ttl=1", "--pid-file="])
        .args([&format!("--port={port}"), &format!("--addn-hosts={}", hosts.display())])
        .args([&format!("--txt-record=large.test,{}", "x".repeat(250))])
        .args(["--local=/test/", "--log-facility=-"]);
    let service = Service::start(&mut command, &dir.join("dnsmasq.log"));
    let port = port.to_string();
    eventually("dnsmasq", || {
        call("dig", &["+short", "+time=1", "+tries=1", "@127.0.0.1", "-p", &port, "a.test"]).code == Some(0)
    });
    service
}

#[test]
fn dnsmasq_answers_dig_and_dnsperf() {
    if !asked() {
        return;
    }
    let dir = TempDir::new();
    let hosts = dir.write("hosts", "10.1.2.3 a.test\n10.1.2.4 b.test\nfd00::1 a.test\n");
    let own = free_port();
    let _service = start_dnsmasq(dir.path(), own, &hosts);
    let config = format!(
        "[[stream]]\nname = \"dns\"\nlisten = [\"udp://127.0.0.1:0\", \"tcp://127.0.0.1:0\"]\n\
         upstream = \"127.0.0.1:{own}\"\nidle_timeout = \"5s\"\nudp = {{ max_responses = 1, max_requests = 1 }}\n"
    );
    let proxy = start(&config);
    let (udp, tcp) = (proxy.udp("dns").port().to_string(), proxy.tcp("dns").port().to_string());
    let dig = |port: &str, args: &[&str]| {
        let args: Vec<&str> = ["+short", "@127.0.0.1", "-p", port].iter().chain(args).copied().collect();
        call("dig", &args).success().stdout.trim().to_owned()
    };
    for (port, by) in [(&udp, "+notcp"), (&tcp, "+tcp")] {
        assert_eq!(dig(port, &[by, "a.test", "A"]), "10.1.2.3");
        assert_eq!(dig(port, &[by, "a.test", "AAAA"]), "fd00::1");
        assert_eq!(dig(port, &[by, "b.test"]), "10.1.2.4");
        assert_eq!(dig(port, &[by, "large.test", "TXT"]).len(), 252);
    }
    let queries = dir.write("queries", "a.test A\nb.test A\na.test AAAA\nlarge.test TXT\n");
    let queries = queries.display().to_string();
    // At a rate that dnsmasq alone answers without loss on a small machine.
    let at_a_rate = ["-d", &queries, "-c", "16", "-q", "50", "-Q", "4000", "-l", "3"];
    let to = ["-s", "127.0.0.1", "-p", &udp];
    let said = call("dnsperf", &[&to[..], &at_a_rate].concat()).success().stdout;
    let number = |label: &str| -> u64 {
        let line =
            said.lines().find(|line| line.contains(label)).unwrap_or_else(|| panic!("no {label} in\n{said}"));
        line.split(':').nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap()
    };
    assert!(number("Queries sent") > 1_000, "{said}");
    assert_eq!(number("Queries lost"), 0, "{said}");
    assert_eq!(number("Queries completed"), number("Queries sent"), "{said}");
    eventually("the flows to end", || proxy.active() == 0);
}

#[test]
fn upstream_names_are_resolved_and_follow_their_ttl() {
    if !asked() {
        return;
    }
    let dir = TempDir::new();
    let hosts = dir.write("hosts", "127.0.0.21 app.test\n127.0.0.22 app.test\n");
    let own = free_port();
    let service = start_dnsmasq(dir.path(), own, &hosts);
    // The same port on three addresses: a name stands for addresses, not for ports.
    let port = free_port();
    let backend = |host: u8| {
        Backend::start_at(&Addr::from(([127, 0, 0, host].into(), port)), move |conn| {
            conn.try_send(format!("{host}\n").as_bytes())?;
            wmproxy_testkit::backend::drain(conn)
        })
    };
    let _backends = [backend(21), backend(22), backend(23)];
    let resolver = format!("[resolver]\nservers = [\"127.0.0.1:{own}\"]\n");
    let proxy = start(&format!("{resolver}{}", tcp(format!("app.test:{port}"), "")));
    let addr = proxy.tcp("t");
    let ask = || {
        let conn = Conn::connect(&addr);
        conn.patience(Duration::from_secs(5));
        let mut text = [0; 3];
        std::io::Read::read(&mut &conn, &mut text).ok().filter(|n| *n == 3).map(|_| text[..2].to_vec())
    };
    eventually("the name to be resolved", || ask().is_some());
    let all = |count: usize| {
        let mut seen: Vec<Vec<u8>> = (0..count).filter_map(|_| ask()).collect();
        seen.sort();
        seen.dedup();
        seen
    };
    assert_eq!(all(20), [b"21".to_vec(), b"22".to_vec()], "every record of the name is used");
    std::fs::write(&hosts, "127.0.0.23 app.test\n").unwrap();
    kill_process(Pid::from_raw(service.pid() as i32).unwrap(), Signal::HUP).unwrap();
    eventually("the new address to be used alone", || all(8) == [b"23".to_vec()]);
    // A resolver that goes away takes nothing along: the last known addresses serve on.
    proxy.expect_warn("app.test");
    drop(service);
    std::thread::sleep(Duration::from_millis(2_500));
    assert_eq!(all(8), [b"23".to_vec()]);
}
