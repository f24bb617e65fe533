//! Datagrams: each client socket keeps a window of them in flight and fills it up in bursts as echoes return.
//!
//! The windows of all sockets together fit the kernel's default receive buffer (212,992 bytes, of which a 1200-byte
//! datagram takes 2,304), so that nothing needs to be lost by any proxy, whatever buffer it asks for.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Instant;

use anyhow::{Result, bail};
use rustix::net::RecvFlags;

use super::door::{self, Association};
use super::{LoadReport, Losses, await_start, deliver};
use crate::cli::LoadArgs;
use crate::epoll::Epoll;
use crate::pattern::{message, seq_of, stamp};

/// Datagrams a socket keeps in flight: two bursts.
const WINDOW: u64 = 20;

/// A socket sends when it may send so many: those who send much send in bursts (QUIC in bursts of ten packets, RFC 9002
/// section 7.7), and a client that woke for each echo would be slower than the proxies it is to load.
const BURST: u64 = WINDOW / 2;

struct Lane {
    socket: UdpSocket,
    /// Where it goes through a forward proxy.
    _association: Option<Association>,
    index: usize,
    /// A header where a forward proxy wants one, and the message.
    datagram: Vec<u8>,
    /// Where the message begins.
    begin: usize,
    /// The next to send.
    next: u64,
    /// The next to come back. What is between the two is in flight.
    due: u64,
}

#[derive(Default)]
struct Tally {
    to_send: u64,
    done: u64,
    lost: u64,
}

pub(super) fn run(args: &LoadArgs) -> Result<()> {
    let mut epoll = Epoll::new()?;
    let mut lanes = Vec::with_capacity(args.parallel);
    for index in 0..args.parallel {
        let lane = Lane::open(args, index)?;
        epoll.add(&lane.socket, index)?;
        lanes.push(lane);
    }
    play(&mut epoll, &mut lanes, args.warmup, args.may_lose)?;
    await_start()?;
    let start = Instant::now();
    let tally = play(&mut epoll, &mut lanes, args.work, args.may_lose)?;
    let seconds = start.elapsed().as_secs_f64();
    deliver(&LoadReport { done: tally.done, lost: tally.lost, seconds, latency: None })
}

/// Sends `work` datagrams over all lanes and sees each come back or counts it lost.
fn play(epoll: &mut Epoll, lanes: &mut [Lane], work: u64, may_lose: f64) -> Result<Tally> {
    let mut losses = Losses::of(work, may_lose);
    let mut tally = Tally { to_send: work, ..Tally::default() };
    let mut ready = Vec::new();
    let mut scratch = vec![0; lanes[0].datagram.len() + 1];
    for lane in &mut *lanes {
        lane.refill(&mut tally)?;
    }
    while tally.done + tally.lost < work {
        epoll.wait_for(Some(Losses::AFTER), &mut ready)?;
        for &index in &ready {
            lanes[index].drain(&mut scratch, &mut tally)?;
            lanes[index].refill(&mut tally)?;
        }
        if ready.is_empty() {
            for lane in &mut *lanes {
                tally.lost += lane.next - lane.due;
                lane.due = lane.next;
                lane.refill(&mut tally)?;
            }
            losses.judge(tally.done, tally.lost)?;
        }
    }
    Ok(tally)
}

impl Lane {
    fn open(args: &LoadArgs, index: usize) -> Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let (mut datagram, mut association) = (Vec::new(), None);
        if let (Some(_), Some(origin)) = (args.door, args.origin) {
            datagram.extend_from_slice(&door::header(origin)?);
            association = Some(door::associate(args)?);
        }
        socket.connect(association.as_ref().map_or(args.target, |association| association.relay))?;
        let begin = datagram.len();
        datagram.extend_from_slice(&message(args.size, index, 0));
        Ok(Self { socket, _association: association, index, datagram, begin, next: 0, due: 0 })
    }

    /// Makes it the datagram with this number.
    fn stamp(&mut self, seq: u64) {
        stamp(&mut self.datagram[self.begin..], self.index, seq);
    }

    /// Sends until the window is full, once a burst has room in it.
    fn refill(&mut self, tally: &mut Tally) -> Result<()> {
        if WINDOW - (self.next - self.due) < BURST {
            return Ok(());
        }
        while self.next - self.due < WINDOW && tally.to_send > 0 {
            self.stamp(self.next);
            self.socket.send(&self.datagram)?;
            self.next += 1;
            tally.to_send -= 1;
        }
        Ok(())
    }

    /// Takes the echoes that have come.
    fn drain(&mut self, scratch: &mut [u8], tally: &mut Tally) -> Result<()> {
        while self.due < self.next {
            let len = match rustix::net::recv(&self.socket, &mut *scratch, RecvFlags::DONTWAIT) {
                Ok((_, len)) => len,
                Err(rustix::io::Errno::AGAIN) => break,
                Err(error) => return Err(error.into()),
            };
            if len != self.datagram.len() {
                bail!("an echo of {len} bytes to a datagram of {}", self.datagram.len());
            }
            let seq = seq_of(&scratch[self.begin..len]);
            self.stamp(seq);
            if scratch[..len] != self.datagram[..] || seq >= self.next {
                bail!("an echo differs from what was sent");
            }
            // An echo that was given up as lost may still come; one that is overtaken counts as lost.
            if seq >= self.due {
                tally.done += 1;
                tally.lost += seq - self.due;
                self.due = seq + 1;
            }
        }
        Ok(())
    }
}
