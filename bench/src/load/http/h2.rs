//! A client of HTTP/2 with a few streams busy on each connection. It writes the frames that its requests need and reads
//! those that the answers bring (RFC 9113); of fields it understands `:status: 200` alone (RFC 7541).

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use super::transport::Transport;
use super::{Client, LoadReport, await_start, deliver, latency, nanos_since};
use crate::cli::LoadArgs;
use crate::epoll::Epoll;
use crate::identity;
use crate::load::STEP;

/// Streams that are busy at once on a connection.
const STREAMS: usize = 10;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Room for all bodies of a run, so that no more is ever asked for.
const WINDOW: u32 = (1 << 31) - 1 - 65_535;

struct Lane {
    transport: Transport,
    /// What came of a frame that is not whole.
    rest: Vec<u8>,
    /// What is to be sent once all that came is read.
    outgoing: Vec<u8>,
    streams: Vec<Stream>,
    next: u32,
}

/// A stream that is busy.
struct Stream {
    id: u32,
    offset: u64,
    /// Whether its head has come.
    begun: bool,
    got: u64,
    since: Instant,
}

/// Requests that are still to be made, and how long those took that are answered.
struct Tally {
    to_send: u64,
    nanos: Vec<u32>,
}

pub(in crate::load) fn run(args: &LoadArgs) -> Result<()> {
    let mut client = Client::new(args, &[b"h2"])?;
    let mut epoll = Epoll::new()?;
    let mut lanes = Vec::new();
    for index in 0..args.parallel {
        let lane = Lane::open(client.dialer.dial()?)?;
        epoll.add(lane.transport.socket(), index)?;
        lanes.push(lane);
    }
    play(&mut client, &mut epoll, &mut lanes, args.warmup)?;
    await_start()?;
    let start = Instant::now();
    let mut nanos = play(&mut client, &mut epoll, &mut lanes, args.work)?;
    let seconds = start.elapsed().as_secs_f64();
    deliver(&LoadReport { done: args.work, lost: 0, seconds, latency: latency(&mut nanos) })
}

fn play(client: &mut Client<'_>, epoll: &mut Epoll, lanes: &mut [Lane], work: u64) -> Result<Vec<u32>> {
    let mut tally = Tally { to_send: work, nanos: Vec::with_capacity(usize::try_from(work)?) };
    for lane in lanes.iter_mut() {
        lane.refill(client.args, &mut tally)?;
    }
    let mut ready = Vec::new();
    while (tally.nanos.len() as u64) < work {
        epoll.wait_busy(&mut ready)?;
        for &index in &ready {
            lanes[index].receive(client, &mut tally)?;
            lanes[index].refill(client.args, &mut tally)?;
        }
    }
    Ok(tally.nanos)
}

impl Lane {
    fn open(mut transport: Transport) -> Result<Self> {
        let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        // No pushes.
        frame(&mut hello, SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 0]);
        frame(&mut hello, WINDOW_UPDATE, 0, 0, &WINDOW.to_be_bytes());
        transport.send(&hello)?;
        let (rest, outgoing, streams) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { transport, rest, outgoing, streams, next: 1 })
    }

    /// Makes requests until all streams are busy, and sends them with all else that is to be sent.
    fn refill(&mut self, args: &LoadArgs, tally: &mut Tally) -> Result<()> {
        while self.streams.len() < STREAMS && tally.to_send > 0 {
            tally.to_send -= 1;
            let offset = tally.to_send * STEP;
            let fields = fields(&format!("/{}/{offset}", args.size), self.next == 1);
            frame(&mut self.outgoing, HEADERS, END_STREAM | END_HEADERS, self.next, &fields);
            self.streams.push(Stream { id: self.next, offset, begun: false, got: 0, since: Instant::now() });
            self.next += 2;
        }
        if !self.outgoing.is_empty() {
            self.transport.send(&self.outgoing)?;
            self.outgoing.clear();
        }
        Ok(())
    }

    fn receive(&mut self, client: &mut Client<'_>, tally: &mut Tally) -> Result<()> {
        while let Some(len) = self.transport.receive(&mut client.scratch)? {
            ensure!(len > 0, "the proxy closed a connection in use");
            self.rest.extend_from_slice(&client.scratch[..len]);
            let rest = std::mem::take(&mut self.rest);
            let mut at = 0;
            while let Some(head) = rest.get(at..at + 9) {
                let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                let Some(payload) = rest.get(at + 9..at + 9 + len) else { break };
                self.take(client, tally, head, payload)?;
                at += 9 + len;
            }
            self.rest = rest;
            self.rest.drain(..at);
        }
        Ok(())
    }

    fn take(&mut self, client: &Client<'_>, tally: &mut Tally, head: &[u8], payload: &[u8]) -> Result<()> {
        let (kind, flags) = (head[3], head[4]);
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        match kind {
            SETTINGS if flags & ACK == 0 => frame(&mut self.outgoing, SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => frame(&mut self.outgoing, PING, ACK, 0, payload),
            SETTINGS | PING | WINDOW_UPDATE => {}
            HEADERS | DATA => {
                let found = self.streams.iter().position(|stream| stream.id == id);
                let index = found.with_context(|| format!("a frame for stream {id}, which is not busy"))?;
                let stream = &mut self.streams[index];
                stream.take(client, kind, flags, payload)?;
                if flags & END_STREAM != 0 {
                    ensure!(stream.got == client.args.size as u64, "a body of {} bytes", stream.got);
                    tally.nanos.push(nanos_since(stream.since));
                    self.streams.swap_remove(index);
                }
            }
            other => bail!("a frame of type {other} for stream {id}: {payload:?}"),
        }
        Ok(())
    }
}

impl Stream {
    fn take(&mut self, client: &Client<'_>, kind: u8, flags: u8, payload: &[u8]) -> Result<()> {
        if kind == HEADERS {
            ensure!(flags == END_HEADERS, "a head with flags {flags:#x}");
            // An update of the table's size (RFC 7541 section 6.3) may come before the first field, 8 of the static
            // table.
            let first = payload.iter().find(|byte| **byte >> 5 != 1);
            ensure!(first == Some(&0x88), "a status other than 200");
            self.begun = true;
            return Ok(());
        }
        ensure!(self.begun && flags & !END_STREAM == 0, "data with flags {flags:#x}");
        if !payload.is_empty() && !client.pattern.agrees(self.offset + self.got, payload) {
            bail!("the body of an answer differs from what was asked for");
        }
        self.got += payload.len() as u64;
        Ok(())
    }
}

fn frame(into: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    into.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    into.extend_from_slice(&[kind, flags]);
    into.extend_from_slice(&stream.to_be_bytes());
    into.extend_from_slice(payload);
}

/// A GET request's fields (RFC 7541). The first request of a connection puts into the table what all have in common.
fn fields(path: &str, is_first: bool) -> Vec<u8> {
    let mut fields = vec![0x82, 0x87, 0x04];
    text(&mut fields, path);
    if is_first {
        for (name, value) in [(1, identity::NAME), (58, "wmproxy-bench"), (19, "*/*")] {
            fields.push(0x40 | name);
            text(&mut fields, value);
        }
    } else {
        fields.extend([0x80 | 64, 0x80 | 63, 0x80 | 62]);
    }
    fields
}

/// Plain, with its length, which is below 127.
fn text(into: &mut Vec<u8>, text: &str) {
    into.push(text.len() as u8);
    into.extend_from_slice(text.as_bytes());
}
