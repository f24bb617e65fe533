//! Where the admin API listens.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use wmproxy_net::addr::{Address, AddressSpec, Host};
use wmproxy_net::socket_file::SocketFile;

/// An admin API that listens and does not answer yet.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(super) listener: Listener,
    /// What it was told to listen on.
    pub(super) listen: AddressSpec,
    address: Address,
    /// Within which a request's head has to arrive.
    pub(super) header_timeout: Duration,
}

#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    /// The file goes with the listener.
    Unix {
        listener: UnixListener,
        _file: SocketFile,
    },
}

/// A connection of either kind.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Nobody but the owner may connect.
const SOCKET_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// A person types faster, and a stuck request costs a place.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// A person and a scraper or two come here; the system's queue need not be long.
const BACKLOG: i32 = 64;

impl Bound {
    /// Listens. Must be called on a runtime.
    ///
    /// # Errors
    /// When the address is taken, does not resolve, or is not ours to listen on.
    pub(crate) async fn bind(listen: &AddressSpec) -> io::Result<Bound> {
        let (listener, address) = match listen {
            AddressSpec::Unix(path) => {
                let (listener, file) = bind_unix(path)?;
                (Listener::Unix { listener, _file: file }, Address::Unix(path.clone()))
            }
            AddressSpec::Inet { host, first_port, .. } => {
                let listener = bind_tcp(host, *first_port).await?;
                let address = Address::Inet(listener.local_addr()?);
                (Listener::Tcp(listener), address)
            }
        };
        Ok(Bound { listener, listen: listen.clone(), address, header_timeout: HEADER_TIMEOUT })
    }

    /// Where it listens, with the port that the system chose if it was to choose one.
    pub(crate) fn address(&self) -> &Address {
        &self.address
    }
}

impl Listener {
    pub(super) async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Listener::Tcp(listener) => Ok(Box::new(listener.accept().await?.0)),
            Listener::Unix { listener, .. } => Ok(Box::new(listener.accept().await?.0)),
        }
    }
}

async fn bind_tcp(host: &Host, port: u16) -> io::Result<TcpListener> {
    match host {
        Host::Ip(ip) => TcpListener::bind(SocketAddr::new(*ip, port)).await,
        Host::Name(name) => TcpListener::bind((name.as_str(), port)).await,
        Host::Any => match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
            // A machine without IPv6.
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error()) => {
                TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await
            }
            other => other,
        },
    }
}

fn bind_unix(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    remove_stale(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // Linux makes the file with the mode of the socket: it is never open to others, not even for a moment.
    rustix::fs::fchmod(&socket, SOCKET_MODE)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    let file = SocketFile::at(path)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok((UnixListener::from_std(socket.into())?, file))
}

/// Removes the socket file that a killed process left behind; one that somebody answers on stays.
fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the file is there and is no socket"));
        }
        Ok(_) => {}
    }
    match StdUnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process answers on this socket")),
        // Full or forbidden: somebody is there.
        Err(error) => Err(error),
    }
}
