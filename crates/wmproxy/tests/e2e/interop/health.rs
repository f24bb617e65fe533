//! Real services under health checks: stopped in their tracks, taken out, and let go on.

use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use wmproxy_testkit::exec::Service;
use wmproxy_testkit::tcp::free_port;
use wmproxy_testkit::{Proxy, TempDir, eventually};

use super::dns::start_dnsmasq;
use super::{asked, call, program};
use crate::{group, setup, tcp, udp};

/// What the log says of a peer that goes.
const DOWN: &str = "peer is down: its health checks fail";

fn signal(service: &Service, signal: Signal) {
    kill_process(Pid::from_raw(service.pid() as i32).unwrap(), signal).unwrap();
}

/// Waits until the only peer is in this state; gives why the last check failed, if it did.
fn wait_health(proxy: &Proxy, state: &str) -> String {
    let health = || proxy.status()["upstreams"][0]["peers"][0]["health"].clone();
    eventually(&format!("the peer to be {state}"), || health()["state"] == state);
    health()["last"]["reason"].as_str().unwrap_or_default().to_owned()
}

/// Starts a proxy for one server with these checks.
fn checked(port: u16, health: &str, stream: &str) -> Proxy {
    let health = format!("[upstream.g.health]\ninterval = \"1s\"\nfall = 2\n{health}\n");
    let config = format!("{}{stream}", group("g", &[format!("127.0.0.1:{port}")], &health));
    setup(&config).expect_warn(DOWN).start()
}

/// Stops a process without a word, as a machine that hangs, and lets it go on.
fn freeze_and_thaw(proxy: &Proxy, service: &Service) {
    assert_eq!(wait_health(proxy, "up"), "");
    signal(service, Signal::STOP);
    let reason = wait_health(proxy, "down");
    assert_eq!(reason, "no answer within 1s");
    signal(service, Signal::CONT);
    wait_health(proxy, "up");
    assert_eq!(proxy.log().count(DOWN), 1, "{}", proxy.log().text());
}

/// nginx as one process, so that a signal stops all of it.
fn start_nginx(dir: &Path, port: u16) -> Service {
    let temp = dir.display();
    let config = format!(
        "daemon off; master_process off; pid {temp}/nginx.pid; error_log stderr; user root;\nevents {{}}\n\
         http {{ access_log {temp}/access.log; client_body_temp_path {temp}/1; proxy_temp_path {temp}/2;\n\
         fastcgi_temp_path {temp}/3; uwsgi_temp_path {temp}/4; scgi_temp_path {temp}/5;\n\
         server {{ listen 127.0.0.1:{port}; location / {{ return 404; }}\n\
         location = /healthz {{ return 200 \"all is well\"; }} location = /ill {{ return 503; }} }} }}\n"
    );
    let path = dir.join("nginx.conf");
    std::fs::write(&path, config).unwrap();
    let mut command = Command::new(program("nginx"));
    command.arg("-p").arg(dir).arg("-c").arg(path).args(["-e", "stderr"]);
    let service = Service::start(&mut command, &dir.join("nginx.log"));
    let direct = format!("http://127.0.0.1:{port}/healthz");
    eventually("nginx", || call("curl", &["-sf", &direct]).code == Some(0));
    service
}

#[test]
fn nginx_by_its_page() {
    if !asked() {
        return;
    }
    let (dir, port) = (TempDir::new(), free_port());
    let service = start_nginx(dir.path(), port);
    let page = "type = \"http\"\npath = \"/healthz\"\nhost = \"a.test\"\nexpect_status = \"200\"\nexpect_body = \"well\"";
    let proxy = checked(port, page, &tcp("g", ""));
    freeze_and_thaw(&proxy, &service);
    let page = format!("http://{}/healthz", proxy.tcp("t"));
    assert_eq!(call("curl", &["-sf", &page]).success().stdout, "all is well");
    drop(proxy);
    let proxy = checked(port, "type = \"http\"\nmethod = \"HEAD\"\npath = \"/ill\"", &tcp("g", ""));
    assert_eq!(wait_health(&proxy, "down"), "the status is 503, and 200-399 was expected");
    let log = std::fs::read_to_string(dir.join("access.log")).unwrap();
    assert!(log.contains("\"HEAD /ill HTTP/1.1\" 503 0") && log.contains("(health check)"), "{log}");
}

#[test]
fn redis_by_its_ping() {
    if !asked() {
        return;
    }
    let (dir, port) = (TempDir::new(), free_port());
    let mut command = Command::new(program("redis-server"));
    let own = port.to_string();
    command
        .args(["--port", &own, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .current_dir(dir.path());
    let service = Service::start(&mut command, &dir.join("redis.log"));
    eventually("redis", || call("redis-cli", &["-p", &own, "ping"]).stdout.trim() == "PONG");
    let proxy = checked(port, "send = \"PING\\r\\n\"\nexpect = \"+PONG\"", &tcp("g", ""));
    freeze_and_thaw(&proxy, &service);
    // Up, as far as connecting goes, and yet of no use.
    call("redis-cli", &["-p", &own, "config", "set", "requirepass", "secret"]).success();
    let reason = wait_health(&proxy, "down");
    assert!(reason.starts_with("not what was expected within 1s, but \"-NOAUTH"), "{reason}");
}

#[test]
fn dnsmasq_by_a_question() {
    if !asked() {
        return;
    }
    let (dir, port) = (TempDir::new(), free_port());
    let hosts = dir.write("hosts", "10.1.2.3 a.test\n");
    let service = start_dnsmasq(dir.path(), port, &hosts);
    // The example of docs/health-checks.md.
    let question = "type = \"udp\"\n\
                    send = { hex = \"1f2e 0100 0001 0000 0000 0000 01 61 04 74657374 00 0001 0001\" }\n\
                    expect = { hex = \"1f2e 8580\" }";
    let proxy = checked(port, question, &udp("g", ""));
    freeze_and_thaw(&proxy, &service);
    let own = proxy.udp("u").port().to_string();
    let answer = call("dig", &["+short", "@127.0.0.1", "-p", &own, "a.test"]).success();
    assert_eq!(answer.stdout.trim(), "10.1.2.3");
    drop(service);
    let reason = wait_health(&proxy, "down");
    assert!(reason.starts_with("the port is closed: "), "{reason}");
    eventually("the flows to end", || proxy.active() == 0);
}
