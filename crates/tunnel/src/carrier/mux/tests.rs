//! What only yamux has: frames that make no sense, peers that are still, and others who speak it.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::io::{AsyncRead, AsyncWrite};
use wmproxy_net::stream::Stream;
use wmproxy_runtime::scope::Scope;

use super::core::Core;
use super::entry::INITIAL;
use super::frame::{ACK, FIN, HEADER, Header, Kind, RST, SYN};
use super::parser::Parser;
use super::*;
use crate::carrier::MAX_STREAMS;
use crate::carrier::tests::{finish, noise, read, read_to_end, run, sockets, write};

fn frame(kind: Kind, flags: u16, stream: u32, length: u32) -> Vec<u8> {
    Header { kind, flags, stream, length }.encode().to_vec()
}

fn data(flags: u16, stream: u32, bytes: &[u8]) -> Vec<u8> {
    let mut frame = frame(Kind::Data, flags, stream, bytes.len() as u32);
    frame.extend_from_slice(bytes);
    frame
}

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

#[test]
fn who_talks_nonsense_loses_the_connection_and_nobody_else() {
    let too_wide = [data(SYN, 1, b""), frame(Kind::Window, 0, 1, u32::MAX)].concat();
    let too_much = [data(SYN, 1, b""), frame(Kind::Data, 0, 1, INITIAL + 1)].concat();
    let behind_the_end = [data(SYN | FIN, 1, b"all"), data(0, 1, b"more")].concat();
    let twice = [data(SYN, 1, b""), data(SYN, 1, b"")].concat();
    let cases = [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        noise(1, 1000),
        frame(Kind::Data, SYN, 1, u32::MAX),
        data(SYN, 2, b"a number of ours"),
        too_wide,
        too_much,
        behind_the_end,
        twice,
    ];
    for bytes in cases {
        run(async {
            let scope = Scope::new();
            let ((peer, other), (one, two)) = (sockets(), sockets());
            let (many, mut incoming) = start(other, Side::Server, &scope);
            let (sound, _) = start(one, Side::Client, &scope);
            let (_, mut sound_incoming) = start(two, Side::Server, &scope);
            write(&peer, &bytes).await.unwrap();
            assert_eq!(many.closed().await.kind(), io::ErrorKind::InvalidData, "{bytes:?}");
            if let Some(stream) = incoming.next().await {
                let read = read_to_end(&stream.place()).await;
                assert!(read.is_err() || read.unwrap() == b"all", "{bytes:?}");
            }
            // It is told, behind the ping that each connection begins with.
            let said = read_to_end(&peer).await.unwrap_or_default();
            assert!(said.ends_with(&frame(Kind::GoAway, 0, 0, 1)), "{said:?}");
            let stream = sound.open().await.unwrap();
            write(&stream, b"x").await.unwrap();
            assert_eq!(read(&sound_incoming.next().await.unwrap().place(), 9).await.unwrap(), b"x");
        });
    }
}

#[test]
fn who_says_nothing_is_gone_after_some_beats() {
    run(async {
        let scope = Scope::new();
        let (peer, other) = sockets();
        let (many, _incoming) = start_beating(other, Side::Server, &scope, Duration::from_millis(20));
        assert_eq!(many.closed().await.kind(), io::ErrorKind::TimedOut);
        drop(peer);

        // Who takes nothing is gone, too, whatever it says.
        let (peer, other) = sockets();
        let (many, _incoming) = start_beating(other, Side::Server, &scope, Duration::from_millis(20));
        let stream = many.open().await.unwrap();
        let fill = async {
            loop {
                if write(&stream, &[7; 60_000]).await.is_err() {
                    return;
                }
            }
        };
        let talk = async {
            loop {
                let more = frame(Kind::Window, 0, 2, 60_000);
                if write(&peer, &more).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let ended = async { assert_eq!(many.closed().await.kind(), io::ErrorKind::TimedOut) };
        tokio::select! {
            ((), ()) = async { tokio::join!(fill, ended) } => {}
            () = talk => panic!("nobody listens"),
        }

        // Who answers is there.
        let (one, two) = sockets();
        let (many, _from_two) = start_beating(one, Side::Client, &scope, Duration::from_millis(100));
        let _two = start(two, Side::Server, &scope);
        assert!(tokio::time::timeout(Duration::from_millis(1_500), many.closed()).await.is_err());
    });
}

#[test]
fn frames_come_in_any_pieces() {
    let all = [
        data(SYN, 1, b"one "),
        frame(Kind::Ping, SYN, 0, 7),
        data(SYN, 3, b""),
        data(0, 1, b"and more"),
        data(FIN, 3, b"three"),
        frame(Kind::Window, 0, 1, 5),
        data(FIN, 1, b""),
    ]
    .concat();
    for size in 1..=all.len() {
        let (mut core, mut parser, mut wakers) = (Core::new(Side::Server), Parser::default(), Vec::new());
        for piece in all.chunks(size) {
            parser.feed(&mut core, piece, &mut wakers).unwrap();
        }
        for expected in [&b"one and more"[..], b"three"] {
            let Poll::Ready(Some(id)) = core.poll_take(&cx()) else { panic!("no stream") };
            let mut buffer = [0; 100];
            assert!(
                matches!(core.read(id, &cx(), &mut buffer), Poll::Ready(Ok(n)) if buffer[..n] == *expected)
            );
            assert!(matches!(core.read(id, &cx(), &mut buffer), Poll::Ready(Ok(0))));
        }
    }
}

#[test]
fn both_sides_keep_to_the_number_of_streams() {
    let (mut core, mut parser, mut wakers) = (Core::new(Side::Server), Parser::default(), Vec::new());
    for index in 0..MAX_STREAMS {
        parser.feed(&mut core, &data(SYN, 1 + 2 * index, b"x"), &mut wakers).unwrap();
        core.open().unwrap();
    }
    assert_eq!(core.open().unwrap_err().kind(), io::ErrorKind::QuotaExceeded);
    let (mut said, one_more) = (Vec::new(), 1 + 2 * MAX_STREAMS);
    core.next_round(&mut said, &mut wakers);
    said.clear();
    parser.feed(&mut core, &data(SYN, one_more, b"refused"), &mut wakers).unwrap();
    core.next_round(&mut said, &mut wakers);
    assert_eq!(said, frame(Kind::Data, RST, one_more, 0));
    // Each that goes makes room for another.
    core.release(1, false);
    parser.feed(&mut core, &data(SYN, one_more + 2, b"taken"), &mut wakers).unwrap();
    core.release(2, true);
    core.open().unwrap();
}

#[test]
fn who_does_not_hear_the_answers_is_not_heard_any_more() {
    let (mut core, mut parser, mut wakers) = (Core::new(Side::Server), Parser::default(), Vec::new());
    let pings = frame(Kind::Ping, SYN, 0, 7).repeat(1000);
    let mut heard = 0;
    while !core.is_full() {
        parser.feed(&mut core, &pings, &mut wakers).unwrap();
        heard += pings.len();
    }
    assert!(heard < 1 << 20, "{heard}");
}

#[test]
fn of_many_that_are_not_read_the_slowest_is_cut_off() {
    const STREAMS: u32 = 540;
    let (mut core, mut parser, mut wakers) = (Core::new(Side::Server), Parser::default(), Vec::new());
    let full = vec![7; INITIAL as usize];
    let mut cut = 0;
    for index in 0..STREAMS {
        // Each but the first has its whole window.
        let bytes = if index == 0 { &full[..1000] } else { &full };
        parser.feed(&mut core, &data(SYN, 1 + 2 * index, bytes), &mut wakers).unwrap();
    }
    let mut buffer = vec![0; full.len()];
    for index in 0..STREAMS {
        let is_cut = core.is_reset(1 + 2 * index, &cx());
        cut += u32::from(is_cut);
        match core.read(1 + 2 * index, &cx(), &mut buffer) {
            Poll::Ready(Ok(n)) => assert_eq!(n, if index == 0 { 1000 } else { full.len() }),
            other => assert!(is_cut, "{other:?}"),
        }
    }
    // 128 MiB are 512 windows, and the small one has a part of that.
    assert_eq!(cut, STREAMS - 512);
}

#[test]
fn windows_grow_for_who_is_far_and_quick() {
    let (mut core, mut parser, mut wakers) = (Core::new(Side::Server), Parser::default(), Vec::new());
    core.ping();
    std::thread::sleep(Duration::from_millis(20));
    parser.feed(&mut core, &frame(Kind::Ping, ACK, 0, 0), &mut wakers).unwrap();
    parser.feed(&mut core, &data(SYN, 1, b""), &mut wakers).unwrap();
    let half = vec![7; INITIAL as usize / 2];
    let (mut buffer, mut said) = (vec![0; half.len()], Vec::new());
    let mut granted = Vec::new();
    for _ in 0..2 {
        parser.feed(&mut core, &data(0, 1, &half), &mut wakers).unwrap();
        assert!(matches!(core.read(1, &cx(), &mut buffer), Poll::Ready(Ok(n)) if n == half.len()));
        said.clear();
        core.next_round(&mut said, &mut wakers);
        let last: [u8; HEADER] = said[said.len() - HEADER..].try_into().unwrap();
        granted.push(Header::decode(last).unwrap().length);
    }
    // The first half may have been on its way for long.
    assert_eq!(granted, [INITIAL / 2, INITIAL / 2 + INITIAL]);
}

/// A stream as the `yamux` crate wants it.
struct Adapted(Stream);

impl AsyncRead for Adapted {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.0.poll_read(cx, buffer)
    }
}

impl AsyncWrite for Adapted {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_shutdown_write(cx)
    }
}

/// Sends back what comes in each stream, as the other implementation does it, until the connection is over.
async fn echo(stream: Stream, mode: yamux::Mode, scope: Scope) {
    let mut config = yamux::Config::default();
    config.set_max_num_streams(1000);
    let mut connection = yamux::Connection::new(Adapted(stream), config, mode);
    while let Some(Ok(mut stream)) = poll_fn(|cx| connection.poll_next_inbound(cx)).await {
        scope.spawn(async move {
            let mut buffer = vec![0; 20_000];
            loop {
                let n = poll_fn(|cx| Pin::new(&mut stream).poll_read(cx, &mut buffer)).await.unwrap();
                if n == 0 {
                    break;
                }
                let mut left = &buffer[..n];
                while !left.is_empty() {
                    let n = poll_fn(|cx| Pin::new(&mut stream).poll_write(cx, left)).await.unwrap();
                    left = &left[n..];
                }
            }
            poll_fn(|cx| Pin::new(&mut stream).poll_close(cx)).await.unwrap();
        });
    }
}

#[test]
fn the_yamux_crate_answers_our_streams() {
    for (side, mode) in [(Side::Client, yamux::Mode::Server), (Side::Server, yamux::Mode::Client)] {
        run(async {
            let scope = Scope::new();
            let (ours, theirs) = sockets();
            let (many, _incoming) = start(ours, side, &scope);
            scope.spawn(echo(theirs, mode, scope.clone()));
            let tries = Scope::new();
            for index in 0..50 {
                let many = many.clone();
                tries.spawn(async move {
                    let stream = many.open().await.unwrap();
                    let data = noise(index, 30_000 * index as usize);
                    let send = async {
                        write(&stream, &data).await.unwrap();
                        finish(&stream).await.unwrap();
                    };
                    assert!(tokio::join!(send, read_to_end(&stream)).1.unwrap() == data);
                });
            }
            tries.empty().await;
            many.close();
            scope.empty().await;
        });
    }
}

#[test]
fn the_yamux_crate_opens_streams_that_wait_for_an_answer() {
    // More than it opens without an acknowledgement.
    const STREAMS: usize = 300;
    run(async {
        let scope = Scope::new();
        let (ours, theirs) = sockets();
        let (_many, mut incoming) = start(ours, Side::Server, &scope);
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        scope.spawn(async move {
            let mut connection =
                yamux::Connection::new(Adapted(theirs), yamux::Config::default(), yamux::Mode::Client);
            let mut left = STREAMS;
            poll_fn(|cx| {
                while left > 0
                    && let Poll::Ready(stream) = connection.poll_new_outbound(cx)
                {
                    let mut stream = stream.unwrap();
                    assert!(Pin::new(&mut stream).poll_write(cx, b"x").is_ready());
                    let _ = tell.send(stream);
                    left -= 1;
                }
                connection.poll_next_inbound(cx).map(drop)
            })
            .await;
        });
        let mut streams = Vec::new();
        for _ in 0..STREAMS {
            streams.push(incoming.next().await.unwrap().place());
        }
        let mut theirs = Vec::new();
        for stream in &streams {
            assert_eq!(read(stream, 10).await.unwrap(), b"x");
            theirs.push(told.recv().await.unwrap());
        }
        // A reset of ours is what they call closed.
        streams[7].reset_on_close();
        streams.remove(7);
        let mut cut = theirs.remove(7);
        let read = poll_fn(|cx| Pin::new(&mut cut).poll_read(cx, &mut [0; 10])).await.unwrap();
        assert!(read == 0 && cut.is_closed());
        drop(theirs.remove(0));
        assert!(read_to_end(&streams[0]).await.is_err(), "they break off what they have not finished");
    });
}
