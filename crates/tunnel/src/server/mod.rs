//! The server's end: who logs in, what is offered, and the ways to it.

mod client;
mod directory;
mod entrance;
mod known;
mod login;
mod open;
mod publish;
mod quic;
mod registry;
mod session;
mod status;
mod tunnel_server;
mod visits;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use wmproxy_wire::tunnel::message::{HttpRules, Kind, Refusal};

pub use entrance::Entrance;
pub use status::{ClientEntry, Counts, ServerStatus, ServiceEntry, SessionEntry};
pub use tunnel_server::TunnelServer;

/// Opens to visitors what clients offer; the program's other modes are behind it.
pub trait Ports: Send + Sync {
    /// Makes it so that exactly these are open: those that are new are opened, those that are no longer there are closed (what
    /// runs on them goes on), and those that have changed change without losing anybody. Answers for each, in their order,
    /// where visitors reach it, or why not. One call at a time, on the control runtime.
    fn publish(&self, wanted: Vec<Exposure>) -> Publishing<'_>;
}

/// Answers a [publication](Ports::publish).
pub type Publishing<'a> = Pin<Box<dyn Future<Output = Vec<Result<Vec<Place>, Refusal>>> + Send + 'a>>;

/// A place that visitors come to, with those who serve it: one service, or a group of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Exposure {
    /// Names it in logs and metrics, and is the same as long as the place is: `tcp:home/ssh`; of a
    /// group, which may have several places, `tcp:ssh@20022`.
    pub name: Arc<str>,
    /// What visitors speak.
    pub kind: Kind,
    /// The port. Where the client leaves it open it is one of those granted, and another the next time if that can't be had.
    /// Of no meaning for http and https.
    pub port: u16,
    /// The hosts, for http and https.
    pub hosts: Vec<String>,
    /// The beginnings of paths, for http; none is every path.
    pub paths: Vec<String>,
    /// The networks that visitors may come from; none is any.
    pub visitors: Vec<ipnet::IpNet>,
    /// Whether the server ends TLS, for https.
    pub terminate: bool,
    /// The most visitors at a time; 0 is no limit.
    pub max_connections: u32,
    /// What is done to requests and answers, for http.
    pub http: HttpRules,
    /// Who serves it, by the names under which the server's `Connect` knows them: `home/ssh`. Those that are down are among
    /// them only if all are.
    pub members: Vec<Arc<str>>,
}

/// Where visitors reach something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// At a socket's address.
    Address(SocketAddr),
    /// At a URL.
    Url(String),
}

#[cfg(test)]
mod tests;
