//! Where clients of a tunnel server come in over QUIC: one socket, on one worker, for a connection of QUIC has all of its
//! datagrams at one.

use std::cell::RefCell;
use std::io;
use std::net::UdpSocket;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use wmproxy_net::listen::Listener;
use wmproxy_net::tls::{Acceptor, CertSpec};
use wmproxy_runtime::scope::Leash;
use wmproxy_tunnel::carrier::quic;
use wmproxy_tunnel::server::TunnelServer;

use crate::modes::Scopes;

/// The worker that has it.
pub(crate) const WORKER: usize = 0;

/// How often it is looked whether certificates have been loaded anew, where they are files.
const FOLLOW: Duration = Duration::from_secs(5);

/// What is served there.
#[derive(Clone)]
pub(crate) struct QuicService {
    pub(crate) server: Arc<TunnelServer>,
    pub(crate) tls: Arc<Acceptor>,
}

/// A socket at work. Dropping it takes nobody any more; who is there stays.
pub(crate) struct QuicDoor {
    listener: Arc<quic::Listener>,
    service: Rc<RefCell<QuicService>>,
    _tasks: [Leash; 2],
}

impl QuicDoor {
    /// Begins to let clients in, on the calling worker, which is [`WORKER`].
    ///
    /// # Errors
    /// The worker's event queue takes no more, or there is no TLS 1.3.
    pub(crate) fn start(listener: &Listener, service: QuicService, scopes: &Scopes) -> io::Result<QuicDoor> {
        let socket = UdpSocket::from(listener.bound.socket(WORKER).try_clone()?);
        let QuicService { server, tls } = &service;
        // Its own tasks end with the last connection, and nobody waits for those that serve nobody.
        let (config, secret) = (tls.quic_config(), tls.derive(b"QUIC stateless reset"));
        let listener = quic::Listener::start(socket, config, secret, server.pending(), &scopes.listeners)
            .map(Arc::new)?;
        let serving = server.clone().serve_quic(listener.clone(), scopes.connections.clone());
        let serving = scopes.listeners.spawn_leashed(serving);
        let service = Rc::new(RefCell::new(service));
        let following = scopes.listeners.spawn_leashed(follow(listener.clone(), service.clone()));
        Ok(QuicDoor { listener, service, _tasks: [serving, following] })
    }

    /// Has newcomers see other certificates. False if they are to come to another server.
    pub(crate) fn replace(&self, service: &QuicService) -> io::Result<bool> {
        if !Arc::ptr_eq(&self.service.borrow().server, &service.server) {
            return Ok(false);
        }
        self.listener.replace(service.tls.quic_config())?;
        self.service.replace(service.clone());
        Ok(true)
    }
}

impl Drop for QuicDoor {
    fn drop(&mut self) {
        self.listener.finish();
    }
}

/// Shows certificates that were loaded anew.
async fn follow(listener: Arc<quic::Listener>, service: Rc<RefCell<QuicService>>) {
    let mut shown = service.borrow().tls.quic_config();
    loop {
        tokio::time::sleep(FOLLOW).await;
        let tls = service.borrow().tls.clone();
        if !tls.spec().certs.iter().any(|cert| matches!(cert, CertSpec::Files { .. })) {
            continue;
        }
        let now = tls.quic_config();
        if Arc::ptr_eq(&now, &shown) {
            continue;
        }
        match listener.replace(now.clone()) {
            Ok(()) => shown = now,
            Err(error) => tracing::error!(%error, "the tunnel server keeps its old certificate for QUIC"),
        }
    }
}
