//! What a session's streams may hold together, and who is cut off when that is not enough.
//!
//! QUIC has a window for each stream and one for all of them, and gives back room in both only as streams are read. So some
//! visitors who stand still would use up what all have in common, and nobody would get anything. The common window is widened
//! when the other side says that it is held up by it, and when it is as wide as it may be, who has stood still the longest is cut
//! off for the others.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use quinn::{RecvStream, VarInt};
use tokio::time::Instant;
use wmproxy_runtime::clock::{self, Ticks};

use super::transport::CUT;

/// How much all streams have at first: ten that are read as fast as the widest path lets them.
const FIRST: u32 = 64 << 20;

/// How much they have at the most: 170 visitors who stand still.
const MOST: u32 = 1 << 30;

/// How often it is looked.
const PERIOD: Duration = Duration::from_secs(1);

/// Who has not read for so long, though there was something, stands still.
const STILL: Duration = Duration::from_secs(2);

/// So long after the other side has said that it is held up somebody may be cut off for that. It says so once.
const CONCERN: u32 = 10;

/// How many streams are remembered before those that are gone are sorted out for the first time.
const CLEAN: usize = 64;

/// The common window of a connection.
#[derive(Debug)]
pub(super) struct Windows {
    connection: quinn::Connection,
    streams: Mutex<VecDeque<Weak<Reading>>>,
}

/// When, and what, somebody looks at.
#[derive(Debug)]
pub(super) struct Lookout {
    windows: Arc<Windows>,
    next: Instant,
    wide: u32,
    /// How often the other side has said that it was held up.
    heard: u64,
    /// For so many looks yet it counts as held up.
    concern: u32,
}

/// What of a stream comes in.
#[derive(Debug)]
pub(super) struct Reading {
    stream: Mutex<RecvStream>,
    /// When something was last read, in ticks; 0 if there was nothing more to read since.
    since: AtomicU64,
    is_cut: AtomicBool,
}

impl Windows {
    /// Gives a connection its common window.
    pub(super) fn new(connection: quinn::Connection) -> Arc<Windows> {
        connection.set_receive_window(VarInt::from_u32(FIRST));
        Arc::new(Windows { connection, streams: Mutex::default() })
    }

    pub(super) fn connection(&self) -> &quinn::Connection {
        &self.connection
    }

    /// Remembers a stream.
    pub(super) fn add(&self, reading: &Arc<Reading>) {
        let mut streams = self.streams();
        if streams.len() >= CLEAN && streams.len() == streams.capacity() {
            streams.retain(|stream| stream.strong_count() > 0);
            // Or one in each few would make it look at all of them.
            let room = streams.len().max(CLEAN);
            streams.reserve(room);
        }
        streams.push_back(Arc::downgrade(reading));
    }

    /// Cuts off who has stood still the longest; false if nobody has for long.
    fn cut_the_slowest(&self, now: Ticks) -> bool {
        let mut streams = self.streams();
        streams.retain(|stream| stream.strong_count() > 0);
        let still = streams.iter().filter_map(Weak::upgrade).filter(|stream| stream.is_still(now));
        let Some(slowest) = still.min_by_key(|stream| stream.since.load(Ordering::Relaxed)) else {
            return false;
        };
        slowest.cut();
        tracing::debug!("cut off a stream that nobody reads, for all together hold too much");
        true
    }

    fn streams(&self) -> MutexGuard<'_, VecDeque<Weak<Reading>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lookout {
    pub(super) fn new(windows: Arc<Windows>) -> Lookout {
        Lookout { windows, next: Instant::now() + PERIOD, wide: FIRST, heard: 0, concern: 0 }
    }

    pub(super) fn connection(&self) -> &quinn::Connection {
        &self.windows.connection
    }

    pub(super) fn windows(&self) -> &Arc<Windows> {
        &self.windows
    }

    /// Looks from time to time, for ever.
    pub(super) async fn look(&mut self) {
        loop {
            tokio::time::sleep_until(self.next).await;
            self.next = Instant::now() + PERIOD;
            let heard = self.windows.connection.stats().frame_rx.data_blocked;
            self.weigh(heard, clock::now());
        }
    }

    fn weigh(&mut self, heard: u64, now: Ticks) {
        self.concern = if heard > self.heard { CONCERN } else { self.concern.saturating_sub(1) };
        self.heard = heard;
        if self.concern == 0 {
            return;
        }
        if self.wide < MOST {
            self.wide *= 2;
            self.windows.connection.set_receive_window(VarInt::from_u32(self.wide));
            self.concern = 0;
        } else if self.windows.cut_the_slowest(now) {
            self.concern = 0;
        }
    }
}

impl Reading {
    pub(super) fn new(stream: RecvStream) -> Arc<Reading> {
        Arc::new(Reading {
            stream: Mutex::new(stream),
            since: AtomicU64::new(0),
            is_cut: AtomicBool::new(false),
        })
    }

    /// The stream. Locked by its reader, and by who cuts it off.
    pub(super) fn stream(&self) -> MutexGuard<'_, RecvStream> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes whether the reader got something, or all there was.
    pub(super) fn note(&self, got_some: bool) {
        self.since.store(if got_some { clock::now().0 } else { 0 }, Ordering::Relaxed);
    }

    fn is_still(&self, now: Ticks) -> bool {
        let since = self.since.load(Ordering::Relaxed);
        since != 0 && now.since(Ticks(since)) >= STILL
    }

    /// Whether it was cut off. quinn would call it an end.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Relaxed)
    }

    /// Gives back the room of what is not read.
    fn cut(&self) {
        let mut stream = self.stream();
        self.is_cut.store(true, Ordering::Relaxed);
        self.since.store(0, Ordering::Relaxed);
        // One that has been reset by the other side holds nothing any more.
        let _ = stream.stop(CUT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::carrier::tests::{Ends, Way, read, run, write};

    #[test]
    fn the_common_window_widens_and_then_the_slowest_is_cut_off() {
        run(async {
            let mut ends = Ends::new(Way::Quic).await;
            let (mut pairs, mut lookout) = (Vec::new(), None);
            for _ in 0..3 {
                pairs.push(ends.pair().await);
            }
            if let crate::carrier::Source::Quic(accepted) = &ends.client.1.0 {
                lookout = Some(Lookout::new(accepted.0.windows().clone()));
            }
            let mut lookout = lookout.unwrap();
            lookout.weigh(0, Ticks(0));
            assert_eq!(lookout.wide, FIRST);
            while lookout.wide < MOST {
                let (wide, heard) = (lookout.wide, lookout.heard);
                lookout.weigh(heard + 1, Ticks(0));
                assert_eq!(lookout.wide, 2 * wide);
                lookout.weigh(heard + 1, Ticks(0));
                assert_eq!(lookout.wide, 2 * wide, "it was not held up again");
            }
            // All get something. The first two stand still; the third reads all there is.
            for (near, far) in &pairs {
                write(near, b"some and more").await.unwrap();
                assert_eq!(read(far, 5).await.unwrap(), b"some ");
                std::thread::sleep(Duration::from_millis(20));
            }
            let (_, last) = &pairs[2];
            assert_eq!(read(last, 100).await.unwrap(), b"and more");
            let waiting = read(last, 100);
            tokio::pin!(waiting);
            std::future::poll_fn(|cx| {
                assert!(waiting.as_mut().poll(cx).is_pending());
                std::task::Poll::Ready(())
            })
            .await;
            lookout.weigh(lookout.heard + 1, clock::now());
            assert!(lookout.windows.streams().iter().all(|stream| !stream.upgrade().unwrap().is_cut()));
            // Some time later the other side need not say it again.
            let later = clock::now() + STILL;
            lookout.weigh(lookout.heard, later);
            let is_cut = |pair: usize| {
                pairs[pair].1.is_reset(&mut std::task::Context::from_waker(std::task::Waker::noop()))
            };
            assert_eq!([0, 1, 2].map(is_cut), [true, false, false]);
            assert_eq!(read(&pairs[0].1, 100).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
            pairs[0].0.failed().await;
            lookout.weigh(lookout.heard, later);
            assert!(!is_cut(1), "that was enough");
        });
    }
}
