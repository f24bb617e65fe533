//! Datagrams by clients of SOCKS that others wrote: Dante's socksify, which any program can be run under, and PySocks.

use std::process::Command;
use std::time::Duration;

use wmproxy_testkit::exec::run;
use wmproxy_testkit::tcp::free_port;
use wmproxy_testkit::{Proxy, TempDir, UdpBackend};

use super::dns::start_dnsmasq;
use super::{asked, program};
use crate::forward::forward;
use crate::{ACCESS_LOG, start};

/// Knows nothing of SOCKS: has datagrams echoed, and asks dnsmasq for an address. (`dig` sends past the C library's functions,
/// which is where socksify waits.)
const PLAIN: &str = "\
import socket, sys
echo, dns = (('127.0.0.1', int(port)) for port in sys.argv[1:3])
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(10)
for size in map(int, sys.argv[3:]):
    data = bytes(i * 7 % 251 for i in range(size))
    client.sendto(data, echo)
    heard, source = client.recvfrom(65536)
    assert heard == data and source == echo, (size, len(heard), source)
print('all came back')
asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asking.settimeout(10)
asking.connect(dns)
asking.send(bytes.fromhex('12340100000100000000000001610474657374000001' '0001'))
print('.'.join(map(str, asking.recv(512)[-4:])))
";

/// Sends datagrams of the sizes that are asked for through a proxy, and wants each of them back.
const PYSOCKS: &str = "\
import socks, sys
proxy, server = int(sys.argv[1]), ('127.0.0.1', int(sys.argv[2]))
client = socks.socksocket(socks.socket.AF_INET, socks.socket.SOCK_DGRAM)
client.set_proxy(socks.SOCKS5, '127.0.0.1', proxy)
client.settimeout(10)
client.bind(('', 0))
for size in map(int, sys.argv[3:]):
    data = bytes(i * 7 % 251 for i in range(size))
    for host in ('127.0.0.1', 'localhost'):
        client.sendto(data, (host, server[1]))
        heard, source = client.recvfrom(65536)
        assert heard == data and source == server, (size, len(heard), source)
print('all came back')
";

/// The lines of the log, of which each is an association that ended well.
fn assert_associations(proxy: &Proxy, count: usize) {
    for line in proxy.access_log(count) {
        assert_eq!((&line["kind"], &line["outcome"]), (&"udp".into(), &"done".into()), "{line}");
        assert_eq!(line["datagrams_in"], line["datagrams_out"], "{line}");
    }
}

#[test]
fn any_program_sends_datagrams_under_socksify() {
    if !asked() {
        return;
    }
    let (dir, server) = (TempDir::new(), UdpBackend::echo());
    let hosts = dir.write("hosts", "10.1.2.3 a.test\n");
    let dns = free_port();
    let _service = start_dnsmasq(dir.path(), dns, &hosts);
    let proxy = start(&format!("{ACCESS_LOG}{}", forward("")));
    let socks = dir.write(
        "socks.conf",
        &format!(
            "route {{\n from: 0.0.0.0/0 to: 0.0.0.0/0 via: 127.0.0.1 port = {}\n protocol: tcp udp\n \
             proxyprotocol: socks_v5\n method: none\n}}\n",
            proxy.tcp("f").port()
        ),
    );
    let mut command = Command::new(program("socksify"));
    command.args(["/usr/bin/python3", "-c", PLAIN, &server.addr().port().to_string(), &dns.to_string()]);
    command.args(["1", "1200", "8900", "65000"]);
    // What is on this machine it reaches by itself otherwise.
    command.env("SOCKS_CONF", &socks).env("SOCKS_AUTOADD_LANROUTES", "no");
    let finished = run(&mut command, Duration::from_secs(30)).success();
    assert_eq!(finished.stdout, "all came back\n10.1.2.3\n");
    // It makes an association for each socket.
    assert_associations(&proxy, 2);
    assert_eq!(server.received(), 4);
    proxy.finish();
}

#[test]
fn pysocks_gets_datagrams_of_every_size_back() {
    if !asked() {
        return;
    }
    let server = UdpBackend::echo();
    let proxy = start(&format!("{ACCESS_LOG}{}", forward("")));
    let (own, far) = (proxy.tcp("f").port().to_string(), server.addr().port().to_string());
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", PYSOCKS, &own, &far, "1", "1200", "8900", "65000"]);
    assert_eq!(run(&mut command, Duration::from_secs(30)).success().stdout, "all came back\n");
    assert_associations(&proxy, 1);
    assert_eq!(server.received(), 8);
    proxy.finish();
}
