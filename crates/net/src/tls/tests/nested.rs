//! TLS inside TLS, and TLS over what is no socket.

use super::*;
use crate::stream::memory;

const DEPTH: usize = 3;

/// Lays so many sessions upon each other, each with another name and in turns with either side as its server.
async fn nest(left: &Stream, right: &Stream, depth: usize, authority: &Authority) {
    for level in 0..depth {
        let name = format!("{level}.test");
        let (acceptor, connector) =
            (acceptor(authority.accepts(&[name.as_str()])), connector(authority.connects()));
        let (server, client) = if level % 2 == 0 { (left, right) } else { (right, left) };
        let proven = connector.name_for(&name).unwrap();
        let (accepted, connected) =
            tokio::join!(accept(server, &acceptor), connect(client, &connector, proven));
        assert_eq!(accepted.unwrap().sni, Some(name));
        connected.unwrap();
        assert!(!left.can_splice() && !right.can_splice());
    }
}

async fn pass(from: &Stream, to: &Stream, data: &[u8]) {
    let send = async {
        write(from, data).await;
        finish(from).await;
    };
    let receive = async {
        let mut got = Vec::with_capacity(data.len());
        loop {
            match read(to, 100_000).await.unwrap() {
                part if part.is_empty() => return got,
                part => got.extend(part),
            }
        }
    };
    let ((), got) = tokio::join!(send, receive);
    assert!(got == data);
}

#[test]
fn megabytes_pass_three_sessions_both_ways_at_once() {
    let authority = Authority::new();
    let (up, down) = (noise(10 << 20), noise((10 << 20) - 1));
    run(async {
        for (left, right) in [pair(), memory::pair()] {
            nest(&left, &right, DEPTH, &authority).await;
            tokio::join!(pass(&left, &right, &up), pass(&right, &left, &down));
        }
    });
}

#[test]
fn each_side_ends_by_itself() {
    let authority = Authority::new();
    run(async {
        for (left, right) in [pair(), memory::pair()] {
            nest(&left, &right, DEPTH, &authority).await;
            pass(&left, &right, b"question").await;
            assert_eq!(read(&right, 10).await.unwrap(), b"", "the end stays the end");
            pass(&right, &left, b"answer").await;
        }
    });
}

#[test]
fn an_end_that_only_the_lower_session_declares_is_a_truncation() {
    let authority = Authority::new();
    run(async {
        let (left, right) = pair();
        nest(&left, &right, 1, &authority).await;
        let name = "inner.test";
        let (acceptor, connector) = (acceptor(authority.accepts(&[name])), connector(authority.connects()));
        let (lower, upper) = (left.take_session(), connector.name_for(name).unwrap());
        left.set_session(lower.unwrap());
        let (accepted, connected) =
            tokio::join!(accept(&right, &acceptor), connect(&left, &connector, upper));
        accepted.unwrap();
        connected.unwrap();
        write(&left, b"half of it").await;
        // Whoever stands in the middle of a chain can end the session with itself, and not the one through it.
        left.take_session().unwrap().end_below(&left).await;
        assert_eq!(read(&right, 100).await.unwrap(), b"half of it");
        let error = read(&right, 100).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(is_failure(&error), "{error}");
    });
}

#[test]
fn a_reset_below_is_one_above() {
    let authority = Authority::new();
    run(async {
        for (left, right) in [pair(), memory::pair()] {
            nest(&left, &right, DEPTH, &authority).await;
            right.reset_on_close();
            drop(right);
            left.failed().await;
            let error = read(&left, 10).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            assert!(!is_failure(&error), "{error}");
        }
    });
}

#[test]
fn idle_sessions_hold_no_buffer_however_deep() {
    let authority = Authority::new();
    run(async {
        for (left, right) in [pair(), memory::pair()] {
            nest(&left, &right, DEPTH, &authority).await;
            let data = noise(500_000);
            tokio::join!(write(&left, &data), async {
                read_exactly(&right, 500_000).await.unwrap();
            });
            for side in [left, right] {
                assert_eq!(side.take_session().unwrap().buffered(), 0);
            }
        }
    });
}

#[test]
fn a_reader_that_stops_stops_the_writer_through_all_sessions() {
    let authority = Authority::new();
    run(async {
        for (left, right) in [pair(), memory::pair()] {
            nest(&left, &right, DEPTH, &authority).await;
            let data = noise(64 * 1024);
            let mut taken = 0_usize;
            poll_fn(|cx| {
                loop {
                    match right.poll_write(cx, &data[taken % data.len()..]) {
                        std::task::Poll::Ready(n) => taken += n.unwrap(),
                        std::task::Poll::Pending => return std::task::Poll::Ready(()),
                    }
                    assert!(taken < 64 << 20, "nobody reads this");
                }
            })
            .await;
            // What is pending goes on with the same data and is whole.
            let whole: Vec<u8> = data.iter().copied().cycle().take(taken + data.len()).collect();
            let (_, got) = tokio::join!(write(&right, &whole[taken..]), read_exactly(&left, whole.len()));
            assert!(got.unwrap() == whole);
        }
    });
}
