//! A blocking stream socket, TCP or unix, with the verbs that tests speak in.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::PATIENCE;
use crate::pattern::{Pattern, Rng};

/// Where a stream socket listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Addr {
    /// An IP address and a port.
    Inet(SocketAddr),
    /// A unix socket's path.
    Unix(PathBuf),
}

impl Addr {
    /// A port of 127.0.0.1.
    pub fn local(port: u16) -> Self {
        Addr::Inet(([127, 0, 0, 1], port).into())
    }

    /// The IP address and the port.
    ///
    /// # Panics
    /// For a unix socket.
    pub fn inet(&self) -> SocketAddr {
        match self {
            Addr::Inet(addr) => *addr,
            Addr::Unix(path) => panic!("{} is a unix socket", path.display()),
        }
    }

    /// The port.
    ///
    /// # Panics
    /// For a unix socket.
    pub fn port(&self) -> u16 {
        self.inet().port()
    }

    pub(crate) fn sock(&self) -> SockAddr {
        match self {
            Addr::Inet(addr) => (*addr).into(),
            Addr::Unix(path) => SockAddr::unix(path).unwrap(),
        }
    }

    pub(crate) fn socket(&self) -> io::Result<Socket> {
        let domain = match self {
            Addr::Inet(addr) => Domain::for_address(*addr),
            Addr::Unix(_) => Domain::UNIX,
        };
        Socket::new(domain, Type::STREAM, None)
    }
}

impl From<SocketAddr> for Addr {
    fn from(addr: SocketAddr) -> Self {
        Addr::Inet(addr)
    }
}

impl From<(IpAddr, u16)> for Addr {
    fn from(addr: (IpAddr, u16)) -> Self {
        Addr::Inet(addr.into())
    }
}

impl From<&Path> for Addr {
    fn from(path: &Path) -> Self {
        Addr::Unix(path.to_owned())
    }
}

/// As the config and the admin API write it.
impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Addr::Inet(addr) => addr.fmt(f),
            Addr::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for Addr {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("unix:") {
            Some(path) => Ok(Addr::Unix(path.into())),
            None => text.parse().map(Addr::Inet),
        }
    }
}

/// A connected stream. Reads and writes fail after [`PATIENCE`], so that no test hangs.
#[derive(Debug)]
pub struct Conn(Socket);

impl Conn {
    /// Takes a connected socket.
    pub fn new(socket: Socket) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        let _ = socket.set_tcp_nodelay(true);
        Conn(socket)
    }

    /// Connects.
    ///
    /// # Panics
    /// When nobody listens there.
    pub fn connect(addr: &Addr) -> Self {
        Conn::try_connect(addr).unwrap_or_else(|error| panic!("connect to {addr}: {error}"))
    }

    /// Connects.
    ///
    /// # Errors
    /// When nobody listens there, or the handshake fails.
    pub fn try_connect(addr: &Addr) -> io::Result<Self> {
        let socket = addr.socket()?;
        // A blocking connect, not one with a timeout: that looks at the socket some time after the handshake, and
        // would blame a reset that came just behind it on the connect. It also limits itself: sends do.
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.connect(&addr.sock())?;
        Ok(Conn::new(socket))
    }

    /// Shrinks the receive buffer, so that unread bytes press back soon.
    pub fn read_slowly(&self) {
        self.0.set_recv_buffer_size(16 * 1024).unwrap();
    }

    /// Reads at a steady pace for so long, far slower than anybody sends. Returns how many bytes came.
    ///
    /// # Panics
    /// When the connection ends or fails meanwhile.
    #[track_caller]
    pub fn sip(&self, during: Duration) -> usize {
        let (begun, mut came, mut buffer) = (Instant::now(), 0, [0; 4096]);
        while begun.elapsed() < during {
            let n = (&self.0).read(&mut buffer).expect("a slow reader is cut off");
            assert_ne!(n, 0, "a slow reader is sent away after {came} bytes");
            came += n;
            std::thread::sleep(Duration::from_millis(10));
        }
        came
    }

    /// Connects from a given local address.
    ///
    /// # Panics
    /// When that fails.
    pub fn connect_from(local: IpAddr, addr: &Addr) -> Self {
        let socket = addr.socket().unwrap();
        socket.bind(&SocketAddr::from((local, 0)).into()).unwrap();
        socket.connect(&addr.sock()).unwrap();
        Conn::new(socket)
    }

    /// Another handle of the same connection.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn again(&self) -> io::Result<Conn> {
        self.0.try_clone().map(Conn)
    }

    /// The socket itself.
    pub fn socket(&self) -> &Socket {
        &self.0
    }

    /// Our own address.
    pub fn local(&self) -> SocketAddr {
        self.0.local_addr().unwrap().as_socket().unwrap()
    }

    /// Changes how long a read waits.
    pub fn patience(&self, limit: Duration) {
        self.0.set_read_timeout(Some(limit)).unwrap();
    }

    /// Sends everything.
    ///
    /// # Errors
    /// As the socket says.
    pub fn try_send(&self, bytes: &[u8]) -> io::Result<()> {
        (&self.0).write_all(bytes)
    }

    /// Sends everything.
    ///
    /// # Panics
    /// When it can't.
    pub fn send(&self, bytes: &[u8]) {
        self.try_send(bytes).unwrap_or_else(|error| panic!("send {} bytes: {error}", bytes.len()));
    }

    /// Reads exactly `len` bytes.
    ///
    /// # Panics
    /// When the stream ends or fails before.
    pub fn recv(&self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        (&self.0).read_exact(&mut bytes).unwrap_or_else(|error| panic!("read {len} bytes: {error}"));
        bytes
    }

    /// Reads to the end of the stream.
    ///
    /// # Panics
    /// When it fails before.
    pub fn recv_all(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        (&self.0).read_to_end(&mut bytes).unwrap_or_else(|error| panic!("read to the end: {error}"));
        bytes
    }

    /// Reads a line, without its end.
    ///
    /// # Panics
    /// When the stream ends or fails before.
    pub fn line(&self) -> String {
        let mut line = Vec::new();
        loop {
            match self.recv(1)[0] {
                b'\n' => return String::from_utf8(line).unwrap(),
                byte => line.push(byte),
            }
        }
    }

    /// Sends `bytes` and expects the very same back.
    ///
    /// # Panics
    /// When anything else comes.
    pub fn echo(&self, bytes: &[u8]) {
        self.send(bytes);
        assert!(self.recv(bytes.len()) == bytes, "the echo differs");
    }

    /// Says that no more will be sent.
    pub fn finish(&self) {
        // The other side may have closed in the meantime.
        let _ = self.0.shutdown(Shutdown::Write);
    }

    /// Closes with a reset instead of a FIN.
    pub fn reset(self) {
        self.0.set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// Expects the end of the stream now.
    ///
    /// # Panics
    /// On bytes or an error.
    pub fn expect_end(&self) {
        match (&self.0).read(&mut [0; 64]) {
            Ok(0) => {}
            other => panic!("expected the end of the stream, got {other:?}"),
        }
    }

    /// Expects a reset now; bytes that came before it are skipped.
    ///
    /// # Panics
    /// On an orderly end or another error.
    pub fn expect_reset(&self) {
        let mut bytes = [0; 65_536];
        loop {
            match (&self.0).read(&mut bytes) {
                Ok(1..) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return,
                other => panic!("expected a reset, got {other:?}"),
            }
        }
    }

    /// Expects that the other side ends the connection, in whatever way.
    ///
    /// # Panics
    /// On bytes, or when it stays open.
    pub fn expect_closed(&self) {
        match (&self.0).read(&mut [0; 64]) {
            Ok(0) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            other => panic!("expected the connection to be closed, got {other:?}"),
        }
    }

    /// Sends the first `total` bytes of a pattern in chunks of chance; says how many went out before an error.
    ///
    /// # Errors
    /// As the socket says.
    pub fn send_pattern(&self, pattern: &Pattern, total: u64, rng: &mut Rng) -> io::Result<()> {
        let mut sent = 0;
        while sent < total {
            let most = rng.chunk().min((total - sent) as usize);
            let part = pattern.slice(sent, most);
            self.try_send(part)?;
            sent += part.len() as u64;
        }
        Ok(())
    }

    /// Reads exactly the first `total` bytes of a pattern, in reads of chance, comparing each.
    ///
    /// # Panics
    /// On a difference, and when the stream ends or fails before.
    pub fn recv_pattern(&self, pattern: &Pattern, total: u64, rng: &mut Rng) {
        let mut buffer = vec![0; 262_144];
        let mut got = 0;
        while got < total {
            let most = rng.chunk().min((total - got) as usize);
            let n = (&self.0)
                .read(&mut buffer[..most])
                .unwrap_or_else(|error| panic!("after {got} bytes: {error}"));
            assert_ne!(n, 0, "the stream ended after {got} of {total} bytes");
            pattern.check(got, &buffer[..n]);
            got += n as u64;
        }
    }
}

impl Read for &Conn {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.0).read(buffer)
    }
}

impl Write for &Conn {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&self.0).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Conn {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
}

impl Write for Conn {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A port that is free on every address, for TCP and UDP: for programs that can't be told to pick one themselves. It is
/// none of those that the kernel gives to clients, so that no connection takes it before it is bound, and no two calls
/// of a process give the same.
pub fn free_port() -> u16 {
    /// Below the ports that Linux gives to clients, unless it is told otherwise, and above those of well-known services.
    const PORTS: std::ops::Range<u32> = 16_000..32_000;
    static NEXT: std::sync::OnceLock<AtomicU32> = std::sync::OnceLock::new();
    // Tests of several binaries may run beside each other: each process begins somewhere else.
    let next = NEXT.get_or_init(|| AtomicU32::new(std::process::id().wrapping_mul(7919)));
    let is_free = |port: u16| {
        let any = (std::net::Ipv4Addr::UNSPECIFIED, port);
        std::net::TcpListener::bind(any).is_ok() && std::net::UdpSocket::bind(any).is_ok()
    };
    for _ in PORTS {
        let number = next.fetch_add(1, Ordering::Relaxed) % (PORTS.end - PORTS.start);
        let port = u16::try_from(PORTS.start + number).unwrap();
        if is_free(port) {
            return port;
        }
    }
    panic!("no port is free")
}

/// An address where nobody listens: connecting is refused at once. The port stays taken while the value lives.
#[derive(Debug)]
pub struct Closed(Socket);

impl Closed {
    /// Takes a port and never listens on it.
    #[allow(clippy::new_without_default, reason = "it takes a port, which is no default")]
    pub fn new() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        Closed(socket)
    }

    /// The address.
    pub fn addr(&self) -> Addr {
        Addr::Inet(self.0.local_addr().unwrap().as_socket().unwrap())
    }
}
