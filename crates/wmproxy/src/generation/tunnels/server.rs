//! The tunnel server of this process.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use wmproxy_net::addr::{Address, AddressSpec, Host};
use wmproxy_net::record::AccessLog;
use wmproxy_net::tls::{Acceptor, Renewal};
use wmproxy_runtime::scope::Leash;
use wmproxy_tunnel::server::{Ports, TunnelServer};

use super::Tunnels;
use crate::config::tunnel::plan::TunnelServerPlan;
use crate::generation::Active;
use crate::tunnel::ports::{Own, PortsSpec, TunnelPorts};

/// How much longer a visitor waits for a stream than the server has it wait, so that the server's own word is heard.
const PATIENCE: Duration = Duration::from_secs(2);

/// A tunnel server with all that belongs to it.
pub(super) struct ServerEnd {
    pub(super) server: Arc<TunnelServer>,
    pub(super) ports: Arc<TunnelPorts>,
    tls: Mutex<Option<Arc<Acceptor>>>,
    /// Opens and closes ports as clients come and go.
    _publishing: Leash,
}

/// What a generation makes of it.
pub(crate) struct PreparedServer {
    end: Arc<ServerEnd>,
    plan: Arc<TunnelServerPlan>,
    tls: Arc<Acceptor>,
    log: Option<Arc<dyn AccessLog>>,
}

impl Tunnels {
    /// The server of a plan: the one at work, or a new one that nobody can come to yet.
    pub(in crate::generation) fn server(&self, plan: &TunnelServerPlan) -> Server {
        let end = self.at_work.server().unwrap_or_else(|| {
            let server = TunnelServer::new(plan.spec.clone());
            let ports = TunnelPorts::new(self.means.clone(), server.clone());
            let publishing = server.clone().keep_published(ports.clone() as Arc<dyn Ports>);
            Arc::new(ServerEnd {
                server,
                ports,
                tls: Mutex::default(),
                _publishing: self.control.spawn_control(publishing),
            })
        });
        Server(end)
    }

    /// Lets a prepared server take over, or takes the one at work out of service. `listeners` are those of the generation.
    pub(in crate::generation) async fn take_over_server(
        &self,
        prepared: Option<PreparedServer>,
        own: Vec<Own>,
    ) {
        let Some(PreparedServer { end, plan, tls, log }) = prepared else {
            if let Some(old) = self.at_work.set_server(None) {
                old.drain().await;
                old.ports.configure(None).await;
            }
            return;
        };
        end.ports.configure(Some(ports_spec(&plan, log, own))).await;
        end.server.configure(plan.spec.clone());
        *end.tls.lock().unwrap_or_else(PoisonError::into_inner) = Some(tls);
        self.at_work.set_server(Some(end));
    }
}

/// The server of a plan, for those who lead to it.
#[derive(Clone)]
pub(crate) struct Server(Arc<ServerEnd>);

impl Server {
    /// The server itself.
    pub(in crate::generation) fn tunnel(&self) -> &Arc<TunnelServer> {
        &self.0.server
    }

    /// What opens its ports.
    pub(in crate::generation) fn ports(&self) -> &Arc<TunnelPorts> {
        &self.0.ports
    }

    /// What is to take over, with certificates that others know it by.
    pub(in crate::generation) fn prepared(
        self,
        plan: &Arc<TunnelServerPlan>,
        tls: Arc<Acceptor>,
        log: Option<Arc<dyn AccessLog>>,
    ) -> PreparedServer {
        PreparedServer { end: self.0, plan: plan.clone(), tls, log }
    }
}

impl ServerEnd {
    /// Lets nobody new in, and tells those that are.
    pub(super) async fn drain(&self) {
        self.server.drain();
        self.ports.drain().await;
    }

    /// What clients know it by.
    pub(super) fn fingerprint(&self) -> Option<[u8; 32]> {
        self.tls.lock().unwrap_or_else(PoisonError::into_inner).as_ref().and_then(|tls| tls.fingerprint())
    }
}

/// How ports are opened.
fn ports_spec(plan: &TunnelServerPlan, log: Option<Arc<dyn AccessLog>>, own: Vec<Own>) -> PortsSpec {
    let host = match plan.listen.first() {
        Some(AddressSpec::Inet { host, .. }) => host.clone(),
        _ => Host::Any,
    };
    // The port that visitors use may be one that the system has picked.
    let port = |wanted: &[AddressSpec], name: &str| {
        let bound = own.iter().find(|own| &*own.name == name).and_then(|own| match own.address {
            Address::Inet(address) => Some(address.port()),
            Address::Unix(_) | Address::Name(..) => None,
        });
        // Behind a unix socket there is somebody who listens at the usual one.
        wanted.first().map(|_| bound.unwrap_or_default())
    };
    PortsSpec {
        host,
        visitors: plan.visitors.clone(),
        patience: plan.spec.wait_timeout + PATIENCE,
        log,
        http: port(&plan.http, "tunnel:http"),
        https: port(&plan.https, "tunnel:https"),
        advertise: plan.advertise.clone(),
        own,
    }
}

/// What is listened on by a generation, as ports have to know it.
pub(in crate::generation) fn own<'a>(active: impl Iterator<Item = &'a Active>) -> Vec<Own> {
    let parts = active.flat_map(|active| &active.parts);
    let own = |part: &crate::generation::Part| Own {
        protocol: part.listener.bound.protocol,
        address: part.listener.bound.address.clone(),
        name: part.listener.metrics.name.clone(),
    };
    parts.map(own).collect()
}

/// The certificates of a server, as everything that shows them has them.
///
/// # Errors
/// A file that can't be read.
pub(in crate::generation) fn acceptor(
    plan: &TunnelServerPlan,
    store: &wmproxy_net::tls::Store,
    certificates: &mut Renewal,
) -> anyhow::Result<Arc<Acceptor>> {
    Ok(store.acceptor(&plan.tls, certificates)?)
}
