//! What the engine asks of a forward proxy: who it is that sends a request, whether they may go where it says, and by which
//! way. Who answers knows users, rules and chains; the engine knows none of them.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use wmproxy_net::connect::ConnectError;
use wmproxy_net::limit::Permit;
use wmproxy_net::relay::Terms;
use wmproxy_net::stream::Stream;
use wmproxy_wire::destination::Destination;

use crate::facts::ConnFacts;

mod connect;
mod heads;
mod idle;
mod origin;
mod page;
mod refusal;
pub(crate) mod serve;
mod tunnel;

pub use heads::pseudonym;
pub(crate) use idle::close_all;
pub use idle::idle_connections;

/// Something that takes a while.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// What is asked for, in the words of routes (`protocols`) and of the access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A request of HTTP in absolute form.
    Http,
    /// CONNECT of HTTP.
    Connect,
    /// SOCKS 4 and 4a.
    Socks4,
    /// SOCKS 5: CONNECT and BIND.
    Socks5,
    /// SOCKS 5: datagrams.
    Udp,
}

impl Kind {
    /// The word in logs and in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Http => "http",
            Kind::Connect => "connect",
            Kind::Socks4 => "socks4",
            Kind::Socks5 => "socks5",
            Kind::Udp => "udp",
        }
    }
}

/// Somebody who may use the proxy: a user, or whoever comes to one that is open to them. One for each connection that was let
/// in, or for each request where a connection carries several.
pub trait Guest: fmt::Debug + Send + Sync {
    /// The name in logs; none for who had to say none.
    fn name(&self) -> Option<&Arc<str>>;

    /// Notes bytes that have passed, both ways together, and says whether more may.
    fn spend(&self, bytes: u64) -> bool;

    /// How the bytes of a tunnel pass: `terms` as the listener has them, slowed down to the guest's rate, with its quota.
    fn terms(&self, terms: Terms, permit: &Permit) -> Terms;

    /// For whoever made it.
    fn as_any(&self) -> &dyn Any;
}

/// One wish to go somewhere.
#[derive(Debug, Clone, Copy)]
pub struct Visit<'a> {
    /// Where to.
    pub to: &'a Destination,
    /// How.
    pub kind: Kind,
    /// Who.
    pub guest: &'a Arc<dyn Guest>,
    /// From where.
    pub client: Option<SocketAddr>,
}

/// The way that the rules choose for a visit.
#[derive(Debug, Clone)]
pub struct Way {
    /// Its name in logs: `direct`, or that of a chain.
    pub name: Arc<str>,
    /// Connections that were made for one visit may serve another to the same destination if this is the same.
    pub key: u64,
    /// For whoever made it.
    pub inner: Arc<dyn Any + Send + Sync>,
}

/// A connection to where a visit goes.
#[derive(Debug)]
pub struct Opened {
    /// The connection.
    pub stream: Stream,
    /// The address that was connected to; none behind a chain.
    pub address: Option<SocketAddr>,
    /// How long that took.
    pub connect_time: Duration,
}

/// Why somebody is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// They have to say who they are, or said it wrongly: 407.
    Unauthenticated,
    /// Too many wrong passwords have come from there, or too many are being compared: to be asked again after this long.
    Later(Duration),
    /// They have as many connections as they may, or have used up their quota.
    Limited(&'static str),
}

/// Who knows users, rules and ways out.
pub trait Gateway: fmt::Debug + Send + Sync {
    /// Finds out who it is that comes over `conn`, with these `credentials`: the value of `Proxy-Authorization`, if there was
    /// one. Nothing is resolved or connected before that. Quick for who has said the same a short time ago.
    fn admit<'a>(
        &'a self,
        conn: &'a ConnFacts,
        credentials: Option<&'a [u8]>,
    ) -> Pending<'a, Result<Arc<dyn Guest>, Unknown>>;

    /// Whether a guest may go there, as far as that is known before names are resolved, and by which way.
    ///
    /// # Errors
    /// It may not.
    fn way(&self, visit: &Visit<'_>) -> Result<Way, ConnectError>;

    /// Goes there. What names resolve to is checked, and what was checked is connected to. Has a deadline of its own.
    fn open<'a>(&'a self, visit: Visit<'a>, way: &'a Way) -> Pending<'a, Result<Opened, ConnectError>>;

    /// The file that tells browsers to use this proxy (PAC), for who reaches it under `authority`; none if it is not served.
    fn pac(&self, authority: &str, is_tls: bool) -> Option<String>;
}
