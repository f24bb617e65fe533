//! What a client looks like from outside: for the admin API, and for the display of a terminal.

use serde::{Deserialize, Serialize};

/// A client, now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClientStatus {
    /// The client's name.
    pub name: String,
    /// Its session with each server, in the order of the options.
    pub sessions: Vec<SessionStatus>,
    /// What it offers, in the order of the options.
    pub services: Vec<ServiceStatus>,
}

/// The session with a server, or how it goes about one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionStatus {
    /// The server, as the options name it.
    pub server: String,
    /// How far it is.
    pub state: SessionState,
    /// For how long it has been that far, in seconds.
    pub seconds: u64,
    /// What went wrong last, where there is no session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When the next attempt is due, in milliseconds, where one is waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_ms: Option<u64>,
    /// How long the last ping took there and back, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_trip_ms: Option<f64>,
    /// Connections that wait ready for visitors.
    pub pool: u32,
    /// Sessions that there were before.
    pub reconnects: u64,
    /// What became of the services there; empty until the server has said so.
    pub services: Vec<PlacedStatus>,
}

/// How far a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// A connection is being made, or a login.
    Connecting,
    /// The last attempt failed, and the next is waited for.
    Waiting,
    /// The session stands.
    Open,
    /// It is about to go: visitors that are there may stay, nobody else comes.
    Leaving,
    /// There will be none any more.
    Ended,
}

/// What became of a service at one server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PlacedStatus {
    /// The service.
    pub name: String,
    /// Where visitors reach it: `tcp://203.0.113.7:20022`, `http://nas.example.com`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<String>,
    /// Why they don't.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
}

/// A service, over all servers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// `tcp`, `udp`, `http`, `https` or `proxy`.
    pub kind: String,
    /// Whether only visitors with its secret reach it.
    pub is_private: bool,
    /// Whether what it leads to is able to serve.
    pub is_up: bool,
    /// Visitors that are there now.
    pub visitors: u64,
    /// Visitors that ever were.
    pub visitors_total: u64,
    /// Bytes from visitors.
    pub bytes_in: u64,
    /// Bytes to visitors.
    pub bytes_out: u64,
}
