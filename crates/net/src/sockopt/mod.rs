//! Options of sockets that the config can set: what is set on listening sockets, and on those towards peers.
//!
//! What may be refused (for want of a right, of an address, of a device) is tried on a socket of its own before a
//! configuration takes over, so that a reload fails whole or not at all: [`ListenSocket::probe`], [`PeerSocket::probe`].

mod listen;
mod peer;
mod refusal;
mod tcp;
#[cfg(test)]
mod tests;
mod values;
mod way;

pub use listen::ListenSocket;
pub(crate) use listen::{hide, refuse_newcomers};
pub use peer::{NoWay, PeerSocket};
pub use refusal::Refusal;
pub use tcp::TcpOptions;
pub use values::{Dscp, Interface, Keepalive, Source};
pub use way::Way;
