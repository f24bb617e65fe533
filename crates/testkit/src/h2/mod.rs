//! HTTP/2 for tests: a client on the `h2` crate, and frames by hand for what that crate would never send.

mod client;
mod frames;

pub use bytes::Bytes;
pub use client::{Client, Response, download, request, upload};
pub use frames::{Frame, Kind, Raw, encode, request_fields};
pub use http::{HeaderMap, HeaderName, Uri};
