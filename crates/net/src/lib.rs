//! Sockets and streams: everything that touches a descriptor.
//!
//! What lives here: addresses ([`addr`], [`acl`]), listening sockets and the one accept loop of the program
//! ([`listen`], [`socket_file`], [`accept`]), ports on which one connection is expected ([`rendezvous`]), what may come in
//! ([`limit`], [`eviction`]), connected streams ([`stream`]), what they say before their data ([`preface`]), TLS inside them
//! ([`tls`]), the TCP relay ([`relay`]), batched datagrams ([`udp`]), changes of the machine's network ([`changes`]), and
//! the record that every connection leaves behind ([`record`]). `sys` is the only home of `unsafe`.
//! What must not: protocols above TLS and UDP, upstream groups, the config's files.
//!
//! A connection passes through so: [`listen`] binds a socket for each worker; [`accept`] takes a permit, accepts and
//! makes a [`conn::Conn`]; the mode behind the [`conn::Serve`] trait finds a peer and hands both streams to
//! [`relay`]; the end closes the [`record`].

pub mod accept;
pub mod acl;
pub mod addr;
pub mod changes;
pub mod conn;
pub mod connect;
pub mod eviction;
pub mod limit;
pub mod listen;
pub mod options;
pub mod preface;
pub mod pressure;
pub mod privileges;
pub mod record;
pub mod relay;
pub mod rendezvous;
pub mod socket_file;
pub mod sockopt;
pub mod stream;
pub mod tls;
pub mod udp;

mod margin;
mod sys;

pub use margin::MARGIN;
