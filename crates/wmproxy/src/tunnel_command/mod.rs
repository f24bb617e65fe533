//! `wmproxy tunnel server` and `wmproxy tunnel client`: both ends of a tunnel, told by the command line alone.

mod client;
pub(crate) mod display;
mod key;
mod server;
mod spec;

use clap::Subcommand;

pub(crate) use client::TunnelClientArgs;
pub(crate) use server::TunnelServerArgs;

/// The client whose name nobody has to say: that of both commands unless they are told another.
const CLIENT: &str = "home";

/// Where a key may be, so that it is in no list of processes.
const KEY_VARIABLE: &str = "WMPROXY_KEY";

/// An end of a tunnel.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum TunnelCommand {
    /// The public end: lets a client log in, and leads visitors to what it offers
    #[command(after_help = "\
Examples:
  wmproxy tunnel server                                 clients at port 7000; prints what to run at home
  wmproxy tunnel server -l :7000 --http :80 --https :443      also services by host name
  wmproxy tunnel server --ports 20000-20100 --hosts '*.example.com'     grants of the client")]
    Server(Box<TunnelServerArgs>),
    /// The end behind NAT: offers services of its network at a tunnel server
    #[command(after_help = "\
Examples:
  wmproxy tunnel client -S host:7000 --key K --tcp 22:20022           ssh at the server's port 20022
  wmproxy tunnel client -S host:7000 --key K --http 3000:app.example.com --udp 53:20053
  wmproxy tunnel client -S host:7000 --key K --private db=5432 --secret S       only for who knows S
  wmproxy tunnel client -S host:7000 --key K --name laptop --visit home/db=127.0.0.1:5432 --secret S")]
    Client(Box<TunnelClientArgs>),
}
