//! Bytes of the connection, in whatever pieces they come, as headers and bytes of streams.

use std::task::Waker;

use super::core::{Core, Stop, junk};
use super::frame::{FIN, HEADER, Header, Kind, RST};

/// Where in a frame the connection is.
#[derive(Debug, Default)]
pub(super) struct Parser {
    head: [u8; HEADER],
    /// So much of the head is there.
    have: usize,
    /// The data that is on its way.
    body: Option<Body>,
}

#[derive(Debug)]
struct Body {
    stream: u32,
    left: usize,
    is_last: bool,
}

impl Parser {
    /// Takes what came next. Nothing is kept of it but the half of a header, so that a length is only a number here.
    pub(super) fn feed(
        &mut self,
        core: &mut Core,
        mut bytes: &[u8],
        wakers: &mut Vec<Waker>,
    ) -> Result<(), Stop> {
        loop {
            if let Some(body) = &mut self.body {
                let (now, rest) = bytes.split_at(body.left.min(bytes.len()));
                if !now.is_empty() {
                    core.on_bytes(body.stream, now, wakers);
                }
                body.left -= now.len();
                bytes = rest;
                if body.left > 0 {
                    return Ok(());
                }
                if body.is_last {
                    core.on_fin(body.stream, wakers);
                }
                self.body = None;
            }
            let n = (HEADER - self.have).min(bytes.len());
            self.head[self.have..self.have + n].copy_from_slice(&bytes[..n]);
            self.have += n;
            bytes = &bytes[n..];
            if self.have < HEADER {
                return Ok(());
            }
            self.have = 0;
            let header = Header::decode(self.head).ok_or(junk("no frame of yamux"))?;
            core.on_header(&header, wakers)?;
            if header.kind == Kind::Data || header.kind == Kind::Window {
                let left = if header.kind == Kind::Data { header.length as usize } else { 0 };
                let is_last = header.flags & FIN != 0 && header.flags & RST == 0;
                self.body = Some(Body { stream: header.stream, left, is_last });
            }
        }
    }
}
