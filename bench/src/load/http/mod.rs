//! Requests over HTTP/1.1, in the clear and over TLS: as fast as answers come, at a pace of their own, one a connection,
//! or one and then silence. HTTP/2 and listings are in files of their own.

mod answer;
mod h2;
mod listing;
mod paced;
mod transport;

use std::io::Write;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use self::answer::{Answer, Expected};
use self::transport::{Dialer, Transport};
use super::{LoadReport, STEP, await_start, deliver, latency, nanos_since};
use crate::backend::CHUNK;
use crate::cli::LoadArgs;
use crate::epoll::Epoll;
use crate::identity;
use crate::pattern::Pattern;
use crate::scenario::{Door, Kind};
use crate::site::Files;

pub(super) use self::h2::run as h2;
pub(super) use self::listing::run as listing;
pub(super) use self::paced::run as paced;

/// Bytes that a POST request sends.
const UPLOAD: u64 = 1024;

/// What a browser would say as well.
const FIELDS: &str = "User-Agent: wmproxy-bench\r\nAccept: */*";

/// What all connections share.
struct Client<'a> {
    args: &'a LoadArgs,
    dialer: Dialer,
    pattern: Pattern,
    scratch: Vec<u8>,
    /// Files that are asked for in turn, where it is files.
    files: Option<Files>,
    /// Requests for files that were made.
    asked: u64,
    /// The entity tag of each file, once they are known and to be sent.
    tags: Vec<String>,
}

/// A connection, and the request that is under way on it.
struct Lane {
    transport: Transport,
    request: Vec<u8>,
    answer: Answer,
    seq: u64,
    /// When the request was sent, or should have been.
    since: Instant,
}

/// Connections that stay open, with one request at a time on each.
pub(super) fn keep_alive(args: &LoadArgs) -> Result<()> {
    let mut client = Client::new(args, &[])?;
    let mut epoll = Epoll::new()?;
    let mut lanes = client.lanes(&epoll)?;
    if args.kind == Kind::FileUnchanged {
        client.learn_tags(&mut epoll, &mut lanes[0])?;
    }
    play(&mut client, &mut epoll, &mut lanes, args.warmup, &mut Vec::new())?;
    let mut nanos = Vec::with_capacity(usize::try_from(args.work)?);
    await_start()?;
    let start = Instant::now();
    play(&mut client, &mut epoll, &mut lanes, args.work, &mut nanos)?;
    let seconds = start.elapsed().as_secs_f64();
    deliver(&LoadReport { done: args.work, lost: 0, seconds, latency: latency(&mut nanos) })
}

/// Makes `work` requests over all lanes, and leaves none in flight.
fn play(
    client: &mut Client<'_>,
    epoll: &mut Epoll,
    lanes: &mut [Lane],
    work: u64,
    nanos: &mut Vec<u32>,
) -> Result<()> {
    let mut to_send = work;
    for lane in lanes.iter_mut().take(usize::try_from(work)?) {
        client.ask(lane, Instant::now())?;
        to_send -= 1;
    }
    let mut done = 0;
    let mut ready = Vec::new();
    while done < work {
        epoll.wait_busy(&mut ready)?;
        for &index in &ready {
            let lane = &mut lanes[index];
            if !client.receive(lane)? {
                continue;
            }
            nanos.push(nanos_since(lane.since));
            done += 1;
            if to_send > 0 {
                to_send -= 1;
                client.ask(lane, Instant::now())?;
            }
        }
    }
    Ok(())
}

/// A connection for each request.
pub(super) fn connect(args: &LoadArgs) -> Result<()> {
    let mut client = Client::new(args, &[])?;
    let mut epoll = Epoll::new()?;
    reconnect(&mut client, &mut epoll, args.warmup, &mut Vec::new())?;
    let mut nanos = Vec::with_capacity(usize::try_from(args.work)?);
    await_start()?;
    let start = Instant::now();
    reconnect(&mut client, &mut epoll, args.work, &mut nanos)?;
    let seconds = start.elapsed().as_secs_f64();
    deliver(&LoadReport { done: args.work, lost: 0, seconds, latency: latency(&mut nanos) })
}

fn reconnect(client: &mut Client<'_>, epoll: &mut Epoll, work: u64, nanos: &mut Vec<u32>) -> Result<()> {
    let (mut opened, mut done) = (0, 0);
    let mut lanes: Vec<Option<Lane>> = Vec::new();
    let mut open = |client: &mut Client<'_>, epoll: &Epoll, index: usize| -> Result<Option<Lane>> {
        if opened == work {
            return Ok(None);
        }
        let since = Instant::now();
        let mut lane = client.open(epoll, index)?;
        lane.seq += opened * STEP;
        opened += 1;
        client.ask(&mut lane, since)?;
        Ok(Some(lane))
    };
    for index in 0..client.args.parallel {
        lanes.push(open(client, epoll, index)?);
    }
    let mut ready = Vec::new();
    while done < work {
        epoll.wait_busy(&mut ready)?;
        for &index in &ready {
            let lane = lanes[index].as_mut().context("an event for a closed connection")?;
            // The proxy has been asked to close, and is waited for.
            if client.receive_last(lane)? {
                nanos.push(nanos_since(lane.since));
                done += 1;
                lanes[index] = None;
                lanes[index] = open(client, epoll, index)?;
            }
        }
    }
    Ok(())
}

/// Connections that make a request and then none.
pub(super) fn idle(args: &LoadArgs) -> Result<()> {
    let mut client = Client::new(args, &[])?;
    let mut epoll = Epoll::new()?;
    await_start()?;
    let start = Instant::now();
    let mut lanes = Vec::new();
    let mut ready = Vec::new();
    for index in 0..usize::try_from(args.work)? {
        let mut lane = client.open(&epoll, index)?;
        client.ask(&mut lane, Instant::now())?;
        while !client.receive(&mut lane)? {
            epoll.wait_busy(&mut ready)?;
        }
        lanes.push(lane);
    }
    let seconds = start.elapsed().as_secs_f64();
    deliver(&LoadReport { done: args.work, lost: 0, seconds, latency: None })
}

impl<'a> Client<'a> {
    /// Over TLS by the kind of the load; `alpn` is then asked for.
    fn new(args: &'a LoadArgs, alpn: &[&[u8]]) -> Result<Self> {
        let dialer = Dialer::new(args, alpn)?;
        let files = Files::of(args.kind, args.size, args.warmup + args.work);
        let pattern = files.map_or_else(|| Pattern::new(CHUNK), |files| files.pattern());
        Ok(Self { args, dialer, pattern, scratch: vec![0; CHUNK], files, asked: 0, tags: Vec::new() })
    }

    fn lanes(&mut self, epoll: &Epoll) -> Result<Vec<Lane>> {
        (0..self.args.parallel).map(|index| self.open(epoll, index)).collect()
    }

    fn open(&mut self, epoll: &Epoll, index: usize) -> Result<Lane> {
        let transport = self.dialer.dial()?;
        epoll.add(transport.socket(), index)?;
        let expected = if self.files.is_some() { Expected::File } else { Expected::Fields(self.args.added) };
        let answer = Answer::new(expected);
        Ok(Lane { transport, request: Vec::new(), answer, seq: index as u64 * STEP, since: Instant::now() })
    }

    /// Sends the next request, whose time is told from `since` on.
    fn ask(&mut self, lane: &mut Lane, since: Instant) -> Result<()> {
        lane.seq += 1;
        lane.since = since;
        if let Some(files) = self.files {
            return self.ask_for_file(lane, files);
        }
        let offset = lane.seq * STEP;
        lane.answer.expect(self.args.size as u64, offset);
        lane.request.clear();
        let posts = self.args.kind == Kind::HttpPost;
        let method = if posts { "POST" } else { "GET" };
        match self.args.origin.filter(|_| self.args.door == Some(Door::Http)) {
            Some(origin) => write!(
                lane.request,
                "{method} http://{origin}/{}/{offset} HTTP/1.1\r\nHost: {origin}\r\n{FIELDS}\r\n",
                self.args.size,
            )?,
            None => write!(
                lane.request,
                "{method} /{}/{offset} HTTP/1.1\r\nHost: {}\r\n{FIELDS}\r\n",
                self.args.size,
                identity::NAME
            )?,
        }
        if self.args.kind == Kind::HttpConnect {
            lane.request.extend_from_slice(b"Connection: close\r\n");
        }
        if posts {
            write!(lane.request, "Content-Length: {UPLOAD}\r\n\r\n")?;
            lane.request.extend_from_slice(self.pattern.at(offset, UPLOAD));
        } else {
            lane.request.extend_from_slice(b"\r\n");
        }
        lane.transport.send(&lane.request)
    }

    fn ask_for_file(&mut self, lane: &mut Lane, files: Files) -> Result<()> {
        let index = self.asked % files.count;
        self.asked += 1;
        lane.request.clear();
        write!(
            lane.request,
            "GET {} HTTP/1.1\r\nHost: {}\r\n{FIELDS}\r\n",
            files.path(index),
            identity::NAME
        )?;
        match self.tags.get(usize::try_from(index)?) {
            Some(tag) => {
                lane.answer.expect_unchanged(tag);
                write!(lane.request, "If-None-Match: {tag}\r\n\r\n")?;
            }
            None => {
                lane.answer.expect(files.len(index), files.offset(index));
                lane.request.extend_from_slice(b"\r\n");
            }
        }
        lane.transport.send(&lane.request)
    }

    /// Asks for every file once, and keeps what the server tags it with.
    fn learn_tags(&mut self, epoll: &mut Epoll, lane: &mut Lane) -> Result<()> {
        let mut tags = Vec::new();
        let mut ready = Vec::new();
        for _ in 0..self.files.map_or(0, |files| files.count) {
            self.ask(lane, Instant::now())?;
            while !self.receive(lane)? {
                epoll.wait_busy(&mut ready)?;
            }
            tags.push(lane.answer.tag().context("a file without a tag")?.to_owned());
        }
        self.tags = tags;
        Ok(())
    }

    /// Takes what has come; whether the answer is whole.
    fn receive(&mut self, lane: &mut Lane) -> Result<bool> {
        while let Some(len) = lane.transport.receive(&mut self.scratch)? {
            ensure!(len > 0, "the proxy closed a connection in use");
            if lane.answer.take(&self.scratch[..len], &self.pattern)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes what has come; whether the answer is whole and the connection at its end.
    fn receive_last(&mut self, lane: &mut Lane) -> Result<bool> {
        while let Some(len) = lane.transport.receive(&mut self.scratch)? {
            match (len, lane.answer.is_whole()) {
                (0, true) => return Ok(true),
                (0, false) => bail!("the proxy closed before the end of an answer"),
                _ => lane.answer.take(&self.scratch[..len], &self.pattern)?,
            };
        }
        Ok(false)
    }
}
