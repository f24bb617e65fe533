use std::future::poll_fn;
use std::io::Write;
use std::net::{TcpListener, TcpStream};

use super::*;

/// A connected pair: the far end blocking, ours ready to be a `Stream`.
fn pair() -> (TcpStream, OwnedFd) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let near = listener.accept().unwrap().0;
    near.set_nonblocking(true).unwrap();
    (far, near.into())
}

fn with_stream<T>(test: impl AsyncFnOnce(TcpStream, Stream) -> T) -> T {
    let (far, near) = pair();
    let runtime = tokio::runtime::LocalRuntime::new().unwrap();
    runtime.block_on(async { test(far, Stream::new(near, true).unwrap()).await })
}

async fn read(stream: &Stream, room: usize) -> Vec<u8> {
    let mut buffer = vec![0; room];
    let n = poll_fn(|cx| stream.poll_read(cx, &mut buffer)).await.unwrap();
    buffer.truncate(n);
    buffer
}

#[test]
fn what_was_unread_comes_before_the_rest() {
    with_stream(async |mut far, stream| {
        far.write_all(b"GET / and more").unwrap();
        let first = read(&stream, 5).await;
        assert_eq!(first, b"GET /");
        stream.unread(first);
        assert_eq!(read(&stream, 3).await, b"GET");
        // What is given back twice stays in order.
        stream.unread(b"GET".to_vec());
        assert_eq!(read(&stream, 100).await, b"GET /");
        assert_eq!(read(&stream, 100).await, b" and more");
    });
}

#[test]
fn only_a_stream_without_unread_bytes_can_be_spliced() {
    with_stream(async |far, stream| {
        assert!(stream.can_splice());
        stream.unread(vec![]);
        assert!(stream.can_splice());
        stream.unread(b"xy".to_vec());
        assert!(!stream.can_splice());
        read(&stream, 1).await;
        assert!(!stream.can_splice());
        read(&stream, 1).await;
        assert!(stream.can_splice());
        drop(far);
        assert_eq!(read(&stream, 1).await, b"", "the end of the socket");
    });
}

#[test]
fn what_a_stream_keeps_goes_with_it_and_is_in_nobodys_way() {
    with_stream(async |_far, stream| {
        let kept = std::sync::Arc::new(());
        let seen = std::sync::Arc::downgrade(&kept);
        stream.keep(Box::new(kept));
        assert!(stream.can_splice());
        stream.unread(b"x".to_vec());
        assert_eq!(read(&stream, 1).await, b"x");
        assert!(stream.can_splice());
        let stream = stream.dismantle().unwrap().assemble().unwrap();
        assert!(stream.can_splice() && seen.upgrade().is_some());
        drop(stream);
        assert!(seen.upgrade().is_none());
    });
}

#[test]
fn a_plain_stream_is_small() {
    // Two of them lie in every idle connection.
    assert!(size_of::<Stream>() <= 56, "{}", size_of::<Stream>());
}
