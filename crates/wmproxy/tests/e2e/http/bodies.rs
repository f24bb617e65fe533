//! Bodies that are larger than every buffer, in both directions and in both at once.

use std::io::Write as _;
use std::time::Duration;

use wmproxy_testkit::http::{Framing, Reply};
use wmproxy_testkit::wait::holds_within;
use wmproxy_testkit::{Client, Gate, Origin, Pattern, Proxy};

use super::{site, site_with};
use crate::start;

const MIB: u64 = 1 << 20;
/// What a transfer may add to the proxy's memory: far less than any body here, and more than its buffers and pools.
const GROWTH_KB: u64 = 24 * 1024;

/// An origin that compares each body with a pattern, says its length, and answers a GET with so many bytes of it.
pub(crate) fn patterned() -> Origin {
    Origin::start(|call| {
        let pattern = Pattern::new(3);
        let mut got = 0;
        call.read_body_with(|part| {
            pattern.check(got, part);
            got += part.len() as u64;
        })?;
        if call.head.method() != "GET" {
            return call.reply(&Reply::new(200, got.to_string()));
        }
        let (form, length) = call.head.target()[1..].split_once('/').unwrap();
        let (chunked, length) = (form == "chunked", length.parse().unwrap());
        match chunked {
            true => call.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?,
            false => call.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"))?,
        }
        let mut sent = 0;
        while sent < length {
            let part = pattern.slice(sent, 65_536.min((length - sent) as usize));
            if chunked {
                call.send(format!("{:x}\r\n", part.len()))?;
            }
            call.send(part)?;
            if chunked {
                call.send("\r\n")?;
            }
            sent += part.len() as u64;
        }
        if chunked { call.send("0\r\n\r\n") } else { Ok(()) }
    })
}

fn download(client: &mut Client, form: &str, length: u64) {
    client.send(format!("GET /{form}/{length} HTTP/1.1\r\nHost: a.example\r\n\r\n"));
    let head = client.head();
    let framing = head.response_framing("GET").unwrap();
    if form == "plain" {
        assert_eq!(framing, Framing::Length(length));
    }
    let (pattern, mut got) = (Pattern::new(3), 0);
    let read = client.body(framing, |part| {
        pattern.check(got, part);
        got += part.len() as u64;
    });
    read.unwrap_or_else(|error| panic!("after {got} bytes: {error}"));
    assert_eq!(got, length);
}

fn upload(client: &mut Client, form: &str, length: u64) {
    let chunked = form == "chunked";
    let framing = match chunked {
        true => "Transfer-Encoding: chunked".to_owned(),
        false => format!("Content-Length: {length}"),
    };
    client.send(format!("PUT /u HTTP/1.1\r\nHost: a.example\r\n{framing}\r\n\r\n"));
    let (pattern, mut sent) = (Pattern::new(3), 0);
    while sent < length {
        let part = pattern.slice(sent, 65_536.min((length - sent) as usize));
        if chunked {
            client.send_chunk(part);
        } else {
            client.send(part);
        }
        sent += part.len() as u64;
    }
    if chunked {
        client.send("0\r\n\r\n");
    }
    assert_eq!(client.response().text(), length.to_string());
}

#[test]
fn large_bodies_arrive_whole_one_after_the_other() {
    let origin = patterned();
    let proxy = start(&site(origin.addr()));
    let mut client = Client::connect(&proxy.tcp("h"));
    for length in [1, 16_383, 16_384, 65_537, 5 * MIB, 64 * MIB] {
        for form in ["plain", "chunked"] {
            download(&mut client, form, length);
            upload(&mut client, form, length);
        }
    }
    client.expect_idle();
    assert_eq!(origin.backend().accepted(), 1);
}

fn flat_memory(proxy: &Proxy, length: u64) {
    let mut client = Client::connect(&proxy.tcp("h"));
    for form in ["plain", "chunked"] {
        download(&mut client, form, MIB);
        upload(&mut client, form, MIB);
        let before = proxy.memory_kb();
        download(&mut client, form, length);
        let down = proxy.memory_kb();
        upload(&mut client, form, length);
        let up = proxy.memory_kb();
        assert!(
            down.max(up) < before + GROWTH_KB,
            "{form}: {before} KiB before, {down} after the download, {up} after the upload"
        );
    }
}

#[test]
fn a_gigabyte_takes_no_memory() {
    let origin = patterned();
    flat_memory(&start(&site(origin.addr())), 1024 * MIB);
}

#[test]
fn ten_gigabytes_take_no_memory_where_they_are_asked_for() {
    if std::env::var_os("WMPROXY_LONG").is_none() {
        eprintln!("not asked for: set WMPROXY_LONG=1");
        return;
    }
    let origin = patterned();
    flat_memory(&start(&site(origin.addr())), 10 * 1024 * MIB);
}

#[test]
fn both_directions_flow_at_once() {
    // Sends back each part as it comes: without both directions neither side could go on past the buffers.
    let origin = Origin::start(|call| {
        call.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        let mut back = call.socket().again()?;
        call.read_body_with(|part| {
            let chunk = [format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat();
            back.write_all(&chunk).unwrap();
        })?;
        call.send("0\r\n\r\n")
    });
    let proxy = start(&site(origin.addr()));
    let mut client = Client::connect(&proxy.tcp("h"));
    let total = 32 * MIB;
    client.send(format!("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: {total}\r\n\r\n"));
    let sender = client.conn().again().unwrap();
    let pattern = Pattern::new(9);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut sent = 0;
            while sent < total {
                let part = pattern.slice(sent, 65_536.min((total - sent) as usize));
                sender.send(part);
                sent += part.len() as u64;
            }
        });
        let mut got = 0;
        let framing = client.head().response_framing("POST").unwrap();
        let read = client.body(framing, |part| {
            pattern.check(got, part);
            got += part.len() as u64;
        });
        read.unwrap_or_else(|error| panic!("after {got} bytes: {error}"));
        assert_eq!(got, total);
    });
    client.expect_idle();
}

#[test]
fn an_answer_that_comes_before_the_upload_ends_is_passed_on_at_once() {
    let gate = Gate::new();
    let wait = gate.clone();
    let origin = Origin::start(move |call| {
        call.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly")?;
        wait.wait();
        call.read_body().map(drop)
    });
    let proxy = start(&site(origin.addr()));
    let mut client = Client::connect(&proxy.tcp("h"));
    client.send("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 11\r\n\r\nfirst ");
    // The proxy may end the connection after such an answer, and then says so; or the upload goes on.
    let head = client.head();
    assert_eq!(head.status(), 200);
    assert_eq!(client.recv(5), b"early");
    gate.open();
    if head.keeps_alive() && client.try_send("later").is_ok() {
        let mut next = Client::connect(&proxy.tcp("h"));
        assert_eq!(next.get("/").text(), "early");
    }
}

#[test]
fn an_origin_that_refuses_a_large_upload_is_heard() {
    let origin = Origin::start(|call| {
        call.wait_body()?;
        call.send("HTTP/1.1 413 Too much\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")?;
        // As a careful server does: the client shall read the answer before it meets a reset.
        call.socket().finish();
        call.wait_end()?;
        call.close();
        Ok(())
    });
    let proxy = start(&site(origin.addr()));
    for _ in 0..5 {
        let mut client = Client::connect(&proxy.tcp("h"));
        let total = 256 * MIB;
        client.send(format!("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: {total}\r\n\r\n"));
        let sender = client.conn().again().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let part = vec![7; 65_536];
                // Until the other side has enough of it.
                for _ in 0..total / part.len() as u64 {
                    if sender.try_send(&part).is_err() {
                        break;
                    }
                }
            });
            let response = client.try_response_to("POST").expect("the refusal, and not a reset before it");
            assert_eq!((response.status(), response.text()), (413, "big"));
            drop(client);
        });
    }
}

#[test]
fn a_slow_reader_slows_its_origin_and_nobody_else() {
    let origin = patterned();
    let proxy = start(&site_with(origin.addr(), "timeouts = { write = \"20s\" }"));
    let mut slow = Client::connect(&proxy.tcp("h"));
    slow.read_slowly();
    let total = 256 * MIB;
    let before = proxy.memory_kb();
    slow.send(format!("GET /plain/{total} HTTP/1.1\r\nHost: a.example\r\n\r\n"));
    assert_eq!(slow.head().status(), 200);
    origin.wait_requests(1);
    for _ in 0..20 {
        download(&mut Client::connect(&proxy.tcp("h")), "plain", MIB);
    }
    assert!(proxy.memory_kb() < before + GROWTH_KB, "{} KiB, {before} before", proxy.memory_kb());
    // What nobody reads stands still, and is not an end.
    assert!(!holds_within(Duration::from_millis(300), || proxy.active() == 0));
    let (pattern, mut got) = (Pattern::new(3), 0);
    slow.body(Framing::Length(total), |part| {
        pattern.check(got, part);
        got += part.len() as u64;
    })
    .unwrap();
    assert_eq!(got, total);
}
