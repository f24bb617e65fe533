//! A bad network for UDP: datagrams take their time, and some never arrive.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::pattern::Rng;

/// Passes datagrams on between one client and one server, late and with losses. Stops when dropped.
#[derive(Debug)]
pub struct Link {
    near: Arc<UdpSocket>,
    far: Arc<UdpSocket>,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    client: Mutex<Option<SocketAddr>>,
    ended: AtomicBool,
    passed: AtomicU64,
    lost: AtomicU64,
}

/// How often a thread that receives looks whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(50);

impl Link {
    /// A link to `server` on 127.0.0.1, on which each datagram takes `delay`, and one in `one_in` of each direction is lost.
    /// Which, the seed decides.
    pub fn to(server: SocketAddr, delay: Duration, one_in: u64, seed: u64) -> Link {
        let near = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let far = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        far.connect(server).unwrap();
        for socket in [&near, &far] {
            socket.set_read_timeout(Some(LOOK_EVERY)).unwrap();
            // The losses are to be those that were asked for.
            let _ = SockRef::from(&**socket).set_recv_buffer_size(4 << 20);
        }
        let shared = Arc::new(Shared {
            client: Mutex::default(),
            ended: AtomicBool::new(false),
            passed: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        });
        let mut link = Link { near, far, shared, threads: Vec::new() };
        link.carry(true, delay, one_in, seed);
        link.carry(false, delay, one_in, seed ^ 1);
        link
    }

    /// Where the client is to send.
    pub fn addr(&self) -> SocketAddr {
        self.near.local_addr().unwrap()
    }

    /// How many datagrams were passed on, and how many were lost.
    pub fn counts(&self) -> (u64, u64) {
        (self.shared.passed.load(Ordering::Relaxed), self.shared.lost.load(Ordering::Relaxed))
    }

    /// Carries one direction: a thread receives, and another sends when it is time.
    fn carry(&mut self, is_up: bool, delay: Duration, one_in: u64, seed: u64) {
        let (from, to) = if is_up { (&self.near, &self.far) } else { (&self.far, &self.near) };
        let (from, to) = (from.clone(), to.clone());
        let (queue, due) = mpsc::channel::<(Instant, Vec<u8>)>();
        let shared = self.shared.clone();
        self.threads
            .push(thread::spawn(move || receive(&from, &queue, &shared, is_up, (delay, one_in, seed))));
        let shared = self.shared.clone();
        self.threads.push(thread::spawn(move || {
            for (when, bytes) in due {
                thread::sleep(when.saturating_duration_since(Instant::now()));
                let client = *shared.client.lock().unwrap();
                // Nobody may be there any more; the network does not care.
                let _ = match (is_up, client) {
                    (true, _) => to.send(&bytes),
                    (false, Some(client)) => to.send_to(&bytes, client),
                    (false, None) => Ok(0),
                };
            }
        }));
    }
}

fn receive(
    from: &UdpSocket,
    queue: &Sender<(Instant, Vec<u8>)>,
    shared: &Shared,
    is_up: bool,
    (delay, one_in, seed): (Duration, u64, u64),
) {
    let mut rng = Rng::new(seed);
    let mut buffer = vec![0; 65_536];
    while !shared.ended.load(Ordering::Relaxed) {
        let Ok((len, sender)) = from.recv_from(&mut buffer) else { continue };
        if is_up {
            *shared.client.lock().unwrap() = Some(sender);
        }
        if rng.next_u64().is_multiple_of(one_in) {
            shared.lost.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        shared.passed.fetch_add(1, Ordering::Relaxed);
        if queue.send((Instant::now() + delay, buffer[..len].to_vec())).is_err() {
            return;
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{UdpBackend, UdpClient};

    #[test]
    fn datagrams_are_late_and_some_are_lost() {
        let backend = UdpBackend::echo();
        let link = Link::to(backend.addr(), Duration::from_millis(5), 10, 7);
        let client = UdpClient::connect(link.addr());
        let start = Instant::now();
        for number in 0..200_u8 {
            client.send(&[number]);
        }
        client.socket().set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut heard = 0;
        let mut first = None;
        while client.try_recv().is_ok() {
            first = first.or_else(|| Some(start.elapsed()));
            heard += 1;
        }
        assert!(first.is_some_and(|first| first >= Duration::from_millis(10)), "both ways take their time");
        let (_, lost) = link.counts();
        assert!((10..=90).contains(&lost), "{lost} of some 390 are lost");
        assert!(heard + lost >= 200, "{heard} came back, {lost} were lost");
    }
}
