//! Bridges between TCP and WebSocket, with `tungstenite` at the other end.

mod chain;
mod closes;
mod command;
mod handshake;
mod tcp2ws;
mod ws2tcp;
mod wss;

use std::io::{self, Read, Write};

use serde_json::Value;
use tungstenite::protocol::Role;
use tungstenite::{Message, WebSocket};
use wmproxy_testkit::{Addr, Backend, Conn, Proxy};

use crate::stream;

/// A connection as `tungstenite` wants one.
pub(super) struct Io<'a>(pub(super) &'a Conn);

impl Read for Io<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Io<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A failure of `tungstenite` as one of a backend's handler.
pub(super) fn other(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}

/// A `[[stream]]` named `t` that takes WebSockets.
pub(super) fn ws2tcp(upstream: &Addr, more: &str) -> String {
    stream("t", "127.0.0.1:0", upstream, &format!("bridge = \"ws2tcp\"\n{more}"))
}

/// A `[[stream]]` named `t` that goes to a WebSocket at `/p`.
pub(super) fn tcp2ws(upstream: &Addr, more: &str) -> String {
    format!(
        "[[stream]]\nname = \"t\"\nlisten = \"127.0.0.1:0\"\nbridge = \"tcp2ws\"\n\
         bridge_url = \"ws://{upstream}/p\"\n{more}\n"
    )
}

/// Opens a WebSocket at `path` over a connection.
pub(super) fn open<'a>(conn: &'a Conn, path: &str) -> WebSocket<Io<'a>> {
    let url = format!("ws://a.example{path}");
    match tungstenite::client(url, Io(conn)) {
        Ok((socket, _)) => socket,
        Err(error) => panic!("no WebSocket: {error}"),
    }
}

/// Opens one without `tungstenite`, to send what that would not.
pub(super) fn open_raw(addr: &Addr) -> Conn {
    let conn = Conn::connect(addr);
    conn.send(
        b"GET / HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    );
    let head = head(&conn);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    conn
}

/// Reads the head of a message of HTTP.
pub(super) fn head(conn: &Conn) -> String {
    let mut head = String::new();
    while !head.ends_with("\n\n") {
        head.push_str(&conn.line().replace('\r', ""));
        head.push('\n');
    }
    head
}

/// A WebSocket server that answers every message with itself, up to the Close.
pub(super) fn echo_server() -> Backend {
    Backend::start(|conn| {
        let mut socket = tungstenite::accept(Io(conn)).map_err(other)?;
        let mut bytes = 0;
        loop {
            match socket.read() {
                Ok(message @ (Message::Binary(_) | Message::Text(_))) => {
                    bytes += message.len() as u64;
                    socket.send(message).map_err(other)?;
                }
                Ok(_) => {}
                Err(tungstenite::Error::ConnectionClosed) => return Ok(bytes),
                Err(tungstenite::Error::Io(error)) => return Err(error),
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    })
}

/// The raw frames of an open WebSocket, each with its own view: one to read, one to write.
pub(super) fn halves(conn: &Conn, role: Role) -> [WebSocket<Io<'_>>; 2] {
    [(); 2].map(|()| WebSocket::from_raw_socket(Io(conn), role, None))
}

/// The one line of the access log.
pub(super) fn record(proxy: &Proxy) -> Value {
    proxy.access_log(1).remove(0)
}

#[track_caller]
pub(super) fn assert_end(record: &Value, outcome: &str, fault: &str) {
    assert_eq!(
        (record["outcome"].as_str(), record["fault"].as_str()),
        (Some(outcome), Some(fault)),
        "{record}"
    );
}
