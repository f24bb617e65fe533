//! Bodies that are made while they are sent: listings and archives.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};

use wmproxy_files::produce::Produce;
use wmproxy_net::limit::{Gate, Permit};
use wmproxy_wire::head::Fields;

use super::held::Held;
use super::pool::{Disk, Work};
use crate::exchange::{Broken, Piece, Source};
use crate::scratch::Scratch;

/// So many are made at once, on all workers together. Each has the names of a directory in memory, some megabytes if that is a
/// large one, for as long as its client takes. One that has come to its last piece has none, and counts no more.
const MOST: u32 = 64;

/// And so many for one client, who could take all of them else, and keep them by taking little. More than a browser asks of
/// one server at once (6).
const MOST_FOR_ONE: u32 = 8;

static RUNNING: LazyLock<Arc<Gate>> = LazyLock::new(|| Gate::new(MOST, MOST_FOR_ONE));

/// A body that is made beside the worker, a piece at a time: the next one while one is sent, and no more.
#[derive(Debug)]
pub(super) struct ProducedSource {
    /// None when the last piece has come.
    making: Option<Work<Made>>,
    /// What has come, and how much of it went.
    piece: Vec<u8>,
    sent: usize,
    disk: Arc<Disk>,
    /// What it counts by.
    permit: Option<Permit>,
}

/// A piece, and whoever makes the next.
#[derive(Debug)]
struct Made {
    piece: Vec<u8>,
    maker: Maker,
    has_more: io::Result<bool>,
}

/// Whoever makes pieces. Who is gone while one is made leaves its descriptors open up to the end of that, so they count for as
/// long.
#[derive(Debug)]
struct Maker {
    produce: Box<dyn Produce>,
    _held: Held,
}

impl ProducedSource {
    /// Begins to make a body for a client, as far as it is known by an address; none when there are too many, or those that
    /// there are may need all descriptors that are for them.
    pub(super) fn new(
        disk: Arc<Disk>,
        client: Option<IpAddr>,
        produce: Box<dyn Produce>,
    ) -> Option<ProducedSource> {
        let permit = enter(&RUNNING, client)?;
        let held = Held::take(produce.descriptors())?;
        Some(ProducedSource {
            permit: Some(permit),
            making: Some(make(&disk, Maker { produce, _held: held })),
            piece: Vec::new(),
            sent: 0,
            disk,
        })
    }
}

/// A place for one more body, if there is one for its client.
fn enter(gate: &Arc<Gate>, client: Option<IpAddr>) -> Option<Permit> {
    let mut permit = gate.try_enter()?;
    client.is_none_or(|client| permit.claim(client)).then_some(permit)
}

fn make(disk: &Arc<Disk>, mut maker: Maker) -> Work<Made> {
    disk.start_toil(move || {
        let mut piece = Vec::new();
        let has_more = maker.produce.produce(&mut piece);
        Made { piece, maker, has_more }
    })
}

impl Source for ProducedSource {
    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        most: usize,
        _: &mut Fields,
    ) -> Poll<Result<Piece, Broken>> {
        while self.sent == self.piece.len() {
            let Some(making) = &mut self.making else { return Poll::Ready(Ok(Piece::end(scratch))) };
            let made = ready!(making.poll(cx)).map_err(|undone| Broken::Unreadable(undone.into()));
            let Made { piece, maker, has_more } = made?;
            self.making = has_more.map_err(Broken::Unreadable)?.then(|| make(&self.disk, maker));
            if self.making.is_none() {
                self.permit = None;
            }
            (self.piece, self.sent) = (piece, 0);
        }
        let room = scratch.room();
        let n = (self.piece.len() - self.sent).min(room.len()).min(most);
        room[..n].copy_from_slice(&self.piece[self.sent..][..n]);
        self.sent += n;
        let is_last = self.making.is_none() && self.sent == self.piece.len();
        Poll::Ready(Ok(Piece { place: scratch.read(n), is_last }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_has_a_few_and_leaves_the_rest_to_others() {
        let gate = Gate::new(MOST, MOST_FOR_ONE);
        let client = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        for (client, same) in [
            (client("192.0.2.1"), client("::ffff:192.0.2.1")),
            (client("2001:db8::1"), client("2001:db8::ffff:0:0:2")),
        ] {
            let mut held: Vec<_> = (0..MOST_FOR_ONE).map(|_| enter(&gate, client).unwrap()).collect();
            assert!(enter(&gate, client).is_none() && enter(&gate, same).is_none());
            held.pop();
            drop(enter(&gate, same).unwrap());
            // Who is sent away takes nobody's place.
            assert_eq!(gate.active(), MOST_FOR_ONE - 1);
        }
        let others = (0..MOST).map(|n| Some(IpAddr::from([198, 51, 100, n as u8])));
        let held: Vec<_> = others.map(|client| enter(&gate, client).unwrap()).collect();
        assert!(enter(&gate, client("192.0.2.1")).is_none() && enter(&gate, None).is_none());
        drop(held);
        // Nobody tells those behind a Unix socket apart.
        let held: Vec<_> = (0..MOST).map(|_| enter(&gate, None).unwrap()).collect();
        drop(held);
        assert_eq!(gate.active(), 0);
    }
}
