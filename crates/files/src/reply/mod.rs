//! What is answered: the head of the response, and which bytes of the file follow (RFC 9110).
//!
//! What lives here: `methods`, the [conditions] that a request makes with entity tags (`tags`) and dates, the [ranges](range)
//! that it asks for and the body of several (`multipart`), and whose pages of other origins (`cors`) may read it all. What must
//! not: the file system. All of it is decided by the fields of a request and what is known of an open [`File`].

pub mod conditions;
mod cors;
mod methods;
mod multipart;
pub mod range;
mod tags;

#[cfg(test)]
mod tests;

use std::ops::Range;

use wmproxy_wire::head::{DATE_LEN, Known, Method, Request, Response, date};

use crate::file::File;
use crate::options::FilesSpec;
use conditions::{Validators, Verdict};
use range::Wanted;

pub use cors::put as put_cors;
pub use methods::{Asked, by_method};

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

/// Writes the head of the response with a file, without what says how it is framed (`Content-Length`), `Date` and
/// [CORS](put_cors), in the place of whatever was in it. `now`, in seconds since 1970, is what dates are compared with.
pub fn answer(
    spec: &FilesSpec,
    file: &File,
    request: &Request,
    now: u64,
    response: &mut Response,
) -> Content {
    response.clear();
    let validators = Validators::of(file);
    match conditions::judge(&validators, request, now) {
        Verdict::Met => {}
        Verdict::Failed => {
            response.set_status(412);
            return Content::Nothing;
        }
        Verdict::NotModified { is_weak } => {
            put_not_modified(spec, file, is_weak, response);
            return Content::Nothing;
        }
    }
    response.set_status(206);
    let content = match wanted(&validators, file, request, now) {
        Wanted::Part(part) => {
            response.fields.push_known(Known::ContentType, file.content_type.as_bytes());
            range::put(&part, file.version.len, response);
            Some(Content::Part(part))
        }
        Wanted::Parts(parts) => {
            multipart::put(file, &parts, response).map(|parts| Content::Parts(Box::new(parts)))
        }
        Wanted::Unsatisfiable => {
            response.set_status(416);
            range::put_unsatisfiable(file.version.len, response);
            put_accept_ranges(response);
            return Content::Nothing;
        }
        Wanted::Whole => None,
    };
    let content = content.unwrap_or_else(|| {
        response.set_status(200);
        response.fields.push_known(Known::ContentType, file.content_type.as_bytes());
        Content::Part(0..file.version.len)
    });
    put_encoding(file, response);
    response.fields.push_known(Known::LastModified, &last_modified(file, validators.modified, now));
    put_tag(file, false, response);
    put_accept_ranges(response);
    put_caching(spec, file, response);
    content
}

/// What of a file a request is for whose conditions are met.
fn wanted(validators: &Validators<'_>, file: &File, request: &Request, now: u64) -> Wanted {
    // To other methods a range means nothing (section 14.2).
    if request.method != Method::Get {
        return Wanted::Whole;
    }
    let mut lines = request.fields.all(Known::Range);
    let (Some(line), None) = (lines.next(), lines.next()) else { return Wanted::Whole };
    if !conditions::are_ranges_valid(validators, request, now) {
        return Wanted::Whole;
    }
    match range::wanted(line, file.version.len) {
        // `Content-Encoding` beside them would say that the parts are encoded together with what stands between them.
        Wanted::Parts(_) if file.encoding.is_some() => Wanted::Whole,
        wanted => wanted,
    }
}

/// The head of a 304: what a 200 would have had of what a cache needs to go on with what it has (section 15.4.5).
fn put_not_modified(spec: &FilesSpec, file: &File, is_weak: bool, response: &mut Response) {
    response.set_status(304);
    put_tag(file, is_weak, response);
    put_caching(spec, file, response);
    if is_weak && !file.varies {
        response.fields.push_known(Known::Vary, b"Accept-Encoding");
    }
}

/// The entity tag. Ours are strong. Who has a weak one has what a filter compressed on the way; it is told of that one, for a
/// cache updates only what has the very tag (RFC 9111 section 4.3.4).
fn put_tag(file: &File, is_weak: bool, response: &mut Response) {
    if is_weak {
        response.fields.push_known(Known::ETag, &[b"W/", file.etag.as_bytes()].concat());
    } else {
        response.fields.push_known(Known::ETag, file.etag.as_bytes());
    }
}

/// When the file was modified. A server never names a time that is yet to come (section 8.8.2.1).
fn last_modified(file: &File, modified: u64, now: u64) -> [u8; DATE_LEN] {
    if modified > now { date(now) } else { file.last_modified }
}

fn put_encoding(file: &File, response: &mut Response) {
    if let Some(encoding) = file.encoding {
        response.fields.push_known(Known::ContentEncoding, encoding.token().as_bytes());
    }
}

fn put_accept_ranges(response: &mut Response) {
    response.fields.push_known(Known::AcceptRanges, b"bytes");
}

/// What caches go by.
fn put_caching(spec: &FilesSpec, file: &File, response: &mut Response) {
    if let Some(value) = &spec.cache_control {
        response.fields.push_known(Known::CacheControl, value.as_bytes());
    }
    if file.varies {
        response.fields.push_known(Known::Vary, b"Accept-Encoding");
    }
}

/// Writes the head of an error whose body is a file: with its type, and without ranges and conditions, in the place of
/// whatever was in it. Gives the bytes that follow.
pub fn error_page(status: u16, file: &File, response: &mut Response) -> Range<u64> {
    response.clear();
    response.set_status(status);
    response.fields.push_known(Known::ContentType, file.content_type.as_bytes());
    put_encoding(file, response);
    // What went wrong now is nothing to keep.
    response.fields.push_known(Known::CacheControl, b"no-store");
    0..file.version.len
}

/// Writes the redirect of a directory that was asked for without a slash at its end: to the path that the client sent and a
/// slash, with its query, and never to another host. It has no body.
pub fn redirect_to_slash(request: &Request, response: &mut Response) {
    let asked = request.asked_target();
    let end = asked.iter().position(|&byte| byte == b'?').unwrap_or(asked.len());
    let (path, query) = asked.split_at(end);
    // Two slashes at the front, or what a browser takes for one, would begin the name of a host.
    let start = path.iter().position(|byte| !matches!(byte, b'/' | b'\\')).unwrap_or(path.len());
    let mut location = Vec::with_capacity(asked.len() + 2);
    location.push(b'/');
    location.extend_from_slice(&path[start..]);
    if location.last() != Some(&b'/') {
        location.push(b'/');
    }
    location.extend_from_slice(query);
    response.clear();
    response.set_status(308);
    response.fields.push_known(Known::Location, &location);
}
