//! The ends of tunnels: what outlives generations of them, and how a generation changes it.
//!
//! Sessions, and what is open through them, stay over reloads. A generation only says what they go by: who may log in, what
//! is offered, by which way the servers are reached.

mod client;
mod server;

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};

use wmproxy_net::record::ListenerMetrics;
use wmproxy_runtime::scope::Scope;
use wmproxy_tunnel::client::ClientStatus;
use wmproxy_tunnel::server::ServerStatus;
use wmproxy_upstream::{Finder, Group};

pub(super) use client::{Client, PreparedClient};
pub(super) use server::{PreparedServer, Server, acceptor};

use super::Active;
use crate::tunnel::ports::Means;
use client::ClientEnd;
use server::{ServerEnd, own};

/// The ends of tunnels of this process.
pub(crate) struct Tunnels {
    means: Means,
    /// Tasks of the control runtime.
    control: Scope,
    finder: Arc<Finder>,
    at_work: Arc<AtWork>,
    /// Clients that have left, until their last visitor has.
    leaving: RefCell<Vec<Arc<ClientEnd>>>,
}

/// What is at work now, for everybody to look at.
#[derive(Default)]
pub(crate) struct AtWork {
    server: Mutex<Option<Arc<ServerEnd>>>,
    client: Mutex<Option<Arc<ClientEnd>>>,
}

/// Changes of the ends of tunnels that are ready to be made.
pub(super) struct PreparedTunnels {
    pub(super) server: Option<PreparedServer>,
    pub(super) client: Option<PreparedClient>,
}

impl Tunnels {
    /// None yet.
    pub(super) fn new(means: Means, control: Scope, finder: Arc<Finder>) -> Tunnels {
        let at_work = Arc::new(AtWork::default());
        Tunnels { means, control, finder, at_work, leaving: RefCell::default() }
    }

    /// What is at work now, whatever it will be.
    pub(crate) fn at_work(&self) -> Arc<AtWork> {
        self.at_work.clone()
    }

    /// Lets what a generation with these listeners has prepared take over.
    pub(super) async fn take_over(&self, prepared: PreparedTunnels, active: &[Active]) {
        let PreparedTunnels { server, client } = prepared;
        self.take_over_server(server, own(active.iter())).await;
        self.take_over_client(client);
    }

    /// Begins to end: nobody new is let in, and both ends of every session are told.
    pub(super) async fn drain(&self) {
        if let Some(client) = self.at_work.client() {
            client.client.leave();
        }
        if let Some(server) = self.at_work.server() {
            server.drain().await;
        }
    }
}

impl AtWork {
    fn server(&self) -> Option<Arc<ServerEnd>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn client(&self) -> Option<Arc<ClientEnd>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_server(&self, server: Option<Arc<ServerEnd>>) -> Option<Arc<ServerEnd>> {
        std::mem::replace(&mut *self.server.lock().unwrap_or_else(PoisonError::into_inner), server)
    }

    fn set_client(&self, client: Option<Arc<ClientEnd>>) -> Option<Arc<ClientEnd>> {
        std::mem::replace(&mut *self.client.lock().unwrap_or_else(PoisonError::into_inner), client)
    }

    /// The listeners that clients' services are reached at, and the counters of this process's own services.
    pub(crate) fn listeners(&self) -> Vec<Arc<ListenerMetrics>> {
        let mut listeners = self.server().map_or_else(Vec::new, |server| server.ports.listeners());
        if let Some(client) = self.client() {
            listeners.extend(client.services());
        }
        listeners
    }

    /// The groups behind clients' services.
    pub(crate) fn groups(&self) -> Vec<Arc<Group>> {
        self.server().map_or_else(Vec::new, |server| server.ports.groups())
    }

    /// How the server is, if there is one.
    pub(crate) fn server_status(&self) -> Option<ServerStatus> {
        self.server().map(|server| server.server.status())
    }

    /// How the client is, if there is one.
    pub(crate) fn client_status(&self) -> Option<ClientStatus> {
        self.client().map(|client| client.client.status())
    }

    /// What clients of the server know it by, if there is one.
    pub(crate) fn fingerprint(&self) -> Option<[u8; 32]> {
        self.server().and_then(|server| server.fingerprint())
    }
}
