//! What changes while visitors are there.

use std::sync::atomic::{AtomicBool, Ordering};

use wmproxy_testkit::tcp::free_port;
use wmproxy_testkit::wait::eventually;
use wmproxy_testkit::{Addr, Backend, Client, Conn, Origin};

use super::{CARRIERS, Server, client_config, refuses, server_config, tcp, web};

#[test]
fn a_reload_of_either_end_disturbs_nobody() {
    for carrier in CARRIERS {
        let (server, backend, origin) = (Server::start(), Backend::echo(), Origin::named("web"));
        let (port, later) = (free_port(), free_port());
        let before = tcp("echo", backend.addr(), port, "") + &web("web", origin.addr(), "a.test", "");
        let client = server.home(carrier, &before);
        let front = server.proxy.tcp("tunnel:http");
        let (done, visitor) = (AtomicBool::new(false), Conn::connect(&Addr::local(port)));
        std::thread::scope(|scope| {
            let load = scope.spawn(|| {
                let (mut count, mut kept) = (0, Client::connect(&front));
                while !done.load(Ordering::Relaxed) {
                    Conn::connect(&Addr::local(port)).echo(b"a short visit");
                    kept.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
                    assert_eq!(kept.response().text(), "web");
                    visitor.echo(b"a long one");
                    count += 1;
                }
                count
            });
            for turn in 0..3 {
                let more = tcp("later", backend.addr(), later, format!("max_connections = {}", turn + 7));
                client.reload_with(&client_config("home", server.port, carrier, before.clone() + &more));
                eventually("a new service is there", || !refuses(later));
                let lines = format!("http = \"127.0.0.1:0\"\nmax_waiting = {}", turn + 100);
                server.proxy.reload_with(&server_config(server.port, lines));
                client.reload_with(&client_config("home", server.port, carrier, &before));
                eventually("it is gone again", || refuses(later));
            }
            done.store(true, Ordering::Relaxed);
            assert!(load.join().unwrap() > 3);
        });
        drop(visitor);
        // Connections that are kept for requests to come go with what they are for.
        client.expect_warn("offers nothing");
        client.reload_with(&client_config("home", server.port, carrier, ""));
        eventually("nobody is there", || client.active() == 0);
        super::settle(&client);
        client.finish();
    }
}

#[test]
fn what_is_gone_keeps_its_visitors_to_their_end() {
    let (server, backend, port) = (Server::start(), Backend::echo(), free_port());
    let client = server.home("", tcp("echo", backend.addr(), port, ""));
    let visitor = Conn::connect(&Addr::local(port));
    visitor.echo(b"here");
    client.expect_warn("offers nothing");
    client.reload_with(&client_config("home", server.port, "", ""));
    eventually("its port is closed", || refuses(port));
    visitor.echo(b"still here");
    drop(visitor);
    client.finish();
}
