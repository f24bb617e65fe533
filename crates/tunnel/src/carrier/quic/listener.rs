//! The server's endpoint, and what it asks of strangers before it spends anything on them.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use quinn::VarInt;
use wmproxy_net::limit::{Gate, Permit};
use wmproxy_runtime::scope::Scope;

use super::{config, failed, raise_buffers, runtime};

/// With so many unfinished logins a newcomer has to show that it gets what is sent to its address (RFC 9000 section 8.1),
/// which costs it a round trip. Fewer can be no flood, nor can they be turned against others: an answer to an address
/// that is not proven is three times the question at the most.
const RETRY_FROM: u32 = 32;

/// A UDP socket on which clients come, with its endpoint on one worker.
#[derive(Debug)]
pub struct Listener {
    endpoint: quinn::Endpoint,
    /// Counts who is not logged in yet.
    gate: Arc<Gate>,
}

/// A client that is let as far as the handshake.
#[derive(Debug)]
pub struct Arriving {
    connecting: quinn::Connecting,
    permit: Permit,
}

impl Listener {
    /// Takes connections on a bound socket. The endpoint is a task of `scope` on the calling worker, and so is each of its
    /// connections. `gate` limits how many may be there without a login, in total and of one address; TCP may share it.
    /// With a `secret` that the process before this one had, too, its clients hear at once that their connections are over.
    ///
    /// # Errors
    /// The configuration of TLS can't be used, for it has no TLS 1.3, or the worker's event queue takes no more.
    pub fn start(
        socket: UdpSocket,
        tls: Arc<rustls::ServerConfig>,
        secret: Option<[u8; 32]>,
        gate: Arc<Gate>,
        scope: &Scope,
    ) -> io::Result<Listener> {
        raise_buffers(&socket);
        socket.set_nonblocking(true)?;
        let server = config::server(tls)?;
        let endpoint = quinn::Endpoint::new(config::endpoint(secret), Some(server), socket, runtime(scope))?;
        Ok(Listener { endpoint, gate })
    }

    /// Has later connections see other certificates.
    ///
    /// # Errors
    /// As [`Listener::start`].
    pub fn replace(&self, tls: Arc<rustls::ServerConfig>) -> io::Result<()> {
        self.endpoint.set_server_config(Some(config::server(tls)?));
        Ok(())
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// The system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// The next client; none once it is closed. Those for whom there is no room are `refused`. On the worker of the endpoint
    /// only.
    pub async fn accept(&self, refused: impl Fn(SocketAddr)) -> Option<Arriving> {
        loop {
            let incoming = self.endpoint.accept().await?;
            let from = incoming.remote_address();
            let is_busy = self.gate.active() >= RETRY_FROM || !self.gate.has_room_for(from.ip());
            if is_busy && !incoming.remote_address_validated() && incoming.may_retry() {
                // Nothing is counted for an address that may be anybody's.
                if let Err(error) = incoming.retry() {
                    error.into_incoming().ignore();
                }
                continue;
            }
            let permit = self
                .gate
                .try_enter()
                .and_then(|mut permit| permit.admit(from.ip()).is_ok().then_some(permit));
            let Some(permit) = permit else {
                refused(from);
                incoming.refuse();
                continue;
            };
            match incoming.accept() {
                Ok(connecting) => return Some(Arriving { connecting, permit }),
                Err(error) => tracing::debug!(%from, %error, "a connection of QUIC did not begin"),
            }
        }
    }

    /// Takes nobody any more; who is there stays.
    pub fn finish(&self) {
        self.endpoint.set_server_config(None);
    }

    /// Ends all connections at once.
    pub fn close(&self) {
        self.endpoint.close(VarInt::from_u32(0), b"");
    }
}

impl Arriving {
    /// Where it comes from.
    pub fn remote_address(&self) -> SocketAddr {
        self.connecting.remote_address()
    }

    /// Makes the handshake, without a deadline of its own. The permit is to be kept until the login is over, one way or the
    /// other.
    ///
    /// # Errors
    /// The handshake fails.
    pub async fn finish(self) -> io::Result<(quinn::Connection, Permit)> {
        let connection = self.connecting.await.map_err(failed)?;
        Ok((connection, self.permit))
    }
}
