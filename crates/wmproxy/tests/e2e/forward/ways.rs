//! Which way it goes: parents that share the work and stand in for each other, rules and ways by user, proxies by `-S` one
//! behind the other, and the address that destinations see.

use std::fmt::Display;
use std::process::Command;

use wmproxy_testkit::exec::Service;
use wmproxy_testkit::tcp::free_port;
use wmproxy_testkit::{Addr, Backend, Conn, TempDir, eventually};

use super::config::{tunnel, user};
use super::{TO_LOOPBACK, forward, listener};
use crate::{ACCESS_LOG, BIN, start};

fn assert_through(proxy: &Addr, to: impl Display, login: Option<&str>) {
    let (status, conn) = tunnel(proxy, to, login);
    assert_eq!(status, 200);
    conn.echo(b"through");
}

#[test]
fn a_parent_that_has_gone_fails_nobody() {
    let backend = Backend::echo();
    let parents = [(); 2].map(|()| start(&format!("{ACCESS_LOG}{}", forward(""))));
    let hops = parents.each_ref().map(|parent| format!("\"http://{}\"", parent.tcp("f"))).join(", ");
    let chain = format!(
        "[[egress.default.route]]\nvia = \"out\"\n[chain.out]\nhops = [[{hops}]]\nfail_timeout = \"10m\"\n"
    );
    let proxy = start(&format!("workers = 1\n{}{chain}", forward("")));
    let door = proxy.tcp("f");
    for _ in 0..4 {
        assert_through(&door, backend.addr(), None);
    }
    let [first, second] = parents;
    for parent in [&first, &second] {
        assert_eq!(parent.access_log(2).len(), 2, "they take turns");
    }
    first.finish();
    for _ in 0..6 {
        assert_through(&door, backend.addr(), None);
    }
    assert_eq!(second.access_log(8).len(), 8);
    let peer = &proxy.status()["upstreams"][0]["peers"][0];
    assert_eq!(peer["state"], "ejected");
    assert_eq!(peer["connect_errors"]["refused"], 1, "it is asked once, and put aside: {peer}");
    // The last one gone, clients are told.
    second.finish();
    assert_eq!(tunnel(&door, backend.addr(), None).0, 502);
    proxy.expect_warn("peer ejected");
}

#[test]
fn a_user_has_rules_and_ways_of_its_own() {
    let (open, closed) = (Backend::echo(), Backend::echo());
    let parent = start(&format!("{ACCESS_LOG}{}", forward("")));
    let users = [user("alice", ", egress = \"narrow\""), user("bob", ""), user("carol", "")].join(", ");
    let rules = format!("[egress.narrow]\nallow = [\"{}\"]\n", open.addr());
    let route = format!(
        "[[egress.default.route]]\nusers = [\"carol\"]\nvia = \"out\"\n[chain.out]\nhops = [\"socks5://{}\"]\n",
        parent.tcp("f")
    );
    let listener = listener(format!("users = {{ {users} }}"));
    let proxy = start(&format!("{ACCESS_LOG}{TO_LOOPBACK}{route}{rules}{listener}"));
    let door = proxy.tcp("f");
    assert_through(&door, open.addr(), Some("alice"));
    assert_eq!(tunnel(&door, closed.addr(), Some("alice")).0, 403);
    assert_through(&door, closed.addr(), Some("bob"));
    assert_through(&door, closed.addr(), Some("carol"));
    assert_eq!(closed.accepted(), 2, "nobody connected for alice");
    let log = proxy.access_log(4);
    let way = |user: &str| log.iter().find(|line| line["user"] == user && line["status"] == 200).unwrap();
    assert_eq!((&way("bob")["way"], &way("carol")["way"]), (&"direct".into(), &"out".into()));
    assert_eq!(parent.access_log(1)[0]["destination"], closed.addr().to_string());
}

#[test]
fn the_command_line_puts_proxies_behind_each_other() {
    let backend = Backend::echo();
    let parents = [(); 3].map(|()| start(&format!("{ACCESS_LOG}{}", forward(""))));
    let (dir, door) = (TempDir::new(), Addr::local(free_port()));
    let mut command = Command::new(BIN);
    command.current_dir(dir.path()).args(["proxy", "--no-admin", "--allow-private", "-b", &door.to_string()]);
    for (kind, parent) in ["socks5", "http", "socks4a"].iter().zip(&parents) {
        command.args(["-S", &format!("{kind}://{}", parent.tcp("f"))]);
    }
    let _proxy = Service::start(&mut command, &dir.join("said"));
    eventually("it listens", || Conn::try_connect(&door).is_ok());
    let to = format!("localhost:{}", backend.addr().port());
    assert_through(&door, &to, None);
    let seen = parents.each_ref().map(|parent| {
        let line = parent.access_log(1).remove(0);
        (line["kind"].as_str().unwrap().to_owned(), line["destination"].as_str().unwrap().to_owned())
    });
    let next = |n: usize| parents[n].tcp("f").to_string();
    let hop = |kind: &str, to: String| (kind.to_owned(), to);
    // The name is for the last one to resolve.
    assert_eq!(seen, [hop("socks5", next(1)), hop("connect", next(2)), hop("socks4", to)]);
}

#[test]
fn destinations_see_the_address_that_the_rules_name() {
    let backend = Backend::whoami();
    let source = "source = \"127.0.0.77\"\n";
    let proxy = start(&format!("{TO_LOOPBACK}{source}{}", listener("")));
    let (status, conn) = tunnel(&proxy.tcp("f"), backend.addr(), None);
    assert_eq!(status, 200);
    assert!(conn.line().starts_with("127.0.0.77:"));
}
