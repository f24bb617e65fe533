//! Relays between a socket and a stream that has none.

use std::future::poll_fn;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use super::tests::{LONG, pair, record, reset};
use super::*;
use crate::record::ListenerMetrics;
use crate::stream::memory;
use wmproxy_wire::units::ByteRate;

/// Relays between a client with a socket, played on a thread, and a peer without one, played by a task.
fn play<T: Send + 'static>(
    terms: Terms,
    client: impl FnOnce(TcpStream) -> T + Send + 'static,
    peer: impl AsyncFnOnce(Stream),
) -> (Outcome, Arc<ListenerMetrics>, T) {
    let (far, near) = pair();
    let thread = std::thread::spawn(move || client(far));
    let runtime = tokio::runtime::LocalRuntime::new().unwrap();
    let (outcome, metrics) = runtime.block_on(async {
        let near = Stream::new(near, true).unwrap();
        let (over, other) = memory::pair();
        let relaying = async {
            let mut record = record();
            let outcome = relay(&near, &over, terms, &mut record).await;
            // Both are closed here, as their owners do it.
            drop((near, over));
            (outcome, record.metrics().clone())
        };
        tokio::join!(relaying, peer(other)).0
    });
    (outcome, metrics, thread.join().unwrap())
}

async fn read(stream: &Stream, room: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; room];
    let n = poll_fn(|cx| stream.poll_read(cx, &mut buffer)).await?;
    buffer.truncate(n);
    Ok(buffer)
}

async fn write(stream: &Stream, mut data: &[u8]) -> io::Result<()> {
    while !data.is_empty() {
        data = &data[poll_fn(|cx| stream.poll_write(cx, data)).await?..];
    }
    Ok(())
}

fn noise(len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

#[test]
fn bytes_and_ends_pass_both_ways() {
    const LEN: usize = 3_000_000;
    let (outcome, metrics, got) = play(
        Terms::new(LONG),
        |mut client| {
            let mut to = client.try_clone().unwrap();
            let writer = std::thread::spawn(move || {
                to.write_all(&noise(LEN)).unwrap();
                to.shutdown(Shutdown::Write).unwrap();
            });
            let mut got = vec![];
            client.read_to_end(&mut got).unwrap();
            writer.join().unwrap();
            got
        },
        async |peer| {
            let mut got = vec![];
            loop {
                match read(&peer, 50_000).await.unwrap() {
                    part if part.is_empty() => break,
                    part => got.extend(part),
                }
            }
            // The client has said all, and hears the rest all the same.
            assert!(got == noise(LEN));
            write(&peer, &got).await.unwrap();
            poll_fn(|cx| peer.poll_shutdown_write(cx)).await.unwrap();
        },
    );
    assert_eq!(outcome, Outcome::Done);
    assert!(got == noise(LEN));
    assert_eq!(metrics.blocks.sum(|b| &b.bytes_in), LEN as u64);
    assert_eq!(metrics.blocks.sum(|b| &b.bytes_spliced), 0, "there is nothing to splice to");
}

#[test]
fn a_reset_passes_either_way() {
    let (outcome, ..) = play(
        Terms::new(LONG),
        |mut client| {
            client.write_all(b"x").unwrap();
            client.read_exact(&mut [0]).unwrap();
            reset(client);
        },
        async |peer| {
            write(&peer, b"y").await.unwrap();
            while let Ok(some) = read(&peer, 10).await {
                assert_eq!(some, b"x");
            }
            assert!(peer.is_reset(&mut Context::from_waker(std::task::Waker::noop())));
        },
    );
    assert_eq!(outcome, Outcome::ClientReset);
    let (outcome, ..) = play(
        Terms::new(LONG),
        |mut client| assert_eq!(client.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset),
        async |peer| peer.reset_on_close(),
    );
    assert_eq!(outcome, Outcome::PeerReset);
}

#[test]
fn a_reset_is_seen_while_nothing_is_read() {
    // The client's side is the one that has no socket, and its reset comes while the peer takes nothing.
    let (far, near) = pair();
    let runtime = tokio::runtime::LocalRuntime::new().unwrap();
    let outcome = runtime.block_on(async {
        let near = Stream::new(near, true).unwrap();
        let (over, other) = memory::pair();
        let mut record = record();
        let relaying = relay(&over, &near, Terms::new(LONG), &mut record);
        let client = async {
            let mut sent = 0;
            let data = [7; 10_000];
            // Until all that lies between is full.
            while let Ok(n) =
                tokio::time::timeout(Duration::from_millis(100), poll_fn(|cx| other.poll_write(cx, &data)))
                    .await
            {
                sent += n.unwrap();
                assert!(sent < 64 << 20, "nobody reads this");
            }
            other.reset_on_close();
            drop(other);
        };
        tokio::join!(relaying, client).0
    });
    assert_eq!(outcome, Outcome::ClientReset);
    drop(far);
}

#[test]
fn a_rate_holds_for_what_has_no_socket() {
    // What is read ahead to see whether anything is there counts and comes like the rest.
    let gate = crate::limit::Gate::new(0, 0);
    let brake = Brake::new(Some("200k/s".parse::<ByteRate>().unwrap()), &gate, crate::limit::Direction::Down);
    assert!(brake.is_some());
    let began = std::time::Instant::now();
    let (outcome, _, got) = play(
        Terms { down: brake, ..Terms::new(LONG) },
        |mut client| {
            let mut got = vec![];
            client.read_to_end(&mut got).unwrap();
            got
        },
        async |peer| {
            write(&peer, &noise(100_000)).await.unwrap();
            poll_fn(|cx| peer.poll_shutdown_write(cx)).await.unwrap();
            assert_eq!(read(&peer, 1).await.unwrap(), b"");
        },
    );
    assert_eq!(outcome, Outcome::Done);
    assert!(got == noise(100_000));
    assert!(began.elapsed() > Duration::from_millis(200), "{:?}", began.elapsed());
}
