//! Other proxies as parents of ours: Squid and tinyproxy by CONNECT, Dante and microsocks by SOCKS, alone and behind each
//! other, with datagrams through Dante. None of them knows SOCKS 4a.

use std::process::Command;
use std::time::Duration;

use wmproxy_testkit::exec::{Finished, Service, run};
use wmproxy_testkit::tcp::free_port;
use wmproxy_testkit::{Addr, Backend, Conn, Proxy, TempDir, UdpBackend, eventually};

use super::{asked, program};
use crate::forward::{forward, udp};
use crate::{ACCESS_LOG, start};

const SQUID: &str = "acl all_clients src all\nhttp_access allow all_clients\ncache deny all\ncache_mem 0 MB\n\
    access_log none\ncache_log /dev/null\ncache_store_log none\npid_filename none\npinger_enable off\n\
    netdb_filename none\nworkers 1\nmax_filedescriptors 1024\nshutdown_lifetime 0 seconds\n";

const TINYPROXY: &str = "Listen 127.0.0.1\nTimeout 60\nMaxClients 50\nAllow 127.0.0.1\nLogFile \"/dev/null\"\nLogLevel Critical\n";

const DANTE: &str = "errorlog: stderr\nexternal: 127.0.0.1\nclientmethod: none\nsocksmethod: none\n\
    user.privileged: root\nuser.unprivileged: nobody\n\
    client pass { from: 127.0.0.0/8 to: 0.0.0.0/0 }\n\
    socks pass { from: 127.0.0.0/8 to: 0.0.0.0/0 command: connect udpassociate }\n\
    socks pass { from: 0.0.0.0/0 to: 127.0.0.0/8 command: udpreply bindreply }\n";

/// A proxy of the system.
pub(super) struct Parent {
    pub(super) port: u16,
    _service: Service,
    _dir: TempDir,
}

impl Parent {
    fn start(command: impl FnOnce(&TempDir, u16) -> Command) -> Parent {
        let (dir, port) = (TempDir::new(), free_port());
        let mut command = command(&dir, port);
        let service = Service::start(command.current_dir(dir.path()), &dir.join("service.log"));
        let addr: Addr = format!("127.0.0.1:{port}").parse().unwrap();
        eventually("the parent listens", || Conn::try_connect(&addr).is_ok());
        Parent { port, _service: service, _dir: dir }
    }

    fn squid() -> Parent {
        Parent::squid_with("")
    }

    /// Squid that asks the proxy at this port for everything.
    pub(super) fn squid_behind(parent: u16) -> Parent {
        let peer = format!("cache_peer 127.0.0.1 parent {parent} 0 no-query no-digest default");
        Parent::squid_with(&format!("{peer}\nnever_direct allow all_clients\n"))
    }

    fn squid_with(more: &str) -> Parent {
        Parent::start(|dir, port| {
            let config = dir.write("squid.conf", &format!("http_port 127.0.0.1:{port}\n{SQUID}{more}"));
            let mut command = Command::new(program("squid"));
            command.args(["-N", "-f"]).arg(config);
            command
        })
    }

    fn tinyproxy() -> Parent {
        Parent::tinyproxy_with("")
    }

    /// tinyproxy that asks the proxy at this port for everything.
    pub(super) fn tinyproxy_behind(parent: u16) -> Parent {
        Parent::tinyproxy_with(&format!("Upstream http 127.0.0.1:{parent}\n"))
    }

    fn tinyproxy_with(more: &str) -> Parent {
        Parent::start(|dir, port| {
            let config = dir.write("tinyproxy.conf", &format!("Port {port}\n{TINYPROXY}{more}"));
            let mut command = Command::new(program("tinyproxy"));
            command.args(["-d", "-c"]).arg(config);
            command
        })
    }

    pub(super) fn dante() -> Parent {
        Parent::start(|dir, port| {
            let config = dir.write("danted.conf", &format!("internal: 127.0.0.1 port = {port}\n{DANTE}"));
            let mut command = Command::new(program("danted"));
            command.arg("-f").arg(config);
            command
        })
    }

    pub(super) fn microsocks() -> Parent {
        Parent::start(|_, port| {
            let mut command = Command::new(program("microsocks"));
            command.args(["-i", "127.0.0.1", "-u", "alice", "-P", "opensesame", "-p", &port.to_string()]);
            command
        })
    }
}

/// Ours, with everything going through these hops.
fn behind(hops: &[String]) -> Proxy {
    let chain = format!("[chain.out]\nhops = {hops:?}\nconnect_timeout = \"5s\"\n");
    let route = "[[egress.default.route]]\nvia = \"out\"\n";
    start(&format!("{ACCESS_LOG}{}{route}{chain}", forward("udp = { enabled = true }")))
}

fn curl(proxy: &Proxy, way: &str, url: &str) -> Finished {
    let way = format!("{way}://{}", proxy.tcp("f"));
    let mut command = Command::new(program("curl"));
    command.args(["-sS", "--noproxy", "", "-m", "15", "-p", "-x", &way, url]).env_clear();
    command.env("PATH", std::env::var("PATH").unwrap_or_default());
    run(&mut command, Duration::from_secs(20))
}

#[test]
fn each_of_them_is_a_parent() {
    if !asked() {
        return;
    }
    let (squid, tinyproxy) = (Parent::squid(), Parent::tinyproxy());
    let (dante, microsocks) = (Parent::dante(), Parent::microsocks());
    let backend = Backend::http("by way of others");
    let url = format!("http://localhost:{}/", backend.addr().port());
    let known = format!("socks5://alice:opensesame@127.0.0.1:{}", microsocks.port);
    let single = [
        format!("http://127.0.0.1:{}", squid.port),
        format!("http://127.0.0.1:{}", tinyproxy.port),
        format!("socks4://127.0.0.1:{}", dante.port),
        format!("socks5://127.0.0.1:{}", dante.port),
        known.clone(),
    ];
    let all = vec![single[0].clone(), single[3].clone(), single[1].clone(), known];
    for hops in single.into_iter().map(|hop| vec![hop]).chain([all]) {
        let proxy = behind(&hops);
        for way in ["http", "socks5h"] {
            let said = curl(&proxy, way, &url);
            let log = proxy.access_log(1);
            assert_eq!(said.stdout, "by way of others", "{way} {hops:?}: {} {log:?}", said.stderr);
        }
        for record in proxy.access_log(2) {
            assert_eq!(record["way"], "out", "{record}");
        }
    }
}

#[test]
fn who_is_not_let_in_is_told_and_no_password_with_it() {
    if !asked() {
        return;
    }
    let parent = Parent::microsocks();
    let proxy = behind(&[format!("socks5://alice:not%20that@127.0.0.1:{}", parent.port)]);
    proxy.expect_warn("reason=unauthorized");
    let said = curl(&proxy, "http", "http://localhost:9/");
    assert!(said.code != Some(0) && said.text().contains("502"), "{}", said.text());
    assert!(!proxy.log().text().contains("not that"), "{}", proxy.log().text());
}

#[test]
fn datagrams_go_through_dante() {
    if !asked() {
        return;
    }
    let parent = Parent::dante();
    let proxy = behind(&[format!("socks5://127.0.0.1:{}", parent.port)]);
    let backend = UdpBackend::echo();
    let client = udp::Client::new(&proxy);
    let port = backend.addr().port().to_be_bytes();
    let datagram = [&[0, 0, 0, 1, 127, 0, 0, 1, port[0], port[1]][..], b"whole"].concat();
    client.socket.send_to(&datagram, client.relay).unwrap();
    let mut buffer = [0; 64];
    let (n, from) = client.socket.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..n], from), (&datagram[..], client.relay));
    client.control.finish();
    eventually("it is over", || proxy.active() == 0);
}
