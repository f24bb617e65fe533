//! A client of HTTP/2 on the `h2` crate, that blocks.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use crate::PATIENCE;
use crate::tcp::Addr;

/// A connection. It moves while one of its verbs runs, and stands still in between.
#[derive(Debug)]
pub struct Client {
    runtime: Runtime,
    send: SendRequest<Bytes>,
}

/// A whole answer.
#[derive(Debug)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The fields.
    pub fields: HeaderMap,
    /// The content.
    pub body: Vec<u8>,
    /// The fields after it.
    pub trailers: Option<HeaderMap>,
}

impl Response {
    /// The body as text.
    ///
    /// # Panics
    /// When it is none.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The value of a field, where it is text.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields.get(name)?.to_str().ok()
    }
}

impl Client {
    /// Connects, knowing that it is HTTP/2 that is spoken there.
    ///
    /// # Panics
    /// When it is not.
    pub fn connect(addr: &Addr) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let addr = addr.inet();
        let send = runtime.block_on(async {
            let stream = TcpStream::connect(addr).await.unwrap();
            stream.set_nodelay(true).unwrap();
            // Wide, or an answer that is not read would hold up all others.
            let mut builder = h2::client::Builder::new();
            builder.initial_connection_window_size(1 << 20);
            let (send, connection) = builder.handshake(stream).await.unwrap();
            // How the connection ends shows in its streams.
            tokio::runtime::Handle::current().spawn(async { drop(connection.await) });
            send
        });
        Client { runtime, send }
    }

    /// Runs what a test wants on the connection, for so long as tests wait.
    ///
    /// # Panics
    /// When it takes longer.
    pub fn run<F: Future>(&mut self, task: impl FnOnce(SendRequest<Bytes>) -> F) -> F::Output {
        let task = task(self.send.clone());
        self.runtime.block_on(async { timeout(PATIENCE, task).await.expect("an end of it in time") })
    }

    /// Lets the connection move for a while.
    pub fn idle(&self, time: Duration) {
        // The timer is made where there is a runtime.
        self.runtime.block_on(async { tokio::time::sleep(time).await });
    }

    /// A GET and its answer.
    ///
    /// # Panics
    /// When there is none.
    pub fn get(&mut self, path: &str) -> Response {
        self.ask(request("GET", path), b"", None)
    }

    /// A POST and its answer.
    ///
    /// # Panics
    /// When there is none.
    pub fn post(&mut self, path: &str, body: &[u8]) -> Response {
        self.ask(request("POST", path), body, None)
    }

    /// A request with a body and trailers, and its answer.
    ///
    /// # Panics
    /// When there is none.
    pub fn ask(&mut self, request: Request<()>, body: &[u8], trailers: Option<HeaderMap>) -> Response {
        self.try_ask(request, body, trailers).unwrap_or_else(|error| panic!("no answer: {error}"))
    }

    /// [`Client::ask`].
    ///
    /// # Errors
    /// The stream or the connection failed.
    pub fn try_ask(
        &mut self,
        request: Request<()>,
        body: &[u8],
        trailers: Option<HeaderMap>,
    ) -> Result<Response, h2::Error> {
        self.run(|send| exchange(send, request, Bytes::copy_from_slice(body), trailers))
    }

    /// GETs of all these paths at once, and their answers in the order of the paths.
    ///
    /// # Panics
    /// When one has none.
    pub fn get_all(&mut self, paths: &[String]) -> Vec<Response> {
        self.run(|send| async move {
            let handle = tokio::runtime::Handle::current();
            let tasks: Vec<_> = paths
                .iter()
                .map(|path| handle.spawn(exchange(send.clone(), request("GET", path), Bytes::new(), None)))
                .collect();
            let mut answers = Vec::new();
            for task in tasks {
                answers.push(task.await.unwrap().unwrap_or_else(|error| panic!("no answer: {error}")));
            }
            answers
        })
    }
}

/// A request of the usual form.
pub fn request(method: &str, path: &str) -> Request<()> {
    Request::builder().method(method).uri(format!("http://a.example{path}")).body(()).unwrap()
}

async fn exchange(
    send: SendRequest<Bytes>,
    request: Request<()>,
    body: Bytes,
    trailers: Option<HeaderMap>,
) -> Result<Response, h2::Error> {
    let mut send = send.ready().await?;
    let bare = body.is_empty() && trailers.is_none();
    let (answer, stream) = send.send_request(request, bare)?;
    if !bare {
        // An answer may come before all is sent, and then end the request.
        match upload(stream, body, trailers).await {
            Err(error) if error.reason() == Some(Reason::NO_ERROR) => {}
            other => other?,
        }
    }
    let (head, stream) = answer.await?.into_parts();
    let (body, trailers) = download(stream).await?;
    Ok(Response { status: head.status.as_u16(), fields: head.headers, body, trailers })
}

/// Sends a body as there is room for it, and what comes after it.
///
/// # Errors
/// The stream or the connection failed.
pub async fn upload(
    mut stream: SendStream<Bytes>,
    mut body: Bytes,
    trailers: Option<HeaderMap>,
) -> Result<(), h2::Error> {
    while !body.is_empty() {
        stream.reserve_capacity(body.len());
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        let Some(room) = room.transpose()? else { return Ok(()) };
        let part = body.split_to(room.min(body.len()));
        stream.send_data(part, body.is_empty() && trailers.is_none())?;
    }
    match trailers {
        Some(trailers) => stream.send_trailers(trailers),
        None => Ok(()),
    }
}

/// Receives a body, and what comes after it.
///
/// # Errors
/// The stream or the connection failed.
pub async fn download(mut stream: RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut body = Vec::new();
    while let Some(part) = stream.data().await {
        let part = match part {
            // The answer is whole, and no more of the request is wanted (RFC 9113 section 8.1).
            Err(error) if error.reason() == Some(Reason::NO_ERROR) => return Ok((body, None)),
            other => other?,
        };
        body.extend_from_slice(&part);
        stream.flow_control().release_capacity(part.len())?;
    }
    Ok((body, stream.trailers().await?))
}
