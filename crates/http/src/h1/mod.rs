//! Connections of clients that speak HTTP/1, and what both sides of that version have in common.
//!
//! A connection's task waits for a request, has it answered, and waits for the next; pipelined ones wait in order. While it
//! waits it holds its stream and its timer, and no buffer. Everything else is on a [desk](crate::desk) that it takes with the
//! first byte of a request and gives back behind the last of its response.

mod linger;
mod wire;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use wmproxy_net::limit::Permit;
use wmproxy_net::record::{Outcome, Record};
use wmproxy_net::stream::{ResetOnDrop, Stream};
use wmproxy_runtime::clock::Ticks;
use wmproxy_wire::head::{Known, Response, Version};
use wmproxy_wire::http1::{self, HeadLimits, Length};

use crate::desk::{Desk, Papers};
use crate::exchange::{Brakes, End, Exchange, Front, NoResponse};
use crate::facts::ConnFacts;
use crate::forward::serve::Granted;
use crate::live;
use crate::scratch::Scratch;
use crate::service::HttpService;
use crate::timer::{Timer, after};
pub(crate) use wire::{NoHead, Wire};

/// What the head of a response may be. Larger than what we take from clients by default: cookies that a site sets come in
/// one response, and go out in many requests.
const RESPONSE: HeadLimits = HeadLimits { bytes: 64 * 1024, target: 0, fields: 200, any_host: false };

/// Who has just come to a listener that goes out of service is not sent away without an answer: the first request is mostly
/// on its way already, and needs a round trip. Whoever connects in advance has waited for longer.
const WELCOME: Duration = Duration::from_secs(1);

/// What becomes of a connection that is served as HTTP/1.
pub(crate) enum Served {
    /// It has ended so.
    Ended(Outcome),
    /// It speaks HTTP/2, to be served by this. What the client said is unread.
    Http2(Arc<HttpService>),
    /// It is a tunnel now. What the client has sent ahead is unread.
    Tunnel(Arc<HttpService>, Box<Granted>),
}

/// Serves a client for as long as it speaks HTTP/1.
pub(crate) async fn serve(
    service: Arc<HttpService>,
    stream: &Stream,
    record: &RefCell<Record>,
    conn: &ConnFacts,
    permit: &Permit,
) -> Served {
    let sleep = tokio::time::sleep(Duration::ZERO);
    tokio::pin!(sleep);
    let _live = live::enter().await;
    // Whoever is cut off in the middle of a response must not take it for the whole.
    let unfinished = ResetOnDrop::new(stream);
    let mut client = Client { service, stream, record, conn, permit, timer: Timer::new(sleep), requests: 0 };
    let close = client.run().await;
    if !matches!(close, Close::Cut(_)) {
        unfinished.disarm();
    }
    match close {
        Close::Cut(outcome) | Close::Ended(outcome) => Served::Ended(outcome),
        Close::Http2 => Served::Http2(client.service),
        Close::Tunnel(granted) => Served::Tunnel(client.service, granted),
    }
}

/// A connection of a client.
struct Client<'a> {
    service: Arc<HttpService>,
    stream: &'a Stream,
    record: &'a RefCell<Record>,
    conn: &'a ConnFacts,
    permit: &'a Permit,
    timer: Timer<'a>,
    /// So many were answered.
    requests: u32,
}

/// How a connection ends.
enum Close {
    /// In good order.
    Ended(Outcome),
    /// By a reset.
    Cut(Outcome),
    /// It does not: it is one of HTTP/2, with prior knowledge (RFC 9113 section 3.3).
    Http2,
    /// It does not, but HTTP does.
    Tunnel(Box<Granted>),
}

/// What comes instead of a request.
enum NoRequest {
    /// An end.
    Close(Close),
    /// Something that gets this status before the end.
    Refused(u16),
}

impl<'a> Client<'a> {
    async fn run(&mut self) -> Close {
        let mut desk = None;
        loop {
            let next = self.next(&mut desk).await;
            let Some(at) = &mut desk else {
                // Without a first byte there is nothing but an end.
                return match next {
                    Err(NoRequest::Close(close)) => close,
                    _ => Close::Ended(Outcome::Done),
                };
            };
            let end = match next {
                Ok(()) => self.answer(at).await,
                Err(NoRequest::Close(close)) => return close,
                Err(NoRequest::Refused(status)) => self.refuse(at, status).await,
            };
            match end {
                Some(close) => return close,
                None if at.front.has_ahead() => at.clear(),
                None => desk = None,
            }
        }
    }

    /// Waits for a request and reads its head. Where there is a desk, the client has sent something ahead.
    async fn next(&mut self, desk: &mut Option<Desk>) -> Result<(), NoRequest> {
        let service = &self.service;
        let timeouts = &service.spec().timeouts;
        let limits = service.head_limits();
        let first = if self.requests == 0 { timeouts.header } else { timeouts.keepalive };
        let mut due = after(if desk.is_some() { timeouts.header } else { first }.get());
        let (stream, conn, timer) = (self.stream, self.conn, &mut self.timer);
        if let Some(desk) = desk {
            desk.facts.begin(conn);
        }
        let welcome = if self.requests == 0 { after(WELCOME) } else { Ticks::default() };
        let may_be_h2 = self.requests == 0 && service.spec().h2;
        // As much of it as is there, for what is no request in HTTP/1 can be nothing else.
        let is_h2 = |came: &[u8]| http1::is_h2_preface(came) != Some(false);
        poll_fn(|cx| {
            let mut scratch = Scratch::take();
            let found = loop {
                let Some(desk) = desk else {
                    match stream.poll_read(cx, scratch.room()) {
                        Poll::Ready(Ok(0)) => {
                            return Poll::Ready(Err(NoRequest::Close(Close::Ended(Outcome::Done))));
                        }
                        Poll::Ready(Ok(n))
                            if may_be_h2
                                && http1::is_h2_preface(scratch.at(&scratch.read(n))) == Some(true) =>
                        {
                            stream.unread(scratch.at(&scratch.read(n)).to_vec());
                            return Poll::Ready(Err(NoRequest::Close(Close::Http2)));
                        }
                        Poll::Ready(Ok(n)) => {
                            let desk = desk.insert(Desk::take());
                            due = after(timeouts.header.get());
                            let Papers { request, front, facts, .. } = &mut **desk;
                            facts.begin(conn);
                            let mut parse = |bytes: &[u8]| http1::read_request(bytes, limits, request);
                            match front.head_in(&scratch, n, &mut parse) {
                                Some(found) => break found,
                                None => continue,
                            }
                        }
                        Poll::Ready(Err(_)) => {
                            return Poll::Ready(Err(NoRequest::Close(Close::Ended(Outcome::ClientReset))));
                        }
                        Poll::Pending if service.is_retired() => {
                            let closed = |()| Err(NoRequest::Close(Close::Ended(Outcome::Done)));
                            return timer.poll_until(cx, due.min(welcome)).map(closed);
                        }
                        Poll::Pending => {
                            let closed = |()| Err(NoRequest::Close(Close::Ended(Outcome::IdleTimeout)));
                            return timer.poll_until(cx, due).map(closed);
                        }
                    }
                };
                let Papers { request, front, .. } = &mut **desk;
                let parse = |bytes: &[u8]| http1::read_request(bytes, limits, request);
                match front.poll_head(cx, stream, &mut scratch, parse) {
                    Poll::Ready(found) => break found,
                    Poll::Pending => return timer.poll_until(cx, due).map(|()| Err(NoRequest::Refused(408))),
                }
            };
            let Some(desk) = desk else { return Poll::Pending };
            Poll::Ready(match found {
                Ok(behind) => {
                    desk.front.keep(scratch.at(&behind));
                    Ok(())
                }
                Err(NoHead::Bad(_)) if may_be_h2 && desk.front.begins_with(is_h2) => {
                    stream.unread(desk.front.take_ahead());
                    Err(NoRequest::Close(Close::Http2))
                }
                Err(NoHead::Bad(error)) => {
                    tracing::debug!(listener = %conn.listener, %error, "a request is refused");
                    Err(NoRequest::Refused(error.status()))
                }
                Err(NoHead::Ended) => Err(NoRequest::Close(Close::Ended(Outcome::Done))),
                Err(NoHead::Cut) => Err(NoRequest::Close(Close::Ended(Outcome::ClientLeft))),
                Err(NoHead::Failed(_)) => Err(NoRequest::Close(Close::Cut(Outcome::ClientReset))),
            })
        })
        .await
    }

    /// Has a request answered. None if another may follow.
    async fn answer(&mut self, desk: &mut Desk) -> Option<Close> {
        if let Some(newer) = self.service.successor() {
            self.service = newer;
        }
        self.requests = self.requests.saturating_add(1);
        let length = match http1::request_length(&desk.request) {
            Ok(length) => length,
            Err(error) => {
                tracing::debug!(listener = %self.conn.listener, %error, "a request is refused");
                return self.refuse(desk, error.status()).await;
            }
        };
        desk.front.expect(length);
        let most = self.service.spec().limits.requests_per_connection;
        let is_persistent = http1::is_persistent(desk.request.version, &desk.request.fields)
            && !self.service.is_retired()
            && (most == 0 || self.requests < most);
        let service = Arc::clone(&self.service);
        let mut exchange = self.exchange(&service, desk, length, is_persistent);
        let end = service.answer(&mut exchange).await;
        let goes_on = exchange.is_persistent;
        self.after(desk, end, goes_on).await
    }

    /// Tells a client what is wrong with its request, and ends the connection: where a message that is wrong ends nobody knows.
    async fn refuse(&mut self, desk: &mut Desk, status: u16) -> Option<Close> {
        let service = Arc::clone(&self.service);
        let mut exchange = self.exchange(&service, desk, Length::None, false);
        let end = service.refuse(&mut exchange, status).await;
        if matches!(end, End::Done) {
            linger::linger(self.stream, &mut self.timer).await;
            return Some(Close::Ended(if status == 408 { Outcome::ClientSlow } else { Outcome::BadRequest }));
        }
        self.after(desk, end, false).await
    }

    fn exchange<'e>(
        &'e mut self,
        service: &'e HttpService,
        desk: &'e mut Desk,
        body: Length,
        is_persistent: bool,
    ) -> Exchange<'e, 'a> {
        let Papers { request, response, facts, front, back, up, down } = &mut **desk;
        response.clear();
        Exchange {
            service,
            conn: self.conn,
            record: self.record,
            permit: self.permit,
            timer: &mut self.timer,
            request,
            response,
            facts,
            front: Front::H1(self.stream, front),
            back,
            up,
            down,
            body,
            is_persistent,
            has_begun: false,
            copy: None,
            held: None,
            guest: None,
            is_spent: false,
            brakes: Brakes::default(),
        }
    }

    /// What becomes of the connection behind a response. None if another request may follow.
    async fn after(&mut self, desk: &mut Desk, end: End, goes_on: bool) -> Option<Close> {
        match end {
            End::Cut(outcome) => return Some(Close::Cut(outcome)),
            End::Upgraded(Outcome::Done) => return Some(Close::Ended(Outcome::Done)),
            End::Upgraded(outcome) => return Some(Close::Cut(outcome)),
            End::Tunnel(granted) => return Some(Close::Tunnel(granted)),
            End::Done => {}
        }
        let front = &mut desk.front;
        if goes_on && (front.has_come() || linger::drain(self.stream, &mut self.timer, front).await) {
            return None;
        }
        if !front.has_come() || front.has_ahead() {
            linger::linger(self.stream, &mut self.timer).await;
        } else if !self.stream.can_splice() {
            linger::say_goodbye(self.stream, &mut self.timer).await;
        }
        Some(Close::Ended(desk.facts.outcome.unwrap_or(Outcome::Done)))
    }
}

/// Says in a response's fields where it ends, and whether another may follow on its connection.
pub(crate) fn frame_response(version: Version, response: &mut Response, body: Length, is_persistent: bool) {
    match body {
        Length::Chunked => response.fields.push_known(Known::TransferEncoding, b"chunked"),
        Length::None | Length::Known(_) | Length::UntilClose => {}
    }
    match (is_persistent, version) {
        (false, _) => response.fields.push_known(Known::Connection, b"close"),
        (true, Version::Http10) => response.fields.push_known(Known::Connection, b"keep-alive"),
        (true, _) => {}
    }
}

/// Reads the head of a peer's response.
pub(crate) fn poll_response(
    cx: &mut Context<'_>,
    stream: &Stream,
    wire: &mut Wire,
    scratch: &mut Scratch,
    response: &mut Response,
) -> Poll<Result<Range<usize>, NoResponse>> {
    let parse = |bytes: &[u8]| http1::read_response(bytes, &RESPONSE, response);
    let cut = || io::Error::from(io::ErrorKind::UnexpectedEof);
    Poll::Ready(ready!(wire.poll_head(cx, stream, scratch, parse)).map_err(|error| match error {
        NoHead::Ended => NoResponse::Silent(cut()),
        NoHead::Failed(error) if !wire.has_ahead() => NoResponse::Silent(error),
        NoHead::Failed(error) => NoResponse::Cut(error),
        NoHead::Cut => NoResponse::Cut(cut()),
        NoHead::Bad(error) => NoResponse::Bad(error.into()),
    }))
}
