//! Long transfers, one blocking thread a connection.

use std::io::{Read, Write};
use std::thread;
use std::time::Instant;

use anyhow::{Result, anyhow, bail};

use super::{LoadReport, await_start, deliver, door};
use crate::backend::{BULK_HEAD, DOWN, RIGHT, UP, receive_pattern, send_pattern};
use crate::cli::LoadArgs;
use crate::scenario::Kind;

pub(super) fn run(args: &LoadArgs) -> Result<()> {
    let direction = if args.kind == Kind::BulkUp { UP } else { DOWN };
    let share = args.work / args.parallel as u64;
    await_start()?;
    let start = Instant::now();
    let transfers: Vec<_> = (0..args.parallel)
        .map(|_| args.clone())
        .map(|args| thread::spawn(move || transfer(&args, direction, share)))
        .collect();
    for transfer in transfers {
        transfer.join().map_err(|_| anyhow!("a transfer panicked"))??;
    }
    let seconds = start.elapsed().as_secs_f64();
    deliver(&LoadReport { done: share * args.parallel as u64, lost: 0, seconds, latency: None })
}

fn transfer(args: &LoadArgs, direction: u8, len: u64) -> Result<()> {
    let mut stream = door::open(args)?;
    let mut head = [direction; BULK_HEAD];
    head[1..].copy_from_slice(&len.to_le_bytes());
    stream.write_all(&head)?;
    let right = if direction == DOWN {
        receive_pattern(&mut stream, len)?
    } else {
        send_pattern(&mut stream, len)?;
        let mut answer = [0];
        stream.read_exact(&mut answer)?;
        answer[0] == RIGHT
    };
    if !right {
        bail!("the bytes that arrived are not those that were sent");
    }
    Ok(())
}
