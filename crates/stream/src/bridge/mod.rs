//! Bridges: a TCP connection on one side, a WebSocket (RFC 6455) on the other.
//!
//! What lives here: the options and their checks ([`options`], [`url`]), the opening handshake over a stream
//! (`opening`), the life of a bridged connection (`serve`), and the relay that makes frames of bytes and bytes of frames
//! (`relay`, `outbox`). What must not: the form of frames and heads (`wire::websocket`), dialling, TLS (the streams may
//! have it inside).
//!
//! A connection passes through so: on `ws2tcp` the client's request is read and checked first, then a peer is dialled,
//! and only then is the upgrade granted. On `tcp2ws` a peer is dialled and asked for an upgrade. Then both run the same
//! relay, which neither holds a message nor, while it is idle, a buffer.

pub mod options;
pub mod url;

mod opening;
mod outbox;
mod relay;
mod serve;
