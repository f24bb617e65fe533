//! A connection to the proxy, in the clear or over TLS, that is written to at once and read from when there is something.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use anyhow::{Result, bail};
use rustix::net::RecvFlags;
use rustls::{ClientConfig, ClientConnection};

use super::super::{connect, tls};
use crate::cli::LoadArgs;
use crate::scenario::Kind;

pub(super) struct Dialer {
    target: SocketAddr,
    config: Option<Arc<ClientConfig>>,
}

pub(super) enum Transport {
    Clear(TcpStream),
    Tls(Box<ClientConnection>, TcpStream),
}

/// A socket that blocks, read without waiting.
struct DontWait<'a>(&'a TcpStream);

impl Dialer {
    pub(super) fn new(args: &LoadArgs, alpn: &[&[u8]]) -> Result<Self> {
        let is_tls = matches!(args.kind, Kind::HttpTls | Kind::HttpTlsIdle | Kind::HttpH2 | Kind::FileTls);
        let config = if is_tls { Some(tls::config(args, alpn)?) } else { None };
        Ok(Self { target: args.target, config })
    }

    pub(super) fn dial(&self) -> Result<Transport> {
        let Some(config) = &self.config else { return Ok(Transport::Clear(connect(self.target)?)) };
        let (session, socket) = tls::open(config, self.target)?.into_parts();
        if let Some(wanted) = config.alpn_protocols.first()
            && session.alpn_protocol() != Some(wanted)
        {
            bail!("the proxy does not speak {}", String::from_utf8_lossy(wanted));
        }
        Ok(Transport::Tls(Box::new(session), socket))
    }
}

impl Transport {
    pub(super) fn socket(&self) -> &TcpStream {
        match self {
            Self::Clear(socket) | Self::Tls(_, socket) => socket,
        }
    }

    /// Sends all of `data`, however long that takes.
    pub(super) fn send(&mut self, data: &[u8]) -> Result<()> {
        match self {
            Self::Clear(socket) => Ok(socket.write_all(data)?),
            Self::Tls(session, socket) => {
                session.writer().write_all(data)?;
                while session.wants_write() {
                    session.write_tls(socket)?;
                }
                Ok(())
            }
        }
    }

    /// What has come: so many bytes, 0 at the end, and `None` if there is nothing now. Over TLS there may be more of it
    /// than the socket knows of until this says `None`.
    pub(super) fn receive(&mut self, into: &mut [u8]) -> Result<Option<usize>> {
        match self {
            Self::Clear(socket) => or_nothing(DontWait(socket).read(into)),
            Self::Tls(session, socket) => loop {
                if let Some(len) = or_nothing(session.reader().read(into))? {
                    return Ok(Some(len));
                }
                match or_nothing(session.read_tls(&mut DontWait(socket)))? {
                    None => return Ok(None),
                    Some(_) => session.process_new_packets()?,
                };
            },
        }
    }
}

impl Read for DontWait<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        Ok(rustix::net::recv(self.0, into, RecvFlags::DONTWAIT)?.0)
    }
}

fn or_nothing(result: std::io::Result<usize>) -> Result<Option<usize>> {
    match result {
        Ok(len) => Ok(Some(len)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error.into()),
    }
}
