//! Options of TCP sockets that the config can set.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// Probes that go unanswered before a connection counts as dead.
const KEEPALIVE_PROBES: u32 = 3;

/// What is set on a TCP socket, the client's or the peer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpOptions {
    /// Small writes leave at once (TCP_NODELAY, RFC 896 switched off).
    pub nodelay: bool,
    /// A silent connection is probed after this long, then thrice at a third of it (RFC 9293 section 3.8.4).
    pub keepalive: Option<Duration>,
}

impl Default for TcpOptions {
    fn default() -> Self {
        TcpOptions { nodelay: true, keepalive: None }
    }
}

impl TcpOptions {
    /// Sets them on a socket that was just opened, where what is off is off already.
    pub(crate) fn apply_to_new(&self, socket: &impl AsFd) -> io::Result<()> {
        if self.keepalive.is_some() {
            return self.apply(socket);
        }
        let socket = SockRef::from(socket);
        socket.set_out_of_band_inline(true)?;
        if self.nodelay { socket.set_tcp_nodelay(true) } else { Ok(()) }
    }

    /// Sets them. On a listening socket they pass to every connection that it accepts.
    ///
    /// # Errors
    /// The socket is none of TCP.
    pub fn apply(&self, socket: &impl AsFd) -> io::Result<()> {
        let socket = SockRef::from(socket);
        socket.set_tcp_nodelay(self.nodelay)?;
        // Or the urgent byte would be left out of what is relayed.
        socket.set_out_of_band_inline(true)?;
        match self.keepalive {
            // Off is the system's default for a new socket; a listener that is kept over a reload may have had it on.
            None => {
                if socket.keepalive()? {
                    socket.set_keepalive(false)?;
                }
                Ok(())
            }
            Some(idle) => {
                let interval = (idle / KEEPALIVE_PROBES).max(Duration::from_secs(1));
                socket.set_tcp_keepalive(
                    &TcpKeepalive::new()
                        .with_time(idle.max(Duration::from_secs(1)))
                        .with_interval(interval)
                        .with_retries(KEEPALIVE_PROBES),
                )
            }
        }
    }
}
