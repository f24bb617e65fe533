//! Ping-pong: each connection sends a message, waits for its echo, and sends the next.

use std::io::Write;
use std::net::TcpStream;
use std::time::Instant;

use anyhow::{Result, bail};
use rustix::net::RecvFlags;

use super::{LoadReport, await_start, connect, deliver, latency, nanos_since};
use crate::cli::LoadArgs;
use crate::epoll::Epoll;
use crate::pattern::{message, stamp};

struct Lane {
    stream: TcpStream,
    message: Vec<u8>,
    /// Bytes of the current echo that have come.
    got: usize,
    seq: u64,
    sent: Instant,
}

pub(super) fn run(args: &LoadArgs) -> Result<()> {
    let mut epoll = Epoll::new()?;
    let mut lanes = Vec::with_capacity(args.parallel);
    for index in 0..args.parallel {
        let stream = connect(args.target)?;
        epoll.add(&stream, index)?;
        let message = message(args.size, index, 0);
        lanes.push(Lane { stream, message, got: 0, seq: 0, sent: Instant::now() });
    }
    play(&mut epoll, &mut lanes, args.warmup, &mut Vec::new())?;
    let mut nanos = Vec::with_capacity(usize::try_from(args.work)?);
    await_start()?;
    let start = Instant::now();
    play(&mut epoll, &mut lanes, args.work, &mut nanos)?;
    let seconds = start.elapsed().as_secs_f64();
    deliver(&LoadReport { done: args.work, lost: 0, seconds, latency: latency(&mut nanos) })
}

/// Plays `work` messages over all lanes, and leaves none in flight.
fn play(epoll: &mut Epoll, lanes: &mut [Lane], work: u64, nanos: &mut Vec<u32>) -> Result<()> {
    let mut to_send = work;
    for (index, lane) in lanes.iter_mut().enumerate().take(usize::try_from(work)?) {
        lane.serve(index)?;
        to_send -= 1;
    }
    let mut done = 0;
    let mut ready = Vec::new();
    let mut scratch = vec![0; lanes[0].message.len() + 1];
    while done < work {
        epoll.wait_busy(&mut ready)?;
        for &index in &ready {
            let lane = &mut lanes[index];
            if !lane.receive(&mut scratch)? {
                continue;
            }
            nanos.push(nanos_since(lane.sent));
            done += 1;
            if to_send > 0 {
                to_send -= 1;
                lane.serve(index)?;
            }
        }
    }
    Ok(())
}

impl Lane {
    fn serve(&mut self, index: usize) -> Result<()> {
        self.seq += 1;
        self.got = 0;
        stamp(&mut self.message, index, self.seq);
        self.sent = Instant::now();
        Ok(self.stream.write_all(&self.message)?)
    }

    /// Takes what has come; whether the echo is whole.
    fn receive(&mut self, scratch: &mut [u8]) -> Result<bool> {
        // One byte more than is due is asked for, so that a surplus shows.
        let room = self.message.len() + 1 - self.got;
        let len = match rustix::net::recv(&self.stream, &mut scratch[..room], RecvFlags::DONTWAIT) {
            Ok((0, _)) => bail!("the proxy closed a connection in use"),
            Ok((len, _)) => len,
            Err(rustix::io::Errno::AGAIN) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        if len == room || scratch[..len] != self.message[self.got..self.got + len] {
            bail!("an echo differs from what was sent");
        }
        self.got += len;
        Ok(self.got == self.message.len())
    }
}
