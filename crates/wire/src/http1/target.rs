//! The four forms of a target, and whom a request is for (RFC 9112 section 3.2).

use super::RequestError;
use crate::head::authority::{self, Authority};
use crate::head::{Known, Method, Request, Scheme, Span, Version};

/// Takes a target apart and sees to it that it agrees with the method and, unless that may be `any_host`, with `Host`.
pub(super) fn settle(target: Span, any_host: bool, request: &mut Request) -> Result<(), RequestError> {
    let host = host(request)?;
    let text = request.fields.at(target);
    match (text, request.method) {
        (_, Method::Connect) => {
            request.set_target_span(target);
            request.set_authority_span(Some(target));
            return settle_connect(request, host, any_host);
        }
        ([b'/', ..], _) | (b"*", Method::Options) => {
            request.set_target_span(target);
            request.set_authority_span(host);
        }
        _ => return settle_absolute(target, request, host, any_host),
    }
    // Who it is for is judged once; with an authority of its own, the target's is.
    match host {
        Some(host) => parse(request, host).map(|_| ()),
        None => Ok(()),
    }
}

/// Where the value of the one `Host` is.
fn host(request: &Request) -> Result<Option<Span>, RequestError> {
    let mut hosts = request.fields.spans(Known::Host);
    match (hosts.next(), hosts.next()) {
        (_, Some(_)) => Err(RequestError::ManyHosts),
        (None, None) if request.version == Version::Http11 => Err(RequestError::NoHost),
        (host, None) => Ok(host),
    }
}

fn parse(request: &Request, host: Span) -> Result<Authority<'_>, RequestError> {
    authority::parse(request.fields.at(host)).map_err(|_| RequestError::Host)
}

/// A host with a port. `Host` may leave the port out, as some clients do.
fn settle_connect(request: &Request, host: Option<Span>, any_host: bool) -> Result<(), RequestError> {
    let target = authority::parse(request.target()).map_err(|_| RequestError::Target)?;
    let port = target.port.ok_or(RequestError::Target)?;
    match host {
        Some(host) if !parse(request, host)?.is(&target, port) && !any_host => Err(RequestError::OtherHost),
        _ => Ok(()),
    }
}

/// A whole URI. Its authority is whom the request is for, and `Host` has to say the same.
fn settle_absolute(
    target: Span,
    request: &mut Request,
    host: Option<Span>,
    any_host: bool,
) -> Result<(), RequestError> {
    let text = request.fields.at(target);
    let (scheme, start) = scheme(text).ok_or(RequestError::Target)?;
    let rest = &text[start..];
    let len = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    let own = authority::parse(&rest[..len]).map_err(|_| RequestError::Target)?;
    if let Some(host) = host
        && !parse(request, host)?.is(&own, scheme.default_port())
        && !any_host
    {
        return Err(RequestError::OtherHost);
    }
    let path = &rest[len..];
    let authority = request.fields.part(target, start, len);
    let behind = request.fields.part(target, start + len, path.len());
    let has_path = path.first() == Some(&b'/');
    let is_options = request.method == Method::Options;
    request.scheme = Some(scheme);
    request.set_authority_span(Some(authority));
    match (has_path, behind.is_empty()) {
        (true, _) => request.set_target_span(behind),
        // OPTIONS of a whole server (RFC 9112 section 3.2.4).
        (false, true) if is_options => request.set_target(b"*"),
        (false, true) => request.set_target(b"/"),
        (false, false) => {
            let query = request.fields.at(behind);
            let target = [b"/", query].concat();
            request.set_target(&target);
        }
    }
    Ok(())
}

/// The scheme of a URI, and where its authority begins.
fn scheme(text: &[u8]) -> Option<(Scheme, usize)> {
    [(Scheme::Http, &b"http://"[..]), (Scheme::Https, b"https://")].into_iter().find_map(
        |(scheme, prefix)| {
            let begins = text.get(..prefix.len())?.eq_ignore_ascii_case(prefix);
            begins.then_some((scheme, prefix.len()))
        },
    )
}
