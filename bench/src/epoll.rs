//! A level-triggered epoll set keyed by a token.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use anyhow::{Result, bail};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

/// A wait that sees nothing for so long means that the proxy under test has stalled.
const STALL: Duration = Duration::from_secs(10);

/// Events taken by one wait: more than any scenario has sockets busy at once.
const EVENTS: usize = 256;

pub(crate) struct Epoll {
    fd: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Epoll {
    pub(crate) fn new() -> io::Result<Self> {
        let fd = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { fd, events: Vec::with_capacity(EVENTS) })
    }

    /// Reports `fd` as `token` whenever it is readable. Closing the descriptor ends that.
    pub(crate) fn add(&self, fd: impl AsFd, token: usize) -> io::Result<()> {
        let data = epoll::EventData::new_u64(token as u64);
        Ok(epoll::add(&self.fd, fd, data, epoll::EventFlags::IN)?)
    }

    /// Waits without limit and fills `ready` with the tokens that are readable.
    pub(crate) fn wait(&mut self, ready: &mut Vec<usize>) -> io::Result<()> {
        self.wait_for(None, ready)
    }

    /// Like `wait`, and an error when nothing happens for ten seconds.
    pub(crate) fn wait_busy(&mut self, ready: &mut Vec<usize>) -> Result<()> {
        self.wait_for(Some(STALL), ready)?;
        if ready.is_empty() {
            bail!("stalled: no answer for {} s", STALL.as_secs());
        }
        Ok(())
    }

    /// Like `wait` for at most `limit`; `ready` stays empty when that passes.
    pub(crate) fn wait_for(&mut self, limit: Option<Duration>, ready: &mut Vec<usize>) -> io::Result<()> {
        ready.clear();
        self.events.clear();
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        match epoll::wait(&self.fd, spare_capacity(&mut self.events), limit.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        // A token is an index, so it fits.
        ready.extend(self.events.iter().map(|event| event.data.u64() as usize));
        Ok(())
    }
}
