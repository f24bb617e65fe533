//! Services of http, which share their port.

use wmproxy_testkit::http::Reply;
use wmproxy_testkit::{Client, Conn, Origin};

use super::{CARRIERS, Server, web};
use crate::websocket::{echo_server, open};

/// The password is `open sesame`, hashed by bcrypt with the least cost.
const HASH: &str = "$2b$04$kTdzpt9CBs2wt1Q.TZMY5.kruU25yIzQEaF0Qs.U87IFxwCtxfReu";

/// Answers with its name, and keeps no connection.
fn origin(name: &str) -> Origin {
    Origin::says(Reply::with(200, "Connection: close\r\n", name).0)
}

/// A request for a host, by itself.
fn ask(server: &Server, host: &str, path: &str, fields: &str) -> wmproxy_testkit::http::Message {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{fields}Connection: close\r\n\r\n");
    Client::once(&server.proxy.tcp("tunnel:http"), &request)
}

#[test]
fn requests_go_by_host_and_path_to_many_clients() {
    for carrier in CARRIERS {
        let server = Server::start();
        let [a, b, c] = ["a", "b", "c"].map(origin);
        let home = server.home(
            carrier,
            web("a", a.addr(), "a.test", "") + &web("api", b.addr(), "a.test", "paths = \"/api/\""),
        );
        let work = server.client("work", carrier, web("all", c.addr(), "*.c.test", ""));
        for (host, path, body) in [
            ("a.test", "/", "a"),
            ("A.TEST:8080", "/apix", "a"),
            ("a.test", "/api/x", "b"),
            ("x.y.c.test", "/api", "c"),
        ] {
            let answer = ask(&server, host, path, "");
            assert_eq!((answer.status(), answer.text()), (200, body), "{carrier}: {host}{path}");
        }
        for host in ["c.test", "b.test", "127.0.0.1"] {
            assert_eq!(ask(&server, host, "/", "").status(), 404, "{carrier}: {host}");
        }
        home.finish();
        assert_eq!(ask(&server, "a.test", "/", "").status(), 404);
        work.finish();
    }
}

#[test]
fn a_service_learns_who_asks_and_what_for() {
    let (server, origin) = (
        Server::start(),
        Origin::says(Reply::with(200, "x-app: 1\r\nserver: app\r\nconnection: close\r\n", "ok").0),
    );
    let rules = "host_header = \"inner.test\"\nrequest_headers = { set = { x-from = \"tunnel\" }, remove = \"cookie\" }\n\
                 response_headers = { set = { x-by = \"us\" }, remove = \"server\" }";
    let client = server.home("", web("a", origin.addr(), "a.test", rules));
    let answer = ask(&server, "a.test", "/x?y", "Cookie: a=b\r\nX-Forwarded-For: 192.0.2.1\r\n");
    let head = &answer.head;
    assert_eq!((head.get("x-app"), head.get("x-by"), head.get("server")), (Some("1"), Some("us"), None));
    let request = origin.request().head;
    assert_eq!((request.target(), request.get("host")), ("/x?y", Some("inner.test")));
    assert_eq!((request.get("x-from"), request.get("cookie")), (Some("tunnel"), None));
    assert_eq!(
        request.get("x-forwarded-for"),
        Some("127.0.0.1"),
        "what visitors say of themselves is not believed"
    );
    assert_eq!(request.get("x-forwarded-host"), Some("a.test"));
    client.finish();
}

#[test]
fn a_password_and_a_network_guard_a_service() {
    let (server, origin) = (Server::start(), origin("in"));
    let services =
        web("a", origin.addr(), "a.test", format!("users = {{ alice = {{ password = \"{HASH}\" }} }}"))
            + &web("b", origin.addr(), "b.test", "visitors = \"192.0.2.0/24\"");
    let client = server.home("", services);
    let answer = ask(&server, "a.test", "/", "");
    assert_eq!(answer.status(), 401);
    assert!(answer.head.get("www-authenticate").unwrap().contains("a.test"));
    let wrong = ask(&server, "a.test", "/", "Authorization: Basic YWxpY2U6d3Jvbmc=\r\n");
    assert_eq!(wrong.status(), 401);
    assert_eq!(ask(&server, "b.test", "/", "").status(), 403);
    assert!(origin.requests().is_empty());
    let right = ask(&server, "a.test", "/", "Authorization: Basic YWxpY2U6b3BlbiBzZXNhbWU=\r\n");
    assert_eq!(right.text(), "in");
    assert!(!origin.request().head.has("authorization"), "it is not the service's to know");
    client.finish();
}

#[test]
fn a_proxy_into_a_network_knows_its_users() {
    let (server, origin, port) = (Server::start(), origin("in"), wmproxy_testkit::tcp::free_port());
    let rules = format!("port = {port}\negress = \"lan\"\nusers = {{ alice = {{ password = \"{HASH}\" }} }}");
    let egress = "[egress.lan]\nprivate = \"allow\"\nallow = [\"127.0.0.0/8\"]\n";
    let client = server.home("", super::service("net", "proxy", rules) + egress);
    let ask = |credentials: &str| {
        let conn = Conn::connect(&wmproxy_testkit::Addr::local(port));
        let to = origin.addr();
        let head =
            format!("GET http://{to}/ HTTP/1.1\r\nHost: {to}\r\n{credentials}Connection: close\r\n\r\n");
        conn.send(head.as_bytes());
        String::from_utf8(conn.recv_all()).unwrap()
    };
    for wrong in ["", "Proxy-Authorization: Basic YWxpY2U6d3Jvbmc=\r\n"] {
        let said = ask(wrong);
        assert!(said.starts_with("HTTP/1.1 407 "), "{said}");
    }
    let right = ask("Proxy-Authorization: Basic YWxpY2U6b3BlbiBzZXNhbWU=\r\n");
    assert!(right.starts_with("HTTP/1.1 200 ") && right.ends_with("in"), "{right}");
    client.finish();
}

#[test]
fn a_websocket_passes() {
    for carrier in CARRIERS {
        let (server, backend) = (Server::start(), echo_server());
        let client = server.home(carrier, web("ws", backend.addr(), "a.example", ""));
        let conn = Conn::connect(&server.proxy.tcp("tunnel:http"));
        let mut socket = open(&conn, "/chat");
        let message = tungstenite::Message::binary(vec![7; 100_000]);
        socket.send(message.clone()).unwrap();
        assert_eq!(socket.read().unwrap(), message);
        socket.close(None).unwrap();
        while socket.read().is_ok() {}
        drop(conn);
        client.finish();
    }
}
