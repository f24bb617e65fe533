//! One check of one peer: sockets of its own, and one deadline for all of it.

use std::time::Duration;

use tokio::time::Instant;
use wmproxy_net::addr::{Address, TargetSpec};
use wmproxy_net::sockopt::{PeerSocket, Source};

use super::exchange::{CheckError, Stage, connect};
use super::options::{HealthSpec, ProbeSpec};
use super::state::CheckResult;
use super::{http, tcp, udp};

/// Where a check goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) address: Address,
    /// What HTTP calls it.
    pub(super) host: String,
}

impl Target {
    /// The target of a peer at `address` that was written as `written`.
    pub(super) fn new(spec: &HealthSpec, address: &Address, written: &TargetSpec) -> Target {
        let mut address = address.clone();
        if let (Address::Inet(inet), Some(port)) = (&mut address, spec.port) {
            inet.set_port(port);
        }
        let name = match written {
            TargetSpec::Name { host, .. } => host.clone(),
            TargetSpec::Address(Address::Inet(inet)) if inet.is_ipv6() => format!("[{}]", inet.ip()),
            TargetSpec::Address(Address::Inet(inet)) => inet.ip().to_string(),
            // As curl says to a unix socket.
            TargetSpec::Address(Address::Unix(_)) => "localhost".to_owned(),
        };
        let host = match &address {
            // The port that goes without saying (RFC 9110 section 4.2.1).
            Address::Inet(inet) if inet.port() != 80 => format!("{name}:{}", inet.port()),
            _ => name,
        };
        Target { address, host }
    }
}

/// What is set on the sockets of checks, given what is set on those of connections.
pub(super) fn socket_of(connections: &PeerSocket) -> PeerSocket {
    // Nobody came whose address a check could take on.
    let source = connections.source.filter(|source| *source != Source::Client);
    // With it a connection seems made before the peer was heard of.
    PeerSocket { source, fast_open: false, ..connections.clone() }
}

/// Checks once. Tells how long it took, and how it ended.
pub(super) async fn check(
    spec: &HealthSpec,
    socket: &PeerSocket,
    target: &Target,
) -> (Duration, CheckResult) {
    let begun = Instant::now();
    let mut stage = Stage::default();
    let attempt = tokio::time::timeout(spec.timeout, attempt(spec, socket, target, &mut stage)).await;
    let ended = attempt.unwrap_or_else(|_| Err(stage.timeout(spec.timeout)));
    let result = match ended {
        Ok(()) => CheckResult::Passed,
        Err(error @ CheckError::Here(_)) => CheckResult::Skipped(error.to_string()),
        Err(error) => CheckResult::Failed(error.to_string()),
    };
    (begun.elapsed(), result)
}

async fn attempt(
    spec: &HealthSpec,
    socket: &PeerSocket,
    target: &Target,
    stage: &mut Stage,
) -> Result<(), CheckError> {
    match &spec.probe {
        ProbeSpec::Tcp { send, expect } => {
            let stream = connect(&target.address, socket).await?;
            tcp::check(&stream, send, expect.as_deref(), stage).await
        }
        ProbeSpec::Http(http) => {
            let stream = connect(&target.address, socket).await?;
            http::check(&stream, http, &target.host, stage).await
        }
        ProbeSpec::Udp { send, expect } => {
            // The options take no unix socket for this.
            let Address::Inet(peer) = target.address else { return Ok(()) };
            // A little less than the whole, so that silence is found out before the check's time is over.
            let patience = spec.timeout.mul_f64(0.9);
            udp::check(peer, socket, send, expect.as_deref(), patience, stage).await
        }
    }
}

#[cfg(test)]
mod tests;
