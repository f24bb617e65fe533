//! Associations: the datagrams of SOCKS 5 (RFC 1928 section 7).
//!
//! A client asks for one on a TCP connection, its control connection, and is told where to send datagrams. The header of
//! each says where it is to go. What lives here: the sockets towards clients ([`places`], and the one that all share where
//! the config names a single port, [`hub`]); the association itself ([`session`]) with what its client has sent to
//! ([`targets`]), names that are being resolved ([`held`]) and the way through a SOCKS parent ([`link`]); the way of its
//! datagrams there ([`outward`]) and back ([`inward`]). What must not: the control connection's protocol before the
//! request and its reply (its parent module), rules (`egress`), sockets (`net`).
//!
//! Who may send what to whom:
//! - Only the address that the control connection comes from is heard, and from the first datagram on only that one's port,
//!   or the port that the request announced. Parts of datagrams (FRAG) are dropped.
//! - Each destination is asked of the egress rules, when it is new and once a minute; names before they are resolved, and
//!   then each address.
//! - Only an address *and port* that the client has sent to may answer, as dante has it with its connected sockets. All
//!   destinations see one address and port of ours, so that hole punching, QUIC and DHT work as behind a common NAT: their
//!   peers answer from where they were asked. What is lost are the probes of STUN that ask for an answer from elsewhere (RFC 5780),
//!   and datagrams that nobody asked for, which is the purpose.
//!
//! An association ends with its control connection, at once; after `idle_timeout` without a datagram in either direction,
//! which closes the control connection; and, once its listener is out of service, at its first silence.

mod held;
mod hub;
mod inward;
mod link;
mod outward;
mod places;
mod session;
mod targets;

use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use wmproxy_http::forward::{Guest, Kind, Visit};
use wmproxy_net::addr::Address;
use wmproxy_net::conn::Conn;
use wmproxy_net::connect::{ConnectError, Fault};
use wmproxy_net::record::{Outcome, Record};
use wmproxy_net::stream::Stream;
use wmproxy_net::udp::UdpSocket;
use wmproxy_wire::destination::Destination;

use super::Version;
use super::reply::Answer;
use super::talk::Talk;
use crate::options::UdpSpec;
use crate::service::ForwardService;
use hub::{Seat, Transfer};
use places::{Inlet, Place, Places};
use session::{Session, Terms};

/// What a client may say on its control connection once it has its association. Nobody has anything to say there; who goes on
/// and on keeps a worker busy for nothing.
const MAX_CHATTER: usize = 4096;

/// An association that is ready but for its client, who does not know yet.
#[derive(Debug)]
pub(crate) struct Association {
    place: Place,
    /// Where its client is to send datagrams.
    address: SocketAddr,
    terms: Terms,
    /// How long its client may take to hear of it.
    patience: Duration,
}

impl Association {
    /// Opens one for the client of a control connection, on the calling worker. `announced` is where the client says that it
    /// will send from, zeros where it does not know.
    ///
    /// # Errors
    /// Why there is none, for the reply: too many, no port, no descriptor.
    pub(crate) fn open(
        service: &ForwardService,
        conn: &Conn,
        guest: Arc<dyn Guest>,
        announced: &Destination,
    ) -> Result<Association, ConnectError> {
        let unsupported = |text| ConnectError::new(Fault::Unsupported, text);
        let spec = &service.spec().udp;
        let client = conn.record.client;
        let client = client.ok_or_else(|| unsupported("a client without an address can't send datagrams"))?;
        let Address::Inet(reached) = conn.stream.local_address()? else {
            return Err(unsupported("whoever comes by a unix socket can't send datagrams"));
        };
        let (client, reached) = (client.ip().to_canonical(), reached.ip().to_canonical());
        let visit = Visit { to: announced, kind: Kind::Udp, guest: &guest, client: conn.record.client };
        let allowance = service.gateway().allowance(&visit)?;
        let place = Places::of(conn.permit.gate()).take(spec, client, bind_address(spec, client, reached))?;
        let bound = place.address;
        let told = match spec.advertise {
            Some(advertised) => advertised,
            // Every address of ours; the one by which the client came is one that it can reach.
            None if bound.ip().is_unspecified() => reached,
            None => bound.ip(),
        };
        let terms = Terms {
            client,
            announced: announced_port(announced, client),
            guest,
            gateway: service.gateway().clone(),
            listener: conn.permit.gate().clone(),
            allowance,
            idle_timeout: spec.idle_timeout,
            retired: service.retired(),
        };
        let address = SocketAddr::new(told, bound.port());
        Ok(Association { place, address, terms, patience: service.patience() })
    }

    /// Tells the client, passes datagrams until the association ends, and closes the record.
    pub(crate) async fn run(self, conn: Conn) {
        let Conn { stream, mut record, permit: _permit } = conn;
        let forwarded = record.forwarded_mut();
        forwarded.user = self.terms.guest.name().cloned();
        forwarded.kind = Some(Kind::Udp.as_str());
        let Place { inlet, stay: _stay, .. } = self.place;
        let control = async {
            match tell(&stream, self.address, self.patience).await {
                Ok(()) => left(&stream).await,
                Err(outcome) => outcome,
            }
        };
        match inlet {
            Inlet::Own(socket) => run_alone(socket, self.terms, record, control).await,
            Inlet::Shared(seat) => run_shared(seat, self.terms, record, control).await,
        }
    }
}

/// Passes datagrams for a client that sends them to a socket of its own.
async fn run_alone(socket: UdpSocket, terms: Terms, record: Record, control: impl Future<Output = Outcome>) {
    let session = Session::new(terms, Rc::new(socket), record);
    let running = session.clone().run(true);
    tokio::pin!(running);
    tokio::select! {
        biased;
        outcome = control => session.end(outcome),
        () = &mut running => return,
    }
    running.await;
}

/// The same for an association whose datagrams another worker may have to do with. That one knows of it before the client
/// does, or it would take its first datagram for a stranger's.
async fn run_shared(seat: Seat, terms: Terms, record: Record, control: impl Future<Output = Outcome>) {
    let (transfer, ended) = Transfer::new(seat, terms, record);
    let Some(stop) = transfer.send() else { return };
    tokio::select! {
        biased;
        outcome = control => {
            // Whoever it is for may have ended by itself.
            let _ = stop.send(outcome);
        }
        _ = ended => {}
    }
}

/// Tells the client where to send its datagrams.
async fn tell(stream: &Stream, address: SocketAddr, patience: Duration) -> Result<(), Outcome> {
    let mut talk = Talk::new(stream, Vec::new(), Instant::now() + patience);
    Answer::Granted(address).write(Version::V5, talk.say());
    talk.settle().await
}

/// Waits until the client leaves its control connection, in whatever way, and says how.
async fn left(stream: &Stream) -> Outcome {
    let mut scrap = [0; 64];
    let mut said = 0;
    loop {
        match poll_fn(|cx| stream.poll_read(cx, &mut scrap)).await {
            Ok(0) => return Outcome::Done,
            Ok(n) => said += n,
            Err(_) => return Outcome::ClientReset,
        }
        if said > MAX_CHATTER {
            return Outcome::BadSocks;
        }
    }
}

/// Where datagrams of a client are received that reached us at `reached`: there, unless the config says where. An address of
/// the other family would be of no use to it.
fn bind_address(spec: &UdpSpec, client: IpAddr, reached: IpAddr) -> IpAddr {
    spec.bind.filter(|bind| bind.is_ipv4() == client.is_ipv4()).unwrap_or(reached)
}

/// The port that a client announced. An address beside it that is neither its own nor none says that somebody between us
/// translates addresses, and so ports.
fn announced_port(announced: &Destination, client: IpAddr) -> Option<u16> {
    let announced = announced.address()?;
    let ip = announced.ip().to_canonical();
    (announced.port() != 0 && (ip.is_unspecified() || ip == client)).then(|| announced.port())
}
