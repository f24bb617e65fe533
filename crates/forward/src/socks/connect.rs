//! CONNECT: a connection to where the client says.

use std::net::SocketAddr;

use wmproxy_net::addr::Address;
use wmproxy_net::record::{Outcome, Record};
use wmproxy_net::stream::Stream;
use wmproxy_wire::destination::Destination;

use super::reply::{Answer, NOWHERE};
use super::talk::Talk;
use super::{Errand, Refused};

/// Connects, and has the client told so.
pub(super) async fn run(
    errand: &Errand<'_>,
    talk: &mut Talk<'_>,
    record: &mut Record,
    to: &Destination,
) -> Result<Stream, Refused> {
    let way = errand.way(to, record)?;
    // Whoever sent its data along may end and wait for the answer: only a reset says that nobody wants it any more.
    let opened = tokio::select! {
        biased;
        opened = errand.gateway.open(errand.visit(to, record), &way) => opened.inspect_err(|error| {
            tracing::debug!(listener = %record.metrics().name, %to, way = %way.name, %error, "no connection for SOCKS");
        })?,
        () = talk.stream().failed() => return Err(Refused::Over(Outcome::ClientReset)),
    };
    record.peer = opened.address.map(Address::Inet);
    record.connect_time = Some(opened.connect_time);
    // Behind a chain the address is another's, and nobody's concern.
    let bound = opened.address.and_then(|_| local_address(&opened.stream));
    talk.extend(errand.service.patience());
    Answer::Granted(bound.unwrap_or(NOWHERE)).write(errand.version, talk.say());
    Ok(opened.stream)
}

fn local_address(stream: &Stream) -> Option<SocketAddr> {
    match stream.local_address() {
        Ok(Address::Inet(local)) => Some(SocketAddr::new(local.ip().to_canonical(), local.port())),
        _ => None,
    }
}
