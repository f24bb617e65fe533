//! Binding: one socket for each worker behind every address.
//!
//! The kernel spreads connections and datagrams over sockets that share a port (SO_REUSEPORT, socket(7)). That option
//! would also let a second instance of this program in beside the first, to take half of its traffic in silence.
//! So the first socket of an address is bound *without* it, which fails if anybody else is there; only then is the
//! option set, for our own further sockets to join. Among these are those that take the place of others of ours: on a
//! wider or narrower address, or of another kind ([`bind_beside`]).

mod handshakes;
mod leaving;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustix::io::Errno;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use tokio::sync::OnceCell;

use crate::addr::{Address, AddressSpec, Host, Protocol};
use crate::limit::Gate;
use crate::record::ListenerMetrics;
use crate::socket_file::SocketFile;
use crate::sockopt::{ListenSocket, Refusal};
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
    /// What is set on them.
    options: Mutex<ListenSocket>,
    /// Whether clients may reach it at more than one address.
    many_addresses: AtomicBool,
    /// Whether others were bound to replace them at the very same address: the kernel spreads clients over all of them.
    is_shared: AtomicBool,
    /// Whether newcomers are led past them, once they are to be closed.
    is_aside: OnceLock<bool>,
    /// Nobody is on the way to them any more.
    deserted: OnceCell<()>,
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
    pub fn has_many_addresses(&self) -> bool {
        self.many_addresses.load(Ordering::Relaxed)
    }

    /// What is set on the sockets.
    pub fn options(&self) -> ListenSocket {
        self.options.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets options on the sockets in use. Connections that are open keep what they have.
    ///
    /// # Errors
    /// The system refuses one, though [`ListenSocket::probe`] had shown that it would not.
    pub fn apply(&self, options: &ListenSocket) -> io::Result<()> {
        let mut now = self.options.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(ip) = self.address.ip().filter(|_| *now != *options) else { return Ok(()) };
        for socket in &self.sockets {
            prepare(self.protocol, &SockRef::from(socket), ip, options)?;
        }
        self.many_addresses.store(has_many_addresses(ip, options), Ordering::Relaxed);
        *now = options.clone();
        Ok(())
    }

    /// Lets clients in on sockets that [`bind_beside`] bound; on others nothing happens.
    ///
    /// # Errors
    /// The address was taken meanwhile.
    pub fn open(&self) -> io::Result<()> {
        let listens = |socket: &&Arc<OwnedFd>| SockRef::from(*socket).is_listener().unwrap_or(true);
        let mut closed =
            self.sockets.iter().filter(|socket| self.protocol == Protocol::Tcp && !listens(socket));
        closed.try_for_each(|socket| SockRef::from(socket).listen(BACKLOG))
    }
}

/// Binds an address for so many workers. A name and `:port` may stand for several addresses, hence the list.
///
/// # Errors
/// The first address that could not be bound; nothing stays bound then. The text names it.
pub fn bind(
    protocol: Protocol,
    spec: &AddressSpec,
    workers: usize,
    options: &ListenSocket,
) -> io::Result<Vec<Bound>> {
    bind_beside(&[], protocol, spec, workers, options)
}

/// The same on a TCP port where sockets of ours, `old`, are in the way: the new ones join them (SO_REUSEPORT), and let
/// nobody in before [`Bound::open`]. As long as both are open, the kernel prefers the narrower address.
///
/// # Errors
/// As above. Whoever has become another user since can't join what it bound before.
pub fn bind_beside(
    old: &[Arc<Bound>],
    protocol: Protocol,
    spec: &AddressSpec,
    workers: usize,
    options: &ListenSocket,
) -> io::Result<Vec<Bound>> {
    let explain = |address: &dyn std::fmt::Display, error: io::Error| {
        let why = match error.kind() {
            // It says all of it.
            _ if Refusal::is_in(&error) => error.to_string(),
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
        let binding = Binding { protocol, workers, options, old };
        match binding.bind_all(&ips, port, !matches!(host, Host::Ip(_))) {
            Err((_, error)) if error.kind() == io::ErrorKind::AddrInUse && tries > 0 => {}
            done => return done.map_err(|(addr, error)| explain(&addr, error)),
        }
    }
}

/// What all sockets of a listener have in common.
struct Binding<'a> {
    protocol: Protocol,
    workers: usize,
    options: &'a ListenSocket,
    /// Sockets to join.
    old: &'a [Arc<Bound>],
}

impl Binding<'_> {
    /// Binds every address, or none; with port 0 the first one picks and the others follow.
    fn bind_all(
        &self,
        ips: &[IpAddr],
        port: u16,
        some_will_do: bool,
    ) -> Result<Vec<Bound>, (SocketAddr, io::Error)> {
        let mut all: Vec<Bound> = Vec::new();
        for &ip in ips {
            let port = match all.first() {
                Some(Bound { address: Address::Inet(first), .. }) => first.port(),
                _ => port,
            };
            let addr = SocketAddr::new(ip, port);
            match self.bind(addr) {
                Ok(bound) => all.push(bound),
                // A machine without IPv6 has no `::`, though its `localhost` may have one; all addresses then means all
                // that there are.
                Err(error) if some_will_do && !all.is_empty() && is_no_ipv6(&error) => {}
                Err(error) => return Err((addr, error)),
            }
        }
        Ok(all)
    }

    /// Binds one address for every worker.
    fn bind(&self, addr: SocketAddr) -> io::Result<Bound> {
        let joins = !self.old.is_empty();
        for old in self.old {
            for socket in &old.sockets {
                SockRef::from(socket).set_reuse_port(true)?;
            }
            if old.address == Address::Inet(addr) {
                old.is_shared.store(true, Ordering::Relaxed);
            }
        }
        let first = self.bind_one(addr, joins)?;
        let addr = first.local_addr()?.as_socket().unwrap_or(addr);
        let mut sockets = vec![first];
        if self.workers > 1 {
            sockets[0].set_reuse_port(true)?;
        }
        for _ in 1..self.workers {
            sockets.push(self.bind_one(addr, true)?);
        }
        let sockets = sockets.into_iter().map(|socket| Arc::new(OwnedFd::from(socket))).collect();
        Ok(Bound {
            protocol: self.protocol,
            address: Address::Inet(addr),
            _file: None,
            sockets,
            options: Mutex::new(self.options.clone()),
            many_addresses: has_many_addresses(addr.ip(), self.options).into(),
            is_shared: false.into(),
            is_aside: OnceLock::new(),
            deserted: OnceCell::new(),
        })
    }

    fn bind_one(&self, addr: SocketAddr, reuse_port: bool) -> io::Result<Socket> {
        let socket = self.options.open(self.protocol, Domain::for_address(addr))?;
        if addr.is_ipv6() {
            // `0.0.0.0` has a socket of its own, so that an IPv4 client is never shown as `::ffff:…`.
            socket.set_only_v6(true)?;
        }
        if reuse_port {
            socket.set_reuse_port(true)?;
        }
        prepare(self.protocol, &socket, addr.ip(), self.options)?;
        if self.protocol == Protocol::Tcp {
            // Connections of an earlier run in TIME_WAIT must not stop this one. For UDP the same option would let
            // strangers share the port.
            socket.set_reuse_address(true)?;
        }
        socket.bind(&SockAddr::from(addr))?;
        if self.protocol == Protocol::Tcp && self.old.is_empty() {
            socket.listen(BACKLOG)?;
        }
        Ok(socket)
    }
}

/// Sets the options of a listener's socket, new or in use.
fn prepare(protocol: Protocol, socket: &Socket, ip: IpAddr, options: &ListenSocket) -> io::Result<()> {
    options.apply(socket, protocol, ip.is_ipv4())?;
    match protocol {
        Protocol::Tcp => Ok(()),
        Protocol::Udp => udp::prepare_listener(socket, ip, has_many_addresses(ip, options)),
    }
}

fn has_many_addresses(ip: IpAddr, options: &ListenSocket) -> bool {
    ip.is_unspecified() || options.transparent
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
        // None of them is of use there.
        options: Mutex::default(),
        many_addresses: false.into(),
        is_shared: false.into(),
        is_aside: OnceLock::new(),
        deserted: OnceCell::new(),
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

    fn plain(protocol: Protocol, spec: &AddressSpec, workers: usize) -> io::Result<Vec<Bound>> {
        bind(protocol, spec, workers, &ListenSocket::default())
    }

    fn spec(text: &str) -> AddressSpec {
        text.parse().unwrap()
    }

    #[test]
    fn a_second_instance_is_refused_on_the_same_and_on_overlapping_addresses() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for workers in [1, 3] {
                let first = plain(protocol, &spec("127.0.0.1:0"), workers).unwrap();
                let Address::Inet(addr) = first[0].address else { panic!("an internet address") };
                for again in [format!("127.0.0.1:{}", addr.port()), format!("0.0.0.0:{}", addr.port())] {
                    let error = plain(protocol, &spec(&again), workers).unwrap_err();
                    assert_eq!(
                        error.kind(),
                        io::ErrorKind::AddrInUse,
                        "{protocol} {again} {workers}: {error}"
                    );
                    assert!(error.to_string().contains(&again), "{error}");
                }
                plain(protocol, &spec(&format!("127.0.0.2:{}", addr.port())), workers).unwrap();
                drop(first);
                plain(protocol, &spec(&addr.to_string()), workers).unwrap();
            }
        }
    }

    #[test]
    fn every_worker_has_a_socket_of_its_own() {
        let bound = plain(Protocol::Tcp, &spec("127.0.0.1:0"), 4).unwrap();
        let fds: std::collections::HashSet<_> =
            (0..4).map(|i| std::os::fd::AsRawFd::as_raw_fd(&*bound[0].socket(i))).collect();
        assert_eq!(fds.len(), 4);
    }

    #[test]
    fn all_addresses_share_the_port_that_the_system_chose() {
        let all = plain(Protocol::Udp, &spec(":0"), 2).unwrap();
        let ports: std::collections::HashSet<_> = all
            .iter()
            .map(|bound| match &bound.address {
                Address::Inet(addr) => addr.port(),
                _ => 0,
            })
            .collect();
        assert_eq!(ports.len(), 1);
        assert!(all.iter().all(Bound::has_many_addresses));
    }

    #[test]
    fn a_stale_unix_socket_is_replaced_and_a_live_one_is_not() {
        let dir = std::env::temp_dir().join(format!("wmproxy-listen-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("x.sock");
        let unix = AddressSpec::Unix(path.clone());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let live = plain(Protocol::Tcp, &unix, 2).unwrap();
        assert_eq!(plain(Protocol::Tcp, &unix, 2).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(live);
        assert!(!path.exists());
        let replaced = plain(Protocol::Tcp, &unix, 1).unwrap();
        std::fs::remove_file(&path).unwrap();
        let other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        drop(replaced);
        assert!(path.exists(), "the file of another process was removed");
        drop(other);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "precious").unwrap();
        assert!(plain(Protocol::Tcp, &unix, 1).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
