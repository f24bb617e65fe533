//! Which methods a file has (RFC 9110 section 9).

use wmproxy_wire::head::{Known, Method, Request, Response};

use super::cors;
use crate::options::FilesSpec;

/// What to do with a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// GET or HEAD: the file.
    File,
    /// The response is there, and has no body: 204 to OPTIONS, which may be a CORS preflight, or 405 with `Allow`.
    Answered,
}

/// Looks at the method. Other than GET and HEAD are answered, whether the file is there or not: the head of the response is
/// written then, without [CORS](super::put_cors) but for what only a preflight wants to know.
pub fn by_method(spec: &FilesSpec, request: &Request, response: &mut Response) -> Asked {
    let status = match request.method {
        Method::Get | Method::Head => return Asked::File,
        Method::Options => 204,
        _ => 405,
    };
    response.clear();
    response.set_status(status);
    response.fields.push_known(Known::Allow, b"GET, HEAD, OPTIONS");
    if request.method == Method::Options {
        cors::put_preflight(spec, request, response);
    }
    Asked::Answered
}
