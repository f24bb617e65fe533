//! Out of descriptors: who is in is unharmed, and once some are free again all is as before.

use std::time::Duration;

use wmproxy_testkit::{Backend, Conn, UdpBackend, UdpClient, eventually};

use crate::{setup, tcp, udp};

#[test]
fn accepting_pauses_and_goes_on() {
    let backend = Backend::echo();
    // Enough for the proxy itself and some fifty connections.
    let proxy = setup(&tcp(backend.addr(), "")).nofile(192).expect_warn("out of resources").start();
    let addr = proxy.tcp("t");
    let served: Vec<Conn> = (0..20).map(|_| Conn::connect(&addr)).collect();
    for conn in &served {
        conn.echo(b"in");
    }
    let crowd: Vec<Conn> = (0..250).map(|_| Conn::connect(&addr)).collect();
    let line = proxy.log().wait("out of resources");
    assert!(line.contains("WARN"), "{line}");
    let paused = || proxy.metrics().sum("wmproxy_accept_paused", &[("listener", "t")]);
    eventually("the gauge to say that accepting pauses", || paused() >= 1.0);
    for conn in &served {
        conn.echo(b"unharmed by the crowd");
    }
    let busy = proxy.cpu_ticks();
    std::thread::sleep(Duration::from_millis(300));
    assert!(proxy.cpu_ticks() - busy <= 15, "a proxy at its limit must not spin");
    assert!(proxy.log().count("out of resources") <= 4, "one line, not a flood:\n{}", proxy.log().text());
    drop(crowd);
    eventually("accepting to go on", || {
        let conn = Conn::connect(&addr);
        conn.patience(Duration::from_secs(2));
        conn.send(b"?");
        std::io::Read::read(&mut &conn, &mut [0]).is_ok_and(|n| n == 1)
    });
    for conn in &served {
        conn.echo(b"still unharmed");
    }
    eventually("the gauge to say that nobody waits", || paused() == 0.0);
}

#[test]
fn flows_that_find_no_descriptor_are_dropped_and_counted() {
    let backend = UdpBackend::echo();
    let config = udp(backend.addr(), "idle_timeout = \"6s\"");
    let proxy = setup(&config).nofile(128).expect_warn("out of resources").start();
    let to = proxy.udp("u");
    let served: Vec<UdpClient> = (0..20).map(|_| UdpClient::connect(to)).collect();
    for client in &served {
        client.echo(b"in");
    }
    let crowd: Vec<UdpClient> = (0..200).map(|_| UdpClient::connect(to)).collect();
    for client in &crowd {
        client.send(b"me too");
    }
    proxy.log().wait("out of resources");
    for client in &served {
        client.echo(b"unharmed by the crowd");
    }
    let dropped = || proxy.metrics().sum("wmproxy_udp_dropped_total", &[("reason", "no_flow")]);
    eventually("half of the crowd to be dropped", || dropped() >= 100.0);
    assert_eq!(proxy.log().count("out of resources"), 1, "one line, not a flood");
    eventually("the flows to end", || proxy.active() == 0);
    for client in &crowd {
        // What came before the shortage was answered then.
        client.socket().set_nonblocking(true).unwrap();
        while client.try_recv().is_ok() {}
        client.socket().set_nonblocking(false).unwrap();
    }
    for client in &crowd[..20] {
        client.echo(b"room again");
    }
}
