//! An HTTP/1.1 origin: `GET /SIZE/OFFSET` is answered with `SIZE` bytes of the pattern from `OFFSET` on, and whoever
//! posts must send the pattern from there.
//!
//! It knows what the load generator says through the proxies under test, and no more.

use std::io::{IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use anyhow::{Context, Result, ensure};
use rustix::net::RecvFlags;

use super::{CHUNK, each};
use crate::pattern::Pattern;

/// The fields that a proxy has to add. How many of them a connection's first request had is told in every answer.
const ADDED: [&str; 4] = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "via"];

/// As many requests come in one piece as the load has connections, at most; each is below half a kilobyte of head.
const READ: usize = 16 * 1024;

#[derive(Default)]
struct Conn {
    /// What came and was not answered yet.
    rest: Vec<u8>,
    /// Of the first request, where there was one.
    first: Option<First>,
}

#[derive(Clone, Copy)]
struct First {
    added: usize,
    closes: bool,
}

struct Request<'a> {
    posts: bool,
    size: u64,
    offset: u64,
    fields: std::str::Lines<'a>,
}

struct Origin {
    pattern: Pattern,
    head: Vec<u8>,
    hidden: bool,
}

/// Serves all connections by one thread. Where it is `hidden` behind a proxy by all means, it refuses requests that lack
/// a proxy's fields.
pub(super) fn serve(listener: TcpListener, hidden: bool) -> Result<()> {
    let mut origin = Origin { hidden, ..Origin::new() };
    let mut scratch = vec![0; READ];
    each(&listener, Conn::default, |stream, conn| {
        match rustix::net::recv(&*stream, &mut scratch, RecvFlags::DONTWAIT) {
            Ok((0, _)) => false,
            Ok((len, _)) => origin.serve(stream, conn, &scratch[..len]),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => true,
            Err(_) => false,
        }
    })
}

/// Serves each connection by a thread of its own, for answers that do not fit a socket's buffer.
pub(super) fn serve_long(listener: TcpListener) -> Result<()> {
    loop {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        thread::spawn(move || {
            let (mut origin, mut conn) = (Origin::new(), Conn::default());
            let mut scratch = vec![0; READ];
            while let Ok(len @ 1..) = stream.read(&mut scratch) {
                if !origin.serve(&mut stream, &mut conn, &scratch[..len]) {
                    break;
                }
            }
        });
    }
}

impl Origin {
    fn new() -> Self {
        Self { pattern: Pattern::new(CHUNK), head: Vec::new(), hidden: false }
    }

    /// Answers the requests that are whole with `data`; whether the connection lives on.
    fn serve(&mut self, stream: &mut TcpStream, conn: &mut Conn, data: &[u8]) -> bool {
        conn.rest.extend_from_slice(data);
        let mut rest = std::mem::take(&mut conn.rest);
        let mut used = 0;
        let lives = loop {
            match self.answer(stream, conn, &rest[used..]) {
                Ok(Some(len)) => used += len,
                Ok(None) => break conn.first.is_none_or(|first| !first.closes || used == 0),
                Err(error) => {
                    // The load generator gets no answer, and so the run fails; this tells why.
                    eprintln!("http backend: {error:#}");
                    break false;
                }
            }
        };
        rest.drain(..used);
        conn.rest = rest;
        lives
    }

    /// Answers the request that `data` begins with, and says how long it is if it is whole.
    fn answer(&mut self, stream: &mut TcpStream, conn: &mut Conn, data: &[u8]) -> Result<Option<usize>> {
        let Some(head) = data.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
        let request = Request::parse(std::str::from_utf8(&data[..head])?)?;
        let first = *conn.first.get_or_insert_with(|| First::of(request.fields.clone()));
        ensure!(
            !self.hidden || first.added == ADDED.len(),
            "only {} of a proxy's fields are there",
            first.added
        );
        let mut end = head + 4;
        if request.posts {
            let length =
                field(request.fields.clone(), "content-length").context("a body without a length")?;
            end += length.parse::<usize>()?;
            let Some(body) = data.get(head + 4..end) else { return Ok(None) };
            ensure!(self.pattern.agrees(request.offset, body), "a body is not what was sent");
        }
        self.send(stream, &request, first)?;
        Ok(Some(end))
    }

    fn send(&mut self, stream: &mut TcpStream, request: &Request<'_>, first: First) -> Result<()> {
        self.head.clear();
        write!(
            self.head,
            "HTTP/1.1 200 OK\r\nServer: bench\r\nDate: Sun, 22 Nov 2026 22:00:00 GMT\r\n\
             Content-Type: application/octet-stream\r\nContent-Length: {}\r\nX-Seen: {}\r\n{}\r\n",
            request.size,
            first.added,
            if first.closes { "Connection: close\r\n" } else { "" },
        )?;
        let body = self.pattern.at(request.offset, request.size);
        let sent = stream.write_vectored(&[IoSlice::new(&self.head), IoSlice::new(body)])?;
        stream.write_all(self.head.get(sent..).unwrap_or_default())?;
        let mut sent = sent.saturating_sub(self.head.len()) as u64;
        while sent < request.size {
            sent += stream.write(self.pattern.at(request.offset + sent, request.size - sent))? as u64;
        }
        Ok(())
    }
}

impl<'a> Request<'a> {
    fn parse(head: &'a str) -> Result<Self> {
        let mut fields = head.lines();
        let line = fields.next().unwrap_or_default();
        let parts = || -> Option<(bool, u64, u64)> {
            let (method, rest) = line.split_once(" /")?;
            let (size, offset) = rest.strip_suffix(" HTTP/1.1")?.split_once('/')?;
            Some((method == "POST", size.parse().ok()?, offset.parse().ok()?))
        };
        let (posts, size, offset) = parts().with_context(|| format!("a strange request, {line}"))?;
        Ok(Self { posts, size, offset, fields })
    }
}

impl First {
    fn of(fields: std::str::Lines<'_>) -> Self {
        let added = ADDED.iter().filter(|name| field(fields.clone(), name).is_some()).count();
        let closes = field(fields, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        Self { added, closes }
    }
}

/// The value of the field called `name`.
fn field<'a>(fields: std::str::Lines<'a>, name: &str) -> Option<&'a str> {
    let mut fields = fields.filter_map(|line| line.split_once(':'));
    fields.find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_what_it_wants() {
        let request =
            Request::parse("POST /34/4096 HTTP/1.1\r\nhost: a\r\nVia: 1.1 x\r\nConnection: Close").unwrap();
        assert!(request.posts);
        assert_eq!((request.size, request.offset), (34, 4096));
        let first = First::of(request.fields);
        assert!(first.closes);
        assert_eq!(first.added, 1);
        assert!(Request::parse("GET /34 HTTP/1.1").is_err());
        assert!(Request::parse("GET /34/0 HTTP/1.0").is_err());
    }
}
