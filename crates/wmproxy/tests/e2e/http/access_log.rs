//! A line for each request, written when its response has ended.

use serde_json::json;
use wmproxy_testkit::http::Reply;
use wmproxy_testkit::{Authority, Client, Conn, Gate, Origin, eventually};

use super::{http, one_route, route, site, site_with};
use crate::{ACCESS_LOG, start};

fn log(format: &str) -> String {
    format!("[access_log]\nfile = \"{{dir}}/access.log\"\nformat = \"{format}\"\n")
}

#[test]
fn json_says_what_happened() {
    let origin = Origin::says("HTTP/1.1 201 Made\r\nContent-Length: 5\r\n\r\nhello");
    let routes = route(&format!("name = \"things\"\nreverse_proxy = \"{}\"", origin.addr()));
    let proxy = start(&format!("{ACCESS_LOG}{}", http("", &routes)));
    let mut client = Client::connect(&proxy.tcp("h"));
    client.send("POST /a%20b?c=d HTTP/1.1\r\nHost: A.Example:81\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!(client.response().status(), 201);
    let line = proxy.access_log(1).remove(0);
    let text = |key: &str| line[key].as_str().unwrap_or_else(|| panic!("{key} in {line}")).to_owned();
    assert_eq!(text("listener"), "h");
    assert_eq!(text("route"), "things");
    assert_eq!(text("method"), "POST");
    assert_eq!(text("uri"), "/a%20b?c=d");
    assert_eq!(text("host"), "a.example:81");
    assert_eq!(text("peer"), origin.addr().to_string());
    assert_eq!(text("client_addr"), client.conn().local().to_string());
    assert_eq!(line["status"], 201);
    assert_eq!((line["bytes_in"].as_u64(), line["bytes_out"].as_u64()), (Some(3), Some(5)), "{line}");
    assert!(line["duration"].as_f64().unwrap() >= line["upstream_time"].as_f64().unwrap(), "{line}");
}

#[test]
fn every_request_has_its_line_the_refused_ones_too() {
    let origin = Origin::named("o");
    let proxy = start(&format!("{ACCESS_LOG}{}", site(origin.addr())));
    let addr = proxy.tcp("h");
    let mut client = Client::connect(&addr);
    for path in ["/1", "/2", "/3"] {
        client.get(path);
    }
    client.send("GET /bad HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
    assert_eq!(client.response().status(), 400);
    let lines = proxy.access_log(4);
    let statuses: Vec<u64> = lines.iter().map(|line| line["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [200, 200, 200, 400]);
}

#[test]
fn a_line_comes_with_the_end_of_the_response_and_not_before() {
    let gate = Gate::new();
    let wait = gate.clone();
    let origin = Origin::start(move |call| {
        call.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf")?;
        wait.wait();
        call.send("half")
    });
    let proxy = start(&format!("{ACCESS_LOG}{}", site(origin.addr())));
    let mut client = Client::connect(&proxy.tcp("h"));
    client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    client.head();
    assert_eq!(client.recv(4), b"half");
    assert_eq!(proxy.file_lines("access.log").len(), 0);
    gate.open();
    client.recv(4);
    assert_eq!(proxy.access_log(1)[0]["bytes_out"], 8);
}

#[test]
fn combined_is_what_others_read() {
    let origin = Origin::says("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    let proxy = start(&format!("{}{}", log("combined"), site(origin.addr())));
    let mut client = Client::connect(&proxy.tcp("h"));
    client.send(
        "GET /x?y HTTP/1.1\r\nHost: a.example\r\nReferer: http://r/\r\nUser-Agent: say \"hi\"\\\x09\u{1b}\r\n\r\n"
            .replace('\u{1b}', ""),
    );
    client.response();
    eventually("a line", || proxy.file_lines("access.log").len() == 1);
    let line = proxy.file_lines("access.log").remove(0);
    assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
    assert!(line.contains("] \"GET /x?y HTTP/1.1\" 200 5 \"http://r/\" \""), "{line}");
    // What the client wrote stays inside its quotes.
    let agent = line.rsplit_once("http://r/\" \"").unwrap().1.strip_suffix('"').unwrap();
    assert!(!agent.replace("\\\"", "").replace("\\\\", "").contains('"'), "{line}");
}

#[test]
fn a_template_has_the_variables_of_requests() {
    let origin = Origin::says("HTTP/1.1 200 OK\r\nX-Cache: hit\r\nContent-Length: 5\r\n\r\nhello");
    let template = "{method} {scheme} {host} {path} {query} {version} {status} {bytes_out} {route} {listener} \
                    {header:X-A} {response:X-Cache} {cookie:c} {query:q} {client_ip} {user}";
    let proxy = start(&format!(
        "{}{}",
        log(template),
        one_route(&format!("name = \"r\"\nreverse_proxy = \"{}\"", origin.addr()))
    ));
    let mut client = Client::connect(&proxy.tcp("h"));
    client.send("GET /p?q=1&z HTTP/1.1\r\nHost: a.example\r\nX-A: b\r\nCookie: d=1; c=2\r\n\r\n");
    client.response();
    eventually("a line", || proxy.file_lines("access.log").len() == 1);
    let line = proxy.file_lines("access.log").remove(0);
    assert_eq!(line, "GET http a.example /p q=1&z HTTP/1.1 200 5 r h b hit 2 1 127.0.0.1 -");
}

#[test]
fn a_client_can_not_write_a_line_of_its_own() {
    let origin = Origin::named("o");
    let proxy = start(&format!("{ACCESS_LOG}{}", site(origin.addr())));
    let mut client = Client::connect(&proxy.tcp("h"));
    client.get("/%0a%0d{\"status\":1}\"\\");
    client.send("GET /\u{1b}[2J\n HTTP/1.1\r\nHost: a\r\n\r\n");
    client.response();
    // Each line is JSON, and there is one for each request.
    assert_eq!(proxy.access_log(2).len(), 2);
}

#[test]
fn bytes_that_did_not_go_out_are_not_counted() {
    let origin = Origin::start(|call| call.reply(&Reply::new(200, vec![b'x'; 64 << 20])));
    let proxy = start(&format!("{ACCESS_LOG}{}", site(origin.addr())));
    let mut client = Client::connect(&proxy.tcp("h"));
    client.read_slowly();
    client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    client.head();
    client.recv(1_000);
    client.reset();
    let line = proxy.access_log(1).remove(0);
    assert_eq!(line["status"], 200);
    assert!(line["bytes_out"].as_u64().unwrap() < 64 << 20, "{line}");
}

#[test]
fn connections_that_come_to_no_request_are_written_too() {
    let origin = Origin::named("o");
    let authority = Authority::new();
    let tls = format!("tls = {}", authority.issue("own", &["a.example"]).toml());
    let config = [
        ACCESS_LOG.to_owned(),
        site_with(origin.addr(), "deny = [\"127.0.0.2\"]\nper_client_connections = 1"),
        site_with(origin.addr(), &tls).replace("name = \"h\"", "name = \"s\""),
    ];
    let proxy = start(&config.concat());
    let line = |number: usize| proxy.access_log(number).pop().unwrap();
    Conn::connect_from([127, 0, 0, 2].into(), &proxy.tcp("h")).expect_closed();
    let denied = line(1);
    let facts = ["listener", "outcome", "client_ip", "status", "bytes_out"].map(|name| &denied[name]);
    assert_eq!(
        facts,
        [&json!("h"), &json!("denied"), &json!("127.0.0.2"), &json!(null), &json!(0)],
        "{denied}"
    );
    assert_eq!((&denied["method"], &denied["version"]), (&json!(null), &json!(null)), "{denied}");
    let first = Client::connect(&proxy.tcp("h"));
    // It has its place as soon as it is served.
    eventually("the first client", || proxy.listener_number("h", "active") == 1);
    Conn::connect(&proxy.tcp("h")).expect_closed();
    assert_eq!(line(2)["outcome"], "client_limit");
    drop(first);
    let plain = Conn::connect(&proxy.tcp("s"));
    plain.send(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    // An alert, which says why.
    assert_eq!(plain.recv(1), [21]);
    let refused = line(3);
    assert_eq!(
        (&refused["outcome"], &refused["scheme"]),
        (&json!("client_tls"), &json!("https")),
        "{refused}"
    );
    // Who just looks whether somebody listens is nobody to write of.
    drop(Conn::connect(&proxy.tcp("h")));
    drop(Conn::connect(&proxy.tcp("s")));
    Client::connect(&proxy.tcp("h")).get("/");
    let last = line(4);
    assert_eq!((&last["outcome"], &last["status"]), (&json!("done"), &json!(200)), "{last}");
}
