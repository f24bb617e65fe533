//! What SOCKS asks of a gateway, beside what HTTP does.

use std::net::SocketAddr;
use std::sync::Arc;

use wmproxy_http::facts::ConnFacts;
use wmproxy_http::forward::{Gateway, Guest, Pending, Unknown, Visit, Way};
use wmproxy_net::connect::ConnectError;
use wmproxy_net::limit::{Gate, Permit};
use wmproxy_net::sockopt::PeerSocket;

use crate::egress::DatagramWay;

/// What an association keeps to.
#[derive(Debug, Default)]
pub struct Allowance {
    /// Its place among those of its user, given back when this is dropped; none where nobody counts them.
    pub permit: Option<Permit>,
    /// How fast the bytes of its user's connections pass together, if it has one.
    pub pace: Option<Arc<Gate>>,
    /// What is set on the sockets that its datagrams leave by.
    pub socket: PeerSocket,
}

/// Who knows users, rules and ways out.
pub trait SocksGateway: Gateway {
    /// Whether who comes over `conn` has to say a password.
    fn needs_password(&self, conn: &ConnFacts) -> bool;

    /// Finds out who it is that says a password.
    fn admit_password<'a>(
        &'a self,
        conn: &'a ConnFacts,
        name: &'a [u8],
        password: &'a [u8],
    ) -> Pending<'a, Result<Arc<dyn Guest>, Unknown>>;

    /// Lets in who says nothing: where nobody has to, or where a certificate has said it.
    ///
    /// # Errors
    /// They may not come so.
    fn admit_nobody(&self, conn: &ConnFacts) -> Result<Arc<dyn Guest>, Unknown>;

    /// Whether a way leads through no other proxy.
    fn is_direct(&self, way: &Way) -> bool;

    /// How datagrams go a way.
    fn datagram_way(&self, way: &Way) -> DatagramWay;

    /// What an association of a visit's guest keeps to. Where the visit goes is not known yet.
    ///
    /// # Errors
    /// It may have no more of them, or no datagram could go anywhere.
    fn allowance(&self, visit: &Visit<'_>) -> Result<Allowance, ConnectError>;

    /// Whether a guest may have to do with an address that was not asked for by its name.
    ///
    /// # Errors
    /// It may not.
    fn permits(&self, address: SocketAddr, visit: &Visit<'_>) -> Result<(), ConnectError>;

    /// The addresses of where a visit goes, each of which was checked.
    fn resolve<'a>(&'a self, visit: Visit<'a>) -> Pending<'a, Result<Vec<SocketAddr>, ConnectError>>;
}
