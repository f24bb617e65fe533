//! Programs that people use behind the forward proxy: proxychains, PySocks and python-socks, git and ssh over `nc -X`, Squid
//! with ours as its parent, and nmap, which looks for proxies that are open to everybody.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use wmproxy_testkit::exec::{Finished, Service, run};
use wmproxy_testkit::tcp::free_port;
use wmproxy_testkit::{Backend, Proxy, TempDir, eventually};

use super::parents::Parent;
use super::{asked, program};
use crate::forward::{forward, listener};
use crate::{ACCESS_LOG, start};

/// What one of these programs may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Alice, whose password is `open sesame`.
const USERS: &str =
    "users = { alice = { password = \"$2b$04$kTdzpt9CBs2wt1Q.TZMY5.kruU25yIzQEaF0Qs.U87IFxwCtxfReu\" } }";

fn port(proxy: &Proxy) -> u16 {
    proxy.tcp("f").port()
}

fn kinds(log: &[serde_json::Value]) -> Vec<&str> {
    log.iter().map(|line| line["kind"].as_str().unwrap()).collect()
}

#[test]
fn proxychains_goes_through_three_of_ours_and_two_others() {
    if !asked() {
        return;
    }
    let backend = Backend::http("at the end of the chain");
    let (dir, ours) = (TempDir::new(), [(); 3].map(|()| start(&format!("{ACCESS_LOG}{}", forward("")))));
    let (dante, microsocks) = (Parent::dante(), Parent::microsocks());
    let mut config = "strict_chain\nproxy_dns\nquiet_mode\n[ProxyList]\n".to_owned();
    let login = "alice opensesame";
    for (kind, port, login) in [
        ("socks5", port(&ours[0]), ""),
        ("socks5", dante.port, ""),
        ("http", port(&ours[1]), ""),
        ("socks5", microsocks.port, login),
        ("socks4", port(&ours[2]), ""),
    ] {
        writeln!(config, "{kind} 127.0.0.1 {port} {login}").unwrap();
    }
    let config = dir.write("proxychains.conf", &config);
    let mut command = Command::new(program("proxychains4"));
    command.arg("-f").arg(config).args([program("curl").as_os_str(), "-sS".as_ref(), "-m".as_ref()]);
    command.args(["20", &format!("http://{}/", backend.addr())]);
    let said = run(&mut command, PATIENCE);
    assert_eq!(said.stdout, "at the end of the chain", "{}", said.text());
    for (proxy, kind) in ours.iter().zip(["socks5", "connect", "socks4"]) {
        assert_eq!(kinds(&proxy.access_log(1)), [kind]);
    }
}

const PYTHON: &str = r#"
import asyncio, socket, struct, sys, urllib.request
import socks
from python_socks import ProxyError
from python_socks.sync import Proxy
from python_socks.async_.asyncio import Proxy as AsyncProxy

proxy, backend, echo = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
user, password = "alice", "open sesame"

def fetch(s):
    s.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
    got = b""
    while piece := s.recv(4096):
        got += piece
    assert got.endswith(b"for the snake"), got

for kind, rdns in [(socks.SOCKS5, True), (socks.SOCKS5, False), (socks.HTTP, True)]:
    s = socks.socksocket()
    s.set_proxy(kind, "127.0.0.1", proxy, rdns, user, password)
    s.settimeout(10)
    s.connect(("localhost", backend))
    fetch(s)

s = socks.socksocket(socket.AF_INET, socket.SOCK_DGRAM)
s.set_proxy(socks.SOCKS5, "127.0.0.1", proxy, True, user, password)
s.settimeout(10)
s.sendto(b"a datagram", ("127.0.0.1", echo))
assert s.recvfrom(100) == (b"a datagram", ("127.0.0.1", echo))

for url in ["socks5", "http"]:
    url = f"{url}://alice:open%20sesame@127.0.0.1:{proxy}"
    fetch(Proxy.from_url(url, rdns=True).connect("localhost", backend, timeout=10))
    async def go():
        s = await AsyncProxy.from_url(url).connect("127.0.0.1", backend, timeout=10)
        s.setblocking(True)
        fetch(s)
    asyncio.run(go())

for url in [f"socks5://alice:wrong@127.0.0.1:{proxy}", f"socks5://127.0.0.1:{proxy}", f"socks4://127.0.0.1:{proxy}"]:
    try:
        Proxy.from_url(url).connect("127.0.0.1", backend, timeout=10)
    except ProxyError as error:
        print(error)
    else:
        raise SystemExit(url + " let us in")
"#;

#[test]
fn python_comes_by_two_libraries() {
    if !asked() {
        return;
    }
    let (backend, echo) = (Backend::http("for the snake"), wmproxy_testkit::UdpBackend::echo());
    let proxy = start(&format!("{ACCESS_LOG}{}", forward(format!("{USERS}\nudp = {{ enabled = true }}"))));
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", PYTHON]);
    for port in [port(&proxy), backend.addr().port(), echo.addr().port()] {
        command.arg(port.to_string());
    }
    let said = run(&mut command, PATIENCE).success();
    assert_eq!(said.stdout.lines().count(), 3, "{}", said.text());
    let log = proxy.access_log(11);
    assert_eq!(kinds(&log).iter().filter(|kind| **kind == "udp").count(), 1);
    assert!(log.iter().filter(|line| line["user"] == "alice").count() >= 8, "{log:?}");
}

/// A server of OpenSSH, and who may come to it.
pub(super) struct Ssh {
    pub(super) port: u16,
    dir: TempDir,
    _service: Service,
}

impl Ssh {
    pub(super) fn start() -> Ssh {
        let (dir, port) = (TempDir::new(), free_port());
        for name in ["host", "client"] {
            let file = dir.join(name).display().to_string();
            super::call("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &file]).success();
        }
        let config = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {0}/host\nAuthorizedKeysFile {0}/client.pub\nStrictModes no\n\
             PidFile none\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\n",
            dir.path().display()
        );
        let file = dir.write("sshd_config", &config);
        // Where it separates its privileges; only its service makes that.
        std::fs::create_dir_all("/run/sshd").unwrap();
        let mut command = Command::new(program("sshd"));
        command.args(["-D", "-e", "-f"]).arg(file);
        let service = Service::start(&mut command, &dir.join("sshd.log"));
        let addr = wmproxy_testkit::Addr::local(port);
        eventually("sshd listens", || wmproxy_testkit::Conn::try_connect(&addr).is_ok());
        Ssh { port, dir, _service: service }
    }

    /// The client's command line, to this server through `proxy` in the words of `nc -X`.
    fn by(&self, proxy: &Proxy, kind: &str) -> Vec<String> {
        let way =
            format!("ProxyCommand={} -X {kind} -x 127.0.0.1:{} %h %p", program("nc").display(), port(proxy));
        let words = self.words(self.port);
        let way = ["-o".to_owned(), way];
        ["ssh".to_owned()].into_iter().chain(words).chain(way).collect()
    }

    /// What the client has to be told to come to a port of this machine that leads here.
    pub(super) fn words(&self, port: u16) -> Vec<String> {
        let (key, port) = (self.dir.join("client").display().to_string(), port.to_string());
        let words = ["-F", "none", "-q", "-i", &key, "-p", &port, "-o", "BatchMode=yes"];
        let trust = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"];
        words.into_iter().chain(trust).map(str::to_owned).collect()
    }
}

#[test]
fn ssh_and_git_come_over_nc() {
    if !asked() {
        return;
    }
    let (ssh, proxy) = (Ssh::start(), start(&format!("{ACCESS_LOG}{}", forward(""))));
    let work = TempDir::new();
    let git = |dir: &Path, args: &[&str], ssh: &str| {
        let mut command = Command::new(program("git"));
        command.current_dir(dir).args(["-c", "user.name=t", "-c", "user.email=t@t.test"]).args(args);
        command
            .env("GIT_SSH_COMMAND", ssh)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_SYSTEM", "/dev/null");
        run(&mut command, PATIENCE).success()
    };
    git(work.path(), &["init", "-q", "origin"], "");
    let origin = work.join("origin");
    std::fs::write(origin.join("large"), wmproxy_testkit::Pattern::new(1).bytes(0, 3_000_000)).unwrap();
    git(&origin, &["add", "large"], "");
    git(&origin, &["commit", "-q", "-m", "one"], "");
    for (kind, place) in [("connect", "a"), ("5", "b"), ("4", "c")] {
        let words = ssh.by(&proxy, kind);
        let mut command = Command::new(program("ssh"));
        command.args(&words[1..]).args(["root@127.0.0.1", "cat; echo and back"]);
        let echoed = said_to(&mut command, b"there ");
        assert_eq!(echoed.stdout, "there and back\n", "{kind}: {}", echoed.text());
        let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
        let url = format!("ssh://root@127.0.0.1:{}{}", ssh.port, origin.display());
        git(work.path(), &["clone", "-q", &url, place], &quoted.join(" "));
        let same = std::fs::read(work.join(place).join("large")).unwrap()
            == std::fs::read(origin.join("large")).unwrap();
        assert!(same, "{kind}");
    }
    assert_eq!(kinds(&proxy.access_log(6)), ["connect", "connect", "socks5", "socks5", "socks4", "socks4"]);
}

/// Runs a program with an input that ends.
fn said_to(command: &mut Command, input: &[u8]) -> Finished {
    let file = TempDir::new();
    let path = file.join("input");
    std::fs::write(&path, input).unwrap();
    let quoted: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| format!("'{}'", word.to_string_lossy()))
        .collect();
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(format!("{} < '{}'", quoted.join(" "), path.display()));
    run(&mut shell, PATIENCE)
}

#[test]
fn squid_and_tinyproxy_have_ours_as_a_parent() {
    if !asked() {
        return;
    }
    let backend = Backend::http("by way of ours");
    let ours = start(&format!("{ACCESS_LOG}{}", forward("")));
    let squid = Parent::squid_behind(port(&ours));
    let tinyproxy = Parent::tinyproxy_behind(port(&ours));
    for (parent, name) in [(&squid, "squid"), (&tinyproxy, "tinyproxy")] {
        for tunnel in [&[][..], &["-p"]] {
            let mut command = Command::new(program("curl"));
            let way = format!("http://127.0.0.1:{}", parent.port);
            let url = format!("http://{}/", backend.addr());
            command.args(["-sS", "--noproxy", "", "-m", "20", "-x", &way, &url]).args(tunnel).env_clear();
            let said = run(&mut command, PATIENCE);
            assert_eq!(said.stdout, "by way of ours", "{name} {tunnel:?}: {}", said.text());
        }
    }
    assert_eq!(kinds(&ours.access_log(4)), ["http", "connect", "http", "connect"]);
}

#[test]
fn nmap_finds_no_open_proxy() {
    if !asked() {
        return;
    }
    let backend = Backend::http("wmproxy was here");
    let scan = |proxy: &Proxy| {
        let port = port(proxy).to_string();
        let args = format!("proxy.url=http://{}/,proxy.pattern=was here", backend.addr());
        let scripts = "+socks-open-proxy,+http-open-proxy,+socks-auth-info";
        let scan =
            ["-Pn", "-n", "-sT", "-p", &port, "--script", scripts, "--script-args", &args, "127.0.0.1"];
        super::call("nmap", &scan).success().stdout.to_lowercase()
    };
    let as_it_comes = start(&listener(""));
    let report = scan(&as_it_comes);
    assert!(report.contains("/tcp open"), "{report}");
    assert!(!report.contains("potentially open") && !report.contains("open socks"), "{report}");
    let guarded = start(&forward(USERS));
    let report = scan(&guarded);
    assert!(!report.contains("potentially open") && !report.contains("open socks"), "{report}");
    // Or the scan would find none anywhere.
    let open = start(&forward(""));
    let report = scan(&open);
    assert!(report.contains("potentially open"), "{report}");
}
