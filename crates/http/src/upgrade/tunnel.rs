//! Two directions of bytes between sides of which one at least is a stream of HTTP/2.
//!
//! Each direction is a body without a length that moves as any body does: nothing is read that can't be passed on. The end of
//! one is passed on as such, a FIN here and END_STREAM there, and a reset as a reset.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use wmproxy_net::record::Outcome;
use wmproxy_net::relay::Splice;
use wmproxy_net::stream::ResetOnDrop;

use crate::exchange::{Braked, Break, Exchange, Line};
use crate::scratch::Scratch;
use crate::timer::NEVER;

/// How far one direction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lane {
    Open,
    /// Its last byte has gone, and its end is to be told.
    Ending,
    Closed,
}

/// What happened to a tunnel.
struct Tunnel {
    up: Lane,
    down: Lane,
    /// Who stopped taking bytes while the other direction still ran.
    cut_by: Option<Outcome>,
}

/// Passes on what both sides say until both are done, and says how it ended.
pub(crate) async fn run(ex: &mut Exchange<'_, '_>, line: &mut Line) -> Outcome {
    ex.front.tunnel(ex.response);
    line.back(ex.back).tunnel();
    ex.up.begin(Splice::Off);
    ex.down.begin(Splice::Off);
    let mut tunnel = Tunnel { up: Lane::Open, down: Lane::Open, cut_by: None };
    let outcome = poll_fn(|cx| {
        let ended = tunnel.poll(cx, ex, line);
        ex.count();
        if ex.is_spent { Poll::Ready(Outcome::Quota) } else { ended }
    })
    .await;
    if outcome != Outcome::Done
        && let Line::H1(peer) = line
    {
        // It is to learn that the other side did not finish. A stream of HTTP/2 says so by itself.
        drop(ResetOnDrop::new(peer));
    }
    outcome
}

impl Tunnel {
    fn poll(&mut self, cx: &mut Context<'_>, ex: &mut Exchange<'_, '_>, line: &mut Line) -> Poll<Outcome> {
        if let Poll::Ready(Err(outcome)) = self.poll_up(cx, ex, line) {
            return Poll::Ready(outcome);
        }
        if let Poll::Ready(Err(outcome)) = self.poll_down(cx, ex, line) {
            return Poll::Ready(outcome);
        }
        if (self.up, self.down) == (Lane::Closed, Lane::Closed) {
            return Poll::Ready(self.cut_by.unwrap_or(Outcome::Done));
        }
        if self.up != Lane::Open && ex.front.is_gone(cx) {
            return Poll::Ready(Outcome::ClientReset);
        }
        let idle = ex.service.spec().timeouts.upgrade.get();
        let due = if idle.is_zero() { NEVER } else { ex.up.last.max(ex.down.last) + idle };
        ex.timer.poll_until(cx, due).map(|()| Outcome::IdleTimeout)
    }

    /// From the client to the peer.
    fn poll_up(
        &mut self,
        cx: &mut Context<'_>,
        ex: &mut Exchange<'_, '_>,
        line: &mut Line,
    ) -> Poll<Result<(), Outcome>> {
        let mut back = line.back(ex.back);
        if self.up == Lane::Open {
            let mut scratch = Scratch::take();
            let moved = match &mut ex.brakes.up {
                None => ex.up.poll(cx, &mut ex.front, &mut back, &mut scratch),
                Some(brake) => {
                    ex.up.poll(cx, &mut Braked { from: &mut ex.front, brake }, &mut back, &mut scratch)
                }
            };
            match ready!(moved) {
                Ok(()) => self.up = Lane::Ending,
                Err(Break::Source(_)) => return Poll::Ready(Err(Outcome::ClientReset)),
                Err(Break::Sink(_)) => {
                    // What it said before it went is still to be read.
                    self.cut_by.get_or_insert(Outcome::PeerReset);
                    self.up = Lane::Closed;
                }
            }
        }
        if self.up == Lane::Ending {
            ready!(back.poll_finish(cx)).map_err(|_| Outcome::PeerReset)?;
            self.up = Lane::Closed;
        }
        Poll::Ready(Ok(()))
    }

    /// From the peer to the client.
    fn poll_down(
        &mut self,
        cx: &mut Context<'_>,
        ex: &mut Exchange<'_, '_>,
        line: &mut Line,
    ) -> Poll<Result<(), Outcome>> {
        if self.down == Lane::Open {
            let (mut back, mut scratch) = (line.back(ex.back), Scratch::take());
            let moved = match &mut ex.brakes.down {
                None => ex.down.poll(cx, &mut back, &mut ex.front, &mut scratch),
                Some(brake) => {
                    ex.down.poll(cx, &mut Braked { from: &mut back, brake }, &mut ex.front, &mut scratch)
                }
            };
            match ready!(moved) {
                Ok(()) => self.down = Lane::Ending,
                Err(Break::Source(_)) => return Poll::Ready(Err(self.cut_by.unwrap_or(Outcome::PeerReset))),
                Err(Break::Sink(_)) => {
                    self.cut_by.get_or_insert(Outcome::ClientReset);
                    self.down = Lane::Closed;
                }
            }
        }
        if self.down == Lane::Ending {
            ready!(ex.front.poll_finish(cx)).map_err(|_| Outcome::ClientReset)?;
            self.down = Lane::Closed;
        }
        Poll::Ready(Ok(()))
    }
}
