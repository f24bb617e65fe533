//! Where clients of a listener send their datagrams: sockets and ports, and how many there may be.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::{Arc, LazyLock, Mutex, Weak};

use wmproxy_net::connect::{ConnectError, Fault};
use wmproxy_net::limit::{Gate, Limits, Permit};
use wmproxy_net::udp::{Senders, UdpSocket};

use super::hub::{Handle, Hub, Seat};
use crate::lock::lock;
use crate::options::UdpSpec;

/// How many ports of a range are tried for one association beside those that are known to be taken: if others of this
/// machine have so many of them in a row, the next association looks on from there.
const TRIES: u32 = 64;

/// What the associations of one listener have in common, over all workers and over reloads, as long as there is one.
#[derive(Debug)]
pub(super) struct Places {
    /// How many there may be.
    gate: Arc<Gate>,
    /// Ports of ranges that are in use.
    ports: Mutex<Ports>,
    /// Ports that all share.
    pub(super) hubs: Mutex<HashMap<SocketAddr, Arc<Handle>>>,
    /// Whose address tells this listener from others, and so must not be another's.
    _listener: Arc<Gate>,
}

#[derive(Debug, Default)]
struct Ports {
    taken: HashSet<SocketAddr>,
    /// How many were given out: the next is looked for behind the last, so that stray datagrams for an association that has
    /// ended rarely meet its successor.
    given: u32,
}

/// Where one client sends its datagrams.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) inlet: Inlet,
    /// The address that it is bound to.
    pub(super) address: SocketAddr,
    pub(super) stay: Stay,
}

/// What receives a client's datagrams.
#[derive(Debug)]
pub(super) enum Inlet {
    /// A socket of its own.
    Own(UdpSocket),
    /// The one of all.
    Shared(Seat),
}

/// What an association holds as long as it lasts; all of it is given back on drop.
#[derive(Debug)]
pub(super) struct Stay {
    _port: Option<TakenPort>,
    _permit: Permit,
    /// Without any association there is nothing to be kept.
    _places: Arc<Places>,
}

/// A port of a range.
#[derive(Debug)]
pub(super) struct TakenPort {
    places: Arc<Places>,
    address: SocketAddr,
}

/// Those of all listeners that have any, by the address of their gate.
static ALL: LazyLock<Mutex<HashMap<usize, Weak<Places>>>> = LazyLock::new(Mutex::default);

impl Places {
    /// Those of the listener with this gate.
    pub(super) fn of(gate: &Arc<Gate>) -> Arc<Places> {
        let mut all = lock(&ALL);
        let place = all.entry(Arc::as_ptr(gate).addr()).or_default();
        if let Some(places) = place.upgrade() {
            return places;
        }
        let places = Arc::new(Places {
            gate: Arc::default(),
            ports: Mutex::default(),
            hubs: Mutex::default(),
            _listener: gate.clone(),
        });
        *place = Arc::downgrade(&places);
        all.retain(|_, places| places.strong_count() > 0);
        places
    }

    /// A place at `ip` for a client.
    ///
    /// # Errors
    /// There are too many, or no port or descriptor is left.
    pub(super) fn take(
        self: &Arc<Self>,
        spec: &UdpSpec,
        client: IpAddr,
        ip: IpAddr,
    ) -> Result<Place, ConnectError> {
        // A reload may have changed them.
        let (max, max_per_client) = (spec.max_associations, spec.max_per_client);
        self.gate.set(&Limits { max, max_per_client, ..Limits::default() });
        let limited = |text| ConnectError::new(Fault::Limited, text);
        let mut permit = self
            .gate
            .try_enter()
            .ok_or_else(|| limited("the listener has as many associations as it may"))?;
        if !permit.claim(client) {
            return Err(limited("the client has as many associations as it may"));
        }
        let (inlet, address, port) = match &spec.ports {
            Some(ports) if ports.start() == ports.end() => {
                let address = SocketAddr::new(ip, *ports.start());
                (Inlet::Shared(Hub::seat(self, address)?), address, None)
            }
            Some(ports) => {
                let (socket, port) = self.next_port(ip, ports)?;
                (Inlet::Own(socket), port.address, Some(port))
            }
            None => {
                let socket = UdpSocket::bind(SocketAddr::new(ip, 0), Senders::One)?;
                let address = socket.local_address()?;
                (Inlet::Own(socket), address, None)
            }
        };
        let stay = Stay { _port: port, _permit: permit, _places: self.clone() };
        Ok(Place { inlet, address, stay })
    }

    fn next_port(
        self: &Arc<Self>,
        ip: IpAddr,
        range: &RangeInclusive<u16>,
    ) -> Result<(UdpSocket, TakenPort), ConnectError> {
        let (first, count) = (u32::from(*range.start()), range.len() as u32);
        let mut ports = lock(&self.ports);
        let mut tries = 0;
        for _ in 0..count {
            let port = first + ports.given % count;
            ports.given = ports.given.wrapping_add(1);
            let address = SocketAddr::new(ip, u16::try_from(port).unwrap_or_default());
            if ports.taken.contains(&address) {
                continue;
            }
            match UdpSocket::bind(address, Senders::One) {
                Ok(socket) => {
                    ports.taken.insert(address);
                    return Ok((socket, TakenPort { places: self.clone(), address }));
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries < TRIES => tries += 1,
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => break,
                Err(error) => return Err(error.into()),
            }
        }
        Err(ConnectError::new(Fault::Resources, format!("every port of {first}-{} is taken", range.end())))
    }
}

impl Drop for TakenPort {
    fn drop(&mut self) {
        lock(&self.places.ports).taken.remove(&self.address);
    }
}
