//! The tunnel with the programs that people use through it, over a network that loses datagrams, and with ends that die.

mod killed;
mod lossy;
mod programs;

use std::fmt::Display;
use std::time::Duration;

use wmproxy_testkit::wait::holds_within;
use wmproxy_testkit::{Addr, Conn, Proxy, eventually};

use crate::setup;

/// The carriers of a session, as lines of the client's table.
pub(super) const CARRIERS: [&str; 3] = ["", "mux = true", "transport = \"quic\""];

/// What the client proves.
const KEY: &str = "a long key that nobody guesses";

/// A server that lets `home` offer anything; `more` is further lines of its table.
pub(super) fn server(listen: impl Display, more: impl Display) -> String {
    format!(
        "[tunnel_server]\nlisten = \"{listen}\"\n{more}\n[tunnel_server.clients.home]\nkey = \"{KEY}\"\n\
         ports = \"1-65535\"\nprivate = true\nmax_services = 2000\n"
    )
}

/// The client `home` of a server; `more` is further lines of its table, and then come its services.
pub(super) fn client(server: impl Display, more: impl Display, services: impl Display) -> String {
    format!("[tunnel_client]\nserver = \"{server}\"\nname = \"home\"\nkey = \"{KEY}\"\n{more}\n{services}\n")
}

/// A service with a port.
pub(super) fn service(name: &str, kind: &str, local: impl Display, port: u16) -> String {
    format!(
        "[[tunnel_client.service]]\nname = \"{name}\"\ntype = \"{kind}\"\nlocal = \"{local}\"\nport = {port}\n"
    )
}

/// Starts an end; its identity is kept in its own directory.
pub(super) fn end(config: &str) -> Proxy {
    let setup = setup(config);
    let state = setup.dir().join("state").display().to_string();
    setup.env("STATE_DIRECTORY", &state).start()
}

/// Whether a service whose local end echoes does so, within a second.
fn echoes(port: u16) -> bool {
    let Ok(conn) = Conn::try_connect(&Addr::local(port)) else { return false };
    conn.patience(Duration::from_secs(1));
    let mut answer = [0; 5];
    conn.try_send(b"hello").is_ok()
        && std::io::Read::read_exact(&mut conn.socket(), &mut answer).is_ok()
        && answer == *b"hello"
}

/// Waits until services at these ports echo.
///
/// # Panics
/// When they do not in time.
fn await_echo(ports: &[u16], limit: Duration) {
    for &port in ports {
        assert!(holds_within(limit, || echoes(port)), "port {port} does not serve within {limit:?}");
    }
}

/// Takes a session that stands for what both ends have when nobody uses them.
pub(super) fn settle(ends: [&Proxy; 2]) {
    for end in ends {
        eventually("no visitor is left", || end.active() == 0);
        end.rebase();
    }
}
