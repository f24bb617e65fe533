//! Connecting to one of several addresses of a host, the first that answers (Happy Eyeballs, RFC 8305).

use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};
use wmproxy_net::addr::Address;
use wmproxy_net::sockopt::PeerSocket;
use wmproxy_net::stream::{self, Stream};

/// How long an address has for itself before the next is tried beside it (RFC 8305 section 5, Connection Attempt Delay).
const DELAY: Duration = Duration::from_millis(250);

/// Addresses that are tried at all: whoever owns a name decides how many it has, and each costs a descriptor.
const MOST: usize = 8;

/// Connects to `addresses` in turn until one answers, IPv6 and IPv4 by turns and IPv6 first, as RFC 8305 section 4 has it. The
/// next is begun when one fails, or has said nothing for a quarter of a second; the others are given up once one is connected.
/// Sets no deadline of its own: drop the future to give up.
///
/// # Errors
/// How the most telling attempt failed: a host that refuses says more than a network that there is not. Out of descriptors or
/// memory no other address is tried.
pub async fn connect_first(
    addresses: &[SocketAddr],
    socket: &PeerSocket,
    client: Option<IpAddr>,
) -> io::Result<(Stream, SocketAddr)> {
    if let [address] = addresses {
        // Most hosts: nothing to race, and nothing to pay for it.
        return Ok((stream::connect(&Address::Inet(*address), socket, client).await?, *address));
    }
    let attempt = |address: SocketAddr| {
        Box::pin(async move { stream::connect(&Address::Inet(address), socket, client).await })
    };
    let mut race = Race {
        left: in_turn(addresses).into_iter(),
        running: Vec::new(),
        begin: attempt,
        next: Box::pin(sleep_until(Instant::now())),
        worst: None,
    };
    poll_fn(|cx| race.poll(cx)).await
}

/// Attempts side by side.
struct Race<B, F> {
    left: std::vec::IntoIter<SocketAddr>,
    running: Vec<(SocketAddr, Pin<Box<F>>)>,
    begin: B,
    /// When the next is begun.
    next: Pin<Box<Sleep>>,
    /// The most telling failure so far.
    worst: Option<io::Error>,
}

impl<T, B: Fn(SocketAddr) -> Pin<Box<F>>, F: Future<Output = io::Result<T>>> Race<B, F> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(T, SocketAddr)>> {
        loop {
            let mut index = 0;
            let mut has_failed = false;
            while let Some((address, attempt)) = self.running.get_mut(index) {
                match attempt.as_mut().poll(cx) {
                    Poll::Pending => index += 1,
                    Poll::Ready(Ok(connected)) => return Poll::Ready(Ok((connected, *address))),
                    Poll::Ready(Err(error)) => {
                        self.running.swap_remove(index);
                        if stream::is_exhaustion(&error) && error.kind() != io::ErrorKind::AddrNotAvailable {
                            return Poll::Ready(Err(error));
                        }
                        has_failed = true;
                        self.note(error);
                    }
                }
            }
            let is_due = has_failed || self.running.is_empty() || self.next.as_mut().poll(cx).is_ready();
            let Some(address) = is_due.then(|| self.left.next()).flatten() else {
                if self.running.is_empty() {
                    let none =
                        || io::Error::new(io::ErrorKind::NotFound, "there is no address to connect to");
                    return Poll::Ready(Err(self.worst.take().unwrap_or_else(none)));
                }
                return Poll::Pending;
            };
            self.running.push((address, (self.begin)(address)));
            self.next.as_mut().reset(Instant::now() + DELAY);
        }
    }

    fn note(&mut self, error: io::Error) {
        let says = |error: &io::Error| match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => 3,
            io::ErrorKind::HostUnreachable => 2,
            io::ErrorKind::NetworkUnreachable | io::ErrorKind::AddrNotAvailable => 0,
            _ => 1,
        };
        if self.worst.as_ref().is_none_or(|worst| says(&error) >= says(worst)) {
            self.worst = Some(error);
        }
    }
}

/// The families by turns, IPv6 first, each in its own order.
fn in_turn(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let (mut v6, mut v4) =
        (addresses.iter().filter(|a| a.is_ipv6()), addresses.iter().filter(|a| a.is_ipv4()));
    let mut turns = Vec::with_capacity(addresses.len().min(MOST));
    while turns.len() < MOST {
        let before = turns.len();
        turns.extend(v6.next());
        turns.extend(v4.next());
        if turns.len() == before {
            break;
        }
    }
    turns.truncate(MOST);
    turns
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::net::TcpListener;

    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// What an attempt does: after so many milliseconds it connects, or fails.
    type Script = fn(SocketAddr) -> (u64, Option<io::ErrorKind>);

    /// Runs a race on a virtual clock; says who won after how long, or the failure, and when each was begun.
    async fn race(to: &[&str], script: Script) -> (Result<(u16, u128), io::ErrorKind>, Vec<(u16, u128)>) {
        let start = Instant::now();
        let begun = RefCell::new(Vec::new());
        let begin = |address: SocketAddr| {
            begun.borrow_mut().push((address.port(), start.elapsed().as_millis()));
            let (after, error) = script(address);
            Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(after)).await;
                error.map_or(Ok(()), |kind| Err(kind.into()))
            })
        };
        let mut race = Race {
            left: in_turn(&addresses(to)).into_iter(),
            running: Vec::new(),
            begin,
            next: Box::pin(sleep_until(Instant::now())),
            worst: None,
        };
        let won = poll_fn(|cx| race.poll(cx)).await;
        drop(race);
        let won = won.map(|((), address)| (address.port(), start.elapsed().as_millis()));
        (won.map_err(|error| error.kind()), begun.into_inner())
    }

    #[test]
    fn families_take_turns() {
        let all = addresses(&["1.1.1.1:1", "1.1.1.1:2", "1.1.1.1:3", "[::1]:4", "[::1]:5"]);
        let ports: Vec<_> = in_turn(&all).iter().map(SocketAddr::port).collect();
        assert_eq!(ports, [4, 1, 5, 2, 3]);
        let many = vec![all[0]; 100];
        assert_eq!(in_turn(&many).len(), MOST);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_silent_has_a_quarter_of_a_second_for_itself() {
        let (won, begun) = race(&["[::1]:1", "1.1.1.1:2", "1.1.1.1:3"], |to| match to.port() {
            1 => (60_000, None),
            _ => (10, None),
        })
        .await;
        assert_eq!(won, Ok((2, 260)));
        assert_eq!(begun, [(1, 0), (2, 250)]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_first_may_still_win() {
        let (won, _) = race(&["[::1]:1", "1.1.1.1:2"], |to| match to.port() {
            1 => (300, None),
            _ => (10_000, None),
        })
        .await;
        assert_eq!(won, Ok((1, 300)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_begins_the_next_at_once() {
        let (won, begun) = race(&["[::1]:1", "1.1.1.1:2", "[::1]:3"], |to| match to.port() {
            1 => (0, Some(io::ErrorKind::NetworkUnreachable)),
            2 => (20, Some(io::ErrorKind::ConnectionRefused)),
            _ => (5, None),
        })
        .await;
        assert_eq!(won, Ok((3, 25)));
        assert_eq!(begun, [(1, 0), (2, 0), (3, 20)]);
    }

    #[tokio::test(start_paused = true)]
    async fn of_failures_the_most_telling_is_told() {
        let (won, begun) = race(&["1.1.1.1:1", "1.1.1.1:2", "[::1]:3"], |to| match to.port() {
            1 => (1, Some(io::ErrorKind::ConnectionRefused)),
            _ => (1, Some(io::ErrorKind::NetworkUnreachable)),
        })
        .await;
        assert_eq!(won, Err(io::ErrorKind::ConnectionRefused));
        assert_eq!(begun.len(), 3);
        assert_eq!(race(&[], |_| (0, None)).await.0, Err(io::ErrorKind::NotFound));
    }

    #[tokio::test]
    async fn a_host_is_reached_by_the_address_that_answers() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let there = listener.local_addr().unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let socket = PeerSocket::default();
        let (_stream, address) = connect_first(&[closed, there], &socket, None).await.unwrap();
        assert_eq!(address, there);
        let refused = connect_first(&[closed, closed], &socket, None).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
