//! Many flows with little traffic each: one datagram at a time from every socket in turn, and a fixed number of them in
//! flight over all.
//!
//! Every datagram belongs to another flow than the one before, so that nothing is gained by joining those of one flow.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Instant;

use anyhow::{Result, bail};
use rustix::net::RecvFlags;

use super::{LoadReport, Losses, await_start, deliver};
use crate::cli::LoadArgs;
use crate::epoll::Epoll;
use crate::pattern::{message, seq_of, stamp};

/// Datagrams in flight over all sockets: as many as the eight sockets of the other scenarios have.
const WINDOW: usize = 160;

struct Crowd {
    sockets: Vec<UdpSocket>,
    /// The number in flight on each socket, if one is.
    waiting: Vec<Option<u64>>,
    message: Vec<u8>,
    /// Whose turn it is.
    turn: usize,
    in_flight: usize,
    sent: u64,
}

pub(super) fn run(args: &LoadArgs) -> Result<()> {
    let mut epoll = Epoll::new()?;
    let mut sockets = Vec::with_capacity(args.parallel);
    for index in 0..args.parallel {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.connect(args.target)?;
        epoll.add(&socket, index)?;
        sockets.push(socket);
    }
    let waiting = vec![None; sockets.len()];
    let message = message(args.size, 0, 0);
    let mut crowd = Crowd { sockets, waiting, message, turn: 0, in_flight: 0, sent: 0 };
    // Each once, so that all flows are there.
    crowd.play(&mut epoll, args.warmup.max(args.parallel as u64), args.may_lose)?;
    await_start()?;
    let start = Instant::now();
    let (done, lost) = crowd.play(&mut epoll, args.work, args.may_lose)?;
    deliver(&LoadReport { done, lost, seconds: start.elapsed().as_secs_f64(), latency: None })
}

impl Crowd {
    /// Sends `work` datagrams and sees each come back or counts it lost. Answers how many of either.
    fn play(&mut self, epoll: &mut Epoll, work: u64, may_lose: f64) -> Result<(u64, u64)> {
        let mut losses = Losses::of(work, may_lose);
        let (mut done, mut lost) = (0, 0);
        let until = self.sent + work;
        let mut ready = Vec::new();
        let mut scratch = vec![0; self.message.len() + 1];
        self.refill(until)?;
        while done + lost < work {
            epoll.wait_for(Some(Losses::AFTER), &mut ready)?;
            for &index in &ready {
                done += u64::from(self.receive(index, &mut scratch)?);
            }
            if ready.is_empty() {
                let given_up = self.waiting.iter_mut().filter_map(Option::take).count();
                self.in_flight -= given_up;
                lost += given_up as u64;
                losses.judge(done, lost)?;
            }
            self.refill(until)?;
        }
        Ok((done, lost))
    }

    fn refill(&mut self, until: u64) -> Result<()> {
        while self.in_flight < WINDOW && self.sent < until {
            let index = self.turn;
            self.turn = (index + 1) % self.sockets.len();
            if self.waiting[index].is_some() {
                continue;
            }
            stamp(&mut self.message, index, self.sent);
            self.sockets[index].send(&self.message)?;
            self.waiting[index] = Some(self.sent);
            self.sent += 1;
            self.in_flight += 1;
        }
        Ok(())
    }

    /// Takes what has come on a socket; whether it is the echo of what is in flight there, and not of what was given up.
    fn receive(&mut self, index: usize, scratch: &mut [u8]) -> Result<bool> {
        let len = match rustix::net::recv(&self.sockets[index], &mut *scratch, RecvFlags::DONTWAIT) {
            Ok((_, len)) => len,
            Err(rustix::io::Errno::AGAIN) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let seq = seq_of(&scratch[..len.min(scratch.len())]);
        stamp(&mut self.message, index, seq);
        if len != self.message.len() || scratch[..len] != self.message[..] {
            bail!("an echo differs from what was sent");
        }
        let due = self.waiting[index] == Some(seq);
        if due {
            self.waiting[index] = None;
            self.in_flight -= 1;
        }
        Ok(due)
    }
}
