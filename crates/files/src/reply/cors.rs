//! Whose pages may read what is served: CORS (the Fetch standard, section 3.2).
//!
//! Nothing here lets a page send credentials along: a response is the same with and without them.

use wmproxy_wire::head::{Known, Method, Request, Response};

use crate::options::{Cors, FilesSpec};

/// What pages need beside the fields that they may always see: to ask for ranges, and to ask for what has changed.
const EXPOSED: &[u8] = b"Accept-Ranges, Content-Encoding, Content-Range, ETag";

/// As long as Chromium keeps it at most. What is answered to the request that follows says again whether it may be read.
const MAX_AGE_SECONDS: &[u8] = b"7200";

/// Adds what every response of a site says, also an error, a redirect and the answer to OPTIONS: which pages may read it.
pub fn put(spec: &FilesSpec, request: &Request, response: &mut Response) {
    let fields = &mut response.fields;
    let is_allowed = match &spec.cors {
        Cors::All(false) => return,
        Cors::All(true) => {
            fields.push(b"Access-Control-Allow-Origin", b"*");
            true
        }
        Cors::Origins(origins) => {
            // Without it, a cache could give the answer for one origin to another.
            fields.push_known(Known::Vary, b"Origin");
            let origin = allowed_origin(origins, request);
            if let Some(origin) = origin {
                fields.push(b"Access-Control-Allow-Origin", origin);
            }
            origin.is_some()
        }
    };
    if is_allowed && request.method != Method::Options {
        fields.push(b"Access-Control-Expose-Headers", EXPOSED);
    }
}

/// Adds what a page's browser asks before it sends a request that is not a simple one.
pub(super) fn put_preflight(spec: &FilesSpec, request: &Request, response: &mut Response) {
    let is_preflight = request.fields.has(Known::Origin)
        && request.fields.all_named(b"Access-Control-Request-Method").next().is_some();
    let is_allowed = match &spec.cors {
        Cors::All(all) => *all,
        Cors::Origins(origins) => allowed_origin(origins, request).is_some(),
    };
    if !is_preflight || !is_allowed {
        return;
    }
    let fields = &mut response.fields;
    fields.push(b"Access-Control-Allow-Methods", b"GET, HEAD");
    // All but `Authorization`: what else a client says of itself changes nothing of a file.
    fields.push(b"Access-Control-Allow-Headers", b"*");
    fields.push(b"Access-Control-Max-Age", MAX_AGE_SECONDS);
}

/// The origin that a request names, if it is one of these.
fn allowed_origin<'a>(origins: &[String], request: &'a Request) -> Option<&'a [u8]> {
    let mut lines = request.fields.all(Known::Origin);
    let origin = lines.next()?;
    let is_allowed = origins.iter().any(|allowed| allowed.as_bytes().eq_ignore_ascii_case(origin));
    (is_allowed && lines.next().is_none()).then_some(origin)
}
