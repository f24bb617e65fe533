//! Binding: one socket for each worker behind every address.
//!
//! The kernel spreads connections and datagrams over sockets that share a port (SO_REUSEPORT, socket(7)). That option
//! would also let a second instance of this program in beside the first, to take half of its traffic in silence.
//! So the first socket of an address is bound *without* it, which fails if anybody else is there; only then is the
//! option set, for our own further sockets to join.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::addr::{Address, AddressSpec, Host, Protocol};
use crate::limit::Gate;
use crate::record::ListenerMetrics;
use crate::socket_file::SocketFile;
use crate::udp;

/// Connections that wait for `accept`; the kernel lowers it to net.core.somaxconn.
pub(crate) const BACKLOG: i32 = 4096;

/// How often a port is picked for several addresses: one that is free at the first may be taken at the next.
const PICKS: u32 = 8;

/// The sockets of one address, one for each worker. They belong to the process, not to a configuration.
#[derive(Debug)]
pub struct Bound {
    /// What is spoken there.
    pub protocol: Protocol,
    /// The address with its real port.
    pub address: Address,
    /// A unix socket's file goes when its socket goes: just before it, as long as no other file can have its inode.
    _file: Option<SocketFile>,
    sockets: Vec<Arc<OwnedFd>>,
}

/// A bound address at work: its sockets, its counters and its limits. It outlives the configurations that name it.
#[derive(Debug)]
pub struct Listener {
    /// The sockets; a listener that gets another name keeps them.
    pub bound: Arc<Bound>,
    /// What happened there.
    pub metrics: Arc<ListenerMetrics>,
    /// How many may come in.
    pub gate: Arc<Gate>,
}

impl Listener {
    /// Puts a name and fresh counters to a bound address. Several addresses may have one gate.
    pub fn new(name: Arc<str>, bound: Arc<Bound>, gate: Arc<Gate>, workers: usize) -> Arc<Listener> {
        let metrics = ListenerMetrics::new(name, bound.protocol, bound.address.clone(), workers);
        Arc::new(Listener { bound, metrics: Arc::new(metrics), gate })
    }
}

impl Bound {
    /// The socket of a worker.
    pub fn socket(&self, worker: usize) -> Arc<OwnedFd> {
        self.sockets[worker % self.sockets.len()].clone()
    }

    /// Whether clients may reach it at more than one address.
    pub fn is_wildcard(&self) -> bool {
        self.address.ip().is_some_and(|ip| ip.is_unspecified())
    }
}

/// Binds an address for so many workers. A name and `:port` may stand for several addresses, hence the list.
///
/// # Errors
/// The first address that could not be bound; nothing stays bound then. The text names it.
pub fn bind(protocol: Protocol, spec: &AddressSpec, workers: usize) -> io::Result<Vec<Bound>> {
    let explain = |address: &dyn std::fmt::Display, error: io::Error| {
        let why = match error.kind() {
            io::ErrorKind::AddrInUse => "the address is in use".to_owned(),
            io::ErrorKind::PermissionDenied => {
                "permission denied; ports below 1024 need privileges".to_owned()
            }
            io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
            _ => error.to_string(),
        };
        io::Error::new(error.kind(), format!("can't listen on {protocol}://{address}: {why}"))
    };
    let (host, port) = match spec {
        AddressSpec::Unix(path) => {
            return bind_unix(path).map(|bound| vec![bound]).map_err(|e| explain(spec, e));
        }
        AddressSpec::Inet { host, first_port, .. } => (host, *first_port),
    };
    let ips = addresses(host, port).map_err(|e| explain(spec, e))?;
    let mut tries = if port == 0 { PICKS } else { 1 };
    loop {
        tries -= 1;
        match bind_all(protocol, &ips, port, workers, !matches!(host, Host::Ip(_))) {
            Err((_, error)) if error.kind() == io::ErrorKind::AddrInUse && tries > 0 => {}
            done => return done.map_err(|(addr, error)| explain(&addr, error)),
        }
    }
}

/// Binds every address, or none; with port 0 the first one picks and the others follow.
fn bind_all(
    protocol: Protocol,
    ips: &[IpAddr],
    port: u16,
    workers: usize,
    some_will_do: bool,
) -> Result<Vec<Bound>, (SocketAddr, io::Error)> {
    let mut all: Vec<Bound> = Vec::new();
    for &ip in ips {
        let port = match all.first() {
            Some(Bound { address: Address::Inet(first), .. }) => first.port(),
            _ => port,
        };
        let addr = SocketAddr::new(ip, port);
        match bind_inet(protocol, addr, workers) {
            Ok(bound) => all.push(bound),
            // A machine without IPv6 has no `::`, though its `localhost` may have one; all addresses then means all that
            // there are.
            Err(error) if some_will_do && !all.is_empty() && is_no_ipv6(&error) => {}
            Err(error) => return Err((addr, error)),
        }
    }
    Ok(all)
}

fn is_no_ipv6(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
}

fn addresses(host: &Host, port: u16) -> io::Result<Vec<IpAddr>> {
    Ok(match host {
        Host::Any => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
        Host::Ip(ip) => vec![*ip],
        Host::Name(name) => {
            let mut ips: Vec<IpAddr> = (name.as_str(), port).to_socket_addrs()?.map(|a| a.ip()).collect();
            ips.sort_unstable();
            ips.dedup();
            ips
        }
    })
}

fn bind_inet(protocol: Protocol, addr: SocketAddr, workers: usize) -> io::Result<Bound> {
    let first = open(protocol, addr)?;
    bind_one(protocol, &first, addr)?;
    let addr = first.local_addr()?.as_socket().unwrap_or(addr);
    let mut sockets = vec![first];
    if workers > 1 {
        sockets[0].set_reuse_port(true)?;
    }
    for _ in 1..workers {
        let socket = open(protocol, addr)?;
        socket.set_reuse_port(true)?;
        bind_one(protocol, &socket, addr)?;
        sockets.push(socket);
    }
    let sockets = sockets.into_iter().map(|socket| Arc::new(OwnedFd::from(socket))).collect();
    Ok(Bound { protocol, address: Address::Inet(addr), sockets, _file: None })
}

fn open(protocol: Protocol, addr: SocketAddr) -> io::Result<Socket> {
    let kind = match protocol {
        Protocol::Tcp => Type::STREAM,
        Protocol::Udp => Type::DGRAM,
    };
    let socket = Socket::new(Domain::for_address(addr), kind.nonblocking().cloexec(), None)?;
    if addr.is_ipv6() {
        // `0.0.0.0` has a socket of its own, so that an IPv4 client is never shown as `::ffff:…`.
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

fn bind_one(protocol: Protocol, socket: &Socket, addr: SocketAddr) -> io::Result<()> {
    match protocol {
        Protocol::Tcp => {
            // Connections of an earlier run in TIME_WAIT must not stop this one. For UDP the same option would let
            // strangers share the port.
            socket.set_reuse_address(true)?;
            socket.bind(&SockAddr::from(addr))?;
            socket.listen(BACKLOG)
        }
        Protocol::Udp => {
            udp::prepare_listener(socket, addr.ip())?;
            socket.bind(&SockAddr::from(addr))
        }
    }
}

fn bind_unix(path: &Path) -> io::Result<Bound> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    let address = SockAddr::unix(path)?;
    if let Err(error) = socket.bind(&address) {
        if error.kind() != io::ErrorKind::AddrInUse || !is_stale(path, &address)? {
            return Err(error);
        }
        std::fs::remove_file(path)?;
        socket.bind(&address)?;
    }
    let file = SocketFile::at(path)?;
    socket.listen(BACKLOG)?;
    // One queue for all workers: the kernel has no SO_REUSEPORT for unix sockets.
    let socket = Arc::new(OwnedFd::from(socket));
    Ok(Bound {
        protocol: Protocol::Tcp,
        address: Address::Unix(path.to_owned()),
        sockets: vec![socket],
        _file: Some(file),
    })
}

/// Whether a socket file was left behind by a process that is gone: nobody answers there.
fn is_stale(path: &Path, address: &SockAddr) -> io::Result<bool> {
    if !std::fs::symlink_metadata(path)?.file_type().is_socket() {
        return Ok(false);
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    Ok(matches!(probe.connect(address), Err(error) if error.kind() == io::ErrorKind::ConnectionRefused))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> AddressSpec {
        text.parse().unwrap()
    }

    #[test]
    fn a_second_instance_is_refused_on_the_same_and_on_overlapping_addresses() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for workers in [1, 3] {
                let first = bind(protocol, &spec("127.0.0.1:0"), workers).unwrap();
                let Address::Inet(addr) = first[0].address else { panic!("an internet address") };
                for again in [format!("127.0.0.1:{}", addr.port()), format!("0.0.0.0:{}", addr.port())] {
                    let error = bind(protocol, &spec(&again), workers).unwrap_err();
                    assert_eq!(
                        error.kind(),
                        io::ErrorKind::AddrInUse,
                        "{protocol} {again} {workers}: {error}"
                    );
                    assert!(error.to_string().contains(&again), "{error}");
                }
                bind(protocol, &spec(&format!("127.0.0.2:{}", addr.port())), workers).unwrap();
                drop(first);
                bind(protocol, &spec(&addr.to_string()), workers).unwrap();
            }
        }
    }

    #[test]
    fn every_worker_has_a_socket_of_its_own() {
        let bound = bind(Protocol::Tcp, &spec("127.0.0.1:0"), 4).unwrap();
        let fds: std::collections::HashSet<_> =
            (0..4).map(|i| std::os::fd::AsRawFd::as_raw_fd(&*bound[0].socket(i))).collect();
        assert_eq!(fds.len(), 4);
    }

    #[test]
    fn all_addresses_share_the_port_that_the_system_chose() {
        let all = bind(Protocol::Udp, &spec(":0"), 2).unwrap();
        let ports: std::collections::HashSet<_> = all
            .iter()
            .map(|bound| match &bound.address {
                Address::Inet(addr) => addr.port(),
                Address::Unix(_) => 0,
            })
            .collect();
        assert_eq!(ports.len(), 1);
        assert!(all.iter().all(Bound::is_wildcard));
    }

    #[test]
    fn a_stale_unix_socket_is_replaced_and_a_live_one_is_not() {
        let dir = std::env::temp_dir().join(format!("wmproxy-listen-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("x.sock");
        let unix = AddressSpec::Unix(path.clone());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let live = bind(Protocol::Tcp, &unix, 2).unwrap();
        assert_eq!(bind(Protocol::Tcp, &unix, 2).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(live);
        assert!(!path.exists());
        let replaced = bind(Protocol::Tcp, &unix, 1).unwrap();
        std::fs::remove_file(&path).unwrap();
        let other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        drop(replaced);
        assert!(path.exists(), "the file of another process was removed");
        drop(other);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "precious").unwrap();
        assert!(bind(Protocol::Tcp, &unix, 1).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
