//! UDP servers for the proxy to stand before, and a client.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use crate::PATIENCE;
use crate::wait::eventually;

/// Receive buffers: as much as the system grants without privilege, for bursts.
const BUFFER: usize = 4 << 20;

/// What a server got and from where.
pub type Received = (Vec<u8>, SocketAddr);

/// A server on one thread. Stops when dropped.
#[derive(Debug)]
pub struct UdpBackend {
    socket: Arc<UdpSocket>,
    stopping: Arc<AtomicBool>,
    received: Arc<AtomicUsize>,
    last: Arc<Mutex<Option<Received>>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl UdpBackend {
    /// Answers each datagram with what `handler` returns, on a free port of 127.0.0.1.
    pub fn start(handler: impl FnMut(&[u8], SocketAddr) -> Vec<Vec<u8>> + Send + 'static) -> Self {
        UdpBackend::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), handler)
    }

    /// [`UdpBackend::start`] at a given address.
    ///
    /// # Panics
    /// When the address is taken.
    pub fn start_at(
        addr: SocketAddr,
        mut handler: impl FnMut(&[u8], SocketAddr) -> Vec<Vec<u8>> + Send + 'static,
    ) -> Self {
        let socket = Arc::new(bind(addr));
        let stopping = Arc::new(AtomicBool::new(false));
        let received = Arc::new(AtomicUsize::new(0));
        let last = Arc::new(Mutex::new(None));
        let thread = {
            let (socket, stopping) = (socket.clone(), stopping.clone());
            let (received, last) = (received.clone(), last.clone());
            thread::spawn(move || {
                let mut buffer = vec![0; 65_536];
                loop {
                    // An ICMP error of an earlier answer also comes out here: it is no reason to stop.
                    let got = socket.recv_from(&mut buffer);
                    if stopping.load(Ordering::SeqCst) {
                        return;
                    }
                    let Ok((len, from)) = got else { continue };
                    // Noted before it is answered: who has the answer may look here next.
                    *last.lock().unwrap() = Some((buffer[..len].to_vec(), from));
                    received.fetch_add(1, Ordering::SeqCst);
                    for reply in handler(&buffer[..len], from) {
                        let _ = socket.send_to(&reply, from);
                    }
                }
            })
        };
        UdpBackend { socket, stopping, received, last, thread: Some(thread) }
    }

    /// Sends each datagram back.
    pub fn echo() -> Self {
        UdpBackend::start(|bytes, _| vec![bytes.to_vec()])
    }

    /// [`UdpBackend::echo`] at a given address.
    pub fn echo_at(addr: SocketAddr) -> Self {
        UdpBackend::start_at(addr, |bytes, _| vec![bytes.to_vec()])
    }

    /// Sends each datagram back `count` times.
    pub fn replies(count: usize) -> Self {
        UdpBackend::start(move |bytes, _| vec![bytes.to_vec(); count])
    }

    /// Answers with the address that it was reached from.
    pub fn whoami() -> Self {
        UdpBackend::start(|_, from| vec![from.to_string().into_bytes()])
    }

    /// Answers with its name.
    pub fn named(name: &str) -> Self {
        let name = name.as_bytes().to_vec();
        UdpBackend::start(move |_, _| vec![name.clone()])
    }

    /// Never answers.
    pub fn silent() -> Self {
        UdpBackend::start(|_, _| Vec::new())
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    /// How many datagrams it got.
    pub fn received(&self) -> usize {
        self.received.load(Ordering::SeqCst)
    }

    /// Waits until it got `count` datagrams.
    pub fn wait_received(&self, count: usize) {
        eventually(&format!("{count} datagrams at the backend"), || self.received() >= count);
    }

    /// The latest datagram and where it came from.
    ///
    /// # Panics
    /// When there is none yet.
    pub fn last(&self) -> Received {
        self.last.lock().unwrap().clone().expect("a datagram at the backend")
    }

    /// Sends out of turn, from the address that it listens on.
    pub fn send_to(&self, bytes: &[u8], to: SocketAddr) {
        self.socket.send_to(bytes, to).unwrap();
    }
}

impl Drop for UdpBackend {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Shutting down wakes a blocked receive, although an unconnected socket says ENOTCONN to it.
        let _ = SockRef::from(&*self.socket).shutdown(std::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn bind(addr: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(addr).unwrap_or_else(|error| panic!("bind {addr}: {error}"));
    let _ = SockRef::from(&socket).set_recv_buffer_size(BUFFER);
    socket
}

/// A client connected to one address: takes answers from nowhere else. Receiving fails after [`PATIENCE`].
#[derive(Debug)]
pub struct UdpClient(UdpSocket);

impl UdpClient {
    /// A fresh socket that talks to `to`.
    pub fn connect(to: SocketAddr) -> Self {
        let local: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { "::".parse().unwrap() };
        UdpClient::connect_from(SocketAddr::from((local, 0)), to)
    }

    /// The same from a given local address.
    pub fn connect_from(local: SocketAddr, to: SocketAddr) -> Self {
        let socket = bind(local);
        socket.connect(to).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        UdpClient(socket)
    }

    /// The socket itself.
    pub fn socket(&self) -> &UdpSocket {
        &self.0
    }

    /// Our own address.
    pub fn local(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// Sends one datagram.
    ///
    /// # Panics
    /// When it can't.
    pub fn send(&self, bytes: &[u8]) {
        self.0.send(bytes).unwrap_or_else(|error| panic!("send {} bytes: {error}", bytes.len()));
    }

    /// Receives one datagram.
    ///
    /// # Panics
    /// When none comes.
    pub fn recv(&self) -> Vec<u8> {
        self.try_recv().unwrap_or_else(|error| panic!("receive: {error}"))
    }

    /// Receives one datagram.
    ///
    /// # Errors
    /// When none comes within [`PATIENCE`], or the other side's port is closed.
    pub fn try_recv(&self) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; 65_536];
        let len = self.0.recv(&mut buffer)?;
        buffer.truncate(len);
        Ok(buffer)
    }

    /// Sends one datagram and receives one.
    pub fn ask(&self, bytes: &[u8]) -> Vec<u8> {
        self.send(bytes);
        self.recv()
    }

    /// Sends one datagram and receives one as text.
    pub fn ask_text(&self, bytes: &[u8]) -> String {
        String::from_utf8(self.ask(bytes)).unwrap()
    }

    /// Sends one datagram and expects the very same back.
    ///
    /// # Panics
    /// When anything else comes.
    pub fn echo(&self, bytes: &[u8]) {
        let got = self.ask(bytes);
        assert!(got == bytes, "sent {} bytes, got other {} back", bytes.len(), got.len());
    }

    /// Expects that nothing comes for `span`.
    ///
    /// # Panics
    /// On a datagram.
    pub fn expect_nothing(&self, span: Duration) {
        self.0.set_read_timeout(Some(span)).unwrap();
        if let Ok(bytes) = self.try_recv() {
            panic!("expected nothing, got {} bytes: {:?}", bytes.len(), String::from_utf8_lossy(&bytes));
        }
        self.0.set_read_timeout(Some(PATIENCE)).unwrap();
    }
}
