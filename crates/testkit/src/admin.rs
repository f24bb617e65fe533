//! One HTTP exchange with the admin API, over TCP or a unix socket.

use std::io;
use std::io::Read as _;

use crate::tcp::{Addr, Conn};

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body as text.
    pub body: String,
}

/// Sends one request without a body and reads the whole answer.
///
/// # Errors
/// When nobody listens there, or what comes back is no HTTP.
pub fn exchange(addr: &Addr, method: &str, path: &str) -> io::Result<Answer> {
    exchange_with(addr, method, path, "")
}

/// [`exchange`] with further header lines, each ended by CRLF.
///
/// # Errors
/// As [`exchange`].
pub fn exchange_with(addr: &Addr, method: &str, path: &str, headers: &str) -> io::Result<Answer> {
    let conn = Conn::try_connect(addr)?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n{headers}Connection: close\r\n\r\n"
    );
    conn.try_send(head.as_bytes())?;
    let mut text = String::new();
    (&conn).read_to_string(&mut text)?;
    parse(&text).ok_or_else(|| io::Error::other(format!("no HTTP answer: {text:?}")))
}

fn parse(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { unchunk(body)? } else { body.to_owned() };
    Some(Answer { status, body })
}

fn unchunk(mut text: &str) -> Option<String> {
    let mut body = String::new();
    loop {
        let (size, rest) = text.split_once("\r\n")?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.push_str(rest.get(..size)?);
        text = rest.get(size + 2..)?;
    }
}
