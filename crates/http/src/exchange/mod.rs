//! A request on its way from its head to the end of its response, the same for every version of HTTP.
//!
//! What lives here: the two [sides](Front), which know the versions, the [way](Way) of a body between them, and the
//! [`Exchange`] that holds what belongs to one request and moves both bodies at once: an early response passes while
//! the upload still runs, nothing is read that can't be passed on, and whoever is waited for has a deadline. What must not:
//! which endpoint answers (`endpoint`), and what the connection does before and after (`h1`, `h2`).

mod back;
mod braked;
mod cut;
mod date;
mod filtered;
mod held;
mod passage;
mod respond;
mod sides;
mod way;

use std::cell::RefCell;
use std::future::poll_fn;
use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use wmproxy_net::limit::Permit;
use wmproxy_net::record::{Outcome, Record};
use wmproxy_runtime::clock::Ticks;
use wmproxy_wire::head::{Known, Method, Request, Response, Version};
use wmproxy_wire::http1::Length;

use crate::facts::{ConnFacts, Facts, Scene};
use crate::filter::mirror::{Copy, Tapped};
use crate::forward::Guest;
use crate::forward::serve::Granted;
use crate::h1::Wire;
use crate::scratch::Scratch;
use crate::service::HttpService;
use crate::timer::{Timer, after};
pub(crate) use back::{Line, NoResponse};
pub(crate) use braked::{Braked, Brakes};
pub(crate) use cut::Cut;
pub(crate) use date::seconds;
use held::Continued;
pub(crate) use held::Held;
pub(crate) use passage::Passage;
pub(crate) use respond::Nothing;
pub(crate) use sides::{Broken, Front, Piece, Sink, Source};
pub(crate) use way::{Break, Waits, Way};

/// Interim responses to one request. More are no information, but a way to keep somebody busy.
const INTERIMS: u32 = 32;

/// So many bytes of a body have to come within its timeout: who sends less means to hold a connection and a peer, and not to
/// upload. Not in HTTP/2, where streams of rare messages are usual, and one more of them costs little.
const LEAST: u64 = 1024;

/// One request with all that it needs.
pub(crate) struct Exchange<'a, 'b> {
    pub(crate) service: &'a HttpService,
    pub(crate) conn: &'a ConnFacts,
    pub(crate) record: &'a RefCell<Record>,
    /// The connection's place behind its listener's limits.
    pub(crate) permit: &'a Permit,
    pub(crate) timer: &'a mut Timer<'b>,
    pub(crate) request: &'a mut Request,
    pub(crate) response: &'a mut Response,
    pub(crate) facts: &'a mut Facts,
    pub(crate) front: Front<'a>,
    /// Buffers for a peer that speaks HTTP/1.
    pub(crate) back: &'a mut Wire,
    pub(crate) up: &'a mut Way,
    pub(crate) down: &'a mut Way,
    /// A copy of the request, where somebody watches.
    pub(crate) copy: Option<Box<Copy>>,
    /// What was read of the request's body before a peer was asked.
    pub(crate) held: Option<Box<Held>>,
    /// Whose bytes these are, where somebody counts them.
    pub(crate) guest: Option<Arc<dyn Guest>>,
    /// That they may have no more of them.
    pub(crate) is_spent: bool,
    /// How fast they may pass.
    pub(crate) brakes: Brakes,
    /// How long the request's body is.
    pub(crate) body: Length,
    /// Whether the client's connection may serve another request after this one.
    pub(crate) is_persistent: bool,
    /// Whether the response has begun: after that nothing else can be said.
    pub(crate) has_begun: bool,
}

/// How an exchange ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The response is whole on its way.
    Done,
    /// It was cut off, and that must show: the connection is to be reset.
    Cut(Outcome),
    /// It is no HTTP any more: the client's stream was relayed to its end.
    Upgraded(Outcome),
    /// It is no HTTP any more, and the client's stream is to be relayed by whoever has it.
    Tunnel(Box<Granted>),
}

/// A peer's response, of which the head is read.
pub(crate) struct Answer {
    /// Where the beginning of its body lies.
    pub(crate) scratch: Scratch,
    pub(crate) place: Range<usize>,
    pub(crate) length: Length,
}

/// Why a peer's answer did not come.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The client broke the request off, or broke its rules.
    Client(Broken),
    /// The client has gone.
    ClientGone,
    /// The client sent nothing more of the body.
    ClientSlow,
    /// The body is larger than it may be.
    TooLarge,
    /// Whoever asks has used up what they may.
    Spent,
    /// What the peer said, or did not.
    Peer(NoResponse),
    /// It said nothing in time.
    PeerSlow,
}

/// How long a peer may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Until its response begins, counted from when it has the request.
    pub(crate) head: Duration,
    /// Between two pieces of a body.
    pub(crate) pause: Duration,
    /// When it is over in any case, unless the request is still on its way; that counts from its end.
    pub(crate) total: Duration,
    /// When the first peer was asked.
    pub(crate) began: Ticks,
}

impl Exchange<'_, '_> {
    /// What variables are read from.
    pub(crate) fn scene(&self) -> Scene<'_> {
        let response = (self.response.status != 0).then_some(&*self.response);
        Scene { conn: self.conn, request: self.request, response, facts: self.facts }
    }

    /// Sends the request to a peer, its body while it comes, and reads the head of the response. Interim ones are
    /// passed on to who understands them.
    pub(crate) async fn ask(&mut self, line: &mut Line, patience: Patience) -> Result<Answer, Trouble> {
        self.back.reset();
        if let Some(copy) = &mut self.copy {
            copy.rewind();
        }
        if let Some(held) = &mut self.held {
            held.rewind();
        }
        match self.request.protocol() {
            // What the client says beyond it is for nobody before the peer grants it.
            Some(_) => self.up.begin_head(),
            None => self.up.begin(self.service.spec().splice),
        }
        line.back(self.back).begin(self.request, self.body);
        for _ in 0..INTERIMS {
            let answer = poll_fn(|cx| self.poll_answer(cx, line, patience)).await?;
            if !self.response.is_interim() || self.response.status == 101 {
                return Ok(answer);
            }
            line.back(self.back).keep(answer.scratch.at(&answer.place));
            if self.response.status == 100 {
                // What was asked for was given: the peer reads the body.
                self.request.fields.remove(Known::Expect);
            }
            if self.request.version > Version::Http10 {
                crate::endpoint::onward::strip(&mut self.response.fields);
                self.front.interim(self.response);
            }
        }
        Err(Trouble::Peer(NoResponse::Bad("more interim responses than anybody needs".into())))
    }

    fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        line: &mut Line,
        patience: Patience,
    ) -> Poll<Result<Answer, Trouble>> {
        let mut scratch = Scratch::take();
        if let Err(trouble) = self.poll_up(cx, line, &mut scratch) {
            return Poll::Ready(Err(trouble));
        }
        // An interim response that is not taken at once holds nothing up.
        let _ = self.front.poll_flush(cx).map_err(|_| Trouble::ClientGone)?;
        let mut back = line.back(self.back);
        if let Poll::Ready(found) = back.poll_response(cx, &mut scratch, self.response, self.request) {
            let found = found.map(|(place, length)| Answer { scratch, place, length });
            return Poll::Ready(found.map_err(Trouble::Peer));
        }
        self.count();
        if self.is_spent {
            return Poll::Ready(Err(Trouble::Spent));
        }
        if self.up.is_over() && self.front.is_gone(cx) {
            return Poll::Ready(Err(Trouble::ClientGone));
        }
        let (deadline, whose) = self.answer_due(patience);
        self.timer.poll_until(cx, deadline).map(|()| Err(whose))
    }

    /// Sends the interim response that is there.
    pub(crate) async fn send_interim(&mut self) -> Result<(), Cut> {
        self.front.interim(self.response);
        let due = after(self.service.spec().timeouts.write.get());
        poll_fn(|cx| {
            if let Poll::Ready(sent) = self.front.poll_flush(cx) {
                return Poll::Ready(sent.map_err(Cut::Client));
            }
            self.timer.poll_until(cx, due).map(|()| Err(Cut::ClientSlow))
        })
        .await
    }

    /// Whether the body is there to be sent to another peer.
    pub(crate) fn can_ask_again(&self) -> bool {
        self.up.moved == 0 || self.held.as_ref().is_some_and(|held| held.is_whole())
    }

    /// Passes the request's body on, as far as that goes now.
    fn poll_up(
        &mut self,
        cx: &mut Context<'_>,
        line: &mut Line,
        scratch: &mut Scratch,
    ) -> Result<(), Trouble> {
        if self.up.is_over() {
            return Ok(());
        }
        let mut back = line.back(self.back);
        let (front, copy) = (&mut self.front, &mut self.copy);
        let moved = match (&mut self.held, copy.is_some()) {
            (None, false) => match &mut self.brakes.up {
                None => self.up.poll(cx, front, &mut back, scratch),
                Some(brake) => self.up.poll(cx, &mut Braked { from: front, brake }, &mut back, scratch),
            },
            (None, true) => self.up.poll(cx, &mut Tapped { from: front, copy }, &mut back, scratch),
            (Some(held), _) => {
                let mut from = Continued { held, rest: front };
                self.up.poll(cx, &mut Tapped { from: &mut from, copy }, &mut back, scratch)
            }
        };
        match moved {
            Poll::Ready(Err(Break::Source(broken))) => return Err(Trouble::Client(broken)),
            // It may have answered before it stopped to listen.
            Poll::Ready(Err(Break::Sink(_))) => self.up.abandon(),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        if self.up.moved > self.service.spec().limits.body.bytes() {
            return Err(Trouble::TooLarge);
        }
        Ok(())
    }

    /// So many bytes of the request's body have to come within its timeout.
    fn least(&self) -> u64 {
        if self.request.version == Version::Http2 { 0 } else { LEAST }
    }

    /// When the wait for a response is over, and whose fault that is.
    fn answer_due(&mut self, patience: Patience) -> (Ticks, Trouble) {
        let Patience { head, total, began, .. } = patience;
        if !self.up.is_over() {
            return match self.up.waits {
                Waits::Source => {
                    let (pause, least) = (self.service.spec().timeouts.body.get(), self.least());
                    (self.up.due(pause, least), Trouble::ClientSlow)
                }
                Waits::Sink => (self.up.last + head, Trouble::PeerSlow),
            };
        }
        let total = if self.up.moved > 0 { self.up.last + total } else { began + total };
        (total.min(self.up.last + head), Trouble::PeerSlow)
    }

    /// Passes a peer's response on, and what is left of the request. No `async fn`: it would hold its arguments twice.
    pub(crate) fn pass(
        &mut self,
        line: &mut Line,
        answer: Answer,
        patience: Patience,
        mut passage: Passage,
    ) -> impl Future<Output = Result<(), Cut>> {
        self.down.begin(self.service.spec().splice);
        let mut first = Some(answer);
        poll_fn(move |cx| {
            if let Some(Answer { mut scratch, place, .. }) = first.take() {
                let piece = line.back(self.back).first_piece(&mut scratch, place, self.down.trailers());
                let piece = piece.map_err(Cut::Peer)?;
                self.brakes.spent_down(piece.place.len());
                if piece.is_last || !piece.place.is_empty() {
                    passage.begin(cx, self.down, &mut self.front, &mut scratch, piece)?;
                }
            }
            self.poll_bodies(cx, line, patience, &mut passage)
        })
    }

    fn poll_bodies(
        &mut self,
        cx: &mut Context<'_>,
        line: &mut Line,
        patience: Patience,
        passage: &mut Passage,
    ) -> Poll<Result<(), Cut>> {
        let mut scratch = Scratch::take();
        if let Err(trouble) = self.poll_up(cx, line, &mut scratch) {
            // The response goes on: the client may have stopped because of it. What it goes on with is not believed.
            tracing::debug!(?trouble, "a request breaks off during its response");
            self.up.abandon();
            self.is_persistent = false;
        }
        let mut back = line.back(self.back);
        let down = match &mut self.brakes.down {
            None => passage.poll(cx, self.down, &mut back, &mut self.front, &mut scratch),
            Some(brake) => {
                let mut from = Braked { from: &mut back, brake };
                passage.poll(cx, self.down, &mut from, &mut self.front, &mut scratch)
            }
        };
        self.count();
        if let Poll::Ready(done) = down {
            return Poll::Ready(done.map_err(Cut::from));
        }
        if self.is_spent {
            return Poll::Ready(Err(Cut::Spent));
        }
        // Or a client could have peers at work for more requests than it has open.
        if self.front.is_gone(cx) {
            return Poll::Ready(Err(Cut::Client(Broken::Cut)));
        }
        if self.down.waits == Waits::Sink {
            return self.poll_client_slow(cx);
        }
        let last = self.up.last.max(self.down.last);
        // Its answer may wait for the rest of the question.
        let (pause, whose) = if !self.up.is_over() && self.up.waits == Waits::Source {
            (self.service.spec().timeouts.body.get(), Cut::ClientSlow)
        } else {
            (patience.pause, Cut::PeerSlow)
        };
        self.timer.poll_until(cx, last + pause).map(|()| Err(whose))
    }

    /// Ready when the client takes no more of the response.
    fn poll_client_slow(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cut>> {
        let timeout = self.service.spec().timeouts.write.get();
        let stalled = self.down.poll_stalled(cx, self.timer, self.front.stream(), timeout);
        stalled.map(|()| Err(Cut::ClientSlow))
    }

    /// Notes the bytes that have passed.
    pub(crate) fn count(&mut self) {
        let (inward, outward) = self.front.take_counts();
        if inward + outward > 0 {
            if let Some(guest) = &self.guest {
                self.is_spent |= !guest.spend(inward + outward);
            }
            let spliced = std::mem::take(&mut self.up.spliced) + std::mem::take(&mut self.down.spliced);
            let mut record = self.record.borrow_mut();
            record.add_bytes(inward, outward);
            record.add_spliced(spliced);
        }
    }

    /// Whether the response that is there would tell a client of HTTP/2 that its stream is a WebSocket now, while whoever
    /// answered knows nothing of that.
    fn is_false_grant(&self) -> bool {
        let is_success = (200..300).contains(&self.response.status);
        is_success && self.request.protocol().is_some() && matches!(self.front, Front::H2(_))
    }

    /// Begins the response with the head that is there. Its body goes out as it is, or in chunks where its length is not
    /// known and the client understands them.
    pub(crate) fn begin(&mut self, body: Length) {
        if self.is_false_grant() {
            self.response.set_status(501);
        }
        self.has_begun = true;
        self.facts.status = self.response.status;
        if !self.front.has_come() && self.response.status >= 400 {
            // Nobody wants the rest of such a request.
            self.is_persistent = false;
        }
        let body = match body {
            _ if self.request.method == Method::Head => Length::None,
            Length::Chunked | Length::UntilClose if self.request.version == Version::Http10 => {
                self.is_persistent = false;
                Length::UntilClose
            }
            Length::UntilClose => Length::Chunked,
            body => body,
        };
        // It may have come to its end since the request began.
        self.is_persistent &= !self.service.is_retired();
        let is_persistent = self.is_persistent;
        self.front.begin(self.request.version, self.response, body, is_persistent);
    }
}
