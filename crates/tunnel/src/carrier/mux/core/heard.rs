//! What the other side says, and what becomes of it.

use std::io;
use std::task::Waker;

use wmproxy_runtime::clock;

use super::super::entry::{Entry, INITIAL};
use super::super::frame::{ACK, Header, Kind, RST, SYN};
use super::{Core, Stop, junk};
use crate::carrier::MAX_STREAMS;

/// How much may wait unread in all streams together: all that windows may have grown by, and 256 as they are at first. Beyond
/// that the one who is most behind is cut off, and the others go on.
const HELD: usize = super::GROWN as usize + 256 * INITIAL as usize;

/// How many of the other side's streams are taken in silence, until the first thing that is said in each does as well. Others
/// than we do not open more than 256 that are not taken.
const SILENT: usize = 64;

impl Core {
    /// Takes a frame's header. Data that belongs to it follows by [`Core::on_bytes`], and then [`Core::on_fin`].
    pub(in crate::carrier::mux) fn on_header(
        &mut self,
        header: &Header,
        wakers: &mut Vec<Waker>,
    ) -> Result<(), Stop> {
        let Header { kind, flags, stream: id, length } = *header;
        match kind {
            Kind::Ping => self.on_ping(flags, length),
            Kind::GoAway => {
                let why = "the other side has closed the connection";
                return Err(Stop { kind: io::ErrorKind::ConnectionAborted, why });
            }
            Kind::Data | Kind::Window => {
                if flags & SYN != 0 && !self.begin(id, wakers)? {
                    return Ok(());
                }
                let Some(entry) = self.streams.get_mut(&id) else {
                    // It has ended here, and the other side did not know yet.
                    return Ok(());
                };
                if flags & RST != 0 {
                    if entry.has_ended && kind == Kind::Window {
                        entry.is_stopped = true;
                    } else {
                        entry.is_reset = true;
                    }
                    entry.wake_reader(wakers);
                    entry.wake_writer(wakers);
                } else if kind == Kind::Window {
                    entry.room = entry.room.checked_add(length).ok_or(junk("a window that is too wide"))?;
                    entry.wake_writer(wakers);
                } else {
                    if entry.has_ended && length > 0 {
                        return Err(junk("data behind the end of a stream"));
                    }
                    entry.window =
                        entry.window.checked_sub(length).ok_or(junk("more data than a window has"))?;
                }
            }
        }
        Ok(())
    }

    fn on_ping(&mut self, flags: u16, number: u32) {
        if flags & ACK != 0 {
            if let Some(sent) = self.pinged.take() {
                let took = clock::precise() - sent;
                self.round_trip = Some(self.round_trip.map_or(took, |shortest| shortest.min(took)));
            }
        } else {
            self.say(Header { kind: Kind::Ping, flags: ACK, stream: 0, length: number });
        }
    }

    /// Takes a new stream of the other side; false if it is refused.
    fn begin(&mut self, id: u32, wakers: &mut Vec<Waker>) -> Result<bool, Stop> {
        if id % 2 == self.next % 2 {
            return Err(junk("a stream with a number of ours"));
        }
        if self.streams.contains_key(&id) {
            return Err(junk("a stream that is there already"));
        }
        if !self.has_taker || self.counts[1] >= MAX_STREAMS {
            self.say(Header { kind: Kind::Data, flags: RST, stream: id, length: 0 });
            return Ok(false);
        }
        self.counts[1] += 1;
        self.streams.insert(id, Entry::new(true, INITIAL));
        self.arrived.push_back(id);
        wakers.extend(self.taker.take());
        self.silent.push(id);
        if self.silent.len() >= SILENT {
            for id in std::mem::take(&mut self.silent) {
                let Some(entry) = self.streams.get_mut(&id).filter(|entry| entry.debt == ACK) else {
                    continue;
                };
                entry.debt = 0;
                self.say(Header { kind: Kind::Window, flags: ACK, stream: id, length: 0 });
            }
        }
        Ok(true)
    }

    /// Takes bytes of a stream.
    pub(in crate::carrier::mux) fn on_bytes(&mut self, id: u32, bytes: &[u8], wakers: &mut Vec<Waker>) {
        let Some(entry) = self.streams.get_mut(&id).filter(|entry| !entry.is_reset) else { return };
        entry.incoming.extend(bytes);
        entry.wake_reader(wakers);
        self.held += bytes.len();
        if self.held > HELD {
            self.cut_the_slowest(wakers);
        }
    }

    fn cut_the_slowest(&mut self, wakers: &mut Vec<Waker>) {
        let most = self.streams.iter_mut().max_by_key(|(_, entry)| entry.incoming.len());
        let Some((&id, entry)) = most else { return };
        self.held -= std::mem::take(&mut entry.incoming).len();
        entry.is_reset = true;
        entry.has_ended = false;
        entry.wake_reader(wakers);
        entry.wake_writer(wakers);
        self.say(Header { kind: Kind::Data, flags: RST, stream: id, length: 0 });
        tracing::debug!(stream = id, "cut off a stream that nobody reads, for all together hold too much");
    }

    /// Takes the end of a stream, behind its bytes.
    pub(in crate::carrier::mux) fn on_fin(&mut self, id: u32, wakers: &mut Vec<Waker>) {
        if let Some(entry) = self.streams.get_mut(&id).filter(|entry| !entry.is_reset) {
            entry.has_ended = true;
            entry.wake_reader(wakers);
        }
    }
}
