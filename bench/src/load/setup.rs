//! Short connections: connect, one exchange, close, and again.

use std::io::Write;
use std::net::TcpStream;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use rustix::net::RecvFlags;

use super::door::Stage;
use super::{LoadReport, await_start, deliver, latency, nanos_since};
use crate::cli::LoadArgs;
use crate::epoll::Epoll;
use crate::hello::client_hello;
use crate::pattern::message;
use crate::scenario::Kind;

struct Lane {
    stream: TcpStream,
    stage: Stage,
    message: Vec<u8>,
    opened: Instant,
}

pub(super) fn run(args: &LoadArgs) -> Result<()> {
    let mut epoll = Epoll::new()?;
    play(&mut epoll, args, args.warmup, &mut Vec::new())?;
    let mut nanos = Vec::with_capacity(usize::try_from(args.work)?);
    await_start()?;
    let start = Instant::now();
    play(&mut epoll, args, args.work, &mut nanos)?;
    let seconds = start.elapsed().as_secs_f64();
    deliver(&LoadReport { done: args.work, lost: 0, seconds, latency: latency(&mut nanos) })
}

fn play(epoll: &mut Epoll, args: &LoadArgs, work: u64, nanos: &mut Vec<u32>) -> Result<()> {
    let mut opened = 0;
    let mut done = 0;
    let mut lanes: Vec<Option<Lane>> = Vec::new();
    while lanes.len() < args.parallel && opened < work {
        lanes.push(Some(Lane::open(epoll, args, lanes.len(), opened)?));
        opened += 1;
    }
    let mut ready = Vec::new();
    let mut scratch = vec![0; args.size + 1];
    while done < work {
        epoll.wait_busy(&mut ready)?;
        for &index in &ready {
            let mut lane = lanes[index].take().context("an event for a closed connection")?;
            if lane.stage != Stage::Open {
                lane.advance(args)?;
                lanes[index] = Some(lane);
                continue;
            }
            lane.check(&mut scratch)?;
            drop(lane.stream);
            nanos.push(nanos_since(lane.opened));
            done += 1;
            if opened < work {
                lanes[index] = Some(Lane::open(epoll, args, index, opened)?);
                opened += 1;
            }
        }
    }
    Ok(())
}

impl Lane {
    fn open(epoll: &Epoll, args: &LoadArgs, index: usize, seq: u64) -> Result<Self> {
        let opened = Instant::now();
        // Blocking: over loopback the kernel finishes the handshake within the call, whatever the proxy does.
        let mut stream = TcpStream::connect(args.target).context("connect")?;
        stream.set_nodelay(true)?;
        let message = match args.kind {
            Kind::SetupHello => client_hello(args.size),
            _ => message(args.size, index, seq),
        };
        let stage = Stage::begin(&mut stream, args)?;
        if stage == Stage::Open {
            stream.write_all(&message)?;
        }
        epoll.add(&stream, index)?;
        Ok(Self { stream, stage, message, opened })
    }

    /// Takes the forward proxy's answer, and sends the message once the way is open.
    fn advance(&mut self, args: &LoadArgs) -> Result<()> {
        self.stage = self.stage.next(&mut self.stream, args)?;
        if self.stage == Stage::Open {
            self.stream.write_all(&self.message)?;
        }
        Ok(())
    }

    /// The whole answer comes in one segment, as it went out in one.
    fn check(&self, scratch: &mut [u8]) -> Result<()> {
        let (len, _) = rustix::net::recv(&self.stream, &mut *scratch, RecvFlags::DONTWAIT)?;
        if scratch[..len] != self.message[..] {
            bail!("an answer of {len} bytes differs from the {} that were sent", self.message.len());
        }
        Ok(())
    }
}
