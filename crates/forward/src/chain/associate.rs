//! Datagrams through proxies of SOCKS 5 (RFC 1928 section 7).
//!
//! A proxy relays what carries a header that says where to. Behind each other, a datagram carries one for each hop: the first
//! proxy's names the relay of the second, and so on; each takes off its own. The last one names the destination.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::Instant;
use wmproxy_net::addr::Address;
use wmproxy_net::connect::{ConnectError, Fault};
use wmproxy_net::stream::Stream;
use wmproxy_upstream::{Lease, LeaseKey, Peer};
use wmproxy_wire::destination::{Destination, Host};
use wmproxy_wire::socks::Target;
use wmproxy_wire::socks::datagram;

use super::Chain;
use super::handshake::{self, Bound, Progress, Refusal};
use super::parent::Parent;
use super::pass::{Blocked, Worker, answer, silence};
use crate::options::HopKind;

/// The right to send datagrams through a chain, for as long as this lives and [`ended`](Association::ended) does not.
#[derive(Debug)]
pub struct Association {
    /// One to each hop, by which its relay lives.
    controls: Vec<Stream>,
    relay: SocketAddr,
    /// What a datagram carries before the header of the last hop.
    outer: Vec<u8>,
}

impl Association {
    /// Where datagrams go, and come from.
    pub fn relay(&self) -> SocketAddr {
        self.relay
    }

    /// What stands in each datagram before the header that names the destination; nothing behind one hop.
    pub fn outer(&self) -> &[u8] {
        &self.outer
    }

    /// Of a datagram that came from the relay, what begins with the header that names its source. None where it is none, or
    /// a fragment.
    pub fn open<'a>(&self, mut datagram: &'a [u8]) -> Option<&'a [u8]> {
        for _ in 1..self.controls.len() {
            // Which relay sent it inside is not looked at: only through the one before could it come here.
            let (header, used) = datagram::parse(datagram).ok()?;
            datagram = datagram.get(used..).filter(|_| header.fragment == 0)?;
        }
        Some(datagram)
    }

    /// Whether a proxy has ended it. If not, the task is woken when one does.
    pub fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut buffer = [0; 64];
        for control in &self.controls {
            loop {
                match control.poll_read(cx, &mut buffer) {
                    Poll::Pending => break,
                    // Nothing is to come here, and means nothing where it does.
                    Poll::Ready(Ok(1..)) => {}
                    Poll::Ready(_) => return Poll::Ready(()),
                }
            }
        }
        Poll::Pending
    }

    /// Waits until a proxy has ended it.
    pub async fn ended(&self) {
        poll_fn(|cx| self.poll_ended(cx)).await;
    }
}

impl Chain {
    /// Asks for a relay of datagrams, on the calling worker.
    ///
    /// # Errors
    /// As connecting; and [`Fault::Unsupported`] where a hop is not SOCKS 5 in the clear, or one before the last has several
    /// parents, of which connections and datagrams might take different ones.
    pub async fn associate(&self) -> Result<Association, ConnectError> {
        self.takes_datagrams()?;
        let (mut controls, mut outer) = (Vec::new(), Vec::new());
        let mut first = None;
        // Each is needed before the next one's datagrams can pass.
        for hop in self.hops_in_order() {
            let (control, relay) = hop.associate_here().await?;
            controls.push(control);
            match (first, relay.address()) {
                (None, Some(address)) => first = Some(address),
                _ => {
                    let written = datagram::write_header(&mut outer, &Target::from(&relay));
                    written.map_err(|error| ConnectError::new(Fault::Unsupported, error.to_string()))?;
                }
            }
        }
        // The peers of a first hop have addresses, or none of the chain would have been reached.
        let none = || ConnectError::new(Fault::Unsupported, "the first proxy has no address");
        Ok(Association { controls, relay: first.ok_or_else(none)?, outer })
    }

    /// Looks whether datagrams can go this way.
    ///
    /// # Errors
    /// [`Fault::Unsupported`], as of [`associate`](Chain::associate).
    pub fn takes_datagrams(&self) -> Result<(), ConnectError> {
        self.allows_datagrams(true)
    }

    /// The chain up to each of its hops, the first one first.
    fn hops_in_order(&self) -> impl Iterator<Item = &Chain> {
        let mut hops: Vec<&Chain> = std::iter::successors(Some(self), |hop| hop.before.as_deref()).collect();
        hops.reverse();
        hops.into_iter()
    }

    fn allows_datagrams(&self, is_last: bool) -> Result<(), ConnectError> {
        let unsupported = |parent: &Parent, why: &str| {
            Err(ConnectError::new(Fault::Unsupported, format!("{} {why}", self.named(parent))))
        };
        for parent in &self.parents {
            match parent.kind() {
                HopKind::Socks5 => {}
                HopKind::Socks5Tls => {
                    return unsupported(parent, "would get datagrams in the clear, and TLS is asked for");
                }
                _ => return unsupported(parent, "carries no datagrams"),
            }
        }
        if let Some(parent) = self.parents.first().filter(|_| !is_last && self.parents.len() > 1) {
            return unsupported(
                parent,
                "is one of several, and datagrams have to take the way of their connection",
            );
        }
        self.before.as_ref().map_or(Ok(()), |before| before.allows_datagrams(false))
    }

    async fn associate_here(&self) -> Result<(Stream, Destination), ConnectError> {
        let deadline = Instant::now() + self.limit();
        let mut tried: Vec<Arc<Peer>> = vec![];
        let mut last = None;
        for _ in 0..=self.group.spec().retries {
            let mut lease = match self.group.lease_in_turn(&LeaseKey::default(), &tried, None).await {
                Ok(lease) => lease,
                Err(reason) => return Err(last.unwrap_or_else(|| self.without_parent(&reason))),
            };
            match self.associate_at(&mut lease, deadline).await {
                Ok((stream, relay)) => {
                    stream.keep(Box::new(lease));
                    return Ok((stream, relay));
                }
                Err(Blocked { error, leaves_others: true }) => last = Some(error),
                Err(Blocked { error, .. }) => return Err(error),
            }
            tried.push(Arc::clone(lease.peer()));
        }
        Err(last.unwrap_or_else(|| self.without_parent(&"none was tried")))
    }

    async fn associate_at(
        &self,
        lease: &mut Lease,
        deadline: Instant,
    ) -> Result<(Stream, Destination), Blocked> {
        let parent = self.parent_of(lease)?;
        let connected = self.reach::<Worker>(lease, parent, deadline).await?;
        let mut progress = Progress::Meeting;
        let asked = handshake::associate(&connected.stream, parent.who(), &mut progress);
        let asked = answer(&connected.stream, self.step(deadline), asked).await;
        let relay = asked
            .unwrap_or_else(|| Err(silence(progress, &"a relay of datagrams")))
            .and_then(|bound| relay(bound, lease.address()));
        let relay = self.judge(lease, parent, relay, Some(connected.connect_time))?;
        Ok((connected.stream, relay))
    }
}

/// Where a proxy takes datagrams, by its answer; connections to it go to `peer`.
fn relay(bound: Bound, peer: &Address) -> Result<Destination, Refusal> {
    let Bound::Address(bound) = bound else {
        return Err(Refusal::broken("its relay has a name in place of an address"));
    };
    if bound.port() == 0 {
        return Err(Refusal::broken("its relay has port 0"));
    }
    // By 0.0.0.0 it says: where you have me already.
    let host = match peer {
        _ if !bound.ip().to_canonical().is_unspecified() => Host::Ip(bound.ip()),
        Address::Inet(peer) => Host::Ip(peer.ip()),
        Address::Name(name, _) => Host::Name((&**name).into()),
        Address::Unix(_) => return Err(Refusal::broken("its relay has no address")),
    };
    Ok(Destination { host, port: bound.port() })
}
