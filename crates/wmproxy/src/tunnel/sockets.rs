//! The sockets of exposures: which port one gets, and why it gets none.

use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;
use wmproxy_net::addr::{Address, AddressSpec, Host, Protocol};
use wmproxy_net::listen::{self, Bound};
use wmproxy_net::sockopt::ListenSocket;
use wmproxy_tunnel::server::Exposure;
use wmproxy_wire::tunnel::message::{Kind, Refusal, RefusalCode};

use super::spot::{Own, PortsSpec};

/// How often it is looked whether sockets have closed that are in the way. A look costs next to nothing.
const LOOK: Duration = Duration::from_millis(2);

/// For how long. They let in whom they had promised it, which takes a round trip as a rule.
const PATIENCE: Duration = Duration::from_secs(2);

/// What an exposure speaks on its sockets.
pub(super) fn protocol(exposure: &Exposure) -> Protocol {
    match exposure.kind {
        Kind::Udp => Protocol::Udp,
        Kind::Tcp | Kind::Http | Kind::Https | Kind::Proxy => Protocol::Tcp,
    }
}

/// The port of sockets.
pub(super) fn port_of(bound: &Bound) -> Option<u16> {
    match bound.address {
        Address::Inet(address) => Some(address.port()),
        Address::Unix(_) | Address::Name(..) => None,
    }
}

/// Sockets for an exposure at its port, for each of so many workers.
///
/// # Errors
/// The port is taken, by whom if that is known; or the system does not give it.
pub(super) fn bind(exposure: &Exposure, spec: &PortsSpec, workers: usize) -> Result<Vec<Bound>, Refusal> {
    let (protocol, port) = (protocol(exposure), exposure.port);
    if let Some(own) = spec.own.iter().find(|own| is_in_the_way(own, protocol, port, &spec.host)) {
        return Err(in_use(format!("port {port} is the server's own, of its listener `{}`", own.name)));
    }
    let address = AddressSpec::Inet { host: spec.host.clone(), first_port: port, last_port: port };
    listen::bind(protocol, &address, workers, &ListenSocket::default()).map_err(|error| refusal(&error, port))
}

fn is_in_the_way(own: &Own, protocol: Protocol, port: u16, host: &Host) -> bool {
    let Address::Inet(address) = own.address else { return false };
    let meets = match host {
        Host::Ip(ip) => *ip == address.ip() || ip.is_unspecified() || address.ip().is_unspecified(),
        Host::Any | Host::Name(_) => true,
    };
    own.protocol == protocol && port != 0 && address.port() == port && meets
}

/// What a failure is to a client. It learns which port, and nothing of this machine's addresses.
fn refusal(error: &io::Error, port: u16) -> Refusal {
    match error.kind() {
        io::ErrorKind::AddrInUse => in_use(format!("port {port} is in use on the server")),
        io::ErrorKind::PermissionDenied => system(format!("the server may not open port {port}")),
        _ => system(format!("the server can't open port {port}: {}", error.kind())),
    }
}

pub(super) fn in_use(text: String) -> Refusal {
    Refusal { code: RefusalCode::InUse, text }
}

pub(super) fn system(text: String) -> Refusal {
    Refusal { code: RefusalCode::System, text }
}

/// Waits until those `leaving` have closed that have the port of a new exposure.
pub(super) async fn way_is_clear(exposure: &Exposure, leaving: &[Weak<Bound>]) {
    let protocol = protocol(exposure);
    let in_the_way = |bound: &Arc<Bound>| bound.protocol == protocol && port_of(bound) == Some(exposure.port);
    let give_up = Instant::now() + PATIENCE;
    while leaving.iter().filter_map(Weak::upgrade).any(|bound| in_the_way(&bound)) && Instant::now() < give_up
    {
        tokio::time::sleep(LOOK).await;
    }
}
