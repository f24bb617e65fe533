//! The client of the admin API: one request, one answer, no more of HTTP than that needs.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use wmproxy_net::addr::{AddressSpec, Host};
use wmproxy_wire::units::Secret;

/// A process on this machine answers at once, one across the world within this.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Of an answer; a status with ten thousand listeners is a few megabytes.
const ANSWER_LIMIT: u64 = 64 << 20;

/// Where the API is, and what opens it.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    address: AddressSpec,
    token: Option<Secret>,
    timeout: Duration,
}

/// An answer that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The HTTP status.
    pub(crate) code: u16,
    /// The body.
    pub(crate) body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum ClientError {
    /// Nobody listens there.
    Absent(AddressSpec, io::Error),
    /// The connection could not be made for another reason.
    Connect(AddressSpec, io::Error),
    /// It was made, and broke or went silent.
    Broken(AddressSpec, io::Error),
    /// What answered there speaks something else.
    Stranger(AddressSpec, &'static str),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Absent(address, error) => write!(
                f,
                "no wmproxy answers at {address} ({}); is it running? Its admin address is given with \
                 -c FILE or --admin ADDR",
                plain(error)
            ),
            ClientError::Connect(address, error) => write!(f, "can't connect to {address}: {}", plain(error)),
            ClientError::Broken(address, error) => {
                write!(f, "{address} took the request and gave no answer: {}", plain(error))
            }
            ClientError::Stranger(address, what) => {
                write!(f, "what answers at {address} is no wmproxy: {what}")
            }
        }
    }
}

impl std::error::Error for ClientError {}

/// The usual errors in words of people, others as the system says them.
fn plain(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused".into(),
        ErrorKind::NotFound => "no such socket".into(),
        ErrorKind::PermissionDenied => "permission denied".into(),
        ErrorKind::TimedOut | ErrorKind::WouldBlock => "timed out".into(),
        ErrorKind::UnexpectedEof => "the connection was closed".into(),
        _ => error.to_string(),
    }
}

impl Client {
    /// A client that waits for an answer at most `timeout`.
    pub(crate) fn new(address: AddressSpec, token: Option<Secret>, timeout: Duration) -> Client {
        Client { address, token, timeout }
    }

    /// Asks for a path without a body.
    ///
    /// # Errors
    /// When there is no answer; an answer of any status is one.
    pub(crate) fn get(&self, path: &str) -> Result<Answer, ClientError> {
        self.request("GET", path, "")
    }

    /// Posts a JSON body; an empty text is none.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(crate) fn post(&self, path: &str, body: &str) -> Result<Answer, ClientError> {
        self.request("POST", path, body)
    }

    fn request(&self, method: &str, path: &str, body: &str) -> Result<Answer, ClientError> {
        let deadline = Instant::now() + self.timeout;
        let mut conn = self.connect()?;
        let broken = |error| ClientError::Broken(self.address.clone(), error);
        conn.set_timeout(self.timeout).map_err(broken)?;
        conn.write_all(self.head(method, path, body).as_bytes()).map_err(broken)?;
        let raw = read_all(&mut conn, deadline).map_err(broken)?;
        parse(&raw).map_err(|bad| match bad {
            Bad::Cut => broken(ErrorKind::UnexpectedEof.into()),
            Bad::Stranger(what) => ClientError::Stranger(self.address.clone(), what),
        })
    }

    fn head(&self, method: &str, path: &str, body: &str) -> String {
        let host = match &self.address {
            AddressSpec::Unix(_) | AddressSpec::Inet { host: Host::Any, .. } => "localhost".to_owned(),
            address => address.to_string(),
        };
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
        if let Some(token) = &self.token {
            head.push_str(&format!("Authorization: Bearer {}\r\n", token.expose()));
        }
        if !body.is_empty() {
            head.push_str("Content-Type: application/json\r\n");
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
        head
    }

    fn connect(&self) -> Result<Conn, ClientError> {
        let result = match &self.address {
            AddressSpec::Unix(path) => UnixStream::connect(path).map(Conn::Unix),
            AddressSpec::Inet { host, first_port, .. } => connect_tcp(host, *first_port).map(Conn::Tcp),
        };
        result.map_err(|error| match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::NotFound => {
                ClientError::Absent(self.address.clone(), error)
            }
            _ => ClientError::Connect(self.address.clone(), error),
        })
    }
}

fn connect_tcp(host: &Host, port: u16) -> io::Result<TcpStream> {
    let addresses: Vec<SocketAddr> = match host {
        Host::Ip(ip) => vec![(*ip, port).into()],
        Host::Name(name) => (name.as_str(), port).to_socket_addrs()?.collect(),
        // Whoever listens on every address listens on these.
        Host::Any => vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()],
    };
    let mut last = io::Error::other("the name has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

enum Conn {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Conn {
    /// For each read and write from now on.
    fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        // Zero would mean none.
        let timeout = Some(timeout.max(Duration::from_millis(1)));
        match self {
            Conn::Tcp(stream) => stream.set_read_timeout(timeout).and(stream.set_write_timeout(timeout)),
            Conn::Unix(stream) => stream.set_read_timeout(timeout).and(stream.set_write_timeout(timeout)),
        }
    }
}

impl Read for Conn {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Conn::Tcp(stream) => stream.read(buf),
            Conn::Unix(stream) => stream.read(buf),
        }
    }
}

impl Write for Conn {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Conn::Tcp(stream) => stream.write(buf),
            Conn::Unix(stream) => stream.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads to the end, which `Connection: close` makes the end of the answer.
fn read_all(conn: &mut Conn, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    let mut buf = [0; 16 << 10];
    loop {
        conn.set_timeout(deadline.saturating_duration_since(Instant::now()))?;
        match conn.read(&mut buf) {
            Ok(0) => return Ok(all),
            Ok(n) => all.extend_from_slice(&buf[..n]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // A reset behind a complete answer, which `parse` finds out.
            Err(error) if error.kind() == ErrorKind::ConnectionReset && !all.is_empty() => return Ok(all),
            Err(error) => return Err(error),
        }
        if all.len() as u64 > ANSWER_LIMIT {
            return Err(io::Error::other("the answer is too long"));
        }
        if Instant::now() >= deadline {
            return Err(ErrorKind::TimedOut.into());
        }
    }
}

/// Why bytes are no answer.
#[derive(Debug, PartialEq, Eq)]
enum Bad {
    /// They end too early.
    Cut,
    Stranger(&'static str),
}

/// Takes an answer apart: a status line, a `Content-Length`, a body of that length.
fn parse(raw: &[u8]) -> Result<Answer, Bad> {
    if raw.is_empty() {
        return Err(Bad::Cut);
    }
    if !b"HTTP/1.".iter().zip(raw).all(|(a, b)| a == b) {
        return Err(Bad::Stranger("it does not speak HTTP"));
    }
    let end = raw.windows(4).position(|four| four == b"\r\n\r\n").ok_or(Bad::Cut)?;
    let head = std::str::from_utf8(&raw[..end]).map_err(|_| Bad::Stranger("its answer is no text"))?;
    let mut lines = head.split("\r\n");
    let code = lines
        .next()
        .and_then(|line| line.split(' ').nth(1)?.parse().ok())
        .ok_or(Bad::Stranger("its answer has no status"))?;
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok())
        .ok_or(Bad::Stranger("its answer has no length"))?;
    let body = raw[end + 4..].get(..length).ok_or(Bad::Cut)?;
    Ok(Answer { code, body: body.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_status_and_a_body_of_its_length() {
        let answer = parse(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").unwrap();
        assert_eq!(answer, Answer { code: 200, body: b"{}".to_vec() });
        for (raw, expected) in [
            (&b""[..], Bad::Cut),
            (b"HTTP/1.1 200 OK\r\n", Bad::Cut),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}", Bad::Cut),
            (b"SSH-2.0-OpenSSH\r\n", Bad::Stranger("it does not speak HTTP")),
            (b"HTTP/1.1 \r\n\r\n", Bad::Stranger("its answer has no status")),
            (b"HTTP/1.1 200 OK\r\n\r\n{}", Bad::Stranger("its answer has no length")),
        ] {
            assert_eq!(parse(raw).unwrap_err(), expected, "{}", raw.escape_ascii());
        }
    }

    #[test]
    fn nobody_there_is_said_so() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let client = Client::new(free.to_string().parse().unwrap(), None, Duration::from_secs(5));
        let error = client.get("/").unwrap_err().to_string();
        assert!(error.starts_with(&format!("no wmproxy answers at {free} (connection refused)")), "{error}");
        let client = Client::new("unix:/nonexistent/a.sock".parse().unwrap(), None, Duration::from_secs(5));
        let error = client.get("/").unwrap_err().to_string();
        assert!(error.contains("(no such socket)"), "{error}");
    }

    #[test]
    fn silence_ends_by_the_timeout() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string().parse().unwrap();
        let client = Client::new(address, None, Duration::from_millis(20));
        let error = client.get("/").unwrap_err().to_string();
        assert!(error.ends_with("timed out"), "{error}");
    }
}
