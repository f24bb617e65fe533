//! One check of one peer: sockets of its own, and one deadline for all of it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use wmproxy_net::addr::{Address, TargetSpec};
use wmproxy_net::connect::{Connect, ConnectError};
use wmproxy_net::preface::Introduction;
use wmproxy_net::sockopt::{PeerSocket, Source};
use wmproxy_net::stream::{self, Stream};
use wmproxy_net::tls::Connector;

use crate::dial::behind;

use super::exchange::{CheckError, Stage};
use super::options::{HealthSpec, ProbeSpec};
use super::state::CheckResult;
use super::{http, tcp, udp};

/// Where a check goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) address: Address,
    /// What it has to prove by TLS: a name or an IP address.
    pub(super) name: String,
    /// What HTTP calls it.
    pub(super) host: String,
}

impl Target {
    /// The target of a peer at `address` that was written as `written`.
    pub(super) fn new(spec: &HealthSpec, address: &Address, written: &TargetSpec) -> Target {
        let mut address = address.clone();
        match (&mut address, spec.port) {
            (Address::Inet(inet), Some(port)) => inet.set_port(port),
            (Address::Name(_, own), Some(port)) => *own = port,
            _ => {}
        }
        let name = match written {
            TargetSpec::Name { host, .. } => host.clone(),
            TargetSpec::Address(Address::Inet(inet)) => inet.ip().to_string(),
            TargetSpec::Address(Address::Unix(_)) => String::new(),
            TargetSpec::Address(Address::Name(host, _)) => host.to_string(),
        };
        // The port that goes without saying (RFC 9110 sections 4.2.1 and 4.2.2).
        let usual = if spec.tls { 443 } else { 80 };
        let port = match &address {
            Address::Unix(_) => None,
            Address::Inet(inet) => Some(inet.port()),
            Address::Name(_, port) => Some(*port),
        };
        let bare = if name.contains(':') { format!("[{name}]") } else { name.clone() };
        let host = match port {
            // As curl says to a unix socket.
            None => "localhost".to_owned(),
            Some(port) if port == usual => bare,
            Some(port) => format!("{bare}:{port}"),
        };
        Target { address, name, host }
    }
}

/// What all checks of a group need.
#[derive(Debug)]
pub(super) struct Means {
    pub(super) spec: HealthSpec,
    socket: PeerSocket,
    connector: Option<Arc<Connector>>,
    via: Result<Option<Arc<dyn Connect>>, ConnectError>,
}

impl Means {
    pub(super) fn new(
        spec: HealthSpec,
        connections: &PeerSocket,
        connector: Option<Arc<Connector>>,
        via: Result<Option<Arc<dyn Connect>>, ConnectError>,
    ) -> Means {
        // Nobody came whose address a check could take on.
        let source = connections.source.filter(|source| *source != Source::Client);
        // With it a connection seems made before the peer was heard of.
        let socket = PeerSocket { source, fast_open: false, ..connections.clone() };
        Means { spec, socket, connector, via }
    }

    async fn reach(&self, address: &Address) -> io::Result<Stream> {
        match &self.via {
            Ok(Some(via)) => Ok(via.connect_alone(&behind(address)?).await?),
            Ok(None) => stream::connect(address, &self.socket, None).await,
            Err(error) => Err(error.clone().into()),
        }
    }

    /// Connects to a peer, with all that connections begin with.
    async fn connect(&self, target: &Target, stage: &mut Stage) -> Result<Stream, CheckError> {
        let stream = self.reach(&target.address).await.map_err(CheckError::connect)?;
        if let Some(introduction) = &self.spec.introduction {
            *stage = Stage::Sending;
            introduction.send(&stream).await.map_err(CheckError::Broken)?;
        }
        if self.spec.tls {
            *stage = Stage::Securing;
            let none = || CheckError::Here(io::Error::other("no TLS is at hand"));
            let connector = self.connector.as_ref().ok_or_else(none)?;
            let peer = target.address.to_string();
            connector.secure(&stream, &peer, &target.name).await.map_err(CheckError::Tls)?;
        }
        Ok(stream)
    }
}

/// Checks once. Tells how long it took, and how it ended.
pub(super) async fn check(means: &Means, target: &Target) -> (Duration, CheckResult) {
    let begun = Instant::now();
    let mut stage = Stage::default();
    let timeout = means.spec.timeout;
    let attempt = tokio::time::timeout(timeout, attempt(means, target, &mut stage)).await;
    let ended = attempt.unwrap_or_else(|_| Err(stage.timeout(timeout)));
    let result = match ended {
        Ok(()) => CheckResult::Passed,
        Err(error @ CheckError::Here(_)) => CheckResult::Skipped(error.to_string()),
        Err(error) => CheckResult::Failed(error.to_string()),
    };
    (begun.elapsed(), result)
}

async fn attempt(means: &Means, target: &Target, stage: &mut Stage) -> Result<(), CheckError> {
    match &means.spec.probe {
        ProbeSpec::Tcp { send, expect } => {
            let stream = means.connect(target, stage).await?;
            tcp::check(&stream, send, expect.as_deref(), stage).await
        }
        ProbeSpec::Http(http) => {
            let stream = means.connect(target, stage).await?;
            http::check(&stream, http, &target.host, stage).await
        }
        ProbeSpec::Udp { send, expect } => {
            // The options take no unix socket for this.
            let Address::Inet(peer) = target.address else { return Ok(()) };
            // A little less than the whole, so that silence is found out before the check's time is over.
            let patience = means.spec.timeout.mul_f64(0.9);
            let introduction = means.spec.introduction.as_ref().map_or(&[][..], Introduction::as_bytes);
            let datagram = [introduction, send].concat();
            udp::check(peer, &means.socket, &datagram, expect.as_deref(), patience, stage).await
        }
    }
}

#[cfg(test)]
mod tests;
