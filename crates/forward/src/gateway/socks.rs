//! What SOCKS asks of the gateway.

use std::net::SocketAddr;
use std::sync::Arc;

use wmproxy_http::facts::ConnFacts;
use wmproxy_http::forward::{Guest, Pending, Unknown, Visit, Way};
use wmproxy_net::connect::{ConnectError, Fault};
use wmproxy_net::sockopt::PeerSocket;

use super::{ForwardGateway, guest};
use crate::egress::DatagramWay;
use crate::socks::{Allowance, SocksGateway};

impl SocksGateway for ForwardGateway {
    fn needs_password(&self, conn: &ConnFacts) -> bool {
        ForwardGateway::needs_password(self, conn)
    }

    fn admit_password<'a>(
        &'a self,
        conn: &'a ConnFacts,
        name: &'a [u8],
        password: &'a [u8],
    ) -> Pending<'a, Result<Arc<dyn Guest>, Unknown>> {
        Box::pin(ForwardGateway::admit_password(self, conn, name, password))
    }

    fn admit_nobody(&self, conn: &ConnFacts) -> Result<Arc<dyn Guest>, Unknown> {
        ForwardGateway::admit_nobody(self, conn)
    }

    fn is_direct(&self, way: &Way) -> bool {
        matches!(self.egress.datagram_way(way), DatagramWay::Direct)
    }

    fn datagram_way(&self, way: &Way) -> DatagramWay {
        // A way says it by itself, whichever rules it comes from.
        self.egress.datagram_way(way)
    }

    fn allowance(&self, visit: &Visit<'_>) -> Result<Allowance, ConnectError> {
        let guest = guest(visit)?;
        guest.egress().takes_datagrams(visit)?;
        let permit = guest.associate().map_err(|text| ConnectError::new(Fault::Limited, text))?;
        let source = guest.egress().source().or(self.socket.source);
        Ok(Allowance {
            permit,
            pace: guest.account().map(|account| account.gate().clone()),
            socket: PeerSocket { source, ..self.socket.clone() },
        })
    }

    fn permits(&self, address: SocketAddr, visit: &Visit<'_>) -> Result<(), ConnectError> {
        guest(visit)?.egress().permits(address, visit)
    }

    fn resolve<'a>(&'a self, visit: Visit<'a>) -> Pending<'a, Result<Vec<SocketAddr>, ConnectError>> {
        Box::pin(async move { guest(&visit)?.egress().resolve(&visit).await })
    }
}
