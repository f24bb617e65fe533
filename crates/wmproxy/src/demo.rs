//! The built-in demonstration: small origins, the proxy in front of them, and commands to try.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use crate::observe::requests::READABLE as READABLE_REQUEST;
use crate::observe::template::READABLE;
use crate::observe::visits::READABLE as READABLE_VISIT;

/// Where the demonstration listens: loopback only, and no port that a common service uses.
const ADDRESS: &str = "127.0.0.1:8880";

/// Where it serves HTTP: the next port.
const HTTP_ADDRESS: &str = "127.0.0.1:8881";

/// Where it is a forward proxy: where `wmproxy proxy` is by default.
const PROXY_ADDRESS: &str = "127.0.0.1:8090";

/// The page of the HTTP origin.
const PAGE: &str = "\
<!doctype html>
<title>wmproxy</title>
<h1>wmproxy works</h1>
<p>This page came from a small origin through the proxy.</p>
";

/// A client of the demonstration that says nothing is sent away after this.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the demonstration listens with and what it says of itself.
pub(crate) struct Demo {
    /// Its config, in TOML.
    pub(crate) config: String,
    /// What to print once it listens.
    pub(crate) banner: String,
}

/// Starts the origins, each on a thread and a port of its own, and writes a config for them.
///
/// # Errors
/// No port of loopback is to be had.
pub(crate) fn start() -> io::Result<Demo> {
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let (page, echo) = (TcpListener::bind(loopback)?, UdpSocket::bind(loopback)?);
    let (page_at, echo_at) = (page.local_addr()?, echo.local_addr()?);
    let proxy_at = free(PROXY_ADDRESS)?;
    std::thread::Builder::new().name("demo-page".into()).spawn(move || serve_page(&page))?;
    std::thread::Builder::new().name("demo-echo".into()).spawn(move || serve_echo(&echo))?;
    let config = format!(
        r#"
[access_log]
file = "-"
format = "{READABLE}"

[[stream]]
name = "demo-tcp"
listen = "tcp://{ADDRESS}"
upstream = "{page_at}"

[[stream]]
name = "demo-udp"
listen = "udp://{ADDRESS}"
upstream = "{echo_at}"
idle_timeout = "10s"

[[http]]
name = "demo-http"
listen = "{HTTP_ADDRESS}"
access_log = {{ format = "{READABLE_REQUEST}" }}

[[http.route]]
name = "hello"
path = "/hello"
respond = {{ body = "hello {{client_ip}}, you asked {{host}} for {{uri}}\n" }}

[[http.route]]
name = "moved"
path = "/old"
redirect = {{ to = "/hello{{uri}}", status = 307 }}

[[http.route]]
name = "page"
reverse_proxy = "{page_at}"
response_headers = {{ set = {{ x-route = "{{route}}" }} }}

[[forward]]
name = "demo-proxy"
listen = "{proxy_at}"
access_log = {{ format = "{READABLE_VISIT}" }}

# Everywhere but to private addresses, of which the page and the echo are the only ones that are open.
[egress.default]
allow = ["*", "{page_at}", "{echo_at}"]
"#
    );
    Ok(Demo { config, banner: banner(page_at, echo_at, proxy_at) })
}

/// An address of loopback that nobody has: this one, or with another port. Other proxies like the same ports.
fn free(address: &str) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(address).or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
    listener.local_addr()
}

fn banner(page: SocketAddr, echo: SocketAddr, proxy: SocketAddr) -> String {
    let (host, port) = ADDRESS.split_once(':').unwrap_or((ADDRESS, ""));
    format!(
        "
wmproxy {version}, the built-in demonstration: there is no ./wmproxy.toml here.

  tcp://{ADDRESS}  goes to a small web page at {page}
  udp://{ADDRESS}  goes to an echo at {echo}
  http://{HTTP_ADDRESS} has routes: /hello answers by itself, /old redirects to it, everything else is the page
  {proxy}        is a forward proxy for HTTP, CONNECT and SOCKS, closed to private addresses but for these two

Try, in another terminal:

  curl http://{ADDRESS}/
  echo hello | nc -u -w1 {host} {port}
  curl http://{HTTP_ADDRESS}/hello
  curl -L http://{HTTP_ADDRESS}/old
  curl -i http://{HTTP_ADDRESS}/
  curl -x http://{proxy} http://{page}/
  curl -x socks5h://{proxy} http://{page}/
  curl http://{admin}/metrics

Without a config there are also, among others (`wmproxy --help` has them all):

  wmproxy reverse-proxy -f :8080 -t 127.0.0.1:3000
  wmproxy file-server --browse
  wmproxy proxy -b :8090 --user alice

What each of the requests did is told here as it ends. Ctrl-C stops.

",
        version = env!("CARGO_PKG_VERSION"),
        admin = crate::config::options::ADMIN_ADDRESS,
    )
}

fn serve_page(listener: &TcpListener) {
    for stream in listener.incoming() {
        // One after the other is enough for a demonstration; a failed one concerns nobody else.
        let _ = stream.and_then(|mut stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            // A request without a body fits into one read but for its oddest forms, and the answer is the same.
            let _ = stream.read(&mut [0; 4096])?;
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nConnection: close\r\n";
            write!(stream, "{head}Content-Length: {}\r\n\r\n{PAGE}", PAGE.len())
        });
    }
}

fn serve_echo(socket: &UdpSocket) {
    let mut buffer = vec![0; 65_536];
    loop {
        // An error is that of an earlier answer.
        if let Ok((len, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..len], from);
        }
    }
}
