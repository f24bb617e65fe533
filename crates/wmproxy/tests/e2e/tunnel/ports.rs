//! Services with ports of their own.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};

use wmproxy_testkit::tcp::{Closed, free_port};
use wmproxy_testkit::wait::eventually;
use wmproxy_testkit::{Addr, Backend, Conn, Pattern, Rng, UdpBackend, UdpClient};

use super::{CARRIERS, Server, refuses, service, tcp};
use crate::preface::header_backend;
use crate::websocket::head;

#[test]
fn a_visitor_reaches_a_service_over_every_carrier() {
    let backend = Backend::echo();
    for carrier in CARRIERS {
        let server = Server::start();
        let port = free_port();
        let client = server.home(carrier, tcp("echo", backend.addr(), port, ""));
        let visitors: Vec<_> = (0..20).map(|_| Conn::connect(&Addr::local(port))).collect();
        for (n, visitor) in visitors.iter().enumerate() {
            visitor.echo(format!("visitor {n}").as_bytes());
        }
        let pattern = Pattern::new(1);
        let (visitor, total) = (&visitors[3], 8 << 20);
        std::thread::scope(|scope| {
            scope.spawn(|| visitor.send_pattern(&pattern, total, &mut Rng::new(2)).unwrap());
            visitor.recv_pattern(&pattern, total, &mut Rng::new(3));
        });
        // An end is passed on, and so is the other one.
        visitors[0].finish();
        visitors[0].expect_end();
        drop(visitors);
        super::settle(&client);
        client.finish();
    }
}

#[test]
fn a_reset_is_passed_on_both_ways() {
    for carrier in CARRIERS {
        let (server, resets, silent) = (Server::start(), Backend::resets(), Backend::silent());
        let (a, b) = (free_port(), free_port());
        let services = tcp("resets", resets.addr(), a, "") + &tcp("silent", silent.addr(), b, "");
        let client = server.home(carrier, services);
        let visitor = Conn::connect(&Addr::local(a));
        visitor.expect_reset();
        let visitor = Conn::connect(&Addr::local(b));
        silent.wait_accepted(1);
        visitor.reset();
        let end = silent.next_end();
        assert!(end.error.is_some(), "{carrier}: {end:?}");
        client.finish();
    }
}

#[test]
fn a_service_that_is_not_there_resets_its_visitors() {
    let (server, closed, port) = (Server::start(), Closed::new(), free_port());
    let client = server.home("", tcp("none", closed.addr(), port, ""));
    for _ in 0..5 {
        Conn::connect(&Addr::local(port)).expect_reset();
    }
    super::settle(&client);
    client.finish();
    // When the client goes, so do its ports.
    eventually("its port is closed", || refuses(port));
}

#[test]
fn datagrams_come_and_go_whole() {
    for carrier in CARRIERS {
        let (server, backend, port) = (Server::start(), UdpBackend::echo(), free_port());
        let lines = format!("local = \"{}\"\nport = {port}\nidle_timeout = \"1s\"", backend.addr());
        let client = server.home(carrier, service("echo", "udp", lines));
        let visitor = UdpClient::connect(([127, 0, 0, 1], port).into());
        let visitor = visitor.socket();
        let mut buffer = vec![0; 65_536];
        for size in [1, 1_200, 9_000, 65_507] {
            let datagram = Pattern::new(size as u64).bytes(0, size);
            visitor.send(&datagram).unwrap();
            let length = visitor.recv(&mut buffer).unwrap();
            assert!(buffer[..length] == datagram, "{carrier}: {size} bytes");
        }
        // What carries them stays for those to come.
        super::settle(&client);
        client.finish();
    }
}

#[test]
fn the_service_is_told_who_the_visitor_is() {
    for version in ["v1", "v2"] {
        let (server, backend, port) = (Server::start(), header_backend(), free_port());
        let more = format!("send_proxy_protocol = \"{version}\"");
        let client = server.home("", tcp("who", backend.addr(), port, more));
        let visitor = Conn::connect(&Addr::local(port));
        visitor.send(b"x");
        let line = visitor.line();
        let (from, to) = (visitor.local(), Addr::local(port));
        assert!(line.contains(&from.to_string()) && line.contains(&to.to_string()), "{version}: {line}");
        drop(visitor);
        client.finish();
    }
}

#[test]
fn only_those_may_come_who_are_allowed() {
    let (server, backend, port) = (Server::start(), Backend::echo(), free_port());
    let client = server.home("", tcp("echo", backend.addr(), port, "visitors = \"127.0.0.2\""));
    Conn::connect(&Addr::local(port)).expect_reset();
    Conn::connect_from([127, 0, 0, 2].into(), &Addr::local(port)).echo(b"hello");
    client.finish();
}

#[test]
fn a_port_is_one_clients_and_the_other_learns_why() {
    let (server, backend, port) = (Server::start(), Backend::echo(), free_port());
    let home = server.home("", tcp("echo", backend.addr(), port, ""));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let strange = taken.local_addr().unwrap().port();
    server.proxy.expect_warn("a tunnel service was refused");
    let services = tcp("same", backend.addr(), port, "")
        + &tcp("strange", backend.addr(), strange, "")
        + &tcp("own", backend.addr(), server.port, "")
        + &tcp("good", backend.addr(), 0, "");
    let config = super::client_config("work", server.port, "", services);
    let work = super::end(&config);
    work.expect_warn("");
    for (name, why) in [("same", "in use"), ("strange", "in use"), ("own", "tunnel")] {
        let line = work.log().wait(&format!("service={name}"));
        assert!(line.contains(why), "{line}");
    }
    work.log().wait("a service is offered");
    Conn::connect(&Addr::local(port)).echo(b"still there");
    super::settle(&work);
    work.finish();
    home.finish();
}

#[test]
fn a_proxy_leads_into_the_clients_network_as_far_as_its_egress_says() {
    let (server, backend, port) = (Server::start(), Backend::echo(), free_port());
    let lines = format!("port = {port}\negress = \"in\"\nopen = true");
    let allow = format!("[egress.in]\nprivate = \"deny\"\nallow = [\"{}\"]\n", backend.addr());
    let client = server.home("", service("proxy", "proxy", lines) + &allow);
    let tunnel = |to: &dyn std::fmt::Display| {
        let visitor = Conn::connect(&Addr::local(port));
        visitor.send(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n").as_bytes());
        let head = head(&visitor);
        (visitor, head)
    };
    let (visitor, line) = tunnel(backend.addr());
    assert!(line.contains("200"), "{line}");
    visitor.echo(b"from far away");
    let (denied, line) = tunnel(&format!("127.0.0.1:{}", server.port));
    assert!(line.contains("403"), "{line}");
    drop((visitor, denied));
    client.finish();
}

/// A parent that takes the first FIN for the end of both directions, as many do.
fn impatient_parent() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // The thread ends with the test's process: whom it waits for does not come.
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            std::thread::spawn(move || through(client));
        }
    });
    port
}

/// One connection through that parent.
fn through(client: TcpStream) -> io::Result<()> {
    let mut lines = BufReader::new(&client);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if lines.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    let server = TcpStream::connect(head.split(' ').nth(1).unwrap())?;
    (&client).write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    let pass = |mut from: &TcpStream, mut to: &TcpStream| {
        let _ = io::copy(&mut from, &mut to);
        for end in [&client, &server] {
            let _ = end.shutdown(Shutdown::Both);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| pass(&client, &server));
        pass(&server, &client);
    });
    Ok(())
}

#[test]
fn an_end_is_passed_on_through_a_parent_that_passes_none_on() {
    let backend = Backend::start(|conn| {
        let question = conn.recv_all();
        conn.try_send(&question)?;
        Ok(question.len() as u64)
    });
    for carrier in ["", "mux = true"] {
        let (server, port, parent) = (Server::start(), free_port(), impatient_parent());
        let via = format!("via = \"out\"\n{carrier}");
        let chain = format!("[chain.out]\nhops = [\"http://127.0.0.1:{parent}\"]\n");
        let client = server.home(via, tcp("late", backend.addr(), port, "") + &chain);
        for _ in 0..5 {
            let visitor = Conn::connect(&Addr::local(port));
            visitor.send(b"question");
            visitor.finish();
            assert_eq!(visitor.recv_all(), b"question", "{carrier}");
        }
        client.finish();
    }
}
