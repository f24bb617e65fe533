//! The tunnel: a server and its clients, both the real binary, with services behind one and visitors before the other.
//!
//! What is told apart here is what users see: where a service is reached and by whom, what it is told of them, and what
//! becomes of both when an end changes or goes.

mod command;
mod flood;
mod groups;
mod https;
mod ports;
mod private;
mod reload;
mod web;

use std::fmt::Display;
use std::time::Duration;

use wmproxy_testkit::tcp::free_port;
use wmproxy_testkit::wait::{eventually, holds_within};
use wmproxy_testkit::{Conn, PATIENCE, Proxy};

use crate::setup;

/// What clients prove.
const KEY: &str = "a long key that nobody guesses";

/// How many connections wait in the pool of a client.
const POOL: u64 = 2;

/// The carriers of a session, as lines of the client's table.
pub(crate) const CARRIERS: [&str; 3] = ["", "mux = true", "transport = \"quic\""];

/// A server, for clients at this port.
struct Server {
    proxy: Proxy,
    port: u16,
}

/// The config of a server at `port` whose clients `home` and `work` may offer anything. `more` is further lines of its
/// table.
fn server_config(port: u16, more: impl Display) -> String {
    let grant = |name| {
        format!(
            "[tunnel_server.clients.{name}]\nkey = \"{KEY} {name}\"\nports = \"1-65535\"\nhosts = \"*\"\n\
             max_services = 2000\n"
        )
    };
    format!(
        "{}[tunnel_server]\nlisten = \"127.0.0.1:{port}\"\ngrace = \"2s\"\n{more}\n{}{}",
        crate::ACCESS_LOG,
        grant("home"),
        grant("work")
    )
}

/// The config of a client of the server at `port`. `more` is further lines of its table; then come its services.
fn client_config(name: &str, port: u16, more: impl Display, services: impl Display) -> String {
    format!(
        "{}[tunnel_client]\nserver = \"127.0.0.1:{port}\"\nname = \"{name}\"\nkey = \"{KEY} {name}\"\npool = {POOL}\n\
         max_backoff = \"200ms\"\n{more}\n{services}\n",
        crate::ACCESS_LOG
    )
}

/// A service; `more` is further lines of its table.
fn service(name: &str, kind: &str, more: impl Display) -> String {
    format!("[[tunnel_client.service]]\nname = \"{name}\"\ntype = \"{kind}\"\n{more}\n")
}

/// A service of tcp at a port of the server.
fn tcp(name: &str, local: impl Display, port: u16, more: impl Display) -> String {
    service(name, "tcp", format!("local = \"{local}\"\nport = {port}\n{more}"))
}

/// A service of http for a host.
fn web(name: &str, local: impl Display, host: &str, more: impl Display) -> String {
    service(name, "http", format!("local = \"{local}\"\nhosts = \"{host}\"\n{more}"))
}

impl Server {
    /// Starts one with an http front.
    fn start() -> Server {
        Server::with("http = \"127.0.0.1:0\"")
    }

    /// Starts one with these lines in its table.
    fn with(more: impl Display) -> Server {
        let port = free_port();
        Server { proxy: end(&server_config(port, more)), port }
    }

    /// Starts the client `home` with these lines in its table and these services, and waits until all are offered.
    fn home(&self, more: impl Display, services: impl Display) -> Proxy {
        self.client("home", more, services)
    }

    /// The same with another name.
    fn client(&self, name: &str, more: impl Display, services: impl Display) -> Proxy {
        let services = services.to_string();
        let count = services.matches("[[tunnel_client.service]]").count();
        let client = end(&client_config(name, self.port, more, services));
        eventually("all services are offered", || client.log().count("a service is offered") >= count);
        settle(&client);
        client
    }
}

/// Starts an end of a tunnel; what it keeps is in its own directory.
pub(crate) fn end(config: &str) -> Proxy {
    let setup = setup(config);
    let state = setup.dir().join("state").display().to_string();
    setup.env("STATE_DIRECTORY", &state).start()
}

/// Waits until the connections of a client are all there: from now on it is to have no more of them. Where many came at once,
/// more may wait than the pool has; they are the first that are taken.
pub(crate) fn settle(client: &Proxy) {
    let now = || {
        let session = &client.status()["tunnel_client"]["sessions"][0];
        (session["pool"].as_u64(), client.fds().sockets, client.tasks())
    };
    let mut before = now();
    let mut still = 0;
    let is_still = || {
        std::thread::sleep(Duration::from_millis(20));
        let now = now();
        still = if std::mem::replace(&mut before, now) == now { still + 1 } else { 0 };
        still >= 5
    };
    assert!(holds_within(PATIENCE, is_still));
    client.rebase();
}

/// Whether nobody is let in there.
fn refuses(port: u16) -> bool {
    Conn::try_connect(&wmproxy_testkit::Addr::local(port)).is_err()
}
