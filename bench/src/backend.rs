//! The origins behind the proxies: a TCP echo, a bulk source and sink, a UDP echo, HTTP; that of QUIC is
//! in its own file.
//!
//! Each prints the port it listens on as its first line and serves until it is killed.

mod http;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::thread;

use anyhow::{Result, bail};
use rustix::net::RecvFlags;
use socket2::{Domain, Protocol, Socket, Type};

use crate::epoll::Epoll;
use crate::pattern::Pattern;
use crate::quic;
use crate::scenario::Kind;

/// Bytes a bulk end moves by one syscall: few syscalls, and still in the second-level cache.
pub(crate) const CHUNK: usize = 256 * 1024;

/// A bulk connection opens with one byte for the direction and eight for the length.
pub(crate) const BULK_HEAD: usize = 9;
/// The backend sends.
pub(crate) const DOWN: u8 = b'D';
/// The backend receives, and answers with a byte once all has come.
pub(crate) const UP: u8 = b'U';
/// The answer to an upload whose bytes were right.
pub(crate) const RIGHT: u8 = b'+';
/// The answer to an upload whose bytes were not.
pub(crate) const WRONG: u8 = b'-';

/// More than every scenario keeps in flight, so that this end never drops a datagram.
const UDP_BUFFER: usize = 4 << 20;

/// The token of the listener; connections count from 0.
const LISTENER: usize = usize::MAX;

/// The role `backend`.
pub(crate) fn run(kind: Kind, dir: &Path) -> Result<()> {
    match kind {
        Kind::TcpSmall | Kind::Idle | Kind::Setup | Kind::SetupHello | Kind::TlsHandshake | Kind::TlsIdle => {
            echo_tcp(&listen()?, false)
        }
        Kind::SetupProxied => echo_tcp(&listen()?, true),
        Kind::BulkDown | Kind::BulkUp | Kind::TlsBulkDown | Kind::TlsBulkUp => bulk(&listen()?),
        Kind::Udp | Kind::UdpFlows => echo_udp(),
        Kind::Quic => quic::serve(dir),
        Kind::HttpLong => http::serve_long(listen()?),
        Kind::HttpTls | Kind::HttpTlsIdle | Kind::HttpH2 => http::serve(listen()?, true),
        Kind::HttpGet | Kind::HttpPost | Kind::HttpConnect | Kind::HttpIdle | Kind::HttpPaced => {
            http::serve(listen()?, false)
        }
        Kind::FileGet | Kind::FileTls | Kind::FileUnchanged | Kind::FileListing | Kind::FileDistinct => {
            bail!("there is nothing behind a server of files")
        }
    }
}

fn listen() -> Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    // Longer than the standard library's 128: a proxy may dial in bursts, and a dropped SYN costs a second.
    socket.listen(4096)?;
    let listener = TcpListener::from(socket);
    println!("{}", listener.local_addr()?.port());
    Ok(listener)
}

/// Echoes what comes; where that is `proxied`, without the PROXY header that it may begin with.
fn echo_tcp(listener: &TcpListener, proxied: bool) -> Result<()> {
    let mut scratch = vec![0; 16 * 1024];
    // Of each connection, whether its header is still to come.
    each(listener, || proxied, |stream, fresh| echo_once(stream, &mut scratch, fresh))
}

/// Serves many connections by this thread. `open` makes what is kept of one; `serve` is called whenever it is readable,
/// and says whether it lives on.
fn each<C>(
    listener: &TcpListener,
    open: impl Fn() -> C,
    mut serve: impl FnMut(&mut TcpStream, &mut C) -> bool,
) -> Result<()> {
    let mut epoll = Epoll::new()?;
    let mut conns: Vec<Option<(TcpStream, C)>> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let mut ready = Vec::new();
    listener.set_nonblocking(true)?;
    epoll.add(listener, LISTENER)?;
    loop {
        epoll.wait(&mut ready)?;
        for &token in &ready {
            if token == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nodelay(true)?;
                    let slot = free.pop().unwrap_or(conns.len());
                    if slot == conns.len() {
                        conns.push(None);
                    }
                    epoll.add(&stream, slot)?;
                    conns[slot] = Some((stream, open()));
                }
            } else if conns[token].as_mut().is_some_and(|(stream, conn)| !serve(stream, conn)) {
                conns[token] = None;
                free.push(token);
            }
        }
    }
}

/// Returns what has come; whether the connection lives on.
fn echo_once(stream: &mut TcpStream, scratch: &mut [u8], fresh: &mut bool) -> bool {
    match rustix::net::recv(&*stream, &mut *scratch, RecvFlags::DONTWAIT) {
        Ok((0, _)) => false,
        // The socket itself blocks, so that a full buffer needs no queue here.
        Ok((len, _)) => {
            let header = if std::mem::take(fresh) { proxy_header(&scratch[..len]) } else { 0 };
            stream.write_all(&scratch[header..len]).is_ok()
        }
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => true,
        Err(_) => false,
    }
}

/// How long the PROXY header is at the head of `data`; the proxies under test send it whole.
fn proxy_header(data: &[u8]) -> usize {
    if data.starts_with(b"\r\n\r\n\0\r\nQUIT\n") && data.len() >= 16 {
        16 + usize::from(u16::from_be_bytes([data[14], data[15]]))
    } else if data.starts_with(b"PROXY ") {
        data.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1)
    } else {
        0
    }
}

fn bulk(listener: &TcpListener) -> Result<()> {
    loop {
        let (stream, _) = listener.accept()?;
        thread::spawn(move || {
            if let Err(error) = bulk_one(stream) {
                eprintln!("bulk backend: {error:#}");
            }
        });
    }
}

fn bulk_one(mut stream: TcpStream) -> Result<()> {
    let mut head = [0; BULK_HEAD];
    if stream.read_exact(&mut head).is_err() {
        // The probe that waits for a proxy to come up connects and says nothing.
        return Ok(());
    }
    let len = crate::pattern::seq_of(&head[1..]);
    match head[0] {
        DOWN => send_pattern(&mut stream, len),
        UP => {
            let right = receive_pattern(&mut stream, len)?;
            Ok(stream.write_all(&[if right { RIGHT } else { WRONG }])?)
        }
        other => bail!("unknown direction {other:#x}"),
    }
}

/// Sends `len` bytes of the pattern.
pub(crate) fn send_pattern(stream: &mut impl Write, len: u64) -> Result<()> {
    let pattern = Pattern::new(CHUNK);
    let mut sent = 0;
    while sent < len {
        sent += stream.write(pattern.at(sent, len - sent))? as u64;
    }
    Ok(())
}

/// Receives `len` bytes; whether they are the pattern's.
pub(crate) fn receive_pattern(stream: &mut impl Read, len: u64) -> Result<bool> {
    let pattern = Pattern::new(CHUNK);
    let mut buffer = vec![0; CHUNK];
    let mut received = 0;
    let mut right = true;
    while received < len {
        let want = buffer.len().min(usize::try_from(len - received).unwrap_or(usize::MAX));
        let got = stream.read(&mut buffer[..want])?;
        if got == 0 {
            bail!("the stream ended after {received} of {len} bytes");
        }
        right &= pattern.agrees(received, &buffer[..got]);
        received += got as u64;
    }
    Ok(right)
}

fn echo_udp() -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket2::SockRef::from(&socket).set_recv_buffer_size(UDP_BUFFER)?;
    println!("{}", socket.local_addr()?.port());
    let mut buffer = vec![0; 65_536];
    loop {
        // An ICMP error of an earlier reply whose receiver is gone surfaces here; it concerns nobody.
        if let Ok((len, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..len], from);
        }
    }
}
