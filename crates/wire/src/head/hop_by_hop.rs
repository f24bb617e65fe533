//! Fields that are for the next hop alone (RFC 9110 section 7.6.1).

use super::fields::members;
use super::{Fields, Known};

/// What [`strip`] does where it depends on the hop behind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Strip {
    /// `TE: trailers` stays, for the next hop is told of trailers. In HTTP/1 it wants `Connection: TE` beside it.
    pub keep_te_trailers: bool,
    /// `Proxy-Authenticate`, `Proxy-Authorization` and their like go, too: they are for us.
    pub proxy_authentication: bool,
}

/// Takes out what no proxy passes on: `Connection` and what it names, and what is for one hop whether it is named or
/// not. `Trailer` stays. Whoever needs `Connection`, `Upgrade` or `Transfer-Encoding` reads them before, and writes its own
/// afterwards.
///
/// `Connection` takes nothing along that is meant for the far end ([`is_end_to_end`]): `Connection: Cookie`, or
/// `X-Forwarded-For`, would make us hide from the upstream what it decides by.
pub fn strip(fields: &mut Fields, how: Strip) {
    let names_more =
        |option: &[u8]| !option.eq_ignore_ascii_case(b"close") && !is_for_one_hop(Known::of(option), how);
    if fields.list(Known::Connection).any(names_more) {
        strip_named(fields);
    }
    let te_trailers = how.keep_te_trailers && takes_trailers(fields);
    fields.retain(|field| !is_for_one_hop(field.known, how) || (field.known == Known::Te && te_trailers));
    if te_trailers {
        fields.set(Known::Te, b"trailers");
    }
}

/// Whether the sender takes trailers (RFC 9110 section 10.1.4).
pub fn takes_trailers(fields: &Fields) -> bool {
    fields.list(Known::Te).any(|coding| coding.eq_ignore_ascii_case(b"trailers"))
}

/// Whether a field is meant for the far end, so that `Connection` may not take it out: all that we know but those for one
/// hop, and by their prefixes `Content-`, `Sec-`, `X-Forwarded-` and the like.
pub fn is_end_to_end(name: &[u8]) -> bool {
    let begins = |prefix: &[u8]| name.get(..prefix.len()).is_some_and(|own| own.eq_ignore_ascii_case(prefix));
    match Known::of(name) {
        Known::Other => {
            [&b"Content-"[..], b"Sec-", b"X-Forwarded-", b"Access-Control-"].into_iter().any(begins)
        }
        known => !is_for_one_hop(known, Strip { keep_te_trailers: false, proxy_authentication: true }),
    }
}

fn is_for_one_hop(known: Known, how: Strip) -> bool {
    use Known::*;
    match known {
        Connection | Http2Settings | KeepAlive | ProxyConnection | Te | TransferEncoding | Upgrade => true,
        ProxyAuthenticate | ProxyAuthorization => how.proxy_authentication,
        _ => false,
    }
}

/// Takes out what `Connection` names.
fn strip_named(fields: &mut Fields) {
    let list = fields.joined(Known::Connection);
    fields.retain_by(list, |list, field| {
        let is_it = |option: &[u8]| option.eq_ignore_ascii_case(field.name);
        !members(list).any(is_it) || is_end_to_end(field.name)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped(text: &[(&str, &str)], how: Strip) -> Vec<String> {
        let mut fields = Fields::new();
        text.iter().for_each(|(name, value)| fields.push(name.as_bytes(), value.as_bytes()));
        strip(&mut fields, how);
        fields.iter().map(|field| format!("{field:?}")).collect()
    }

    #[test]
    fn what_is_for_one_hop_goes() {
        let fields = [
            ("Host", "a"),
            ("connection", "keep-alive, Upgrade"),
            ("Keep-Alive", "timeout=5"),
            ("Proxy-Connection", "close"),
            ("TE", "trailers"),
            ("Trailer", "X-Sum"),
            ("Transfer-Encoding", "chunked"),
            ("Upgrade", "h2c"),
            ("HTTP2-Settings", "AAMAAABk"),
            ("Proxy-Authorization", "Basic x"),
            ("Accept", "*/*"),
        ];
        let basic = Strip::default();
        assert_eq!(
            stripped(&fields, basic),
            ["Host: a", "Trailer: X-Sum", "Proxy-Authorization: Basic x", "Accept: */*"]
        );
        let ours = Strip { proxy_authentication: true, ..basic };
        assert_eq!(stripped(&fields, ours), ["Host: a", "Trailer: X-Sum", "Accept: */*"]);
    }

    #[test]
    fn connection_takes_along_what_it_names_but_nothing_for_the_far_end() {
        let fields = [
            ("Connection", "close, X-Hop, , cookie"),
            ("X-Hop", "1"),
            ("Host", "a"),
            ("Cookie", "b=c"),
            ("X-Forwarded-For", "192.0.2.1"),
            ("X-Forwarded-User", "me"),
            ("Content-Length", "5"),
            ("Connection", "host, x-forwarded-for,X-Forwarded-User, content-length, proxy-authorization"),
            ("x-hop", "2"),
            ("X-Hopper", "3"),
            ("Proxy-Authorization", "Basic x"),
        ];
        assert_eq!(
            stripped(&fields, Strip::default()),
            [
                "Host: a",
                "Cookie: b=c",
                "X-Forwarded-For: 192.0.2.1",
                "X-Forwarded-User: me",
                "Content-Length: 5",
                "X-Hopper: 3"
            ]
        );
    }

    #[test]
    fn trailers_are_asked_for_where_they_pass() {
        let how = Strip { keep_te_trailers: true, ..Strip::default() };
        assert_eq!(stripped(&[("TE", "gzip;q=0.5, Trailers"), ("Connection", "TE")], how), ["TE: trailers"]);
        assert!(stripped(&[("TE", "gzip")], how).is_empty());
        assert_eq!(stripped(&[("te", "trailers"), ("TE", "trailers")], how), ["te: trailers"]);
    }
}
