//! A gateway with rules of its own.

use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use wmproxy_forward::egress::DatagramWay;
use wmproxy_forward::socks::{Allowance, SocksGateway};
use wmproxy_http::facts::ConnFacts;
use wmproxy_http::forward::{Gateway, Guest, Opened, Pending, Unknown, Visit, Way};
use wmproxy_net::addr::Address;
use wmproxy_net::connect::{ConnectError, Fault};
use wmproxy_net::limit::Permit;
use wmproxy_net::relay::Terms;
use wmproxy_net::sockopt::PeerSocket;
use wmproxy_net::stream;
use wmproxy_wire::destination::Host;

/// Knows one user at most, resolves no name, and fails as names say.
#[derive(Debug, Default)]
pub(crate) struct Doorman {
    /// Who has to say so, and the password.
    pub(crate) user: Option<(&'static str, &'static str)>,
    /// Everybody is told this.
    pub(crate) turns_away: Option<Unknown>,
    /// What was asked for, in this order.
    pub(crate) asked: Mutex<Vec<String>>,
}

#[derive(Debug)]
struct Somebody(Option<Arc<str>>);

impl Guest for Somebody {
    fn name(&self) -> Option<&Arc<str>> {
        self.0.as_ref()
    }

    fn spend(&self, _bytes: u64) -> bool {
        true
    }

    fn terms(&self, terms: Terms, _permit: &Permit) -> Terms {
        terms
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Doorman {
    fn note(&self, what: String) {
        self.asked.lock().unwrap().push(what);
    }
}

/// A failure that a name stands for.
fn fault(name: &str) -> Option<Fault> {
    Some(match name {
        "refused.test" => Fault::Refused,
        "unresolved.test" => Fault::Unresolved,
        "network.test" => Fault::NetworkUnreachable,
        "host.test" => Fault::HostUnreachable,
        "late.test" => Fault::TimedOut,
        "reset.test" => Fault::Reset,
        "tls.test" => Fault::Tls,
        _ => return None,
    })
}

impl Gateway for Doorman {
    fn admit<'a>(
        &'a self,
        _conn: &'a ConnFacts,
        _credentials: Option<&'a [u8]>,
    ) -> Pending<'a, Result<Arc<dyn Guest>, Unknown>> {
        Box::pin(async { Err(Unknown::Unauthenticated) })
    }

    fn way(&self, visit: &Visit<'_>) -> Result<Way, ConnectError> {
        self.note(format!("way {}", visit.to));
        match &visit.to.host {
            Host::Name(name) if **name == *"denied.test" => {
                Err(ConnectError::new(Fault::Denied, "denied by a rule"))
            }
            Host::Name(name) if **name == *"chained.test" => {
                Ok(Way { name: "tor".into(), key: 1, inner: Arc::new(()) })
            }
            _ => Ok(Way { name: "direct".into(), key: 0, inner: Arc::new(()) }),
        }
    }

    fn open<'a>(&'a self, visit: Visit<'a>, way: &'a Way) -> Pending<'a, Result<Opened, ConnectError>> {
        self.note(format!("open {}", visit.to));
        Box::pin(async move {
            let address = match &visit.to.host {
                Host::Ip(ip) => SocketAddr::new(*ip, visit.to.port),
                Host::Name(name) if &**name == "never.test" => std::future::pending().await,
                Host::Name(name) => match fault(name) {
                    Some(fault) => return Err(ConnectError::new(fault, "as the name says")),
                    None => SocketAddr::from(([127, 0, 0, 1], visit.to.port)),
                },
            };
            let stream = stream::connect(&Address::Inet(address), &PeerSocket::default(), None).await?;
            let address = (way.key == 0).then_some(address);
            Ok(Opened { stream, address, connect_time: Duration::ZERO })
        })
    }

    fn pac(&self, _authority: &str, _is_tls: bool) -> Option<String> {
        None
    }
}

impl SocksGateway for Doorman {
    fn needs_password(&self, _conn: &ConnFacts) -> bool {
        self.user.is_some()
    }

    fn admit_password<'a>(
        &'a self,
        _conn: &'a ConnFacts,
        name: &'a [u8],
        password: &'a [u8],
    ) -> Pending<'a, Result<Arc<dyn Guest>, Unknown>> {
        self.note("password".into());
        Box::pin(async move {
            if let Some(unknown) = self.turns_away {
                return Err(unknown);
            }
            let is_known = |user: &(&str, &str)| user.0.as_bytes() == name && user.1.as_bytes() == password;
            let user = self.user.filter(is_known).ok_or(Unknown::Unauthenticated)?;
            Ok(Arc::new(Somebody(Some(user.0.into()))) as Arc<dyn Guest>)
        })
    }

    fn admit_nobody(&self, _conn: &ConnFacts) -> Result<Arc<dyn Guest>, Unknown> {
        match (self.turns_away, self.user) {
            (Some(unknown), _) => Err(unknown),
            (None, Some(_)) => Err(Unknown::Unauthenticated),
            (None, None) => Ok(Arc::new(Somebody(None))),
        }
    }

    fn is_direct(&self, way: &Way) -> bool {
        way.key == 0
    }

    fn datagram_way(&self, _way: &Way) -> DatagramWay {
        DatagramWay::Direct
    }

    fn allowance(&self, _visit: &Visit<'_>) -> Result<Allowance, ConnectError> {
        Ok(Allowance::default())
    }

    fn permits(&self, address: SocketAddr, _visit: &Visit<'_>) -> Result<(), ConnectError> {
        self.note(format!("permits {}", address.ip()));
        if address.ip().to_string() == "127.0.0.9" {
            return Err(ConnectError::new(Fault::Denied, "denied by a rule"));
        }
        Ok(())
    }

    fn resolve<'a>(&'a self, visit: Visit<'a>) -> Pending<'a, Result<Vec<SocketAddr>, ConnectError>> {
        self.note(format!("resolve {}", visit.to));
        Box::pin(async move {
            match &visit.to.host {
                Host::Ip(ip) => Ok(vec![SocketAddr::new(*ip, visit.to.port)]),
                Host::Name(name) => match fault(name) {
                    Some(fault) => Err(ConnectError::new(fault, "as the name says")),
                    None => Ok(vec![SocketAddr::from(([127, 0, 0, 1], visit.to.port))]),
                },
            }
        })
    }
}
