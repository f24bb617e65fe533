//! The tunnel with the programs that people use through it, over a network that loses datagrams, and with ends that die.

mod killed;
mod lossy;
mod programs;

use std::fmt::Display;
use std::time::Duration;

use wmproxy_testkit::wait::holds_within;
use wmproxy_testkit::{Addr, Conn, Proxy, eventually};

pub(super) use crate::tunnel::{CARRIERS, end};

/// What the client proves.
const KEY: &str = "a long key that nobody guesses";

/// A server that lets `home` offer anything; `more` is further lines of its table.
pub(super) fn server(listen: impl Display, more: impl Display) -> String {
    format!(
        "[tunnel_server]\nlisten = \"{listen}\"\nvisitors = {{ idle_timeout = \"5s\", udp_idle_timeout = \"1s\" }}\n{more}\n[tunnel_server.clients.home]\nkey = \"{KEY}\"\n\
         ports = \"1-65535\"\nprivate = true\nmax_services = 2000\n"
    )
}

/// The client `home` of a server; `more` is further lines of its table, and then come its services.
pub(super) fn client(server: impl Display, more: impl Display, services: impl Display) -> String {
    format!("[tunnel_client]\nserver = \"{server}\"\nname = \"home\"\nkey = \"{KEY}\"\n{more}\n{services}\n")
}

/// A service with a port.
pub(super) fn service(name: &str, kind: &str, local: impl Display, port: u16) -> String {
    let idle = if kind == "udp" { "idle_timeout = \"1s\"\n" } else { "" };
    format!(
        "[[tunnel_client.service]]\nname = \"{name}\"\ntype = \"{kind}\"\nlocal = \"{local}\"\nport = {port}\n{idle}"
    )
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

/// Takes a session that stands for what a client has when nobody uses it.
pub(super) fn settle(client: &Proxy) {
    eventually("no visitor is left", || visitors(client) == 0);
    crate::tunnel::settle(client);
}

/// How many visitors an end has, but for the connections of sessions.
fn visitors(end: &Proxy) -> u64 {
    let status = end.status();
    let listeners = status["listeners"].as_array().unwrap().iter();
    let open = listeners.filter(|listener| listener["name"] != "tunnel");
    open.map(|listener| listener["active"].as_u64().unwrap()).sum()
}
