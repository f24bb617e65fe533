use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use wmproxy_net::addr::Address;
use wmproxy_net::preface::ProxyVersion;
use wmproxy_net::tls::ConnectorSpec;

use super::*;
use crate::health::{Beginning, HealthOptions};

/// Long enough for any machine where an answer comes, short enough to wait for where none does.
const TIMEOUT: &str = r#""timeout": "1s""#;

fn spec(fields: &str) -> HealthSpec {
    let options: HealthOptions = serde_json::from_str(&format!("{{ {fields} }}")).unwrap();
    options.spec([TargetSpec::Address(addr("127.0.0.1:1"))].iter(), Beginning::default()).unwrap()
}

fn addr(text: &str) -> Address {
    Address::Inet(text.parse().unwrap())
}

async fn check_at(at: SocketAddr, fields: &str) -> CheckResult {
    check_spec(at, spec(fields), None).await
}

async fn check_spec(at: SocketAddr, spec: HealthSpec, connector: Option<Arc<Connector>>) -> CheckResult {
    let address = Address::Inet(at);
    let target = Target::new(&spec, &address, &TargetSpec::Address(address.clone()));
    check(&Means::new(spec, &PeerSocket::default(), connector, Ok(None)), &target).await.1
}

/// Checks a server that treats its one connection so.
async fn check_tcp(fields: &str, serve: impl AsyncFnOnce(TcpStream)) -> CheckResult {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let served = async {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        serve(stream).await;
        std::future::pending::<CheckResult>().await
    };
    tokio::select! {
        result = check_at(at, fields) => result,
        result = served => result,
    }
}

fn failed(reason: &str) -> CheckResult {
    CheckResult::Failed(reason.to_owned())
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = vec![];
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// An address that nobody listens on.
async fn closed() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn a_connection_is_enough_where_nothing_else_is_asked() {
    assert_eq!(check_tcp("", async |_| {}).await, CheckResult::Passed);
    assert_eq!(
        check_at(closed().await, "").await,
        failed("can't connect: Connection refused (os error 111)")
    );
}

#[tokio::test]
async fn what_is_expected_may_come_in_pieces_and_behind_something_else() {
    let ping = r#""send": "PING\r\n", "expect": "+PONG""#;
    let result = check_tcp(ping, async |mut stream| {
        let mut ping = [0; 6];
        stream.read_exact(&mut ping).await.unwrap();
        assert_eq!(&ping, b"PING\r\n");
        for piece in ["hello\r\n+P", "ON", "G\r\n"] {
            stream.write_all(piece.as_bytes()).await.unwrap();
            tokio::task::yield_now().await;
        }
        std::future::pending().await
    });
    assert_eq!(result.await, CheckResult::Passed);
    // A server that speaks first.
    let banner = check_tcp(r#""expect": { "hex": "5353482d" }"#, async |mut stream| {
        stream.write_all(b"SSH-2.0-x\r\n").await.unwrap();
    });
    assert_eq!(banner.await, CheckResult::Passed);
}

#[tokio::test]
async fn a_wrong_answer_is_told() {
    let ping = format!(r#""send": "PING\r\n", "expect": "+PONG", {TIMEOUT}"#);
    let result = check_tcp(&ping, async |mut stream| {
        stream.write_all(b"-NOAUTH\r\n").await.unwrap();
        std::future::pending().await
    });
    assert_eq!(result.await, failed(r#"not what was expected within 1s, but "-NOAUTH\r\n""#));
    let result = check_tcp(&ping, async |mut stream| {
        stream.write_all(b"bye").await.unwrap();
        stream.shutdown().await.unwrap();
        std::future::pending().await
    });
    assert_eq!(result.await, failed(r#"closed before what was expected came, but "bye""#));
    let result = check_tcp(&ping, async |mut stream| {
        let _ = stream.read(&mut [0; 64]).await;
    });
    assert_eq!(result.await, failed("closed without an answer"));
    let result = check_tcp(&ping, async |stream| {
        // Closing with something unread resets.
        stream.peek(&mut [0]).await.unwrap();
    });
    assert_eq!(result.await, failed("the connection failed: Connection reset by peer (os error 104)"));
    let result = check_tcp(r#""expect": "+PONG""#, async |mut stream| {
        stream.write_all(&[b'x'; 20_000]).await.unwrap();
        std::future::pending().await
    });
    let quoted = format!("\"{}\"…", "x".repeat(80));
    let reason = format!("what was expected is not in the first 16384 bytes, which begin with {quoted}");
    assert_eq!(result.await, failed(&reason));
}

#[tokio::test]
async fn a_server_that_hangs_fails_in_time() {
    for (fields, reason) in [
        (r#""send": "x", "expect": "y""#, "no answer within 1s"),
        (r#""type": "http""#, "no answer within 1s"),
    ] {
        let fields = format!("{fields}, {TIMEOUT}");
        let result = check_tcp(&fields, async |stream| {
            let _open = stream;
            std::future::pending().await
        });
        assert_eq!(result.await, failed(reason));
    }
}

#[tokio::test]
async fn the_timeout_is_for_all_of_it() {
    // One byte at a time, each soon enough to keep a timeout for single reads from ever ending.
    let fields = format!(r#""type": "http", {TIMEOUT}"#);
    let result = check_tcp(&fields, async |mut stream| {
        for byte in b"HTTP/1.1 200 OK\r\nServer: slow\r\n".iter().cycle() {
            if stream.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
    });
    let CheckResult::Failed(reason) = result.await else { panic!("passed") };
    assert!(reason.starts_with("not what was expected within 1s, but \"HTTP/1"), "{reason}");
}

#[tokio::test]
async fn http_asks_properly_and_takes_a_body_in_pieces() {
    let fields =
        r#""type": "http", "path": "/healthz?a=1", "host": "a.example", "expect_body": "all is well""#;
    let result = check_tcp(fields, async |mut stream| {
        let head = read_head(&mut stream).await;
        assert!(
            head.starts_with("GET /healthz?a=1 HTTP/1.1\r\nHost: a.example\r\nUser-Agent: wmproxy/"),
            "{head}"
        );
        assert!(head.contains("\r\nConnection: close\r\n"), "{head}");
        let pieces = [
            "HTTP/1.1 200 O",
            "K\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nall",
            " is\r\n5\r\n wel",
            "l\r\n0\r\n\r\n",
        ];
        for piece in pieces {
            stream.write_all(piece.as_bytes()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        std::future::pending().await
    });
    assert_eq!(result.await, CheckResult::Passed);
}

#[tokio::test]
async fn http_tells_what_is_wrong() {
    let answer = async |fields: &str, answer: Vec<u8>| {
        check_tcp(&format!(r#""type": "http", {TIMEOUT}{fields}"#), async move |mut stream| {
            read_head(&mut stream).await;
            let _ = stream.write_all(&answer).await;
            let _ = stream.shutdown().await;
            std::future::pending().await
        })
        .await
    };
    let unavailable = answer("", b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n".to_vec()).await;
    assert_eq!(unavailable, failed("the status is 503, and 200-399 was expected"));
    let other = answer(r#", "expect_body": "well""#, b"HTTP/1.1 200 OK\r\n\r\nill".to_vec()).await;
    assert_eq!(other, failed("the body does not have what was expected, but \"ill\""));
    let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(64 << 10));
    let endless = answer("", endless.into_bytes()).await;
    assert_eq!(endless, failed("the head of the answer is longer than 16384 bytes or 100 fields"));
}

#[tokio::test]
async fn a_host_is_what_the_server_is_called() {
    let plain = spec(r#""type": "http""#);
    let host =
        |address: &str, written: &str| Target::new(&plain, &addr(address), &written.parse().unwrap()).host;
    assert_eq!(host("10.0.0.1:80", "app.internal:80"), "app.internal");
    assert_eq!(host("10.0.0.1:8080", "app.internal:8080"), "app.internal:8080");
    assert_eq!(host("10.0.0.1:80", "10.0.0.1:80"), "10.0.0.1");
    assert_eq!(host("[::1]:81", "[::1]:81"), "[::1]:81");
    let unix = Address::Unix("/run/x".into());
    assert_eq!(Target::new(&plain, &unix, &TargetSpec::Address(unix.clone())).host, "localhost");
    let other = spec(r#""type": "http", "port": 9000"#);
    let target = Target::new(&other, &addr("10.0.0.1:80"), &"app.internal:80".parse().unwrap());
    assert_eq!((target.address, target.host.as_str()), (addr("10.0.0.1:9000"), "app.internal:9000"));
}

/// Checks a server that answers its first datagram with these.
async fn check_udp(fields: &str, answers: &[&[u8]]) -> CheckResult {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = socket.local_addr().unwrap();
    let served = async {
        let mut buffer = [0; 64];
        let (_, from) = socket.recv_from(&mut buffer).await.unwrap();
        for answer in answers {
            socket.send_to(answer, from).await.unwrap();
        }
        std::future::pending::<CheckResult>().await
    };
    tokio::select! {
        result = check_at(at, fields) => result,
        result = served => result,
    }
}

#[tokio::test]
async fn a_datagram_is_answered_by_the_right_one() {
    let ping = format!(r#""type": "udp", "send": {{ "hex": "00ff" }}, "expect": "pong", {TIMEOUT}"#);
    assert_eq!(check_udp(&ping, &[b"old", b"a pong!"]).await, CheckResult::Passed);
    assert_eq!(check_udp(&ping, &[]).await, failed("no answer within 1s"));
    let wrong = check_udp(&ping, &[b"first", b"ping"]).await;
    assert_eq!(wrong, failed("not what was expected within 1s, but \"ping\""));
}

#[tokio::test]
async fn silence_is_no_failure_where_no_answer_is_expected() {
    let ping = format!(r#""type": "udp", "send": "x", {TIMEOUT}"#);
    assert_eq!(check_udp(&ping, &[]).await, CheckResult::Passed);
    assert_eq!(check_udp(&ping, &[b""]).await, CheckResult::Passed);
}

#[tokio::test]
async fn a_closed_port_fails_with_and_without_an_answer_expected() {
    let at = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for fields in [r#""type": "udp", "send": "x""#, r#""type": "udp", "send": "x", "expect": "y""#] {
        let begun = std::time::Instant::now();
        assert_eq!(
            check_at(at, fields).await,
            failed("the port is closed: Connection refused (os error 111)")
        );
        assert!(begun.elapsed() < Duration::from_millis(1900), "before the timeout");
    }
}

#[tokio::test]
async fn a_unix_socket_is_checked_like_any_other() {
    let path = std::env::temp_dir().join(format!("wmproxy-check-{}", std::process::id()));
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let means = Means::new(spec(""), &PeerSocket::default(), None, Ok(None));
    let target = |path: &std::path::Path| {
        let address = Address::Unix(path.to_owned());
        Target::new(&means.spec, &address, &TargetSpec::Address(address.clone()))
    };
    assert_eq!(check(&means, &target(&path)).await.1, CheckResult::Passed);
    drop(listener);
    std::fs::remove_file(&path).unwrap();
    let gone = check(&means, &target(&path)).await.1;
    assert_eq!(gone, failed("can't connect: No such file or directory (os error 2)"));
}

/// What a group says in whose `servers` all these are.
fn spec_in(beginning: Beginning, fields: &str) -> Result<HealthSpec, Vec<(&'static str, String)>> {
    let options: HealthOptions = serde_json::from_str(&format!("{{ {fields} }}")).unwrap();
    options.spec([TargetSpec::Address(addr("127.0.0.1:1"))].iter(), beginning)
}

#[test]
fn checks_begin_as_connections_do_but_not_on_another_port() {
    let group = Beginning { tls: true, proxy: Some(ProxyVersion::V1) };
    let begins = |fields: &str| {
        let spec = spec_in(group, fields).unwrap();
        (spec.tls, spec.introduction)
    };
    let own = |version| Some(Introduction::own(version));
    assert_eq!(begins(""), (true, own(ProxyVersion::V1)));
    assert_eq!(begins(r#""port": 1"#), (false, None));
    assert_eq!(begins(r#""port": 1, "tls": true"#), (true, None));
    assert_eq!(begins(r#""tls": false, "send_proxy_protocol": false"#), (false, None));
    assert_eq!(begins(r#""type": "udp", "send": "x""#), (false, own(ProxyVersion::V2)));
    let problems = spec_in(Beginning::default(), r#""tls": true, "send_proxy_protocol": true"#).unwrap_err();
    assert_eq!((problems[0].0, problems[1].0), ("tls", "send_proxy_protocol"));
    let problems = spec_in(group, r#""type": "udp", "send": "x", "tls": true"#).unwrap_err();
    assert!(problems[0].1.starts_with("has no effect with type = \"udp\""), "{problems:?}");
}

#[tokio::test]
async fn a_header_that_says_that_nobody_came_goes_first() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let group = Beginning { tls: false, proxy: Some(ProxyVersion::V2) };
    let spec = spec_in(group, r#""send": "PING", "expect": "PONG""#).unwrap();
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut got = [0; 20];
        stream.read_exact(&mut got).await.unwrap();
        // The signature, version 2 with LOCAL, no family, no length.
        assert_eq!(&got, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0PING");
        stream.write_all(b"PONG").await.unwrap();
        stream
    };
    let (result, _stream) = tokio::join!(check_spec(at, spec, None), serve);
    assert_eq!(result, CheckResult::Passed);
}

#[tokio::test]
async fn a_server_that_does_not_speak_tls_fails() {
    let group = Beginning { tls: true, proxy: None };
    let connector = Connector::load(ConnectorSpec { insecure_skip_verify: true, ..ConnectorSpec::default() });
    let connector = Arc::new(connector.unwrap().0);
    for (answer, reason) in [(&b"+OK hello\r\n"[..], "TLS failed: "), (b"", "no TLS handshake within 1s")] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(answer).await.unwrap();
            stream
        };
        let spec = spec_in(group, TIMEOUT).unwrap();
        let (result, _stream) = tokio::join!(check_spec(at, spec, Some(connector.clone())), serve);
        let CheckResult::Failed(said) = result else { panic!("{result:?}") };
        assert!(said.starts_with(reason), "{said}");
    }
}
