//! Sessions that say one thing and then nothing.

use std::io::{Read, Write};
use std::time::Instant;

use anyhow::{Result, bail};

use super::{LoadReport, await_start, deliver, door};
use crate::cli::LoadArgs;
use crate::pattern::message;

pub(super) fn run(args: &LoadArgs) -> Result<()> {
    await_start()?;
    let start = Instant::now();
    let mut sessions = Vec::new();
    let mut answer = vec![0; args.size];
    for seq in 0..args.work {
        let mut stream = door::open(args)?;
        let message = message(args.size, 0, seq);
        stream.write_all(&message)?;
        stream.read_exact(&mut answer)?;
        if answer != message {
            bail!("an echo differs from what was sent");
        }
        sessions.push(stream);
    }
    let seconds = start.elapsed().as_secs_f64();
    deliver(&LoadReport { done: args.work, lost: 0, seconds, latency: None })
}
