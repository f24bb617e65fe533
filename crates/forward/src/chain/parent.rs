//! One proxy of a hop: how it is met, and asked for the way on.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use wmproxy_net::connect::{ConnectError, Fault};
use wmproxy_net::stream::Stream;
use wmproxy_net::tls::{Connector, ConnectorSpec, TlsInfo};
use wmproxy_upstream::{FailKind, Finder};
use wmproxy_wire::destination::{Destination, Host};
use wmproxy_wire::socks::Target;

use super::handshake::{self, Progress, Refusal};
use crate::options::{HopKind, HopSpec};

/// A proxy with all that is needed to talk to it.
#[derive(Debug)]
pub(super) struct Parent {
    spec: HopSpec,
    /// Its host, as certificates name it.
    host: Box<str>,
    connector: Option<Arc<Connector>>,
    /// What offers it to carry many connections by one, where that is wanted.
    sharing: Option<Arc<Connector>>,
}

/// A proxy in texts: which one in its chain, what it speaks and where it is, and nothing else of its URL.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named<'a> {
    pub(super) number: usize,
    pub(super) parent: &'a Parent,
}

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HopSpec { kind, address, .. } = &self.parent.spec;
        write!(f, "proxy {} ({}://{address})", self.number, kind.as_str())
    }
}

impl Parent {
    /// What is needed to talk to a proxy: `connect` makes what does TLS.
    pub(super) fn new<E>(
        spec: &HopSpec,
        mut connect: impl FnMut(&ConnectorSpec) -> Result<Arc<Connector>, E>,
    ) -> Result<Parent, E> {
        let tls = spec.tls.clone().unwrap_or_default();
        let mut offering = |alpn: &[&str]| {
            let alpn = alpn.iter().map(|protocol| (*protocol).to_owned()).collect();
            connect(&ConnectorSpec { alpn, ..tls.clone() })
        };
        let is_http = spec.kind == HopKind::Https;
        let sharing = (is_http && spec.multiplex).then(|| offering(&["h2", "http/1.1"])).transpose()?;
        let alone: &[&str] = if is_http { &["http/1.1"] } else { &[] };
        let connector = spec.kind.is_tls().then(|| offering(alone)).transpose()?;
        let host = match &spec.address.host {
            Host::Ip(ip) => ip.to_string().into(),
            Host::Name(name) => (&**name).into(),
        };
        Ok(Parent { spec: spec.clone(), host, connector, sharing })
    }

    pub(super) fn kind(&self) -> HopKind {
        self.spec.kind
    }

    /// Whether one connection to it may carry many.
    pub(super) fn shares(&self) -> bool {
        self.sharing.is_some()
    }

    /// Who we are to it.
    pub(super) fn who(&self) -> Option<(&str, &str)> {
        let (name, password) = self.spec.credentials.as_ref()?;
        Some((name, password.as_ref().map_or("", |password| password.expose())))
    }

    /// Does TLS with it, where that is how it is talked to: never is anything said to it in the clear then.
    pub(super) async fn secure(&self, stream: &Stream) -> Result<Option<TlsInfo>, Refusal> {
        if !self.spec.kind.is_tls() {
            return Ok(None);
        }
        self.secure_by(self.connector.as_ref(), stream).await.map(Some)
    }

    /// Does TLS with it, and offers that one connection carries many.
    pub(super) async fn secure_shared(&self, stream: &Stream) -> Result<TlsInfo, Refusal> {
        self.secure_by(self.sharing.as_ref(), stream).await
    }

    async fn secure_by(
        &self,
        connector: Option<&Arc<Connector>>,
        stream: &Stream,
    ) -> Result<TlsInfo, Refusal> {
        let connector = connector.ok_or_else(|| {
            Refusal::of_proxy(Fault::NoWay, FailKind::Other, "is to be talked to by TLS, and none is at hand")
        })?;
        let secured = connector.secure(stream, &self.spec.address.to_string(), &self.host).await;
        secured.map_err(|error| {
            Refusal::of_proxy(Fault::Tls, FailKind::Tls, format!("could not be talked to by TLS: {error}"))
        })
    }

    /// Asks it for the way on to `to`.
    pub(super) async fn ask(
        &self,
        stream: &Stream,
        to: &Destination,
        finder: &Finder,
        progress: &mut Progress,
    ) -> Result<(), Refusal> {
        let who = self.who();
        let user_id = who.map_or("", |(name, _)| name);
        match self.spec.kind {
            HopKind::Http | HopKind::Https => handshake::connect(stream, who, to, progress).await,
            HopKind::Socks5 | HopKind::Socks5Tls => handshake::socks5(stream, who, to.into(), progress).await,
            HopKind::Socks4a => handshake::socks4(stream, user_id, to.into(), progress).await,
            HopKind::Socks4 => {
                *progress = Progress::Asked;
                let address = ipv4(to, finder).await.map_err(|error| Refusal {
                    fault: error.fault,
                    text: format!("takes addresses only: {error}").into(),
                    blame: None,
                })?;
                handshake::socks4(stream, user_id, Target::Address(address), progress).await
            }
        }
    }
}

/// The address to name to a proxy that takes neither names nor IPv6.
async fn ipv4(to: &Destination, finder: &Finder) -> Result<SocketAddr, ConnectError> {
    let ip = match &to.host {
        Host::Ip(ip) => Some(*ip),
        Host::Name(name) => finder.find(name, None).await?.iter().copied().find(IpAddr::is_ipv4),
    };
    let none = || ConnectError::new(Fault::Unsupported, format!("{to} has no IPv4 address"));
    ip.map(|ip| SocketAddr::new(ip, to.port)).ok_or_else(none)
}
