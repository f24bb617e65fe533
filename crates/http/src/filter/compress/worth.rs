//! Which responses are compressed, and what that does to their heads.

use wmproxy_wire::head::{Fields, Known, Method, Request, Response};

/// Whether a response may be changed at all.
pub(super) fn may_change(request: &Request, response: &Response) -> bool {
    let Response { status, fields, .. } = response;
    // A part of something else has the bytes of that, and a tunnel has its own.
    if *status < 200 || matches!(status, 204 | 205 | 206 | 304) || request.method == Method::Connect {
        return false;
    }
    let is_plain = |coding: &[u8]| coding.eq_ignore_ascii_case(b"identity");
    fields.list(Known::ContentEncoding).all(is_plain)
        && !fields.has(Known::ContentRange)
        && !has_member(fields, Known::CacheControl, b"no-transform")
}

/// Whether its type is one that gets smaller. Pictures, films, music and archives are small already.
pub(super) fn gains(response: &Response) -> bool {
    const TYPES: [&str; 18] = [
        "application/atom+xml",
        "application/graphql",
        "application/javascript",
        "application/json",
        "application/manifest+json",
        "application/rss+xml",
        "application/vnd.ms-fontobject",
        "application/wasm",
        "application/x-javascript",
        "application/x-ndjson",
        "application/x-www-form-urlencoded",
        "application/xhtml+xml",
        "application/xml",
        "application/yaml",
        "font/otf",
        "font/ttf",
        "image/bmp",
        "image/x-icon",
    ];
    let Some(essence) = essence(response) else { return false };
    let ends = |suffix: &[u8]| {
        essence.len() > suffix.len() && essence[essence.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
    };
    essence.get(..5).is_some_and(|family| family.eq_ignore_ascii_case(b"text/"))
        || ends(b"+json")
        || ends(b"+xml")
        || ends(b"+text")
        || TYPES.iter().any(|known| essence.eq_ignore_ascii_case(known.as_bytes()))
}

/// How long the body is, where the head says it.
pub(super) fn length(response: &Response) -> Option<u64> {
    std::str::from_utf8(response.fields.get(Known::ContentLength)?).ok()?.parse().ok()
}

/// The type without its parameters.
fn essence(response: &Response) -> Option<&[u8]> {
    let value = response.fields.get(Known::ContentType)?;
    Some(value.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii())
}

/// Says that others may get it otherwise, so that no cache gives it to those.
pub(super) fn vary(response: &mut Response) {
    let fields = &mut response.fields;
    if !has_member(fields, Known::Vary, b"*") && !has_member(fields, Known::Vary, b"Accept-Encoding") {
        fields.push_known(Known::Vary, b"Accept-Encoding");
    }
}

/// Changes the head to that of the encoded body.
pub(super) fn encode_head(coding: &str, response: &mut Response) {
    let fields = &mut response.fields;
    fields.set(Known::ContentEncoding, coding.as_bytes());
    fields.remove(Known::ContentLength);
    // Ranges are of the encoded bytes, which will not be the same another time.
    fields.remove(Known::AcceptRanges);
    for digest in [&b"Content-Digest"[..], b"Content-MD5"] {
        fields.remove_named(digest);
    }
    // Byte for byte it is another one (RFC 9110 section 8.8.3).
    let strong = fields.get(Known::ETag).filter(|tag| !tag.starts_with(b"W/"));
    if let Some(weak) = strong.map(|tag| [b"W/", tag].concat()) {
        fields.set(Known::ETag, &weak);
    }
}

fn has_member(fields: &Fields, list: Known, wanted: &[u8]) -> bool {
    fields.list(list).any(|member| member.eq_ignore_ascii_case(wanted))
}
