//! The tunnel's protocol: what both ends of a session say to each other.
//!
//! Everything here lies inside TLS. A connection, or a stream of one, begins with frames, each a [`message`] with a length
//! in front; where it says so it goes on as the bytes of a visitor, or as [`datagram`]s. Both parts are open to growth: a
//! message is a list of tagged fields, and what a reader does not know it passes over.

pub mod codec;
pub mod datagram;
pub mod message;
