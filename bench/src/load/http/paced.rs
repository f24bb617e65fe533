//! Requests that begin when they are due, whatever has become of those before them.
//!
//! Time counts from when a request was due, also where it had to wait for a free connection or for this very process: a
//! proxy that stalls is charged for all that came meanwhile.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::{Client, Lane, LoadReport, await_start, deliver, keep_alive, latency, nanos_since, play};
use crate::cli::LoadArgs;
use crate::epoll::Epoll;

/// A proxy from which nothing comes for so long has stalled.
const STALL: Duration = Duration::from_secs(10);

pub(in crate::load) fn run(args: &LoadArgs) -> Result<()> {
    let Some(rate) = args.rate else { return keep_alive(args) };
    // The kernel would else let a wait run on for 50 µs, to join it with others.
    rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1))?;
    let mut client = Client::new(args, &[])?;
    let mut epoll = Epoll::new()?;
    let mut lanes = client.lanes(&epoll)?;
    play(&mut client, &mut epoll, &mut lanes, args.warmup, &mut Vec::new())?;
    let mut nanos = Vec::with_capacity(usize::try_from(args.work)?);
    await_start()?;
    let start = Instant::now();
    pace(&mut client, &mut epoll, &mut lanes, rate, &mut nanos)?;
    let seconds = start.elapsed().as_secs_f64();
    deliver(&LoadReport { done: args.work, lost: 0, seconds, latency: latency(&mut nanos) })
}

fn pace(
    client: &mut Client<'_>,
    epoll: &mut Epoll,
    lanes: &mut [Lane],
    rate: f64,
    nanos: &mut Vec<u32>,
) -> Result<()> {
    let work = client.args.work;
    let start = Instant::now();
    let due_at = |seq: u64| start + Duration::from_secs_f64(seq as f64 / rate);
    let mut free: VecDeque<usize> = (0..lanes.len()).collect();
    let mut waiting = VecDeque::new();
    let (mut begun, mut done) = (0, 0);
    let mut ready = Vec::new();
    while done < work {
        let now = Instant::now();
        while begun < work && due_at(begun) <= now {
            waiting.push_back(due_at(begun));
            begun += 1;
        }
        while !waiting.is_empty()
            && let Some(index) = free.pop_front()
            && let Some(due) = waiting.pop_front()
        {
            client.ask(&mut lanes[index], due)?;
        }
        let next = if begun < work { due_at(begun).saturating_duration_since(now) } else { STALL };
        epoll.wait_for(Some(next), &mut ready)?;
        if ready.is_empty() && (begun == work || waiting.front().is_some_and(|due| due.elapsed() > STALL)) {
            bail!("stalled: no answer for {} s", STALL.as_secs());
        }
        for &index in &ready {
            if client.receive(&mut lanes[index])? {
                nanos.push(nanos_since(lanes[index].since));
                done += 1;
                free.push_back(index);
            }
        }
    }
    Ok(())
}
