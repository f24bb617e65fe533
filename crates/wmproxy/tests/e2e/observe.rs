//! What the proxy tells of itself: access log, metrics, its own log.

use rustix::process::Signal;
use wmproxy_testkit::{Backend, Conn, UdpBackend, UdpClient, eventually};

use crate::{ACCESS_LOG, start, tcp, udp};

#[test]
fn metrics_match_what_was_sent() {
    let (backend, udp_backend) = (Backend::echo(), UdpBackend::replies(2));
    let proxy = start(&(tcp(backend.addr(), "") + &udp(udp_backend.addr(), "")));
    let addr = proxy.tcp("t");
    for _ in 0..5 {
        let conn = Conn::connect(&addr);
        conn.echo(&[1; 1_000]);
        conn.finish();
        conn.expect_end();
    }
    let held = Conn::connect(&addr);
    held.echo(&[2; 500]);
    let client = UdpClient::connect(proxy.udp("u"));
    for _ in 0..10 {
        client.send(&[3; 100]);
        client.recv();
        client.recv();
    }
    eventually("the connections to end", || proxy.listener_number("t", "active") == 1);
    let metrics = proxy.metrics();
    let tcp = [("listener", "t"), ("protocol", "tcp")];
    let udp = [("listener", "u"), ("protocol", "udp")];
    assert_eq!(metrics.sum("wmproxy_connections_accepted_total", &tcp), 6.0);
    assert_eq!(metrics.sum("wmproxy_connections_active", &tcp), 1.0);
    assert_eq!(metrics.sum("wmproxy_connections_closed_total", &[tcp[0], ("outcome", "done")]), 5.0);
    assert_eq!(metrics.sum("wmproxy_connections_accepted_total", &udp), 1.0);
    assert_eq!(metrics.sum("wmproxy_datagrams_in_total", &udp), 10.0);
    assert_eq!(metrics.sum("wmproxy_datagrams_out_total", &udp), 20.0);
    assert_eq!(metrics.sum("wmproxy_bytes_in_total", &udp), 1_000.0);
    assert_eq!(metrics.sum("wmproxy_bytes_out_total", &udp), 2_000.0);
    assert_eq!(metrics.sum("wmproxy_udp_batch_in_datagrams_sum", &udp), 10.0);
    assert_eq!(metrics.sum("wmproxy_udp_batch_out_datagrams_sum", &udp), 20.0);
    held.finish();
    held.expect_end();
    eventually("the bytes to be counted", || {
        let metrics = proxy.metrics();
        (metrics.sum("wmproxy_bytes_in_total", &tcp), metrics.sum("wmproxy_bytes_out_total", &tcp))
            == (5_500.0, 5_500.0)
    });
    let peer = backend.addr().to_string();
    assert_eq!(proxy.metrics().sum("wmproxy_peer_leases_total", &[("peer", &peer)]), 6.0);
}

#[test]
fn the_status_shows_the_listeners() {
    let backend = Backend::echo();
    let proxy = start(&tcp(backend.addr(), ""));
    let conn = Conn::connect(&proxy.tcp("t"));
    conn.echo(b"hello");
    let status = proxy.status();
    let listener = &status["listeners"][0];
    assert_eq!((listener["name"].as_str(), listener["protocol"].as_str()), (Some("t"), Some("tcp")));
    assert_eq!((listener["accepted"].as_u64(), listener["active"].as_u64()), (Some(1), Some(1)));
    assert_eq!(status["draining"], false);
    let text = status.to_string();
    assert!(text.contains(&backend.addr().to_string()), "no peer in {text}");
    let shown = proxy.command(&["status"]).success().stdout;
    assert!(shown.contains('t') && shown.contains(&proxy.tcp("t").to_string()), "{shown}");
}

#[test]
fn the_access_log_follows_a_template() {
    let backend = Backend::echo();
    let format = "[access_log]\nfile = \"{dir}/plain.log\"\nformat = \"{listener}|{client_addr}|{peer}|{bytes_in}|{bytes_out}|{outcome}\"\n";
    let proxy = start(&format!("{format}{}", tcp(backend.addr(), "")));
    let conn = Conn::connect(&proxy.tcp("t"));
    conn.echo(b"hello");
    let from = conn.local();
    conn.finish();
    conn.expect_end();
    eventually("the line", || proxy.file_lines("plain.log").len() == 1);
    let expected = format!("t|{from}|{}|5|5|done", backend.addr());
    assert_eq!(proxy.file_lines("plain.log"), [expected]);
}

#[test]
fn a_listener_may_have_its_own_access_log_or_none() {
    let backend = Backend::echo();
    let config = [
        ACCESS_LOG.to_owned(),
        crate::stream("default", "127.0.0.1:0", backend.addr(), ""),
        crate::stream("none", "127.0.0.1:0", backend.addr(), "access_log = false"),
        crate::stream("own", "127.0.0.1:0", backend.addr(), "access_log = { file = \"{dir}/own.log\" }"),
    ];
    let proxy = start(&config.concat());
    for name in ["none", "own", "default"] {
        let conn = Conn::connect(&proxy.tcp(name));
        conn.echo(b"hello");
        conn.finish();
        conn.expect_end();
    }
    let records = proxy.access_log(1);
    assert!(records.iter().all(|record| record["listener"] == "default"), "{records:?}");
    eventually("the other file", || proxy.file_lines("own.log").len() == 1);
    assert!(proxy.file_lines("own.log")[0].contains("\"own\""));
}

#[test]
fn usr1_reopens_the_logs() {
    let backend = Backend::echo();
    let config = format!("[log]\nfile = \"{{dir}}/own.log\"\n{ACCESS_LOG}{}", tcp(backend.addr(), ""));
    let proxy = start(&config);
    let addr = proxy.tcp("t");
    let serve = || {
        let conn = Conn::connect(&addr);
        conn.echo(b"hello");
        conn.finish();
        conn.expect_end();
    };
    serve();
    proxy.access_log(1);
    std::fs::rename(proxy.dir().join("access.log"), proxy.dir().join("access.1")).unwrap();
    std::fs::rename(proxy.dir().join("own.log"), proxy.dir().join("own.1")).unwrap();
    proxy.signal(Signal::USR1);
    eventually("both files to be there again", || {
        proxy.dir().join("access.log").exists() && proxy.dir().join("own.log").exists()
    });
    serve();
    proxy.access_log(1);
    assert_eq!(proxy.file_lines("access.1").len(), 1);
}

#[test]
fn a_lost_log_directory_stops_no_traffic() {
    let backend = Backend::echo();
    let setup = crate::setup(&format!(
        "[access_log]\nfile = \"{{dir}}/logs/access.log\"\n{}",
        tcp(backend.addr(), "")
    ));
    let proxy = setup.file("logs/keep", "").start();
    proxy.expect_warn("log");
    std::fs::remove_dir_all(proxy.dir().join("logs")).unwrap();
    proxy.signal(Signal::USR1);
    for _ in 0..20 {
        let conn = Conn::connect(&proxy.tcp("t"));
        conn.echo(b"hello");
        conn.finish();
        conn.expect_end();
    }
}

#[test]
fn the_log_is_one_line_a_record_and_without_colour_in_a_pipe() {
    let backend = Backend::echo();
    let proxy = start(&tcp(backend.addr(), ""));
    proxy.reload();
    let lines = proxy.log().lines();
    assert!(!lines.is_empty());
    for line in lines {
        assert!(!line.contains('\u{1b}'), "{line:?}");
        // 2026-11-22 15:04:05.123  INFO …
        let date: Vec<&str> = line.split([' ', 'T']).collect();
        assert!(date[0].len() == 10 && date[0].matches('-').count() == 2, "{line}");
        assert!(line.contains("INFO"), "{line}");
    }
}

#[test]
fn the_log_in_json_parses() {
    let backend = Backend::echo();
    let proxy = start(&format!("[log]\nformat = \"json\"\n{}", tcp(backend.addr(), "")));
    let lines = proxy.log().lines();
    assert!(!lines.is_empty());
    for line in lines {
        let value: serde_json::Value =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(value["level"].as_str().map(str::to_lowercase).as_deref(), Some("info"), "{line}");
    }
}

#[test]
fn the_admin_api_wants_its_token() {
    let backend = Backend::echo();
    let port = wmproxy_testkit::tcp::free_port();
    let dir = wmproxy_testkit::TempDir::new();
    let text =
        format!("[admin]\nlisten = \"127.0.0.1:{port}\"\ntoken = \"hunter2\"\n{}", tcp(backend.addr(), ""));
    let config = dir.write("token.toml", &text);
    let mut command = std::process::Command::new(crate::BIN);
    command.args(["run", "-c"]).arg(&config).current_dir(dir.path());
    let _service = wmproxy_testkit::exec::Service::start(&mut command, &dir.join("token.log"));
    let admin: wmproxy_testkit::Addr = format!("127.0.0.1:{port}").parse().unwrap();
    let get = |headers: &str| wmproxy_testkit::admin::exchange_with(&admin, "GET", "/api/v1/status", headers);
    eventually("the admin API", || get("").is_ok());
    assert_eq!(get("").unwrap().status, 401);
    assert_eq!(get("Authorization: Bearer wrong\r\n").unwrap().status, 401);
    let answer = get("Authorization: Bearer hunter2\r\n").unwrap();
    assert_eq!(answer.status, 200);
    assert!(!answer.body.contains("hunter2"));
    // The command line finds address and token in the config.
    let finished = wmproxy_testkit::exec::run_in(dir.path(), crate::BIN, &["status", "-c", "token.toml"]);
    finished.success();
    let log = std::fs::read_to_string(dir.join("token.log")).unwrap();
    assert!(!log.contains("hunter2"), "a secret in the log:\n{log}");
}

#[test]
fn a_web_page_can_not_steer_the_admin_api() {
    let backend = Backend::echo();
    let proxy = start(&tcp(backend.addr(), ""));
    // What a browser sends for a form on somebody's page: it can't be told from a user's wish otherwise.
    let answer = wmproxy_testkit::admin::exchange_with(
        proxy.admin(),
        "POST",
        "/api/v1/stop",
        "Origin: https://evil.example\r\nContent-Type: text/plain\r\n",
    );
    assert_eq!(answer.unwrap().status, 403);
    assert!(proxy.running());
    assert_eq!(proxy.status()["draining"], false);
}
