//! What is said to a proxy before it carries a connection, by us as its client: SOCKS 4, 4a and 5, and CONNECT of HTTP/1.1.
//!
//! Every message waits for the answer to the one before. Sending several at once would save round trips, but servers are in use
//! that read a message by one call and drop what came with it (microsocks), so that only waiting works with all.
//!
//! What comes right behind a proxy's consent is the destination's already: it is given back to the stream.

mod http;
mod socks;

use std::borrow::Cow;
use std::future::poll_fn;
use std::io;

use wmproxy_net::connect::Fault;
use wmproxy_net::stream::Stream;
use wmproxy_upstream::FailKind;

pub(super) use http::{authorization, connect, refusal};
pub(super) use socks::{Bound, associate, socks4, socks5};

/// How much is read at a time. All that proxies answer is shorter, but for pages of HTTP that tell why not.
const PIECE: usize = 512;

/// Why a proxy does not carry a connection; a text that goes on where the proxy's name ends.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) fault: Fault,
    pub(super) text: Cow<'static, str>,
    /// Set where the proxy itself is to blame, so that another one may do better. Otherwise it is the destination.
    pub(super) blame: Option<FailKind>,
}

impl Refusal {
    /// The destination can't be reached, or not by this proxy.
    pub(super) fn of_destination(fault: Fault, text: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal { fault, text: text.into(), blame: None }
    }

    /// The proxy is of no use.
    pub(super) fn of_proxy(fault: Fault, blame: FailKind, text: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal { fault, text: text.into(), blame: Some(blame) }
    }

    /// The proxy says something that is no answer.
    pub(super) fn broken(what: impl std::fmt::Display) -> Refusal {
        Refusal::of_proxy(Fault::Broken, FailKind::Broken, format!("says what is no answer: {what}"))
    }

    /// The connection to the proxy broke off.
    fn cut_off(error: &io::Error) -> Refusal {
        Refusal::of_proxy(Fault::HopDown, FailKind::Reset, format!("broke the connection off: {error}"))
    }
}

/// How far a handshake has come, so that silence can be told from silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// It is about the proxy and us.
    Meeting,
    /// The proxy was asked for the destination.
    Asked,
}

/// One handshake.
#[derive(Debug)]
struct Talk<'a> {
    stream: &'a Stream,
    progress: &'a mut Progress,
    /// What has come and was not read yet.
    came: Vec<u8>,
}

impl<'a> Talk<'a> {
    fn new(stream: &'a Stream, progress: &'a mut Progress) -> Talk<'a> {
        Talk { stream, progress, came: Vec::new() }
    }

    async fn say(&mut self, mut message: &[u8]) -> Result<(), Refusal> {
        while !message.is_empty() {
            let written = poll_fn(|cx| self.stream.poll_write(cx, message)).await;
            message = &message[written.map_err(|error| Refusal::cut_off(&error))?..];
        }
        Ok(())
    }

    /// Says what the proxy is asked for.
    async fn ask(&mut self, message: &[u8]) -> Result<(), Refusal> {
        *self.progress = Progress::Asked;
        self.say(message).await
    }

    /// Waits for more to come.
    async fn hear(&mut self) -> Result<(), Refusal> {
        let had = self.came.len();
        self.came.resize(had + PIECE, 0);
        let read = poll_fn(|cx| self.stream.poll_read(cx, &mut self.came[had..])).await;
        self.came.truncate(had + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => {
                let text = "closed the connection in place of an answer";
                Err(Refusal::of_proxy(Fault::HopDown, FailKind::Reset, text))
            }
            Ok(_) => Ok(()),
            Err(error) => Err(Refusal::cut_off(&error)),
        }
    }

    /// Leaves the stream to who sent it here, with what came too early.
    fn end(self) {
        self.stream.unread(self.came);
    }
}
