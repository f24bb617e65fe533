//! TCP and unix servers for the proxy to stand before, well behaved and not.

use std::io::{self, Read as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::Duration;

use socket2::Socket;

use crate::PATIENCE;
use crate::pattern::{Pattern, Rng};
use crate::tcp::{Addr, Conn};
use crate::wait::eventually;

/// A thread's stack: handlers hold a buffer on the heap, and 2,000 of them run at once.
const STACK: usize = 128 * 1024;

/// How one connection of a backend ended.
#[derive(Debug)]
pub struct End {
    /// What its handler counted; for most, the bytes received.
    pub bytes: u64,
    /// What broke it off.
    pub error: Option<io::ErrorKind>,
}

/// A server; a thread for each connection. Stops when dropped and closes what it still holds.
#[derive(Debug)]
pub struct Backend {
    addr: Addr,
    shared: Arc<Shared>,
    ends: Mutex<Receiver<End>>,
    acceptor: Option<thread::JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    listener: Socket,
    stopping: AtomicBool,
    accepted: AtomicUsize,
    active: AtomicUsize,
    conns: Mutex<Vec<Weak<Conn>>>,
}

impl Backend {
    /// Serves each connection with `handler` on a free port of 127.0.0.1. The handler says how many bytes it counted.
    pub fn start(handler: impl Fn(&Conn) -> io::Result<u64> + Send + Sync + 'static) -> Self {
        Backend::start_at(&Addr::Inet(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))), handler)
    }

    /// [`Backend::start`] at a given address; port 0 picks one.
    ///
    /// # Panics
    /// When the address is taken.
    pub fn start_at(addr: &Addr, handler: impl Fn(&Conn) -> io::Result<u64> + Send + Sync + 'static) -> Self {
        let listener = listen(addr, 4096);
        let addr = match addr {
            Addr::Inet(_) => Addr::Inet(listener.local_addr().unwrap().as_socket().unwrap()),
            Addr::Unix(_) => addr.clone(),
        };
        let (ended, ends) = channel();
        let shared = Arc::new(Shared {
            listener,
            stopping: AtomicBool::new(false),
            accepted: AtomicUsize::new(0),
            active: AtomicUsize::new(0),
            conns: Mutex::new(Vec::new()),
        });
        let acceptor = {
            let (shared, handler) = (shared.clone(), Arc::new(handler));
            thread::spawn(move || accept_all(&shared, &handler, &ended))
        };
        Backend { addr, shared, ends: Mutex::new(ends), acceptor: Some(acceptor) }
    }

    /// Sends back what it gets; passes the end of the stream on.
    pub fn echo() -> Self {
        Backend::start(echo)
    }

    /// [`Backend::echo`] at a given address.
    pub fn echo_at(addr: &Addr) -> Self {
        Backend::start_at(addr, echo)
    }

    /// [`Backend::echo`] on a unix socket.
    pub fn echo_unix(path: &Path) -> Self {
        Backend::start_at(&Addr::Unix(path.to_owned()), echo)
    }

    /// Says `name` in a line, then echoes: who answered?
    pub fn named(name: &str) -> Self {
        let line = format!("{name}\n");
        Backend::start(move |conn| {
            conn.try_send(line.as_bytes())?;
            echo(conn)
        })
    }

    /// Says in a line from which address it was reached, then echoes.
    pub fn whoami() -> Self {
        Backend::start(|conn| {
            let from = conn.socket().peer_addr()?.as_socket();
            conn.try_send(format!("{}\n", from.map_or("unix".into(), |a| a.to_string())).as_bytes())?;
            echo(conn)
        })
    }

    /// Compares what it gets against a pattern up to the end of the stream, and answers nothing but that end.
    pub fn sink(seed: u64) -> Self {
        Backend::start(move |conn| {
            let pattern = Pattern::new(seed);
            let mut buffer = vec![0; 262_144];
            let mut got = 0;
            loop {
                let n = (&*conn).read(&mut buffer)?;
                if n == 0 {
                    return Ok(got);
                }
                pattern.check(got, &buffer[..n]);
                got += n as u64;
            }
        })
    }

    /// Sends `total` bytes of a pattern in chunks of chance, then the end of the stream; reads nothing before that.
    pub fn source(seed: u64, total: u64) -> Self {
        Backend::start(move |conn| {
            conn.send_pattern(&Pattern::new(seed), total, &mut Rng::new(seed))?;
            conn.finish();
            drain(conn)
        })
    }

    /// Answers each line with the same line in capitals.
    pub fn lines() -> Self {
        Backend::start(|conn| {
            let mut line = Vec::new();
            let mut count = 0;
            let mut byte = [0];
            while (&*conn).read(&mut byte)? == 1 {
                line.push(byte[0].to_ascii_uppercase());
                if byte[0] == b'\n' {
                    conn.try_send(&line)?;
                    line.clear();
                    count += 1;
                }
            }
            Ok(count)
        })
    }

    /// Resets every connection at once.
    pub fn resets() -> Self {
        Backend::start(|conn| conn.socket().set_linger(Some(Duration::ZERO)).map(|()| 0))
    }

    /// Accepts, reads, and never says a word.
    pub fn silent() -> Self {
        Backend::start(drain)
    }

    /// Answers every connection with one HTTP page and closes.
    pub fn http(body: &str) -> Self {
        let len = body.len();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n{body}")
            .into_bytes();
        Backend::start(move |conn| {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if (&*conn).read(&mut byte)? == 0 {
                    break;
                }
                head.push(byte[0]);
            }
            conn.try_send(&answer)?;
            conn.finish();
            Ok(head.len() as u64)
        })
    }

    /// Where it listens.
    pub fn addr(&self) -> &Addr {
        &self.addr
    }

    /// How many connections it has accepted.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// How many of them are open.
    pub fn active(&self) -> usize {
        self.shared.active.load(Ordering::SeqCst)
    }

    /// Waits until it has accepted `count` connections.
    pub fn wait_accepted(&self, count: usize) {
        eventually(&format!("{count} connections at the backend"), || self.accepted() >= count);
    }

    /// Waits until none is open.
    pub fn wait_idle(&self) {
        eventually("the backend's connections to end", || self.active() == 0);
    }

    /// Waits for the end of one connection, in the order of their ends.
    ///
    /// # Panics
    /// When none ends within [`PATIENCE`].
    pub fn next_end(&self) -> End {
        self.ends.lock().unwrap().recv_timeout(PATIENCE).expect("a connection of the backend to end")
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // On a listening socket this ends a blocked accept.
        let _ = self.shared.listener.shutdown(Shutdown::Both);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        let conns = std::mem::take(&mut *self.shared.conns.lock().unwrap());
        for conn in conns.iter().filter_map(Weak::upgrade) {
            let _ = conn.socket().shutdown(Shutdown::Both);
        }
        if let Addr::Unix(path) = &self.addr {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn listen(addr: &Addr, backlog: i32) -> Socket {
    let socket = addr.socket().unwrap();
    if let Addr::Inet(_) = addr {
        socket.set_reuse_address(true).unwrap();
    }
    socket.bind(&addr.sock()).unwrap_or_else(|error| panic!("bind {addr}: {error}"));
    socket.listen(backlog).unwrap();
    socket
}

fn accept_all<H>(shared: &Arc<Shared>, handler: &Arc<H>, ended: &Sender<End>)
where
    H: Fn(&Conn) -> io::Result<u64> + Send + Sync + 'static,
{
    while let Ok((socket, _)) = shared.listener.accept() {
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        let conn = Arc::new(Conn::new(socket));
        shared.conns.lock().unwrap().push(Arc::downgrade(&conn));
        shared.active.fetch_add(1, Ordering::SeqCst);
        shared.accepted.fetch_add(1, Ordering::SeqCst);
        let (shared, handler, ended) = (shared.clone(), handler.clone(), ended.clone());
        let serve = move || {
            let result = handler(&conn);
            // Closed before it is told: who waits for the end may look at the socket next.
            drop(conn);
            shared.active.fetch_sub(1, Ordering::SeqCst);
            let end = match result {
                Ok(bytes) => End { bytes, error: None },
                Err(error) => End { bytes: 0, error: Some(error.kind()) },
            };
            let _ = ended.send(end);
        };
        thread::Builder::new().stack_size(STACK).spawn(serve).unwrap();
    }
}

fn echo(conn: &Conn) -> io::Result<u64> {
    let mut buffer = vec![0; 65_536];
    let mut total = 0;
    loop {
        match (&*conn).read(&mut buffer)? {
            0 => break,
            n => {
                conn.try_send(&buffer[..n])?;
                total += n as u64;
            }
        }
    }
    conn.finish();
    Ok(total)
}

/// Reads to the end of the stream; says how much came.
pub fn drain(conn: &Conn) -> io::Result<u64> {
    let mut buffer = vec![0; 65_536];
    let mut total = 0;
    loop {
        match (&*conn).read(&mut buffer)? {
            0 => return Ok(total),
            n => total += n as u64,
        }
    }
}

/// A port that completes no handshake: its backlog is full and nobody accepts, so that connecting takes for ever.
#[derive(Debug)]
pub struct Unreachable {
    listener: Socket,
    _filling: Vec<Socket>,
}

impl Unreachable {
    /// Takes a port and fills its backlog.
    #[allow(clippy::new_without_default, reason = "it takes a port, which is no default")]
    pub fn new() -> Self {
        let listener = listen(&Addr::Inet(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))), 0);
        let addr = listener.local_addr().unwrap();
        let mut filling = Vec::new();
        loop {
            let socket = Addr::Inet(addr.as_socket().unwrap()).socket().unwrap();
            let connected = socket.connect_timeout(&addr, Duration::from_millis(100)).is_ok();
            filling.push(socket);
            if !connected {
                return Unreachable { listener, _filling: filling };
            }
        }
    }

    /// The address.
    pub fn addr(&self) -> Addr {
        Addr::Inet(self.listener.local_addr().unwrap().as_socket().unwrap())
    }
}
