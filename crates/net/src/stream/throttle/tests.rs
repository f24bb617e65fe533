use std::future::poll_fn;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use wmproxy_wire::bucket::Pace;
use wmproxy_wire::units::ByteRate;

use super::*;
use crate::limit::Limits;
use crate::stream::memory;

fn rate(bytes_per_second: u64) -> ByteRate {
    ByteRate::new(NonZeroU64::new(bytes_per_second).unwrap())
}

fn gate(up: Option<u64>, down: Option<u64>) -> Arc<Gate> {
    let gate = Gate::new(0, 0);
    gate.set(&Limits { up: up.map(rate), down: down.map(rate), ..Limits::default() });
    gate
}

/// The most that may pass in a time at a rate.
fn most(rate_of: u64, took: Duration) -> u64 {
    let pace = Pace::of_stream(rate(rate_of));
    (took.as_secs_f64() * rate_of as f64) as u64 + pace.burst_bytes() + pace.piece() as u64
}

async fn write(stream: &Stream, mut data: &[u8]) {
    while !data.is_empty() {
        data = &data[poll_fn(|cx| stream.poll_write(cx, data)).await.unwrap()..];
    }
    poll_fn(|cx| stream.poll_shutdown_write(cx)).await.unwrap();
}

async fn read_to_end(stream: &Stream) -> Vec<u8> {
    let (mut all, mut buffer) = (vec![], vec![0; 64 * 1024]);
    loop {
        match poll_fn(|cx| stream.poll_read(cx, &mut buffer)).await.unwrap() {
            0 => return all,
            n => all.extend_from_slice(&buffer[..n]),
        }
    }
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::LocalRuntime::new().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), test).await.expect("in time") })
}

/// Counts how often a task is polled.
async fn counted<T>(task: impl Future<Output = T>, polls: &AtomicUsize) -> T {
    tokio::pin!(task);
    poll_fn(|cx| {
        polls.fetch_add(1, Ordering::Relaxed);
        task.as_mut().poll(cx)
    })
    .await
}

#[test]
fn each_way_keeps_to_its_rate_and_ends_by_itself() {
    let (up, down) = (1 << 20, 4 << 20);
    let data: Vec<u8> = (0..1_000_000_u32).map(|i| (i % 251) as u8).collect();
    run(async {
        let (near, far) = memory::pair();
        let near = throttle(near, &gate(Some(up), Some(down)));
        let began = Instant::now();
        let polls = AtomicUsize::new(0);
        let sent = counted(write(&near, &data[..200_000]), &polls);
        let got_up = async {
            assert!(read_to_end(&far).await == data[..200_000]);
            assert!(200_000 <= most(up, began.elapsed()));
        };
        let got_down = async {
            assert!(read_to_end(&near).await == data);
            assert!(1_000_000 <= most(down, began.elapsed()));
        };
        tokio::join!(sent, got_up, got_down, write(&far, &data));
        // The other tasks here wake this one, too; but who looks all the time does so a hundred thousand times.
        let pieces = 200_000 / Pace::of_stream(rate(up)).piece();
        let polls = polls.into_inner();
        assert!(polls <= 20 * pieces, "{polls} polls for {pieces} pieces");
    });
}

#[test]
fn without_a_rate_it_is_the_stream_itself() {
    run(async {
        let (near, _far) = std::os::unix::net::UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let near = throttle(Stream::new(near.into(), false).unwrap(), &gate(None, None));
        assert!(near.can_splice());
    });
}

#[test]
fn what_was_begun_goes_on_though_the_rate_falls_meanwhile() {
    run(async {
        let gate = gate(Some(64 << 20), None);
        let (near, far) = memory::pair();
        let near = throttle(near, &gate);
        let data = vec![7; 1 << 20];
        let mut written = 0;
        poll_fn(|cx| {
            while let Poll::Ready(n) = near.poll_write(cx, &data[written..]) {
                written += n.unwrap();
            }
            Poll::Ready(())
        })
        .await;
        assert!(written < data.len(), "nobody reads");
        gate.set(&Limits { up: Some(rate(4 << 20)), ..Limits::default() });
        let ((), got) = tokio::join!(write(&near, &data[written..]), read_to_end(&far));
        assert_eq!(got.len(), data.len());
    });
}

#[test]
fn a_rate_that_is_taken_away_holds_nothing_back() {
    run(async {
        let gate = gate(Some(1), None);
        let (near, far) = memory::pair();
        let near = throttle(near, &gate);
        let data = vec![7; 100_000];
        let freed = async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            gate.set(&Limits::default());
        };
        let ((), got, ()) = tokio::join!(write(&near, &data), read_to_end(&far), freed);
        assert_eq!(got.len(), data.len());
    });
}

#[test]
fn a_reset_passes_both_ways() {
    run(async {
        let gate = gate(Some(1 << 20), Some(1 << 20));
        let (near, far) = memory::pair();
        let near = throttle(near, &gate);
        near.reset_on_close();
        drop(near);
        let error = poll_fn(|cx| far.poll_read(cx, &mut [0; 10])).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);

        let (near, far) = memory::pair();
        let near = throttle(near, &gate);
        far.reset_on_close();
        let seen = async { tokio::join!(near.failed(), async { drop(far) }) };
        seen.await;
        let error = poll_fn(|cx| near.poll_read(cx, &mut [0; 10])).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    });
}

/// A reset behind bytes that nobody reads, as while their time has not come, wakes who watches for it.
#[test]
fn a_reset_of_a_socket_is_seen_behind_unread_bytes() {
    struct Woken(AtomicUsize);
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    run(async {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut far = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let near = listener.accept().unwrap().0;
        near.set_nonblocking(true).unwrap();
        let near = throttle(Stream::new(near.into(), true).unwrap(), &gate(None, Some(1)));
        io::Write::write_all(&mut far, b"bytes").unwrap();
        assert_eq!(poll_fn(|cx| near.poll_read(cx, &mut [0; 1])).await.unwrap(), 1);
        let woken = Arc::new(Woken(AtomicUsize::new(0)));
        let waker = Waker::from(woken.clone());
        assert!(!near.is_reset(&mut Context::from_waker(&waker)));
        socket2::SockRef::from(&far).set_linger(Some(Duration::ZERO)).unwrap();
        drop(far);
        while woken.0.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        assert!(near.is_reset(&mut Context::from_waker(&waker)));
    });
}
