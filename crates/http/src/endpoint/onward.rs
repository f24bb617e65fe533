//! What of a message's head concerns one connection only, and what a peer is told of those before us.

use std::net::SocketAddr;

use wmproxy_wire::head::hop_by_hop::{self, Strip};
use wmproxy_wire::head::{Fields, Known, Request, Scheme, Version, forwarded};
use wmproxy_wire::http1::Length;

use crate::exchange::Exchange;
use crate::facts::Scene;
use crate::filter::Filters;
use crate::filter::rewrite::BadPath;
use crate::options::ReverseSpec;
use crate::vars::with_scratch;

/// What we are called in `Via` (RFC 9110 section 7.6.3).
const PSEUDONYM: &str = "wmproxy";

/// Takes out what is meant for one connection only (RFC 9110 section 7.6.1).
pub(crate) fn strip(fields: &mut Fields) {
    hop_by_hop::strip(fields, Strip::default());
}

/// Makes the client's request one to a peer: in our own words where it is about connections, with those before us named.
/// `upgrade` is what the connection is to become, if that is asked for.
pub(crate) fn prepare(ex: &mut Exchange<'_, '_>, spec: &ReverseSpec, upgrade: Option<&[u8]>) {
    let is_trusted = ex.service.trusts(ex.conn.client);
    let Exchange { request, conn, body, .. } = ex;
    renew(request, *body, upgrade);
    with_scratch(|text| name_those_before(request, conn.client, conn.scheme, is_trusted, text));
    if let Some(authority) = spec.authority.as_deref().filter(|_| !spec.preserve_host) {
        set_host(request, authority.as_bytes());
    }
}

/// Says anew in a request what is about the next connection alone.
pub(crate) fn renew(request: &mut Request, body: Length, upgrade: Option<&[u8]>) {
    // What gRPC insists on. The trailers that it promises to take do come through.
    let keep_te_trailers = request.version == Version::Http2;
    hop_by_hop::strip(&mut request.fields, Strip { keep_te_trailers, ..Strip::default() });
    if request.fields.has(Known::Te) && upgrade.is_none() {
        request.fields.push_known(Known::Connection, b"TE");
    }
    match upgrade {
        Some(protocol) => {
            request.fields.push_known(Known::Connection, b"Upgrade");
            request.fields.push_known(Known::Upgrade, protocol);
        }
        None if body == Length::Chunked => request.fields.push_known(Known::TransferEncoding, b"chunked"),
        None => {}
    }
}

/// Gives the request the target that the peer is asked for, on the try with this number.
///
/// # Errors
/// It would lead out of where it was put: a 400.
pub(crate) fn retarget(
    ex: &mut Exchange<'_, '_>,
    spec: &ReverseSpec,
    filters: &Filters,
    index: usize,
) -> Result<(), BadPath> {
    let Exchange { conn, request, facts, .. } = ex;
    match &filters.tries {
        Some(tries) if facts.path.starts_with(b"/") => with_scratch(|path| {
            tries.path(index, &Scene { conn, request, response: None, facts }, path);
            filters.retarget(Some(path), conn, request, facts)
        })?,
        _ => filters.retarget(None, conn, request, facts)?,
    }
    if !spec.base.is_empty() {
        with_scratch(|target| {
            target.extend_from_slice(spec.base.as_bytes());
            target.extend_from_slice(request.target());
            request.rewrite_target(target);
        });
    }
    Ok(())
}

/// Names whom the request is for, in place of what the client asked for.
pub(crate) fn set_host(request: &mut Request, host: &[u8]) {
    request.fields.set(Known::Host, host);
}

/// Says who came, by which scheme and for which host, and that we were on the way. What came in these fields is gone on
/// with if whoever it came from is trusted, and replaced if not.
fn name_those_before(
    request: &mut Request,
    client: Option<SocketAddr>,
    scheme: Scheme,
    is_trusted: bool,
    text: &mut Vec<u8>,
) {
    let from = client.map(|client| client.ip().to_canonical());
    if is_trusted {
        join(&request.fields, Known::XForwardedFor, text);
    }
    if let Some(from) = from {
        forwarded::write_address(from, text);
    }
    set(&mut request.fields, Known::XForwardedFor, text.strip_suffix(b", ").unwrap_or(text));
    let has = |known| is_trusted && request.fields.has(known);
    let (has_proto, has_host) = (has(Known::XForwardedProto), has(Known::XForwardedHost));
    if !has_proto {
        request.fields.set(Known::XForwardedProto, scheme.as_str().as_bytes());
    }
    text.clear();
    text.extend_from_slice(request.authority().unwrap_or_default());
    if !has_host {
        set(&mut request.fields, Known::XForwardedHost, text);
    }
    text.clear();
    if is_trusted {
        join(&request.fields, Known::Forwarded, text);
    }
    forwarded::write_element(from, scheme.as_str(), request.authority(), text);
    request.fields.set(Known::Forwarded, text);
    text.clear();
    text.extend_from_slice(request.version.number().as_bytes());
    text.push(b' ');
    text.extend_from_slice(PSEUDONYM.as_bytes());
    request.fields.push_known(Known::Via, text);
}

/// The values of a field, to go on with behind a comma.
fn join(fields: &Fields, known: Known, text: &mut Vec<u8>) {
    for value in fields.all(known).filter(|value| !value.is_empty()) {
        text.extend_from_slice(value);
        text.extend_from_slice(b", ");
    }
}

/// Sets a field, or takes it out where there is nothing to say.
fn set(fields: &mut Fields, known: Known, value: &[u8]) {
    if value.is_empty() {
        fields.remove(known);
    } else {
        fields.set(known, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(fields: &[(&str, &str)], client: Option<&str>, is_trusted: bool) -> Vec<String> {
        let mut request = Request::new();
        request.set_method(b"GET");
        request.set_authority(b"a.example:8080");
        fields.iter().for_each(|(name, value)| request.fields.push(name.as_bytes(), value.as_bytes()));
        let client = client.map(|ip| SocketAddr::new(ip.parse().unwrap(), 4711));
        name_those_before(&mut request, client, Scheme::Https, is_trusted, &mut Vec::new());
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        request.fields.iter().map(|field| text(field.name) + ": " + &text(field.value)).collect()
    }

    #[test]
    fn what_a_stranger_says_is_replaced() {
        let said = [
            ("x-forwarded-for", "1.1.1.1"),
            ("X-Forwarded-Host", "evil"),
            ("X-Forwarded-Proto", "gopher"),
            ("Forwarded", "for=1.1.1.1"),
            ("X-Forwarded-For", "2.2.2.2"),
        ];
        let expected = [
            "x-forwarded-for: 192.0.2.7",
            "X-Forwarded-Host: a.example:8080",
            "X-Forwarded-Proto: https",
            "Forwarded: for=192.0.2.7;proto=https;host=\"a.example:8080\"",
            "Via: 1.1 wmproxy",
        ];
        assert_eq!(named(&said, Some("192.0.2.7"), false), expected);
    }

    #[test]
    fn what_a_trusted_proxy_says_is_gone_on_with() {
        let said = [
            ("X-Forwarded-For", "1.1.1.1"),
            ("X-Forwarded-For", "2.2.2.2"),
            ("X-Forwarded-Proto", "http"),
            ("Forwarded", "for=1.1.1.1"),
            ("Via", "1.0 other"),
        ];
        let expected = [
            "X-Forwarded-For: 1.1.1.1, 2.2.2.2, 2001:db8::7",
            "X-Forwarded-Proto: http",
            "Forwarded: for=1.1.1.1, for=\"[2001:db8::7]\";proto=https;host=\"a.example:8080\"",
            "Via: 1.0 other",
            "X-Forwarded-Host: a.example:8080",
            "Via: 1.1 wmproxy",
        ];
        assert_eq!(named(&said, Some("2001:db8::7"), true), expected);
    }

    #[test]
    fn a_client_without_an_address_is_not_made_up() {
        let forwarded = "Forwarded: for=unknown;proto=https;host=\"a.example:8080\"";
        let rest =
            ["X-Forwarded-Proto: https", "X-Forwarded-Host: a.example:8080", forwarded, "Via: 1.1 wmproxy"];
        assert_eq!(named(&[("X-Forwarded-For", "1.1.1.1")], None, false), rest);
        let mut kept = vec!["X-Forwarded-For: 1.1.1.1"];
        kept.extend(rest);
        assert_eq!(named(&[("X-Forwarded-For", "1.1.1.1")], None, true), kept);
    }
}
