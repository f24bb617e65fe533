//! Options of TCP connections, the same on both sides of the proxy.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::io::Errno;
use socket2::{SockRef, TcpKeepalive};

use super::{Keepalive, Refusal};

/// What is set on a TCP socket, the client's or the peer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpOptions {
    /// Small writes leave at once (TCP_NODELAY, RFC 896 switched off).
    pub nodelay: bool,
    /// When a silent connection is probed.
    pub keepalive: Option<Keepalive>,
    /// How long sent data may go without an answer before the connection counts as dead (TCP_USER_TIMEOUT, RFC 5482).
    pub user_timeout: Option<Duration>,
}

impl Default for TcpOptions {
    fn default() -> Self {
        TcpOptions { nodelay: true, keepalive: None, user_timeout: None }
    }
}

impl TcpOptions {
    /// Sets them on a socket that was just opened, where what is off is off already.
    pub(crate) fn apply_to_new(&self, socket: &impl AsFd) -> Result<(), Refusal> {
        if self.keepalive.is_some() || self.user_timeout.is_some() {
            return self.apply(socket);
        }
        let socket = SockRef::from(socket);
        inline_urgent(&socket)?;
        if self.nodelay { socket.set_tcp_nodelay(true).map_err(Refusal::of("tcp_nodelay")) } else { Ok(()) }
    }

    /// Sets them. On a listening socket they pass to every connection that it accepts.
    ///
    /// # Errors
    /// The socket is none of TCP, or none of a TCP that has them all.
    pub fn apply(&self, socket: &impl AsFd) -> Result<(), Refusal> {
        let socket = SockRef::from(socket);
        socket.set_tcp_nodelay(self.nodelay).map_err(Refusal::of("tcp_nodelay"))?;
        inline_urgent(&socket)?;
        self.set_keepalive(&socket).map_err(Refusal::of("tcp_keepalive"))?;
        // What is off already is not asked for again: MPTCP has no such option.
        if self.user_timeout.is_some() || socket.tcp_user_timeout().is_ok_and(|now| now.is_some()) {
            socket.set_tcp_user_timeout(self.user_timeout).map_err(Refusal::of("tcp_user_timeout"))?;
        }
        Ok(())
    }

    fn set_keepalive(&self, socket: &SockRef<'_>) -> io::Result<()> {
        match self.keepalive {
            // Off is the system's default for a new socket; a listener that is kept over a reload may have had it on.
            None if socket.keepalive()? => socket.set_keepalive(false),
            None => Ok(()),
            Some(Keepalive { idle, interval, count, .. }) => socket.set_tcp_keepalive(
                &TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(count),
            ),
        }
    }
}

/// Has the urgent byte (RFC 9293 section 3.8.5) come in its place, or it would be left out of what is relayed.
fn inline_urgent(socket: &SockRef<'_>) -> Result<(), Refusal> {
    match socket.set_out_of_band_inline(true) {
        // MPTCP has no urgent data.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::OPNOTSUPP) => Ok(()),
        done => done.map_err(Refusal::of("SO_OOBINLINE")),
    }
}
