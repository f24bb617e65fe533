//! What takes root and a network to route in: each test has network namespaces of its own, wired by virtual cables.
//!
//! ```text
//! client 10.77.1.50 ── 10.77.1.1 proxy 10.77.2.1 ── 10.77.2.80 server
//! ```

mod network;
mod tunnel;

use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use wmproxy_testkit::exec::run;
use wmproxy_testkit::{Addr, Backend, Conn, Proxy, UdpBackend, UdpClient, eventually};

use network::{Machine, Network};

use super::{asked, program};
use crate::{BIN, group, start, stream};

fn addr(text: &str) -> Addr {
    Addr::Inet(text.parse().unwrap())
}

fn whoami_at(at: &'static str) -> Backend {
    Backend::start_at(&addr(at), |conn| {
        let from = conn.socket().peer_addr()?.as_socket().unwrap();
        conn.try_send(format!("{}\n", from.ip()).as_bytes())?;
        let mut rest = Vec::new();
        let mut socket = conn.socket();
        socket.read_to_end(&mut rest)?;
        Ok(rest.len() as u64)
    })
}

fn udp_whoami_at(at: &'static str) -> UdpBackend {
    UdpBackend::start_at(at.parse().unwrap(), |_, from| vec![from.ip().to_string().into_bytes()])
}

const ROUTE_BACK: &str = "source = \"client\"";

#[test]
fn a_server_sees_the_clients_own_address() {
    if !asked() {
        return;
    }
    let network = Network::new();
    network.deliver_all_from("servers");
    let _servers = network.server(|| (whoami_at("10.77.2.80:80"), whoami_at("[fd77:2::80]:80")));
    let udp = network.server(|| (udp_whoami_at("10.77.2.80:53"), udp_whoami_at("[fd77:2::80]:53")));
    let config = [
        group("far", &["10.77.2.80:80".into()], ROUTE_BACK),
        stream("named", ":8080", "far", ""),
        stream("four", "10.77.1.1:81", "10.77.2.80:80", ROUTE_BACK),
        stream("six", "[fd77:1::1]:81", "[fd77:2::80]:80", ROUTE_BACK),
        stream(
            "udp4",
            "udp://10.77.1.1:53",
            "10.77.2.80:53",
            &format!("{ROUTE_BACK}\nidle_timeout = \"1s\""),
        ),
        stream(
            "udp6",
            "udp://[fd77:1::1]:53",
            "[fd77:2::80]:53",
            &format!("{ROUTE_BACK}\nidle_timeout = \"1s\""),
        ),
    ];
    let proxy = network.proxy(&config.concat());
    for (listen, seen) in
        [("10.77.1.1:8080", "10.77.1.50"), ("10.77.1.1:81", "10.77.1.50"), ("[fd77:1::1]:81", "fd77:1::50")]
    {
        let who = network.client.on(|| Conn::connect(&addr(listen)).line());
        assert_eq!(who, seen, "{listen}");
    }
    for (listen, seen) in [("10.77.1.1:53", "10.77.1.50"), ("[fd77:1::1]:53", "fd77:1::50")] {
        let to: SocketAddr = listen.parse().unwrap();
        let who = network.client.on(|| UdpClient::connect(to).ask_text(b"who?"));
        assert_eq!(who, seen, "{listen}");
    }
    // A client of the other family can't be shown to that server, and nobody blames the server for it.
    network.client.on(|| Conn::connect(&addr("[fd77:1::1]:8080")).expect_reset());
    let closed = [("listener", "named"), ("outcome", "no_way")];
    // The client hears of it before it is counted.
    eventually("its end is counted", || {
        proxy.metrics().sum("wmproxy_connections_closed_total", &closed) == 1.0
    });
    assert_eq!(proxy.log().count("peer ejected"), 0);
    drop(udp);
    proxy.finish();
}

#[test]
fn a_transparent_listener_takes_what_is_meant_for_others() {
    if !asked() {
        return;
    }
    let network = Network::new();
    network.deliver_all_from("clients");
    network.deliver_all_from("servers");
    let _server = network.server(|| whoami_at("10.77.2.80:80"));
    let _udp = network.server(|| udp_whoami_at("10.77.2.80:53"));
    let more = format!("transparent = true\n{ROUTE_BACK}\nidle_timeout = \"1s\"");
    let log = "[access_log]\nfile = \"{dir}/access.log\"\n";
    let config = [
        log.to_owned(),
        stream("tcp", "0.0.0.0:443", "10.77.2.80:80", &more),
        stream("udp", "udp://0.0.0.0:53", "10.77.2.80:53", &more),
    ];
    let proxy = network.proxy(&config.concat());
    // Addresses for documentation, which nobody has.
    let who = network.client.on(|| Conn::connect(&addr("198.51.100.9:443")).line());
    assert_eq!(who, "10.77.1.50");
    // The answer has to come from where the question went, or the connected socket of the client would not take it.
    let who = network.client.on(|| UdpClient::connect("203.0.113.5:53".parse().unwrap()).ask_text(b"who?"));
    assert_eq!(who, "10.77.1.50");
    let lines = proxy.access_log(2);
    let mut locals: Vec<String> =
        lines.iter().map(|line| line["local"].as_str().unwrap().to_owned()).collect();
    locals.sort();
    assert_eq!(locals, ["198.51.100.9:443", "203.0.113.5:53"]);
    // Without it nobody answers such a client; a listener that has it gives it up in a reload.
    proxy.reload_with(&(log.to_owned() + &stream("tcp", "0.0.0.0:443", "10.77.2.80:80", "")));
    let late = network.client.on(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let to: SocketAddr = "198.51.100.9:443".parse().unwrap();
        socket.connect_timeout(&to.into(), Duration::from_millis(300)).unwrap_err().kind()
    });
    assert_eq!(late, std::io::ErrorKind::TimedOut);
}

/// Without any capability, root is refused what takes one.
#[test]
fn a_missing_right_is_a_clear_error_at_the_start() {
    if !asked() {
        return;
    }
    let dir = wmproxy_testkit::TempDir::new();
    for (line, key, right) in [
        (ROUTE_BACK, "`source`", "CAP_NET_RAW"),
        ("mark = 7", "`mark`", "CAP_NET_ADMIN"),
        ("transparent = true", "`transparent`", "CAP_NET_RAW"),
    ] {
        let path = dir.write("c.toml", &stream("t", "127.0.0.1:0", "127.0.0.1:9", line));
        let mut command = Command::new(program("setpriv"));
        command.args(["--bounding-set=-all", "--inh-caps=-all", BIN, "run", "--no-admin", "-c"]).arg(path);
        let finished = run(&mut command, Duration::from_secs(20));
        assert_eq!(finished.code, Some(1), "{line}: {}", finished.text());
        for part in [key, right, "root"] {
            assert!(finished.stderr.contains(part), "{line}: {}", finished.stderr);
        }
    }
}

/// The sets of capabilities in every thread of the proxy that holds any.
fn capabilities(proxy: &Proxy) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", proxy.pid())).unwrap();
    let all = tasks.map(|task| {
        let text = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("CapPrm:")).unwrap();
        line.trim().trim_start_matches('0').to_owned()
    });
    let mut all: Vec<String> = all.filter(|line| !line.is_empty()).collect();
    all.sort();
    all.dedup();
    all
}

#[test]
fn who_gives_up_root_keeps_just_the_right_that_is_needed() {
    if !asked() {
        return;
    }
    let network = Network::new();
    network.deliver_all_from("servers");
    let _server = network.server(|| whoami_at("10.77.2.80:80"));
    let config =
        |more: &str| format!("user = \"nobody\"\n{}", stream("t", "10.77.1.1:80", "10.77.2.80:80", more));
    let proxy = network.proxy(&config(ROUTE_BACK));
    proxy.expect_warn("a socket's file stays behind");
    // 1 << 13 is CAP_NET_RAW (capabilities(7)).
    assert_eq!(capabilities(&proxy), ["2000"]);
    let ask = || network.client.on(|| Conn::connect(&addr("10.77.1.1:80")).line());
    assert_eq!(ask(), "10.77.1.50");
    proxy.reload_with(&config(&format!("{ROUTE_BACK}\nidle_timeout = \"1m\"")));
    assert_eq!(ask(), "10.77.1.50");
    drop(proxy);
    let proxy = network.proxy(&config(""));
    proxy.expect_warn("a socket's file stays behind");
    proxy.expect_warn("reload");
    assert_eq!(capabilities(&proxy), [""; 0]);
    let refused = proxy.reload_refused(&config(ROUTE_BACK));
    assert!(refused.contains("restart it if it has given up root"), "{refused}");
    assert_eq!(ask(), "10.77.2.1");
}

/// Everything that passes a machine's device, from its network layer on.
fn sniff(device: &str) -> Socket {
    let all = Protocol::from(i32::from(0x0003_u16.to_be()));
    let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(all)).unwrap();
    socket.bind_device(Some(device.as_bytes())).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    socket
}

/// The octets of service in the headers of packets from `source`, until there is silence.
fn classes(mut socket: &Socket, source: &str) -> Vec<u8> {
    let source: IpAddr = source.parse().unwrap();
    let mut found = Vec::new();
    let mut packet = [0; 2048];
    while let Ok(length) = socket.read(&mut packet) {
        let (from, octet, next) = match packet[0] >> 4 {
            4 => (IpAddr::from(<[u8; 4]>::try_from(&packet[12..16]).unwrap()), packet[1], packet[9]),
            6 => {
                let octet = (packet[0] << 4) | (packet[1] >> 4);
                (IpAddr::from(<[u8; 16]>::try_from(&packet[8..24]).unwrap()), octet, packet[6])
            }
            _ => continue,
        };
        // TCP and UDP; neighbours are asked for without a class.
        if length >= 20 && from == source && (next == 6 || next == 17) {
            found.push(octet);
        }
    }
    found
}

#[test]
fn packets_carry_their_class_to_both_sides() {
    if !asked() {
        return;
    }
    let network = Network::new();
    let _echo = network
        .server(|| (Backend::echo_at(&addr("10.77.2.80:80")), Backend::echo_at(&addr("[fd77:2::80]:80"))));
    let _udp = network.server(|| {
        let at = |text: &str| UdpBackend::echo_at(text.parse().unwrap());
        (at("10.77.2.80:53"), at("[fd77:2::80]:53"))
    });
    let servers = |port: u16| [format!("10.77.2.80:{port}"), format!("[fd77:2::80]:{port}")];
    let [tcp4, tcp6] = servers(80);
    let [udp4, udp6] = servers(53);
    let groups = [("t4", tcp4), ("t6", tcp6), ("u4", udp4), ("u6", udp6)]
        .map(|(name, server)| group(name, &[server], "dscp = \"ef\""));
    let class = "dscp = \"af41\"\nidle_timeout = \"1s\"";
    let streams = [
        stream("t4", "10.77.1.1:80", "t4", class),
        stream("t6", "[fd77:1::1]:80", "t6", class),
        stream("u4", "udp://10.77.1.1:53", "u4", class),
        stream("u6", "udp://[fd77:1::1]:53", "u6", class),
    ];
    let _proxy = network.proxy(&(groups.concat() + &streams.concat()));
    let [to_clients, to_servers] = ["clients", "servers"].map(|device| network.proxy.on(|| sniff(device)));
    for (at_clients, at_servers) in [("10.77.1.1", "10.77.2.1"), ("fd77:1::1", "fd77:2::1")] {
        let host = if at_clients.contains(':') { format!("[{at_clients}]") } else { at_clients.to_owned() };
        network.client.on(|| {
            Conn::connect(&addr(&format!("{host}:80"))).echo(b"hello");
            UdpClient::connect(format!("{host}:53").parse().unwrap()).echo(b"hello");
        });
        for (socket, source, class) in [(&to_clients, at_clients, 34), (&to_servers, at_servers, 46)] {
            let found = classes(socket, source);
            assert!(found.len() >= 3, "{source}: {found:?}");
            // Both bits of ECN are left alone, and nobody asked for ECN.
            assert!(found.iter().all(|octet| *octet == class << 2), "{source}: {found:?}");
        }
    }
}

#[test]
fn marks_and_devices_decide_where_packets_go() {
    if !asked() {
        return;
    }
    let network = Network::new();
    let _server = network.server(|| Backend::echo_at(&addr("10.77.2.80:80")));
    // A server that only packets with the mark find.
    network.proxy.ip("rule add fwmark 0x2a lookup 201");
    network.proxy.ip("route add 192.0.2.80/32 via 10.77.2.80 table 201");
    network.server.ip("address add 192.0.2.80/32 dev lo");
    let config = [
        group("marked", &["192.0.2.80:80".into()], "mark = 0x2a"),
        group("plain", &["192.0.2.80:80".into()], "connect_timeout = \"300ms\""),
        group("right", &["10.77.2.80:80".into()], "interface = \"servers\""),
        group("wrong", &["10.77.2.80:80".into()], "interface = \"clients\"\nconnect_timeout = \"300ms\""),
        stream("marked", ":81", "marked", ""),
        stream("plain", ":82", "plain", ""),
        stream("right", ":83", "right", ""),
        stream("wrong", ":84", "wrong", ""),
        stream("by-device", "0.0.0.0:85", "10.77.2.80:80", "interface = \"clients\"\nmark = 7"),
    ];
    let proxy = network.proxy(&config.concat());
    proxy.expect_warn("peer ejected");
    let _also = network.server(|| Backend::echo_at(&addr("192.0.2.80:80")));
    let client = |port: u16| network.client.on(|| Conn::connect(&addr(&format!("10.77.1.1:{port}"))));
    for port in [81, 83, 85] {
        network.client.on(|| Conn::connect(&addr(&format!("10.77.1.1:{port}"))).echo(b"hello"));
    }
    for port in [82, 84] {
        client(port).expect_reset();
    }
    // By the other device nobody gets to that listener.
    let refused = network.server.on(|| Conn::try_connect(&addr("10.77.2.1:85")).unwrap_err().kind());
    assert_eq!(refused, std::io::ErrorKind::ConnectionRefused);
    let sockets = network.proxy.call("ss -Htlne sport = :85").success().stdout;
    assert!(sockets.contains("clients:85") || sockets.contains("%clients"), "{sockets}");
    assert!(sockets.contains("fwmark:0x7"), "{sockets}");
}

/// A counter of the kernel, on that machine.
fn counter(machine: &Machine, name: &str) -> u64 {
    let text = machine.call(&format!("nstat -asz {name}")).success().stdout;
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {text}"));
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn data_comes_with_the_first_packet_on_both_sides() {
    if !asked() {
        return;
    }
    let network = Network::new();
    for machine in [&network.proxy, &network.server, &network.client] {
        machine.call("sysctl -qw net.ipv4.tcp_fastopen=3").success();
    }
    // The backend is a second proxy, whose listener gives out cookies.
    let _server = network.server(|| Backend::echo_at(&addr("10.77.2.80:81")));
    let back =
        network.server(|| start(&stream("b", "10.77.2.80:80", "10.77.2.80:81", "tcp_fast_open = true")));
    let config =
        group("g", &["10.77.2.80:80".into()], "tcp_fast_open = true") + &stream("t", "10.77.1.1:80", "g", "");
    let front = network.proxy(&config);
    for _ in 0..3 {
        network.client.on(|| Conn::connect(&addr("10.77.1.1:80")).echo(b"hello"));
    }
    // The first connection asked for the cookie, the others used it.
    assert_eq!(counter(&network.proxy, "TcpExtTCPFastOpenActive"), 2);
    assert_eq!(counter(&network.server, "TcpExtTCPFastOpenPassive"), 2);
    front.finish();
    back.finish();
}

#[test]
fn multipath_tcp_is_spoken_on_both_sides_and_ordinary_clients_are_served() {
    if !asked() {
        return;
    }
    let network = Network::new();
    let _server = network.server(|| Backend::echo_at(&addr("10.77.2.80:81")));
    let back = network.server(|| start(&stream("b", "10.77.2.80:80", "10.77.2.80:81", "mptcp = true")));
    let config = group("g", &["10.77.2.80:80".into()], "mptcp = true")
        + &stream("t", "10.77.1.1:80", "g", "mptcp = true");
    let front = network.proxy(&config);
    // Enough to be spliced.
    let bulk: Vec<u8> = (0..3_000_000u32).map(|i| i as u8).collect();
    network.client.on(|| Conn::connect(&addr("10.77.1.1:80")).echo(&bulk));
    assert_eq!(counter(&network.proxy, "MPTcpExtMPCapableSYNRX"), 0);
    assert_eq!(counter(&network.proxy, "MPTcpExtMPCapableSYNTX"), 1);
    assert_eq!(counter(&network.server, "MPTcpExtMPCapableACKRX"), 1);
    network.client.on(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP)).unwrap();
        socket.connect(&"10.77.1.1:80".parse::<SocketAddr>().unwrap().into()).unwrap();
        Conn::new(socket).echo(&bulk);
    });
    assert_eq!(counter(&network.proxy, "MPTcpExtMPCapableACKRX"), 1);
    front.finish();
    back.finish();
}
