//! Who is let in, and as far as what.

use std::cell::Cell;
use std::io;
use std::net::UdpSocket;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use wmproxy_net::limit::Gate;
use wmproxy_net::tls::{Connector, ConnectorSpec};
use wmproxy_runtime::scope::Scope;
use wmproxy_wire::tunnel::message::ALPN;

use super::*;
use crate::carrier::tests::{finish, listener, read, run, tls, write};

/// How long is waited for what must not happen.
const MOMENT: Duration = Duration::from_millis(50);

#[test]
fn both_ends_export_the_same() {
    run(async {
        let (acceptor, connector) = tls();
        let scope = Scope::new();
        let listener = listener(&acceptor, Gate::new(0, 0), &scope);
        let to = listener.local_addr().unwrap();
        let accept = async { listener.accept(|_| {}).await.unwrap().finish().await.unwrap() };
        let connect = connect(to, "tunnel.test", connector.quic_config(), &scope);
        let ((server, _permit), client) = tokio::join!(accept, connect);
        let exported =
            [server, client.unwrap()].map(|end| export_keying_material(&end, b"label", b"").unwrap());
        assert_eq!(exported[0], exported[1]);
        assert_ne!(exported[0], [0; 32]);
    });
}

#[test]
fn who_is_not_the_one_expected_is_named() {
    run(async {
        let (acceptor, _) = tls();
        let scope = Scope::new();
        let listener = listener(&acceptor, Gate::new(0, 0), &scope);
        let to = listener.local_addr().unwrap();
        let pins = ConnectorSpec {
            fingerprints: vec![[7; 32]],
            alpn: vec![ALPN.into()],
            ..ConnectorSpec::default()
        };
        let (connector, _) = Connector::load(pins).unwrap();
        let accept = async { drop(listener.accept(|_| {}).await.unwrap().finish().await) };
        let connect = connect(to, "tunnel.test", connector.quic_config(), &scope);
        let ((), connected) = tokio::join!(accept, connect);
        let words = connected.unwrap_err().to_string();
        assert!(words.starts_with("TLS failed: the certificate's fingerprint is sha256:"), "{words}");
        assert!(words.ends_with(", which is not what was expected"), "{words}");
    });
}

#[test]
fn a_stranger_gets_one_stream_and_a_small_window() {
    run(async {
        let (acceptor, connector) = tls();
        let scope = Scope::new();
        let listener = listener(&acceptor, Gate::new(0, 0), &scope);
        let to = listener.local_addr().unwrap();
        let accept = async { listener.accept(|_| {}).await.unwrap().finish().await.unwrap().0 };
        let connect = connect(to, "tunnel.test", connector.quic_config(), &scope);
        let (server, client) = tokio::join!(accept, connect);
        let client = client.unwrap();
        let near = first_stream(&client).await.unwrap();
        let (many, _incoming) = many(client);
        assert!(tokio::time::timeout(MOMENT, many.open()).await.is_err(), "a second stream");
        let fill = async {
            let mut taken = 0;
            while let Ok(n) = tokio::time::timeout(MOMENT, poll_write(&near, &[7; 1000])).await {
                taken += n.unwrap();
            }
            taken
        };
        let far = first_stream(&server);
        let (taken, far) = tokio::join!(fill, far);
        assert!(taken <= 12 << 20, "what it may write waits with itself");
        let stats = server.stats();
        assert!(stats.udp_rx.bytes < 100_000, "{stats:?}");
        // Logged in, it has both.
        let (_many, mut incoming) = super::many(server);
        let far = far.unwrap();
        let drain = async {
            let mut left = taken;
            while left > 0 {
                left -= read(&far, 100_000).await.unwrap().len();
            }
        };
        drain.await;
        let stream = many.open().await.unwrap();
        write(&stream, b"second").await.unwrap();
        finish(&stream).await.unwrap();
        assert_eq!(read(&incoming.next().await.unwrap().place(), 10).await.unwrap(), b"second");
    });
}

async fn poll_write(stream: &Stream, data: &[u8]) -> io::Result<usize> {
    std::future::poll_fn(|cx| stream.poll_write(cx, data)).await
}

#[test]
fn who_comes_on_top_of_the_limit_is_refused_until_there_is_room() {
    run(async {
        let (acceptor, connector) = tls();
        let scope = Scope::new();
        for gate in [Gate::new(2, 0), Gate::new(0, 2)] {
            let listener = listener(&acceptor, gate.clone(), &scope);
            let to = listener.local_addr().unwrap();
            let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
            let refused = Rc::new(Cell::new(0));
            let count = refused.clone();
            scope.spawn(async move {
                while let Some(arriving) = listener.accept(|_| count.set(count.get() + 1)).await {
                    let _ = tell.send(arriving.finish().await.unwrap());
                }
            });
            let dial = || connect(to, "tunnel.test", connector.quic_config(), &scope);
            let _first = dial().await.unwrap();
            let _second = dial().await.unwrap();
            assert_eq!(dial().await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
            assert_eq!(refused.get(), 1);
            drop(told.recv().await);
            let _third = dial().await.unwrap();
        }
    });
}

/// The first datagram of a client.
async fn first_datagram(scope: &Scope) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (_, connector) = tls();
    let connecting = connect(socket.local_addr().unwrap(), "tunnel.test", connector.quic_config(), scope);
    let mut connecting = std::pin::pin!(connecting);
    std::future::poll_fn(|cx| {
        let _ = connecting.as_mut().poll(cx);
        Poll::Ready(())
    })
    .await;
    socket.set_nonblocking(true).unwrap();
    let mut buffer = vec![0; 2000];
    loop {
        match socket.recv(&mut buffer) {
            Ok(n) => return buffer[..n].to_vec(),
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

#[test]
fn under_pressure_addresses_are_validated_before_anything_is_counted() {
    /// The type of a Retry (RFC 9000 section 17.2.5), with the bits that are always set in a long header.
    const RETRY: u8 = 0xf0;
    run(async {
        let (acceptor, connector) = tls();
        let scope = Scope::new();
        let gate = Gate::new(1000, 0);
        let _busy: Vec<_> = (0..40).map(|_| gate.try_enter().unwrap()).collect();
        let listener = Arc::new(listener(&acceptor, gate.clone(), &scope));
        let to = listener.local_addr().unwrap();
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        scope.spawn(async move {
            while let Some(arriving) = listener.accept(|_| {}).await {
                let _ = tell.send(arriving.finish().await.unwrap());
            }
        });
        let stranger = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        stranger.send_to(&first_datagram(&scope).await, to).await.unwrap();
        let mut answer = vec![0; 2000];
        let n = stranger.recv(&mut answer).await.unwrap();
        assert!(answer[0] & 0xf0 == RETRY && n < 200, "{:#x}, {n} bytes", answer[0]);
        assert_eq!(gate.active(), 40);
        // Who gets the answer comes in.
        let _client = connect(to, "tunnel.test", connector.quic_config(), &scope).await.unwrap();
        told.recv().await.unwrap();
    });
}

#[test]
fn a_server_that_is_another_is_not_believed() {
    run(async {
        let ((acceptor, _), (_, connector)) = (tls(), tls());
        let scope = Scope::new();
        let listener = listener(&acceptor, Gate::new(0, 0), &scope);
        let to = listener.local_addr().unwrap();
        let accept = async { listener.accept(|_| {}).await.unwrap().finish().await };
        let connect = connect(to, "tunnel.test", connector.quic_config(), &scope);
        let (accepted, connected) = tokio::join!(accept, connect);
        assert!(accepted.is_err() && connected.is_err());
    });
}
