//! Heads between the form of the `h2` crate and ours.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, Uri, request, response, uri};
use wmproxy_wire::head::{
    Fields, Known, Method, Request, Response, Scheme, Version, authority, is_token, is_value,
};

/// A head that may not be passed on; what is wrong with it, in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(pub(super) &'static str);

/// Reads a client's request. Crumbs of cookies are put together (RFC 9113 section 8.2.3), and an extended CONNECT (RFC 8441)
/// becomes the GET that asks for the same in HTTP/1, so that all that follows knows one form only.
///
/// # Errors
/// What a request of HTTP/1.1 could not say in the same words, or what says two things (section 8.3.1).
pub(super) fn read_request(
    parts: &request::Parts,
    protocol: Option<&str>,
    into: &mut Request,
) -> Result<(), Malformed> {
    into.clear();
    into.version = Version::Http2;
    match protocol {
        Some(protocol) if parts.method == http::Method::CONNECT => {
            // The library has not looked at it, and a peer may read it in a line of HTTP/1. HTTP itself would go past every
            // route and filter.
            let is_http =
                protocol.eq_ignore_ascii_case("h2c") || protocol.to_ascii_lowercase().starts_with("http");
            if !is_token(protocol.as_bytes()) || is_http {
                return Err(Malformed("a bad :protocol"));
            }
            // The GET has no body, so that a peer would take the next request for it.
            if parts.headers.contains_key(http::header::CONTENT_LENGTH) {
                return Err(Malformed("a Content-Length of a CONNECT"));
            }
            into.set_method(b"GET");
            into.set_protocol(protocol.as_bytes());
        }
        Some(_) => return Err(Malformed(":protocol without CONNECT")),
        // What follows it is for the far end of its tunnel (RFC 9110 section 9.3.6).
        None if parts.method == http::Method::CONNECT
            && parts.headers.contains_key(http::header::CONTENT_LENGTH) =>
        {
            return Err(Malformed("a Content-Length of a CONNECT"));
        }
        None => into.set_method(parts.method.as_str().as_bytes()),
    }
    if !matches!(parts.uri.scheme_str(), None | Some("http" | "https")) {
        return Err(Malformed("a :scheme that is not HTTP's"));
    }
    into.scheme = match parts.uri.scheme_str() {
        Some("http") => Some(Scheme::Http),
        Some("https") => Some(Scheme::Https),
        _ => None,
    };
    let authority = whom(parts)?;
    into.set_authority(authority);
    let target = match (into.method, parts.uri.path_and_query()) {
        (Method::Connect, None) => authority,
        (_, Some(target)) => target.as_str().as_bytes(),
        (_, None) => return Err(Malformed("no :path")),
    };
    let is_path = target.starts_with(b"/") && target.iter().all(u8::is_ascii_graphic);
    let is_whole_server = target == b"*" && into.method == Method::Options;
    if !is_path && !is_whole_server && into.method != Method::Connect {
        return Err(Malformed("a bad :path"));
    }
    into.set_target(target);
    // Where HTTP/1 has it: first.
    into.fields.push_known(Known::Host, authority);
    read_fields(&parts.headers, &mut into.fields, |known| !matches!(known, Known::Host | Known::Cookie))?;
    read_cookies(&parts.headers, &mut into.fields)
}

/// Whom a request is for. `:authority` and Host may both say it, but only the same.
fn whom(parts: &request::Parts) -> Result<&[u8], Malformed> {
    let named = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    let mut hosts = parts.headers.get_all(http::header::HOST).iter().map(HeaderValue::as_bytes);
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Malformed("more than one Host"));
    }
    let text = named.or(host).ok_or(Malformed("neither :authority nor Host"))?;
    let own = authority::parse(text).map_err(|_| Malformed("a bad :authority or Host"))?;
    if let Some(host) = host {
        let host = authority::parse(host).map_err(|_| Malformed("a bad Host"))?;
        // Without a scheme, which only CONNECT is, a port has to be written out.
        let port = if parts.uri.scheme() == Some(&uri::Scheme::HTTPS) { 443 } else { 80 };
        if !host.is(&own, port) {
            return Err(Malformed(":authority and Host differ"));
        }
    }
    Ok(text)
}

fn read_fields(
    headers: &HeaderMap,
    into: &mut Fields,
    keep: impl Fn(Known) -> bool,
) -> Result<(), Malformed> {
    // The library takes the same one twice, which HTTP/1 does not.
    if headers.get_all(http::header::CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(Malformed("more than one Content-Length"));
    }
    for (name, value) in headers {
        let name = name.as_str().as_bytes();
        if !keep(Known::of(name)) {
            continue;
        }
        // Section 8.2.1: what HTTP/1 would read as something else may not be in it.
        if !is_value(value.as_bytes()) {
            return Err(Malformed("a field's value has whitespace around it or control bytes"));
        }
        into.push(name, value.as_bytes());
    }
    Ok(())
}

fn read_cookies(headers: &HeaderMap, into: &mut Fields) -> Result<(), Malformed> {
    let mut crumbs = headers.get_all(http::header::COOKIE).iter().map(HeaderValue::as_bytes);
    let Some(first) = crumbs.next() else { return Ok(()) };
    let mut cookie = first.to_vec();
    for crumb in crumbs {
        cookie.extend_from_slice(b"; ");
        cookie.extend_from_slice(crumb);
    }
    if !is_value(&cookie) {
        return Err(Malformed("a cookie has whitespace around it or control bytes"));
    }
    into.push(b"cookie", &cookie);
    Ok(())
}

/// Reads a peer's response.
///
/// # Errors
/// As for requests.
pub(super) fn read_response(parts: &response::Parts, into: &mut Response) -> Result<(), Malformed> {
    into.clear();
    into.version = Version::Http2;
    into.set_status(parts.status.as_u16());
    read_fields(&parts.headers, &mut into.fields, |_| true)
}

/// Reads a trailer section. What frames or routes a message has no place there (RFC 9110 section 6.5.1).
///
/// # Errors
/// As for requests.
pub(super) fn read_trailers(trailers: &HeaderMap, into: &mut Fields) -> Result<(), Malformed> {
    into.clear();
    read_fields(trailers, into, Known::may_trail)
}

/// A head for a client.
///
/// # Errors
/// When it can't be said in HTTP/2, which no valid head of ours is.
pub(super) fn write_response(response: &Response) -> Result<http::Response<()>, Malformed> {
    let mut written = http::Response::new(());
    *written.status_mut() = StatusCode::from_u16(response.status).map_err(|_| Malformed("no status"))?;
    *written.headers_mut() = write_fields(&response.fields, |_| true)?;
    Ok(written)
}

/// A head for a peer that is talked to by `scheme`.
///
/// # Errors
/// A target that HTTP/2's library does not take.
pub(super) fn write_request(request: &Request, scheme: Scheme) -> Result<http::Request<()>, Malformed> {
    let mut parts = uri::Parts::default();
    let authority = request.authority().ok_or(Malformed("no authority"))?;
    parts.authority = Some(uri::Authority::try_from(authority).map_err(|_| Malformed("a bad authority"))?);
    let is_plain_connect = request.method == Method::Connect && request.protocol().is_none();
    if !is_plain_connect {
        parts.scheme = Some(match scheme {
            Scheme::Http => uri::Scheme::HTTP,
            Scheme::Https => uri::Scheme::HTTPS,
        });
        let target = uri::PathAndQuery::try_from(request.target());
        parts.path_and_query = Some(target.map_err(|_| Malformed("a bad target"))?);
    }
    let mut written = http::Request::new(());
    *written.uri_mut() = Uri::from_parts(parts).map_err(|_| Malformed("a bad target"))?;
    let method = if request.protocol().is_some() { b"CONNECT" } else { request.method_name() };
    *written.method_mut() = http::Method::from_bytes(method).map_err(|_| Malformed("a bad method"))?;
    *written.headers_mut() = write_fields(&request.fields, |known| known != Known::Host)?;
    if let Some(protocol) = request.protocol() {
        let protocol = std::str::from_utf8(protocol).map_err(|_| Malformed("a bad :protocol"))?;
        written.extensions_mut().insert(h2::ext::Protocol::from(protocol));
    }
    Ok(written)
}

/// A trailer section.
///
/// # Errors
/// As for heads.
pub(super) fn write_trailers(trailers: &Fields) -> Result<HeaderMap, Malformed> {
    write_fields(trailers, Known::may_trail)
}

/// All but what only means something on a connection of HTTP/1 (RFC 9113 section 8.2.2).
fn write_fields(fields: &Fields, keep: impl Fn(Known) -> bool) -> Result<HeaderMap, Malformed> {
    let mut headers = HeaderMap::with_capacity(fields.len());
    for field in fields.iter() {
        let is_of_connection = matches!(
            field.known,
            Known::Connection
                | Known::KeepAlive
                | Known::ProxyConnection
                | Known::TransferEncoding
                | Known::Upgrade
                | Known::Http2Settings
        );
        let is_te = field.known == Known::Te && !field.value.eq_ignore_ascii_case(b"trailers");
        if is_of_connection || is_te || !keep(field.known) {
            continue;
        }
        let name = HeaderName::from_bytes(field.name).map_err(|_| Malformed("a bad name of a field"))?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| Malformed("a bad value of a field"))?;
        headers.append(name, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(request: request::Builder) -> Result<Request, Malformed> {
        let mut into = Request::new();
        read_request(&request.body(()).unwrap().into_parts().0, None, &mut into).map(|()| into)
    }

    fn lines(fields: &Fields) -> Vec<String> {
        fields.iter().map(|field| format!("{field:?}")).collect()
    }

    #[test]
    fn a_request_has_one_host_and_one_cookie() {
        let request = http::Request::get("https://example.com:8443/a?b=c")
            .header("cookie", "a=1")
            .header("accept", "*/*")
            .header("cookie", "b=2")
            .header("host", "EXAMPLE.com:8443");
        let request = read(request).unwrap();
        assert_eq!(request.target(), b"/a?b=c");
        assert_eq!(request.authority(), Some(&b"example.com:8443"[..]));
        let expected = ["Host: example.com:8443", "accept: */*", "cookie: a=1; b=2"];
        assert_eq!(lines(&request.fields), expected);
    }

    #[test]
    fn what_says_two_things_is_refused() {
        let differs = http::Request::get("https://a/").header("host", "b");
        assert_eq!(read(differs).unwrap_err(), Malformed(":authority and Host differ"));
        let twice = http::Request::get("https://a/").header("host", "a").header("host", "a");
        assert_eq!(read(twice).unwrap_err(), Malformed("more than one Host"));
        assert_eq!(read(http::Request::get("/")).unwrap_err(), Malformed("neither :authority nor Host"));
        let twice =
            http::Request::post("https://a/").header("content-length", "1").header("content-length", "1");
        assert_eq!(read(twice).unwrap_err(), Malformed("more than one Content-Length"));
        let padded = http::Request::get("https://a/").header("x", " a");
        assert!(read(padded).is_err());
        let foreign = http::Request::get("ftp://a/");
        assert_eq!(read(foreign).unwrap_err(), Malformed("a :scheme that is not HTTP's"));
    }

    #[test]
    fn a_connect_says_nothing_that_a_get_would_say_otherwise() {
        let ask = |protocol: &str, name: &str| {
            let request = http::Request::connect("http://a/chat").header(name, "5");
            let parts = request.body(()).unwrap().into_parts().0;
            let mut into = Request::new();
            read_request(&parts, Some(protocol), &mut into).map(|()| into)
        };
        assert_eq!(ask("websocket", "x").unwrap().protocol(), Some(&b"websocket"[..]));
        for protocol in ["", "a b", "a, b", "a\r\nX: y", "h2c", "HTTP", "http-next"] {
            assert_eq!(ask(protocol, "x").unwrap_err(), Malformed("a bad :protocol"), "{protocol:?}");
        }
        assert!(ask("websocket", "content-length").is_err());
    }

    #[test]
    fn what_belongs_to_a_connection_is_not_written() {
        let mut response = Response::with_status(200);
        for name in ["Connection", "Keep-Alive", "Transfer-Encoding", "Upgrade", "TE", "X-Kept", "X-kept"] {
            response.fields.push(name.as_bytes(), b"gzip");
        }
        let written = write_response(&response).unwrap();
        let kept: Vec<_> = written.headers().keys().map(HeaderName::as_str).collect();
        assert_eq!(kept, ["x-kept"]);
        assert_eq!(written.headers().get_all("x-kept").iter().count(), 2);
    }

    #[test]
    fn a_request_goes_out_as_it_came_in() {
        let came = http::Request::post("http://a.example/x%20y?z={1}").header("content-length", "3");
        let request = read(came).unwrap();
        let written = write_request(&request, Scheme::Https).unwrap();
        assert_eq!(written.uri(), "https://a.example/x%20y?z={1}");
        assert_eq!(written.headers().len(), 1);
        assert_eq!(written.method(), "POST");
    }

    #[test]
    fn trailers_neither_frame_nor_route() {
        let mut trailers = HeaderMap::new();
        for name in ["grpc-status", "content-length", "host"] {
            trailers.insert(name, HeaderValue::from_static("0"));
        }
        let mut fields = Fields::new();
        read_trailers(&trailers, &mut fields).unwrap();
        assert_eq!(lines(&fields), ["grpc-status: 0"]);
        assert_eq!(write_trailers(&fields).unwrap().len(), 1);
    }
}
