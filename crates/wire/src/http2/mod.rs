//! What of HTTP/2 (RFC 9113) is ours: a [meter](FrameMeter) of the frames that cost their receiver more than their sender.
//!
//! The protocol itself is the `h2` crate's. It bounds streams, resets of streams that nobody has accepted yet, the size of
//! heads and the memory of buffered frames; what it does not bound is how much work of other kinds a client may make for
//! nothing.

mod meter;

pub use meter::{Flood, FrameMeter, MeterLimits};
