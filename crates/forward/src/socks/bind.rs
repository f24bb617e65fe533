//! BIND: a port on which somebody from where the client is connected to is expected, as FTP wants it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::timeout;
use wmproxy_http::forward::Visit;
use wmproxy_net::addr::Address;
use wmproxy_net::connect::{ConnectError, Fault};
use wmproxy_net::record::{Outcome, Record};
use wmproxy_net::rendezvous::{Rendezvous, address_towards};
use wmproxy_net::stream::Stream;
use wmproxy_wire::destination::{Destination, Host};

use super::reply::Answer;
use super::talk::Talk;
use super::{Errand, Refused, SocksGateway};

/// How long somebody is waited for: as long as the authors of SOCKS 4 have it.
const PATIENCE: Duration = Duration::from_secs(120);

/// Who may come.
#[derive(Debug)]
enum Expected {
    /// Whoever the rules let clients connect to.
    Anybody,
    /// Who is at one of these addresses.
    Host(Vec<IpAddr>),
}

/// Listens, has the client told where, waits, and has it told who came.
pub(super) async fn run(
    errand: &Errand<'_>,
    talk: &mut Talk<'_>,
    record: &mut Record,
    to: &Destination,
) -> Result<Stream, Refused> {
    let visit = errand.visit(to, record);
    let expected = expect(errand, record, to).await?;
    let near = match (&expected, record.local_address()) {
        (Expected::Host(hosts), _) if let Some(host) = hosts.first() => address_towards(*host),
        (_, Address::Inet(local)) => Ok(local.ip().to_canonical()),
        (_, Address::Unix(_) | Address::Name(..)) => {
            return Err(Refused::Told(Answer::Failed(Fault::Unsupported)));
        }
    };
    let rendezvous = near.and_then(Rendezvous::bind).map_err(ConnectError::from)?;
    Answer::Granted(rendezvous.address()).write(errand.version, talk.say());
    talk.flush().await?;
    let came = tokio::select! {
        biased;
        came = timeout(PATIENCE, wait(&rendezvous, &expected, errand.gateway, &visit)) => came,
        () = talk.stream().gone() => return Err(Refused::Over(Outcome::ClientLeft)),
    };
    let late = |_| ConnectError::new(Fault::TimedOut, "nobody came");
    let (peer, from) = came.map_err(late)?.map_err(ConnectError::from)?;
    record.peer = Some(Address::Inet(from));
    talk.extend(errand.service.patience());
    Answer::Granted(from).write(errand.version, talk.say());
    Ok(peer)
}

/// Whom the client expects, if it may.
async fn expect(
    errand: &Errand<'_>,
    record: &mut Record,
    to: &Destination,
) -> Result<Expected, ConnectError> {
    if matches!(to.host, Host::Ip(ip) if ip.is_unspecified()) {
        record.forwarded_mut().destination = Some(to.clone());
        return Ok(Expected::Anybody);
    }
    let way = errand.way(to, record)?;
    if !errand.gateway.is_direct(&way) {
        return Err(ConnectError::new(Fault::Unsupported, "nobody can come by way of other proxies"));
    }
    let addresses = errand.gateway.resolve(errand.visit(to, record)).await?;
    Ok(Expected::Host(addresses.iter().map(|address| address.ip().to_canonical()).collect()))
}

/// Waits for who is expected. Others are reset, and may be any number: each takes no longer than to be looked at.
async fn wait(
    rendezvous: &Rendezvous,
    expected: &Expected,
    gateway: &dyn SocksGateway,
    visit: &Visit<'_>,
) -> std::io::Result<(Stream, SocketAddr)> {
    loop {
        let (peer, from) = rendezvous.accept().await?;
        let may_come = match expected {
            Expected::Anybody => is_allowed(gateway, from, visit),
            Expected::Host(hosts) => hosts.contains(&from.ip()),
        };
        if may_come {
            return Ok((peer, from));
        }
        peer.reset_on_close();
    }
}

/// Whether the guest might as well have connected to whoever came, and without another proxy.
fn is_allowed(gateway: &dyn SocksGateway, from: SocketAddr, visit: &Visit<'_>) -> bool {
    let to = Destination::from(from);
    let visit = Visit { to: &to, ..*visit };
    gateway.way(&visit).is_ok_and(|way| gateway.is_direct(&way)) && gateway.permits(from, &visit).is_ok()
}
