//! A name server on loopback that says what it is told to.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Types of records (RFC 1035 section 3.2.2, RFC 3596).
const A: u16 = 1;
const AAAA: u16 = 28;
/// The codes of replies (RFC 1035 section 4.1.1): none, and that there is no such name.
const NO_ERROR: u8 = 0;
const NX_DOMAIN: u8 = 3;
/// The length of a message's header.
const HEADER: usize = 12;

/// Answers questions by UDP until it is dropped. A name that it was not told of does not exist.
#[derive(Debug)]
pub struct NameServer {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Zone {
    names: HashMap<String, (Vec<IpAddr>, u32)>,
    /// The names that were asked for, with repetitions: each for A and for AAAA.
    asked: Vec<String>,
    is_over: bool,
}

impl NameServer {
    /// Begins to answer, on a port of the system's choice.
    pub fn start() -> NameServer {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket on loopback");
        let address = socket.local_addr().expect("a bound socket has an address");
        let zone = Arc::<Mutex<Zone>>::default();
        let shared = Arc::clone(&zone);
        let thread = std::thread::spawn(move || serve(&socket, &shared));
        NameServer { address, zone, thread: Some(thread) }
    }

    /// Where it is asked.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What a name has from now on, for so many seconds.
    pub fn set(&self, name: &str, ips: &[&str], ttl: u32) {
        let ips = ips.iter().map(|ip| ip.parse().expect("an address")).collect();
        lock(&self.zone).names.insert(name.to_owned(), (ips, ttl));
    }

    /// How many questions there were about a name.
    pub fn asked(&self, name: &str) -> usize {
        lock(&self.zone).asked.iter().filter(|asked| *asked == name).count()
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        lock(&self.zone).is_over = true;
        // Whatever comes wakes it.
        let woken = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.send_to(&[], self.address));
        if let (Ok(_), Some(thread)) = (woken, self.thread.take()) {
            let _ = thread.join();
        }
    }
}

fn serve(socket: &UdpSocket, zone: &Mutex<Zone>) {
    let mut buffer = [0; 1500];
    loop {
        let received: io::Result<(usize, SocketAddr)> = socket.recv_from(&mut buffer);
        let mut zone = lock(zone);
        if zone.is_over {
            return;
        }
        let Ok((length, client)) = received else { continue };
        if let Some(reply) = answer(&buffer[..length], &mut zone) {
            let _ = socket.send_to(&reply, client);
        }
    }
}

/// The reply to a question (RFC 1035 section 4).
fn answer(message: &[u8], zone: &mut Zone) -> Option<Vec<u8>> {
    let mut labels = vec![];
    let mut at = HEADER;
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(message.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes(*message.get(at..)?.first_chunk()?);
    let question = message.get(HEADER..at + 4)?;
    let name = labels.join(".");
    zone.asked.push(name.clone());
    let known = zone.names.get(&name);
    let ips: Vec<&IpAddr> = known.iter().flat_map(|(ips, _)| ips).filter(|ip| is_of(ip, kind)).collect();

    let mut reply = message.get(..2)?.to_vec();
    // A reply, recursion desired and available.
    reply.extend([0x81, 0x80 | if known.is_some() { NO_ERROR } else { NX_DOMAIN }, 0, 1]);
    reply.extend(u16::try_from(ips.len()).ok()?.to_be_bytes());
    reply.extend([0; 4]);
    reply.extend(question);
    for ip in ips {
        // The name is that of the question, which begins behind the header.
        reply.extend([0xc0, HEADER as u8]);
        reply.extend(kind.to_be_bytes());
        reply.extend([0, 1]);
        reply.extend(known.map_or(0, |(_, ttl)| *ttl).to_be_bytes());
        match ip {
            IpAddr::V4(ip) => reply.extend([&[0, 4][..], &ip.octets()].concat()),
            IpAddr::V6(ip) => reply.extend([&[0, 16][..], &ip.octets()].concat()),
        }
    }
    Some(reply)
}

fn is_of(ip: &IpAddr, kind: u16) -> bool {
    match ip {
        IpAddr::V4(_) => kind == A,
        IpAddr::V6(_) => kind == AAAA,
    }
}

fn lock(zone: &Mutex<Zone>) -> MutexGuard<'_, Zone> {
    zone.lock().unwrap_or_else(PoisonError::into_inner)
}
