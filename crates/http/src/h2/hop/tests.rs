//! Tunnels through a proxy that the test plays itself, on the same worker.

mod connections;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::server::{self, Connection, SendResponse};
use h2::{RecvStream, SendStream};
use http::Response;
use tokio::time::timeout;
use wmproxy_runtime::scope::Scope;

use super::super::io::Io;
use super::*;

const SOON: Duration = Duration::from_millis(50);

/// What the proxy takes of a tunnel before it reads.
const WINDOW: u32 = 100_000;

/// How the proxy answers one request.
type Answer = Box<dyn Fn(Asked) -> Pin<Box<dyn Future<Output = ()>>>>;

struct Asked {
    /// So many came before it, on all connections together.
    before: usize,
    head: http::request::Parts,
    incoming: RecvStream,
    respond: SendResponse<Bytes>,
    proxy: Rc<Proxy>,
}

impl Asked {
    /// Says yes.
    fn accept(mut self) -> (RecvStream, SendStream<Bytes>) {
        let stream = self.respond.send_response(Response::new(()), false).unwrap();
        (self.incoming, stream)
    }
}

/// A proxy, with everybody who is connected to it.
struct Proxy {
    answer: Answer,
    /// Connections so far, and those that are open.
    made: Cell<usize>,
    open: Cell<usize>,
    /// What the next connection speaks.
    alpn: Cell<&'static [u8]>,
    most: Cell<u32>,
    /// Tells connections to say that no more is taken, or to break.
    farewell: Cell<bool>,
    breaks: Cell<bool>,
    /// So many of the connections, the first ones, hear nothing any more and say nothing.
    deaf: Cell<usize>,
    seen: RefCell<Vec<http::request::Parts>>,
    scope: Scope,
}

impl Proxy {
    fn new<F: Future<Output = ()> + 'static>(answer: impl Fn(Asked) -> F + 'static) -> Rc<Proxy> {
        Rc::new(Proxy {
            answer: Box::new(move |asked| Box::pin(answer(asked))),
            made: Cell::default(),
            open: Cell::default(),
            alpn: Cell::new(b"h2"),
            most: Cell::new(1000),
            farewell: Cell::default(),
            breaks: Cell::default(),
            deaf: Cell::default(),
            seen: RefCell::default(),
            scope: Scope::new(),
        })
    }

    /// A connection to it, as a chain makes one.
    async fn connect(self: &Rc<Self>) -> Result<(Stream, TlsInfo), ConnectError> {
        // A handshake takes a while.
        tokio::task::yield_now().await;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let server = listener.accept().unwrap().0;
        let stream = |socket: TcpStream| {
            socket.set_nonblocking(true).unwrap();
            socket.set_nodelay(true).unwrap();
            Stream::new(socket.into(), true).unwrap()
        };
        self.made.set(self.made.get() + 1);
        let alpn = self.alpn.get();
        if alpn == b"h2" {
            self.open.set(self.open.get() + 1);
            self.scope.spawn(self.clone().serve(stream(server)));
        }
        let info = TlsInfo { sni: None, alpn: Some(alpn.to_vec()), version: "TLSv1.3", client: None };
        Ok((stream(client), info))
    }

    async fn serve(self: Rc<Self>, stream: Stream) {
        let number = self.made.get();
        let mut connection: Connection<Io, Bytes> = server::Builder::new()
            .max_concurrent_streams(self.most.get())
            .initial_window_size(WINDOW)
            .initial_connection_window_size(64 * WINDOW)
            .max_send_buffer_size(64 * 1024)
            .handshake(Io::new(stream, None))
            .await
            .unwrap();
        loop {
            let next = poll_fn(|cx| {
                if self.breaks.get() {
                    return Poll::Ready(None);
                }
                if number <= self.deaf.get() {
                    return Poll::Pending;
                }
                if self.farewell.get() {
                    connection.graceful_shutdown();
                }
                connection.poll_accept(cx)
            });
            match timeout(Duration::from_millis(5), next).await {
                Ok(Some(Ok((request, respond)))) => {
                    let (head, incoming) = request.into_parts();
                    let before = self.seen.borrow().len();
                    self.seen.borrow_mut().push(head.clone());
                    let asked = Asked { before, head, incoming, respond, proxy: self.clone() };
                    self.scope.spawn((self.answer)(asked));
                }
                Ok(_) => break,
                Err(_) => {}
            }
        }
        self.open.set(self.open.get() - 1);
    }
}

/// Sends back what comes, and ends when it ends.
async fn echo(asked: Asked) {
    let (mut from, mut to) = asked.accept();
    while let Some(data) = from.data().await {
        let Ok(data) = data else { return };
        from.flow_control().release_capacity(data.len()).unwrap();
        if send(&mut to, data).await.is_err() {
            return;
        }
    }
    let _ = to.send_data(Bytes::new(), true);
}

async fn send(to: &mut SendStream<Bytes>, mut data: Bytes) -> Result<(), h2::Error> {
    while !data.is_empty() {
        to.reserve_capacity(data.len());
        let Some(room) = poll_fn(|cx| to.poll_capacity(cx)).await else { return Ok(()) };
        to.send_data(data.split_to(room?.min(data.len())), false)?;
    }
    Ok(())
}

fn run(test: impl AsyncFnOnce()) {
    tokio::runtime::LocalRuntime::new().unwrap().block_on(test());
}

fn to() -> Destination {
    "[2001:db8::1]:443".parse::<std::net::SocketAddr>().unwrap().into()
}

fn hop() -> Hop {
    Hop::new(Duration::from_secs(60))
}

async fn open(hop: &Hop, proxy: &Rc<Proxy>) -> Stream {
    match hop.open(0, &to(), None, || proxy.connect()).await.unwrap() {
        Tunnel::Open(stream) => stream,
        other => panic!("{other:?}"),
    }
}

async fn read(stream: &Stream) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; 100_000];
    let n = poll_fn(|cx| stream.poll_read(cx, &mut buffer)).await?;
    buffer.truncate(n);
    Ok(buffer)
}

async fn read_all(stream: &Stream) -> Vec<u8> {
    let mut all = vec![];
    loop {
        match read(stream).await.unwrap() {
            part if part.is_empty() => return all,
            part => all.extend(part),
        }
    }
}

async fn write(stream: &Stream, mut data: &[u8]) {
    while !data.is_empty() {
        data = &data[poll_fn(|cx| stream.poll_write(cx, data)).await.unwrap()..];
    }
}

async fn finish(stream: &Stream) {
    poll_fn(|cx| stream.poll_shutdown_write(cx)).await.unwrap();
}

/// Writes until no more is taken, and says how much was.
async fn fill(stream: &Stream) -> usize {
    let (data, mut taken) = ([7; 10_000], 0);
    while let Ok(n) = timeout(SOON, poll_fn(|cx| stream.poll_write(cx, &data))).await {
        taken += n.unwrap();
        assert!(taken < 64 << 20, "nobody reads this");
    }
    taken
}

fn noise(len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

#[test]
fn bytes_and_ends_pass_both_ways_at_once() {
    run(async || {
        let (hop, proxy) = (hop(), Proxy::new(echo));
        let stream = open(&hop, &proxy).await;
        assert!(!stream.can_splice());
        let data = noise(8 << 20);
        let ((), got) = tokio::join!(
            async {
                write(&stream, &data).await;
                finish(&stream).await;
            },
            read_all(&stream)
        );
        assert!(got == data);
        assert_eq!(read(&stream).await.unwrap(), b"", "the end stays the end");
        assert!(poll_fn(|cx| stream.poll_write(cx, b"x")).await.is_err());
        assert!(!stream.is_reset(&mut Context::from_waker(Waker::noop())));
    });
}

#[test]
fn the_head_says_where_to_and_who_asks() {
    run(async || {
        let proxy = Proxy::new(async |mut asked: Asked| {
            let status = if asked.head.uri == "known.test:80" { 407 } else { 403 };
            let _ = asked.respond.send_response(Response::builder().status(status).body(()).unwrap(), true);
        });
        let hop = hop();
        let known =
            Destination { host: wmproxy_wire::destination::Host::Name("known.test".into()), port: 80 };
        let refused = hop.open(0, &known, Some(b"Basic YTpi"), || proxy.connect()).await;
        assert!(matches!(refused, Ok(Tunnel::Refused(407))), "{refused:?}");
        let refused = hop.open(0, &to(), None, || proxy.connect()).await;
        assert!(matches!(refused, Ok(Tunnel::Refused(403))), "{refused:?}");
        let seen = proxy.seen.borrow();
        assert_eq!((&seen[0].method, seen[0].uri.to_string().as_str()), (&Method::CONNECT, "known.test:80"));
        assert_eq!(seen[0].headers.len(), 2);
        assert_eq!(seen[0].headers[PROXY_AUTHORIZATION], "Basic YTpi");
        assert_eq!(seen[0].headers[VIA], format!("2.0 {}", pseudonym()));
        assert_eq!(seen[1].uri.to_string(), "[2001:db8::1]:443");
        assert!(seen[1].uri.scheme().is_none() && seen[1].uri.path().is_empty());
        assert!(seen[1].headers.len() == 1 && seen[1].headers.contains_key(VIA));
        assert_eq!(proxy.made.get(), 1, "a refusal ends no connection");
    });
}

#[test]
fn tunnels_share_connections_as_far_as_they_have_room() {
    run(async || {
        let (hop, proxy) = (hop(), Proxy::new(echo));
        let all = futures_util::future::join_all((0..64).map(|_| open(&hop, &proxy))).await;
        assert_eq!(proxy.made.get(), 1, "those that come meanwhile wait for the one that is made");
        let more = open(&hop, &proxy).await;
        assert_eq!(proxy.made.get(), 2);
        for stream in all.iter().chain([&more]) {
            write(stream, b"ping").await;
            assert_eq!(read(stream).await.unwrap(), b"ping");
        }
        drop(all);
        // Whose tunnels are gone has room again; other proxies of the group have their own.
        drop(open(&hop, &proxy).await);
        assert_eq!(proxy.made.get(), 2);
        let other = hop.open(1, &to(), None, || proxy.connect()).await;
        assert!(matches!(other, Ok(Tunnel::Open(_))));
        assert_eq!(proxy.made.get(), 3);
        proxy.most.set(2);
        let narrow = Hop::new(Duration::from_secs(60));
        let _three = [open(&narrow, &proxy).await, open(&narrow, &proxy).await, open(&narrow, &proxy).await];
        assert_eq!(proxy.made.get(), 5, "the proxy takes two at a time");
    });
}

#[test]
fn a_reset_passes_either_way() {
    run(async || {
        let reasons = Rc::new(RefCell::new(vec![]));
        let told = reasons.clone();
        let proxy = Proxy::new(move |asked: Asked| {
            let told = told.clone();
            async move {
                let (mut from, mut to) = asked.accept();
                let first = from.data().await.unwrap().unwrap();
                if first == "reset" {
                    return to.send_reset(Reason::CONNECT_ERROR);
                }
                let end = first == "end";
                to.send_data(Bytes::from_static(if end { b"" } else { b"more" }), end).unwrap();
                let reason = match from.data().await {
                    Some(Err(error)) => error.reason(),
                    Some(Ok(data)) => {
                        assert_eq!(data, "", "the end comes by itself");
                        None
                    }
                    None => None,
                };
                told.borrow_mut().push(reason);
            }
        });
        let hop = hop();
        let stream = open(&hop, &proxy).await;
        write(&stream, b"reset").await;
        // Nobody reads: it is heard all the same.
        timeout(Duration::from_secs(5), stream.failed()).await.unwrap();
        assert_eq!(read(&stream).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert!(poll_fn(|cx| stream.poll_write(cx, b"x")).await.is_err());
        let ended = async |first: &'static [u8], cut: bool| {
            let stream = open(&hop, &proxy).await;
            write(&stream, first).await;
            assert_eq!(read(&stream).await.unwrap().len(), if first == b"end" { 0 } else { 4 });
            if cut {
                stream.reset_on_close();
            }
            drop(stream);
            let told = async {
                while reasons.borrow().is_empty() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            timeout(Duration::from_secs(5), told).await.expect("no end is heard");
            reasons.borrow_mut().pop().unwrap()
        };
        assert_eq!(ended(b"go", true).await, Some(Reason::CANCEL));
        assert_eq!(ended(b"end", true).await, Some(Reason::CANCEL));
        assert_eq!(ended(b"end", false).await, None, "closed when both were done");
        assert_eq!(proxy.made.get(), 1, "the others on the connection go on");
    });
}

#[test]
fn a_reader_that_stops_stops_the_writer_and_nobody_else() {
    run(async || {
        let sent = Rc::new(Cell::new(0));
        let count = sent.clone();
        let proxy = Proxy::new(move |asked: Asked| {
            let count = count.clone();
            async move {
                match asked.before {
                    // Reads nothing.
                    0 => return std::mem::forget(asked.accept()),
                    // Says as much as is taken.
                    1..=63 => {}
                    _ => return echo(asked).await,
                }
                let (_from, mut to) = asked.accept();
                loop {
                    if send(&mut to, Bytes::from_static(&[7; 16_000])).await.is_err() {
                        return;
                    }
                    count.set(count.get() + 16_000);
                }
            }
        });
        let hop = hop();
        let stopped = open(&hop, &proxy).await;
        // The window of a stream, and what waits to be sent.
        let taken = fill(&stopped).await;
        assert!((100_000..=300_000).contains(&taken), "{taken}");
        let silent: Vec<_> = futures_util::future::join_all((0..63).map(|_| open(&hop, &proxy))).await;
        let mut before = 1;
        while before != sent.get() || before <= 63 * 200_000 {
            before = sent.get();
            tokio::time::sleep(SOON).await;
        }
        assert!(before < 64 * 400_000, "{before}");
        // All but one of the places are held by who does not read: the last one is as good as ever.
        drop(stopped);
        let stream = open(&hop, &proxy).await;
        assert_eq!(proxy.made.get(), 1);
        let data = noise(2 << 20);
        let ((), got) = tokio::join!(
            async {
                write(&stream, &data).await;
                finish(&stream).await;
            },
            read_all(&stream)
        );
        assert!(got == data);
        drop(silent);
    });
}
