//! Services that share their load, and those that are not well.

use std::io::{BufRead as _, BufReader};

use wmproxy_testkit::tcp::free_port;
use wmproxy_testkit::wait::eventually;
use wmproxy_testkit::{Addr, Backend, Conn};

use super::{CARRIERS, Server, tcp};

/// Who serves a visitor, if anybody does.
fn name(port: u16) -> Option<String> {
    let visitor = Conn::connect(&Addr::local(port));
    let mut name = String::new();
    BufReader::new(visitor.socket()).read_line(&mut name).ok()?;
    Some(name.trim_end().to_owned())
}

/// Who serves ten visitors, each name once.
fn names(port: u16) -> Vec<String> {
    let mut names: Vec<_> = (0..10).map(|_| name(port).unwrap_or_default()).collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn clients_of_a_group_share_a_port_and_one_may_go() {
    for carrier in CARRIERS {
        let (server, port) = (Server::start(), free_port());
        let (a, b) = (Backend::named("a"), Backend::named("b"));
        let home = server.home(carrier, tcp("x", a.addr(), port, "group = \"g\""));
        let work = server.client("work", carrier, tcp("x", b.addr(), port, "group = \"g\""));
        assert_eq!(names(port), ["a", "b"], "{carrier}");
        home.finish();
        eventually("the other one serves all", || names(port) == ["b"]);
        let home = server.home(carrier, tcp("x", a.addr(), port, "group = \"g\""));
        eventually("both serve", || names(port) == ["a", "b"]);
        home.finish();
        work.finish();
    }
}

#[test]
fn a_service_that_is_not_well_is_passed_over_until_it_is() {
    let (server, port) = (Server::start(), free_port());
    let good = Backend::named("good");
    let sick = Addr::local(free_port());
    let check = "group = \"g\"\nhealth_check = { type = \"tcp\", interval = \"50ms\", rise = 1, fall = 1 }";
    let services = tcp("good", good.addr(), port, check) + &tcp("sick", &sick, port, check);
    let client = server.home("", services);
    client.expect_warn("peer is down");
    eventually("the sick one is passed over", || names(port) == ["good"]);
    let well = Backend::start_at(&sick, |conn| {
        conn.try_send(b"well\n")?;
        Ok(0)
    });
    eventually("it is well again", || names(port) == ["good", "well"]);
    drop(well);
    eventually("and then it is not", || names(port) == ["good"]);
    client.finish();
}
