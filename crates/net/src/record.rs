//! What happened to a connection or a flow: its record, its outcome, its listener's counters.

mod outcome;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use wmproxy_runtime::clock;
use wmproxy_runtime::counter::{Counter, Counters, Log2Histogram, Sharded};
use wmproxy_wire::destination::Destination;

use crate::addr::{Address, Protocol};
pub use outcome::{AcceptErrorKind, Fault, Outcome, UdpDrop};

/// One worker's counters of one listener. `in` is from the client, `out` towards it.
#[derive(Debug, Default)]
pub struct ListenerBlock {
    /// Connections accepted and flows begun.
    pub accepted: Counter,
    /// Those of them that ended; the difference is what is active.
    pub closed: Counter,
    /// Bytes from clients to peers.
    pub bytes_in: Counter,
    /// Bytes from peers to clients.
    pub bytes_out: Counter,
    /// Those bytes of either direction that the kernel passed on without copying them.
    pub bytes_spliced: Counter,
    /// Datagrams from clients to peers.
    pub datagrams_in: Counter,
    /// Datagrams from peers to clients.
    pub datagrams_out: Counter,
    /// Ends by outcome; the refusals among them are what was turned away.
    pub outcomes: Counters<{ Outcome::ALL.len() }>,
    /// Datagrams dropped by reason.
    pub udp_drops: [Counter; UdpDrop::ALL.len()],
    /// Datagrams in one receive from clients.
    pub udp_batch_in: Log2Histogram,
    /// Datagrams in one send to a client.
    pub udp_batch_out: Log2Histogram,
    /// Datagrams in one send to a peer.
    pub udp_batch_to_peer: Log2Histogram,
    /// Datagrams in one receive from a peer.
    pub udp_batch_from_peer: Log2Histogram,
    /// Failures of accept by kind.
    pub accept_errors: [Counter; AcceptErrorKind::ALL.len()],
    /// How often accepting was paused for lack of resources, and how often it went on; the difference is who waits now.
    pub accept_pauses: Counter,
    /// See `accept_pauses`.
    pub accept_resumes: Counter,
}

/// The counters of one listener.
#[derive(Debug)]
pub struct ListenerMetrics {
    /// The listener's name.
    pub name: Arc<str>,
    /// What it speaks.
    pub protocol: Protocol,
    /// The address that it is bound to.
    pub address: Address,
    /// The counters, one block a worker.
    pub blocks: Sharded<ListenerBlock>,
}

impl ListenerMetrics {
    /// Counters at zero for `workers` workers.
    pub fn new(name: Arc<str>, protocol: Protocol, address: Address, workers: usize) -> Self {
        ListenerMetrics { name, protocol, address, blocks: Sharded::new(workers) }
    }

    /// Connections and flows that are open now.
    pub fn active(&self) -> u64 {
        let closed = self.blocks.sum(|b| &b.closed);
        self.blocks.sum(|b| &b.accepted).saturating_sub(closed)
    }

    /// Whether datagrams came to it: to a listener of datagrams, or by associations of SOCKS that a listener of TCP made.
    pub fn has_datagrams(&self) -> bool {
        let any = |field: &dyn Fn(&ListenerBlock) -> &Counter| self.blocks.sum(field) > 0;
        self.protocol == Protocol::Udp
            || any(&|block| &block.datagrams_in)
            || (0..UdpDrop::ALL.len()).any(|why| any(&|block| &block.udp_drops[why]))
    }
}

/// Everything known of a connection or a flow when it has ended: a line of the access log.
#[derive(Debug, Clone)]
pub struct ClosedRecord {
    /// Stream or datagrams.
    pub protocol: Protocol,
    /// The listener's name.
    pub listener: Arc<str>,
    /// Who came; none for a unix socket.
    pub client: Option<SocketAddr>,
    /// What it told of itself before its data.
    pub preface: Option<Box<Preface>>,
    /// Who went where through a forward proxy, and how.
    pub forwarded: Option<Box<Forwarded>>,
    /// The address of ours that the client reached.
    pub local: Address,
    /// The upstream group's name.
    pub group: Option<Arc<str>>,
    /// The peer that it was connected to, or the last one tried.
    pub peer: Option<Address>,
    /// When it was accepted.
    pub started: SystemTime,
    /// How long connecting to the peer took, if it came to that.
    pub connect_time: Option<Duration>,
    /// From accept to the end.
    pub duration: Duration,
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
    /// Datagrams from the client.
    pub datagrams_in: u64,
    /// Datagrams to the client.
    pub datagrams_out: u64,
    /// How it ended.
    pub outcome: Outcome,
}

/// What a connection tells of itself before its data: in a PROXY header, in the ClientHello, in the TLS session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preface {
    /// Who connected to us, where a PROXY header names somebody else as the client.
    pub via: Option<SocketAddr>,
    /// Where the client had connected to, as that header says.
    pub destination: Option<SocketAddr>,
    /// What else that header says, as `wmproxy_wire::proxy_protocol::Tlvs` reads it.
    pub proxy_tlvs: Box<[u8]>,
    /// The server name that the client asks for.
    pub sni: Option<Box<str>>,
    /// The application protocols that it offers, or the one that was agreed on: joined by commas.
    pub alpn: Option<Box<str>>,
}

/// What a forward proxy knows of a connection, as far as it came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forwarded {
    /// Who the client has proven to be; of SOCKS 4, where nobody has to, who it says that it is.
    pub user: Option<Arc<str>>,
    /// Where it wants to go.
    pub destination: Option<Destination>,
    /// The way that was chosen: `direct`, or a chain's name.
    pub way: Option<Arc<str>>,
    /// How it asked, such as `connect` or `socks5`.
    pub kind: Option<&'static str>,
}

/// Where closed records go. Must return at once: it is called on a worker.
pub trait AccessLog: Send + Sync {
    /// Whether it takes records that end so. What it does not take is not put together.
    fn wants(&self, _outcome: Outcome) -> bool {
        true
    }

    /// Takes one record.
    fn write(&self, record: &ClosedRecord);
}

/// The running account of one connection or flow. Whoever ends it says how; if nobody does, the drop tells why.
pub struct Record {
    metrics: Arc<ListenerMetrics>,
    log: Option<Arc<dyn AccessLog>>,
    /// When it was opened, by the [exact clock](clock::precise).
    began: u64,
    /// Who came; none for a unix socket.
    pub client: Option<SocketAddr>,
    /// What it told of itself before its data, if anything; see [`Record::preface_mut`].
    pub preface: Option<Box<Preface>>,
    /// Who goes where through a forward proxy, if anybody does; see [`Record::forwarded_mut`].
    pub forwarded: Option<Box<Forwarded>>,
    /// The address of ours that the client reached, where the listener's own does not say it.
    pub local: Option<IpAddr>,
    /// The upstream group's name.
    pub group: Option<Arc<str>>,
    /// The peer that it is connected to, or the last one tried.
    pub peer: Option<Address>,
    /// How long connecting to the peer took.
    pub connect_time: Option<Duration>,
    bytes_in: u64,
    bytes_out: u64,
    datagrams_in: u64,
    datagrams_out: u64,
    outcome: Option<Outcome>,
}

impl Record {
    /// Opens the account and counts the connection or flow as accepted.
    pub fn open(
        metrics: Arc<ListenerMetrics>,
        log: Option<Arc<dyn AccessLog>>,
        client: Option<SocketAddr>,
    ) -> Record {
        metrics.blocks.local().accepted.add(1);
        Record {
            metrics,
            log,
            began: clock::precise(),
            client,
            preface: None,
            forwarded: None,
            local: None,
            group: None,
            peer: None,
            connect_time: None,
            bytes_in: 0,
            bytes_out: 0,
            datagrams_in: 0,
            datagrams_out: 0,
            outcome: None,
        }
    }

    /// The listener's counters.
    pub fn metrics(&self) -> &Arc<ListenerMetrics> {
        &self.metrics
    }

    /// The address of ours that the client reached.
    pub fn local_address(&self) -> Address {
        match (self.local, &self.metrics.address) {
            (Some(ip), Address::Inet(bound)) => Address::Inet((ip, bound.port()).into()),
            (_, bound) => bound.clone(),
        }
    }

    /// Where the client has gone to, by an internet address: as a PROXY header has it, or else the address of ours that it reached.
    pub fn destination(&self) -> Option<SocketAddr> {
        let told = self.preface.as_ref().and_then(|preface| preface.destination);
        told.or_else(|| match self.local_address() {
            Address::Inet(local) => Some(local),
            Address::Unix(_) | Address::Name(..) => None,
        })
    }

    /// Has it written there, for its listener has several logs.
    pub fn write_to(&mut self, log: Option<Arc<dyn AccessLog>>) {
        self.log = log;
    }

    /// To note what the client told of itself.
    pub fn preface_mut(&mut self) -> &mut Preface {
        self.preface.get_or_insert_default()
    }

    /// To note what a forward proxy learns.
    pub fn forwarded_mut(&mut self) -> &mut Forwarded {
        self.forwarded.get_or_insert_default()
    }

    /// Adds bytes from the client, and towards it.
    #[inline]
    pub fn add_bytes(&mut self, inward: u64, outward: u64) {
        let block = self.metrics.blocks.local();
        if inward != 0 {
            self.bytes_in += inward;
            block.bytes_in.add(inward);
        }
        if outward != 0 {
            self.bytes_out += outward;
            block.bytes_out.add(outward);
        }
    }

    /// Bytes from the client and towards it so far.
    pub fn bytes(&self) -> (u64, u64) {
        (self.bytes_in, self.bytes_out)
    }

    /// Says how many of the bytes were spliced.
    #[inline]
    pub fn add_spliced(&self, bytes: u64) {
        if bytes != 0 {
            self.metrics.blocks.local().bytes_spliced.add(bytes);
        }
    }

    /// Adds datagrams from the client.
    #[inline]
    pub fn add_datagrams_in(&mut self, datagrams: u64, bytes: u64) {
        self.datagrams_in += datagrams;
        self.metrics.blocks.local().datagrams_in.add(datagrams);
        self.add_bytes(bytes, 0);
    }

    /// Adds datagrams towards the client.
    #[inline]
    pub fn add_datagrams_out(&mut self, datagrams: u64, bytes: u64) {
        self.datagrams_out += datagrams;
        self.metrics.blocks.local().datagrams_out.add(datagrams);
        self.add_bytes(0, bytes);
    }

    /// The outcome of silence: who never said anything is named.
    pub fn silence(&self) -> Outcome {
        let (client, peer) = (self.bytes_in + self.datagrams_in, self.bytes_out + self.datagrams_out);
        match (client, peer) {
            (0, _) => Outcome::ClientSilent,
            (_, 0) => Outcome::PeerSilent,
            _ => Outcome::IdleTimeout,
        }
    }

    /// How long ago it was opened.
    pub fn age(&self) -> Duration {
        Duration::from_nanos(clock::precise().saturating_sub(self.began))
    }

    /// Says how it ended. The first word counts.
    pub fn close(&mut self, outcome: Outcome) {
        self.outcome.get_or_insert(outcome);
    }
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record")
            .field("client", &self.client)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let outcome = self.outcome.unwrap_or_else(|| {
            // Nobody closed it: its task unwinds, or was ended from outside.
            if std::thread::panicking() { Outcome::Panicked } else { Outcome::Drained }
        });
        let block = self.metrics.blocks.local();
        block.closed.add(1);
        block.outcomes[outcome as usize].add(1);
        let Some(log) = self.log.take().filter(|log| log.wants(outcome)) else { return };
        let duration = self.age();
        log.write(&ClosedRecord {
            protocol: self.metrics.protocol,
            listener: self.metrics.name.clone(),
            client: self.client,
            preface: self.preface.take(),
            forwarded: self.forwarded.take(),
            local: self.local_address(),
            group: self.group.take(),
            peer: self.peer.take(),
            started: SystemTime::now() - duration,
            connect_time: self.connect_time,
            duration,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            datagrams_in: self.datagrams_in,
            datagrams_out: self.datagrams_out,
            outcome,
        });
    }
}
