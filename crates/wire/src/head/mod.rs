//! The head of an HTTP message, in the one form that all versions share.
//!
//! What lives here: [`Request`] and [`Response`], their ordered [`Fields`] over one buffer that is used again and again,
//! the names that a proxy [knows](Known), [methods](Method), and
//! the rules that hold for every version: whom a request is [for](authority), the one form of a [path], what is for [one
//! hop](hop_by_hop) alone, who came [before us](forwarded), dates. HTTP/1 and HTTP/2 are read into it and written from it;
//! filters and endpoints see nothing else. What must not: how a version frames its messages (`http1`), and what a field
//! means to an endpoint.
//!
//! Nothing is allocated once the buffers have grown to what their connection needs: clearing keeps them. Names keep
//! the case that they came in.

pub mod authority;
mod chars;
pub mod coding;
mod date;
mod fields;
pub mod forwarded;
pub mod hop_by_hop;
mod known;
mod lookup;
mod method;
pub mod path;
mod request;
mod response;

pub(crate) use chars::{first_control, is_host_name, is_target_byte, is_tchar};
pub use chars::{is_token, is_value};
pub use date::{DATE_LEN, civil, date, parse_date};
pub use fields::{Field, Fields, Span};
pub use known::Known;
pub use lookup::{cookie, normalise_query, query_param};
pub use method::Method;
pub use request::{Request, Scheme};
pub use response::{Response, usual_reason};

/// The version of a message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// HTTP/1.0 (RFC 1945).
    Http10,
    /// HTTP/1.1 (RFC 9112).
    #[default]
    Http11,
    /// HTTP/2 (RFC 9113).
    Http2,
}

impl Version {
    /// As in logs and in a status line.
    pub fn as_str(self) -> &'static str {
        match self {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
            Version::Http2 => "HTTP/2.0",
        }
    }

    /// As in `Via` (RFC 9110 section 7.6.3).
    pub fn number(self) -> &'static str {
        match self {
            Version::Http10 => "1.0",
            Version::Http11 => "1.1",
            Version::Http2 => "2.0",
        }
    }
}
