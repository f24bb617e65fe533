//! What a forward proxy changes in heads, and what it finds in them about the way that they came.

use std::sync::LazyLock;

use wmproxy_runtime::entropy;
use wmproxy_wire::destination::{Destination, Host};
use wmproxy_wire::head::{Fields, Known, Method, Request, Scheme};

use super::refusal::Refusal;
use crate::endpoint::onward;
use crate::exchange::{End, Exchange, Passage};
use crate::vars::with_scratch;

/// What this process is called in `Via` (RFC 9110 section 7.6.3): no other is called the same, so that a request which comes
/// by here twice is known.
static PSEUDONYM: LazyLock<String> = LazyLock::new(|| {
    let mut bytes = [0; 6];
    entropy::fill(&mut bytes);
    bytes.iter().fold(String::from("wmproxy-"), |text, byte| format!("{text}{byte:02x}"))
});

/// The same, for who else sends `Via` for this process.
pub fn pseudonym() -> &'static str {
    &PSEUDONYM
}

/// Whether a request has not been here before.
///
/// # Errors
/// It has.
pub(super) fn check_loop(request: &Request) -> Result<(), Refusal> {
    // The protocol, then who received it, then perhaps a comment.
    let by_us = |member: &[u8]| {
        let mut words = member.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        words.nth(1).is_some_and(|by| by.eq_ignore_ascii_case(PSEUDONYM.as_bytes()))
    };
    match request.fields.list(Known::Via).any(by_us) {
        true => Err(Refusal::came_round()),
        false => Ok(()),
    }
}

/// Counts down how far OPTIONS and TRACE may still go, and answers what may go no further (RFC 9110 section 7.6.2).
///
/// # Errors
/// What says so is no number.
pub(super) async fn last_forward(ex: &mut Exchange<'_, '_>) -> Result<Option<End>, Refusal> {
    if !matches!(ex.request.method, Method::Options | Method::Trace) {
        return Ok(None);
    }
    let Some(text) = ex.request.fields.get(Known::MaxForwards) else { return Ok(None) };
    let number = std::str::from_utf8(text).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let number: u32 =
        number.and_then(|text| text.parse().ok()).ok_or(Refusal::bad("Max-Forwards is no number."))?;
    if let Some(left) = number.checked_sub(1) {
        ex.request.fields.set(Known::MaxForwards, left.to_string().as_bytes());
        return Ok(None);
    }
    ex.response.clear();
    ex.response.set_status(200);
    let mut body = Vec::new();
    if ex.request.method == Method::Trace {
        ex.response.fields.push_known(Known::ContentType, b"message/http");
        // What a script may not read in a request it may not read in the answer either (RFC 9110 section 9.3.8).
        ex.request.fields.remove(Known::Authorization);
        ex.request.fields.remove(Known::Cookie);
        wmproxy_wire::http1::write_request(ex.request, &mut body);
    } else {
        ex.response
            .fields
            .push_known(Known::Allow, b"GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH, TRACE, CONNECT");
    }
    Ok(Some(End::from(ex.respond(&body, Passage::default()).await)))
}

/// Makes the client's request one to where it says: in our own words where it is about connections. Who the client is, nobody
/// is told. `upgrade` is what the connection is to become, if that is asked for.
pub(super) fn prepare(ex: &mut Exchange<'_, '_>, to: &Destination, upgrade: Option<&[u8]>) {
    onward::renew(ex.request, ex.body, upgrade);
    strip_own(&mut ex.request.fields);
    with_scratch(|host| {
        write_host(to, host);
        onward::set_host(ex.request, host);
    });
    let version = ex.request.version.number();
    name_us(&mut ex.request.fields, version);
}

/// Makes a server's response one to the client.
pub(super) fn finish(ex: &mut Exchange<'_, '_>) {
    onward::strip(&mut ex.response.fields);
    strip_own(&mut ex.response.fields);
    let version = ex.response.version.number();
    name_us(&mut ex.response.fields, version);
}

/// A destination as `Host` has it.
fn write_host(to: &Destination, out: &mut Vec<u8>) {
    use std::io::Write as _;
    // Writing to memory does not fail.
    let _ = match (&to.host, to.port == Scheme::Http.default_port()) {
        (Host::Name(name), true) => write!(out, "{name}"),
        (Host::Ip(std::net::IpAddr::V6(ip)), true) => write!(out, "[{ip}]"),
        (Host::Ip(ip), true) => write!(out, "{ip}"),
        (_, false) => write!(out, "{to}"),
    };
}

/// Takes out what is between a client and its proxy, and `Proxy`, which CGI programs would take for a setting of theirs
/// (CVE-2016-5385).
fn strip_own(fields: &mut Fields) {
    let is_own = |name: &[u8]| {
        name.get(..5).is_some_and(|begin| begin.eq_ignore_ascii_case(b"proxy"))
            && matches!(name.get(5), None | Some(b'-'))
    };
    fields.retain(|field| !is_own(field.name));
}

fn name_us(fields: &mut Fields, version: &str) {
    with_scratch(|text| {
        text.extend_from_slice(version.as_bytes());
        text.push(b' ');
        text.extend_from_slice(PSEUDONYM.as_bytes());
        fields.push_known(Known::Via, text);
    });
}
