//! What is answered: the head of the response, and which bytes of the file follow (RFC 9110).

use std::ops::Range;

use wmproxy_wire::head::{Request, Response};

use crate::file::File;
use crate::options::FilesSpec;

/// What of a file follows the head of a response. To a HEAD it is what would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Nothing: 304, 412, 416.
    Nothing,
    /// These bytes: the whole file, or one range of it.
    Part(Range<u64>),
    /// Several ranges, each behind a head of its own (section 14.6).
    Parts(Box<Parts>),
}

/// A body of type `multipart/byteranges`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    /// What stands before each range, and the range.
    pub parts: Vec<(Vec<u8>, Range<u64>)>,
    /// What stands behind the last.
    pub end: Vec<u8>,
    /// How long it all is.
    pub len: u64,
}

/// What to do with a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// GET or HEAD: the file.
    File,
    /// The response is there, and has no body: OPTIONS, a CORS preflight, or 405 with `Allow`.
    Answered,
}

/// Looks at the method. Other than GET and HEAD are answered: the head of the response is written then.
pub fn by_method(_spec: &FilesSpec, _request: &Request, _response: &mut Response) -> Asked {
    todo!("SEMANTICS")
}

/// Writes the head of the response with a file, without what says how it is framed (`Content-Length`) and `Date`. `now`, in
/// seconds since 1970, is what dates are compared with.
pub fn answer(
    _spec: &FilesSpec,
    _file: &File,
    _request: &Request,
    _now: u64,
    _response: &mut Response,
) -> Content {
    todo!("SEMANTICS")
}

/// Writes the head of an error whose body is a file: with its type, and without ranges and conditions.
pub fn error_page(
    _spec: &FilesSpec,
    _status: u16,
    _file: &File,
    _request: &Request,
    _response: &mut Response,
) -> Range<u64> {
    todo!("SEMANTICS")
}

/// Adds what every response of a site says, errors too: CORS.
pub fn put_cors(_spec: &FilesSpec, _request: &Request, _response: &mut Response) {
    todo!("SEMANTICS")
}

/// Writes the redirect of a directory that was asked for without a slash at its end: to the path that the client sent and a
/// slash, with its query, and never to another host.
pub fn redirect_to_slash(_request: &Request, _response: &mut Response) {
    todo!("SEMANTICS")
}
