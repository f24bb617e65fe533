//! TCP over two bridges: what goes in at one end comes out at the other as if there were none.

use std::io;

use wmproxy_testkit::backend::drain;
use wmproxy_testkit::{Addr, Backend, Conn, Pattern, Proxy, Rng};

use super::*;
use crate::{ACCESS_LOG, start};

const MIB: u64 = 1 << 20;

/// A proxy of `ws2tcp` before a server, and one of `tcp2ws` before that.
struct Chain {
    outer: Proxy,
    /// Behind the outer one, so it ends after it.
    inner: Proxy,
}

impl Chain {
    fn before(server: &Addr) -> Chain {
        let inner = start(&format!("{ACCESS_LOG}{}", ws2tcp(server, "bridge_path = \"/p\"")));
        let outer = start(&format!("{ACCESS_LOG}{}", tcp2ws(&inner.tcp("t"), "")));
        Chain { outer, inner }
    }

    fn connect(&self) -> Conn {
        Conn::connect(&self.outer.tcp("t"))
    }

    #[track_caller]
    fn assert_ends(&self, outer: (&str, &str), inner: (&str, &str)) {
        assert_end(&record(&self.outer), outer.0, outer.1);
        assert_end(&record(&self.inner), inner.0, inner.1);
    }
}

#[test]
fn a_hundred_megabytes_pass_each_way_at_once() {
    const TOTAL: u64 = 100 * MIB;
    let backend = Backend::start(|conn| {
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| {
                conn.send_pattern(&Pattern::new(2), TOTAL, &mut Rng::new(3))?;
                conn.finish();
                io::Result::Ok(())
            });
            conn.recv_pattern(&Pattern::new(1), TOTAL, &mut Rng::new(4));
            conn.expect_end();
            sender.join().unwrap().map(|()| TOTAL)
        })
    });
    let chain = Chain::before(backend.addr());
    let before = (chain.outer.memory_kb(), chain.inner.memory_kb());
    let conn = chain.connect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            conn.send_pattern(&Pattern::new(1), TOTAL, &mut Rng::new(5)).unwrap();
            conn.finish();
        });
        conn.recv_pattern(&Pattern::new(2), TOTAL, &mut Rng::new(6));
        conn.expect_end();
    });
    let end = backend.next_end();
    assert_eq!((end.bytes, end.error), (TOTAL, None));
    chain.assert_ends(("done", "none"), ("done", "none"));
    for record in [record(&chain.outer), record(&chain.inner)] {
        assert_eq!((record["bytes_in"].as_u64(), record["bytes_out"].as_u64()), (Some(TOTAL), Some(TOTAL)));
    }
    let grown = [(&chain.outer, before.0), (&chain.inner, before.1)]
        .map(|(proxy, before)| proxy.memory_kb().saturating_sub(before));
    assert!(grown.iter().all(|grown| *grown < 2048), "{grown:?} KiB more");
}

#[test]
fn streams_of_every_shape_come_back_whole() {
    let backend = Backend::echo();
    let chain = Chain::before(backend.addr());
    std::thread::scope(|scope| {
        for seed in 0..8 {
            let chain = &chain;
            scope.spawn(move || {
                let total = 1 + Rng::new(seed).next_u64() % (4 * MIB);
                let (pattern, conn) = (Pattern::new(seed), chain.connect());
                std::thread::scope(|scope| {
                    scope.spawn(|| {
                        conn.send_pattern(&pattern, total, &mut Rng::new(seed + 100)).unwrap();
                        conn.finish();
                    });
                    conn.recv_pattern(&pattern, total, &mut Rng::new(seed));
                    conn.expect_end();
                });
            });
        }
    });
}

#[test]
fn a_half_close_passes_either_way() {
    let backend = Backend::start(|conn| {
        let got = drain(conn)?;
        conn.send_pattern(&Pattern::new(1), 3 * MIB, &mut Rng::new(1))?;
        Ok(got)
    });
    let chain = Chain::before(backend.addr());
    let conn = chain.connect();
    conn.send(b"that is all");
    conn.finish();
    conn.recv_pattern(&Pattern::new(1), 3 * MIB, &mut Rng::new(2));
    conn.expect_end();
    assert_eq!(backend.next_end().bytes, 11);
    chain.assert_ends(("done", "none"), ("done", "none"));

    let backend = Backend::start(|conn| {
        conn.try_send(b"that is all")?;
        conn.finish();
        drain(conn)
    });
    let chain = Chain::before(backend.addr());
    let conn = chain.connect();
    assert_eq!(conn.recv_all(), b"that is all");
    conn.send_pattern(&Pattern::new(1), 3 * MIB, &mut Rng::new(2)).unwrap();
    conn.finish();
    assert_eq!(backend.next_end().bytes, 3 * MIB);
    chain.assert_ends(("done", "none"), ("done", "none"));
}

#[test]
fn a_reset_passes_either_way() {
    let backend = Backend::echo();
    let chain = Chain::before(backend.addr());
    let conn = chain.connect();
    conn.echo(b"hello");
    conn.reset();
    assert_eq!(backend.next_end().error, Some(io::ErrorKind::ConnectionReset));
    chain.assert_ends(("client_reset", "client"), ("client_ws_close", "client"));

    let backend = Backend::start(|conn| {
        Read::read_exact(&mut &*conn, &mut [0; 5])?;
        conn.socket().set_linger(Some(std::time::Duration::ZERO)).map(|()| 5)
    });
    let chain = Chain::before(backend.addr());
    let conn = chain.connect();
    conn.send(b"hello");
    conn.expect_reset();
    chain.assert_ends(("peer_ws_close", "upstream"), ("peer_reset", "upstream"));
}

#[test]
fn many_at_once_and_nothing_is_left() {
    let backend = Backend::echo();
    let chain = Chain::before(backend.addr());
    for _ in 0..3 {
        let conns: Vec<Conn> = (0..300).map(|_| chain.connect()).collect();
        for (i, conn) in conns.iter().enumerate() {
            conn.send(format!("this is {i:04}").as_bytes());
        }
        for (i, conn) in conns.iter().enumerate() {
            assert_eq!(conn.recv(12), format!("this is {i:04}").as_bytes());
        }
        for conn in &conns {
            conn.finish();
            conn.expect_end();
        }
    }
    backend.wait_idle();
}
