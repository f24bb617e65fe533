//! HTTP/1.0 and 1.1 on the wire (RFC 9112): heads, the length of bodies, chunks.
//!
//! What lives here: [`read_request`] and [`read_response`], which read a head into the one form that all versions share;
//! [`request_length`] and [`response_length`], the one place that decides where a message ends; [`Chunks`], which
//! takes the chunked coding off in place; and what writes all of that. What must not: reading and writing themselves,
//! what a field means beyond its message's borders, and anything that repairs: a message that two programs could read
//! in two ways is refused, for its second meaning is what request smuggling is made of.
//!
//! Every function looks at its bytes from left to right and decides by what it has seen so far, so the pieces that they come
//! in make no difference, neither to what is read nor to what is wrong.

mod chunks;
mod error;
mod fields;
mod framing;
mod request;
mod response;
mod target;
mod write;

pub use chunks::{ChunkError, ChunkLimits, Chunks, Step};
pub use error::{FieldError, FramingError, RequestError, ResponseError};
pub use framing::{Length, expects_continue, is_persistent, request_length, response_length};
pub use request::{is_h2_preface, knows_expectation, read_request};
pub use response::read_response;
pub use write::{
    ChunkHead, LAST_CHUNK, chunk_head, write_request, write_request_absolute, write_response, write_trailers,
};

/// What a head may not exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// The whole head in bytes, with its first line and the empty line at its end.
    pub bytes: usize,
    /// The target of a request in bytes.
    pub target: usize,
    /// How many fields.
    pub fields: usize,
    /// Whether `Host` may name another than a target that says by itself whom it is for. A proxy goes by the target and puts
    /// that in the place of `Host` (RFC 9112 section 3.2.2); for a server the two would be an ambiguity.
    pub any_host: bool,
}

#[cfg(test)]
mod tests;
