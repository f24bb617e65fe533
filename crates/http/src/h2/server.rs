//! Connections of clients that speak HTTP/2.
//!
//! The connection and all its requests are one task: whatever a request sends, the connection writes without a wake-up
//! across tasks, and who ends the connection ends them all.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream, ext};
use tokio::time::Instant;
use wmproxy_net::limit::Permit;
use wmproxy_net::record::{Outcome, Record};
use wmproxy_net::stream::Stream;
use wmproxy_runtime::clock::{self, Ticks};
use wmproxy_wire::head::{Known, Method};
use wmproxy_wire::http1::{self, Length};
use wmproxy_wire::http2::{FrameMeter, MeterLimits};

use super::body::{FRAME, PIECE, TUNNEL_FRAME};
use super::convert;
use super::front::{ClientStream, Tunnels};
use super::io::{FLOOD, Io};
use crate::desk::{Desk, Papers};
use crate::exchange::{Brakes, End, Exchange, Front};
use crate::facts::ConnFacts;
use crate::live;
use crate::service::HttpService;
use crate::timer::{NEVER, Timer, after};

/// What a client may make us do for nothing: so many resets, pings, settings at once and a second. A browser that leaves a
/// page resets some hundred requests at the most; one PING goes with each 1 KiB at the most where a client measures its
/// bandwidth (gRPC).
const METER: MeterLimits = MeterLimits { burst: 1000, per_second: 100, bytes_each: 1024 };

/// How much of a request's body may be on its way before it is wanted: what fills a path of 20 ms at 100 Mbit/s.
const STREAM_WINDOW: u32 = 256 * 1024;

/// The same for all requests of a connection together. It bounds what a client can have us keep. Each tunnel that was granted
/// adds its own window: they last, and those whose destinations take nothing must not stop the others.
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Streams that a client has reset and that nobody has looked at yet; a connection with more is closed.
const UNSEEN_RESETS: usize = 32;

/// How long a client that was told to go may take to do so, with nothing under way.
const FAREWELL: std::time::Duration = std::time::Duration::from_secs(1);

type Connected = Connection<Io, Bytes>;

/// Serves a client that speaks HTTP/2 until its connection ends, and says how it ended.
pub(crate) async fn serve(
    service: Arc<HttpService>,
    stream: Stream,
    record: &RefCell<Record>,
    conn: &ConnFacts,
    permit: &Permit,
) -> Outcome {
    let timeouts = service.spec().timeouts;
    let limits = service.spec().limits;
    let frame = if service.is_forward() { TUNNEL_FRAME } else { FRAME };
    let meter = FrameMeter::new(METER, true, clock::now().0);
    let handshake = Builder::new()
        .max_concurrent_streams(limits.h2_streams)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(frame)
        .max_header_list_size(u32::try_from(limits.header_bytes.get()).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(UNSEEN_RESETS)
        .max_send_buffer_size(2 * PIECE)
        .enable_connect_protocol()
        .handshake(Io::new(stream, Some(meter)));
    let patience = Instant::now() + timeouts.header.get();
    let connection = match tokio::time::timeout_at(patience, handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return outcome(&error),
        Err(_) => return Outcome::ClientSilent,
    };
    let _live = live::enter().await;
    let sleep = tokio::time::sleep(std::time::Duration::ZERO);
    tokio::pin!(sleep);
    let mut client = Client {
        service,
        connection,
        accepted: 0,
        quiet_since: clock::now(),
        farewell: None,
        timer: Timer::new(sleep),
        tunnels: Rc::default(),
        widened_for: 0,
    };
    let mut requests = FuturesUnordered::new();
    loop {
        match poll_fn(|cx| client.poll(cx, &mut requests)).await {
            Event::Request(request, respond) => {
                let service = client.service.clone();
                let tunnels = client.tunnels.clone();
                requests.push(answer(service, request, respond, tunnels, record, conn, permit));
            }
            Event::End(outcome) => return outcome,
        }
    }
}

/// A connection of a client.
struct Client<'a> {
    service: Arc<HttpService>,
    connection: Connected,
    /// So many requests came.
    accepted: u32,
    /// Since when nothing is under way.
    quiet_since: Ticks,
    /// Once the client was told to go: until when it may take its time.
    farewell: Option<Ticks>,
    timer: Timer<'a>,
    tunnels: Rc<Tunnels>,
    /// How many of them the connection's window has room for.
    widened_for: u32,
}

#[expect(clippy::large_enum_variant, reason = "the large one is the usual one")]
enum Event {
    Request(http::Request<RecvStream>, SendResponse<Bytes>),
    End(Outcome),
}

impl Client<'_> {
    fn poll<F: Future<Output = ()>>(
        &mut self,
        cx: &mut Context<'_>,
        requests: &mut FuturesUnordered<F>,
    ) -> Poll<Event> {
        if let Some(newer) = self.service.successor() {
            self.service = newer;
        }
        if self.service.is_retired() {
            self.dismiss();
        }
        // Requests first: what they send goes out with the connection's turn.
        while let Poll::Ready(Some(())) = requests.poll_next_unpin(cx) {
            self.quiet_since = clock::now();
        }
        self.widen();
        match self.connection.poll_accept(cx) {
            Poll::Ready(Some(Ok((request, respond)))) => {
                self.accepted = self.accepted.saturating_add(1);
                let most = self.service.spec().limits.requests_per_connection;
                if most > 0 && self.accepted >= most {
                    self.dismiss();
                }
                return Poll::Ready(Event::Request(request, respond));
            }
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Event::End(outcome(&error))),
            Poll::Ready(None) => return Poll::Ready(Event::End(Outcome::Done)),
            Poll::Pending => {}
        }
        // What the connection has read may be what a request waits for: its waker has said so already.
        if !requests.is_empty() {
            return Poll::Pending;
        }
        self.poll_quiet(cx).map(Event::End)
    }

    /// Gives the connection as much room as its tunnels need.
    fn widen(&mut self) {
        let tunnels = self.tunnels.number();
        if tunnels != self.widened_for {
            self.widened_for = tunnels;
            self.connection.set_target_window_size(CONNECTION_WINDOW + tunnels * STREAM_WINDOW);
        }
    }

    /// Tells the client that its requests so far are the last (GOAWAY).
    fn dismiss(&mut self) {
        if self.farewell.is_none() {
            self.connection.graceful_shutdown();
            self.farewell = Some(NEVER);
        }
    }

    /// With nothing under way there is an end to patience.
    fn poll_quiet(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        let keepalive = self.service.spec().timeouts.keepalive.get();
        loop {
            let due = match self.farewell {
                Some(NEVER) => {
                    self.farewell = Some(after(FAREWELL));
                    continue;
                }
                Some(farewell) => farewell,
                None => self.quiet_since + keepalive,
            };
            if self.timer.poll_until(cx, due).is_pending() {
                return Poll::Pending;
            }
            if self.farewell.is_some() {
                return Poll::Ready(Outcome::IdleTimeout);
            }
            self.dismiss();
            // The word of it is written by the connection's next turn.
            cx.waker().wake_by_ref();
        }
    }
}

/// Has one request answered.
async fn answer(
    service: Arc<HttpService>,
    request: http::Request<RecvStream>,
    respond: SendResponse<Bytes>,
    tunnels: Rc<Tunnels>,
    record: &RefCell<Record>,
    conn: &ConnFacts,
    permit: &Permit,
) {
    let mut desk = Desk::take();
    let Papers { request: head, response, facts, back, up, down, .. } = &mut *desk;
    facts.begin(conn);
    let (parts, body) = request.into_parts();
    let protocol = parts.extensions.get::<ext::Protocol>().map(ext::Protocol::as_str);
    let mut stream = ClientStream::new(body, respond, tunnels);
    let read = convert::read_request(&parts, protocol, head);
    let limits = service.head_limits();
    let length = match read {
        Ok(()) if parts.headers.len() > limits.fields => Err(431),
        Ok(()) if head.target().len() > limits.target => Err(414),
        Ok(()) if !http1::knows_expectation(head) => Err(417),
        read => read.and_then(|()| length(&stream, head)).map_err(|error| {
            tracing::debug!(listener = %conn.listener, %error, "a request is refused");
            400
        }),
    };
    drop(parts);
    let sleep = tokio::time::sleep(std::time::Duration::ZERO);
    tokio::pin!(sleep);
    let mut timer = Timer::new(sleep);
    let mut exchange = Exchange {
        service: &service,
        conn,
        record,
        permit,
        timer: &mut timer,
        request: head,
        response,
        facts,
        front: Front::H2(&mut stream),
        back,
        up,
        down,
        body: *length.as_ref().unwrap_or(&Length::None),
        is_persistent: true,
        has_begun: false,
        copy: None,
        held: None,
        guest: None,
        is_spent: false,
        brakes: Brakes::default(),
    };
    let is_connect = exchange.request.method == Method::Connect;
    let end = match length {
        Ok(_) => service.answer(&mut exchange).await,
        Err(status) => service.refuse(&mut exchange, status).await,
    };
    match end {
        End::Done | End::Upgraded(Outcome::Done) => stream.end(None),
        // RFC 9113 section 8.5.
        _ if is_connect => stream.end(Some(Reason::CONNECT_ERROR)),
        _ => stream.end(Some(Reason::INTERNAL_ERROR)),
    }
}

/// How long a request's body is, as its fields say or the end of its stream does. The library sees to it that both agree.
fn length(
    stream: &ClientStream,
    request: &wmproxy_wire::head::Request,
) -> Result<Length, convert::Malformed> {
    // What follows a request for something else is none of it.
    if stream.has_come() || request.protocol().is_some() || request.method == Method::Connect {
        return Ok(Length::None);
    }
    let Some(length) = request.fields.get(Known::ContentLength) else { return Ok(Length::Chunked) };
    let length = std::str::from_utf8(length).ok().and_then(|length| length.parse().ok());
    Ok(Length::Known(length.ok_or(convert::Malformed("a Content-Length that is no number"))?))
}

/// How a connection that failed has ended.
fn outcome(error: &h2::Error) -> Outcome {
    tracing::debug!(%error, "an HTTP/2 connection ends");
    let is_flood = error.get_io().is_some_and(|error| error.kind() == FLOOD);
    match error.reason() {
        _ if is_flood => Outcome::Flood,
        Some(Reason::ENHANCE_YOUR_CALM) => Outcome::Flood,
        Some(Reason::NO_ERROR) => Outcome::Done,
        _ if error.is_io() => Outcome::ClientReset,
        _ => Outcome::BadRequest,
    }
}
