//! A NAT for UDP in front of one client, which can forget its mapping.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use socket2::SockRef;

/// Passes datagrams on between one client and one server. The server sees the NAT's address, which changes when the
/// NAT is told to; what then still comes to the old one is lost. Stops when dropped.
#[derive(Debug)]
pub struct Nat {
    inner: Arc<UdpSocket>,
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    client: Mutex<Option<SocketAddr>>,
    /// Connected to the server; none when the NAT stops.
    outer: Mutex<Option<Arc<UdpSocket>>>,
}

impl Nat {
    /// A NAT towards `server`, on 127.0.0.1.
    pub fn to(server: SocketAddr) -> Nat {
        let inner = Arc::new(socket(Ipv4Addr::LOCALHOST));
        let shared = Arc::new(Shared { server, client: Mutex::default(), outer: Mutex::default() });
        let nat = Nat { inner, shared, threads: Mutex::default() };
        nat.rebind();
        let (inner, shared) = (nat.inner.clone(), nat.shared.clone());
        nat.spawn(move || {
            let mut buffer = vec![0; 65_536];
            loop {
                let got = inner.recv_from(&mut buffer);
                let Some(outer) = shared.outer.lock().unwrap().clone() else { return };
                if let Ok((len, from)) = got {
                    *shared.client.lock().unwrap() = Some(from);
                    let _ = outer.send(&buffer[..len]);
                }
            }
        });
        nat
    }

    /// Where the client is to send.
    pub fn addr(&self) -> SocketAddr {
        self.inner.local_addr().unwrap()
    }

    /// The address that the server sees.
    pub fn outer_addr(&self) -> SocketAddr {
        self.shared.outer.lock().unwrap().as_ref().unwrap().local_addr().unwrap()
    }

    /// Forgets the mapping: the same client comes from another port of the same address.
    pub fn rebind(&self) {
        self.rebind_to(Ipv4Addr::LOCALHOST);
    }

    /// The same with another address of this machine.
    pub fn rebind_to(&self, ip: Ipv4Addr) {
        let outer = Arc::new(socket(ip));
        outer.connect(self.shared.server).unwrap();
        if let Some(old) = self.shared.outer.lock().unwrap().replace(outer.clone()) {
            wake(&old);
        }
        let (inner, shared) = (self.inner.clone(), self.shared.clone());
        self.spawn(move || {
            let mut buffer = vec![0; 65_536];
            loop {
                let got = outer.recv(&mut buffer);
                if !shared.outer.lock().unwrap().as_ref().is_some_and(|current| Arc::ptr_eq(current, &outer))
                {
                    return;
                }
                let client = *shared.client.lock().unwrap();
                if let (Ok(len), Some(client)) = (got, client) {
                    let _ = inner.send_to(&buffer[..len], client);
                }
            }
        });
    }

    fn spawn(&self, run: impl FnOnce() + Send + 'static) {
        self.threads.lock().unwrap().push(thread::spawn(run));
    }
}

impl Drop for Nat {
    fn drop(&mut self) {
        if let Some(outer) = self.shared.outer.lock().unwrap().take() {
            wake(&outer);
        }
        // A receive that asks for the sender's address can't bear to be shut down: a datagram wakes it.
        let _ = socket(Ipv4Addr::LOCALHOST).send_to(b"", self.addr());
        for thread in self.threads.lock().unwrap().drain(..) {
            let _ = thread.join();
        }
    }
}

fn socket(ip: Ipv4Addr) -> UdpSocket {
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    let _ = SockRef::from(&socket).set_recv_buffer_size(4 << 20);
    socket
}

/// Ends a blocked receive on a connected socket.
fn wake(socket: &UdpSocket) {
    let _ = SockRef::from(socket).shutdown(std::net::Shutdown::Both);
}
