//! Who came before us: `X-Forwarded-For`, and `Forwarded` (RFC 7239).
//!
//! Anybody can write these fields. They are read from the right, where the last proxy added what it saw, and believed as far
//! as those who wrote them are trusted.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::authority::write_display;
use super::{Fields, Known, is_token};

/// Who the client is, by `X-Forwarded-For`: the first from the right that is not trusted, or the last that is. `peer` is who
/// connected to us. What is no address ends the reading: whoever wrote it could have written anything before it.
pub fn client_by_x_forwarded_for(
    fields: &Fields,
    peer: IpAddr,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> IpAddr {
    let lines = fields.iter().rev().filter(|field| field.known == Known::XForwardedFor);
    let members = lines.flat_map(|field| field.value.rsplit(|&byte| byte == b',')).map(<[u8]>::trim_ascii);
    let hops = members.filter(|member| !member.is_empty()).map(|member| Node::parse(member).address());
    last_untrusted(peer, hops, is_trusted)
}

/// Who the client is, by `Forwarded`; else as [`client_by_x_forwarded_for`]. A line that is malformed ends the reading, as
/// does a node that hides.
pub fn client_by_forwarded(fields: &Fields, peer: IpAddr, is_trusted: impl Fn(IpAddr) -> bool) -> IpAddr {
    let lines = fields.iter().rev().filter(|field| field.known == Known::Forwarded);
    let hops = lines.flat_map(|field| {
        let all: Result<Vec<_>, _> = elements(field.value).collect();
        let address = |element: &Element<'_>| element.node_for().and_then(|node| node.address());
        // Quotes can't be read from the right, so a line is read as a whole or not at all.
        all.map_or_else(|_| vec![None], |all| all.iter().rev().map(address).collect())
    });
    last_untrusted(peer, hops, is_trusted)
}

fn last_untrusted(
    peer: IpAddr,
    hops: impl Iterator<Item = Option<IpAddr>>,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> IpAddr {
    let mut client = peer;
    let mut hops = hops.map_while(|hop| hop);
    while is_trusted(client) {
        match hops.next() {
            Some(hop) => client = hop,
            None => break,
        }
    }
    client
}

/// Whom an element names (RFC 7239 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node<'a> {
    /// An address, with a port or without.
    Address(IpAddr, Option<u16>),
    /// Someone unknown.
    Unknown,
    /// Someone who hides behind a name like `_proxy7`, or what is no node at all.
    Hidden(&'a [u8]),
}

impl<'a> Node<'a> {
    /// Reads a node, or a member of `X-Forwarded-For`: an address, an IPv6 one with brackets or without, and a port
    /// where brackets or IPv4 leave room for one. A port may be hidden (`_x`), too.
    pub fn parse(text: &'a [u8]) -> Node<'a> {
        if text.eq_ignore_ascii_case(b"unknown") {
            return Node::Unknown;
        }
        Node::parse_address(text).unwrap_or(Node::Hidden(text))
    }

    fn parse_address(text: &[u8]) -> Option<Node<'static>> {
        let text = std::str::from_utf8(text).ok()?;
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(Node::Address(address, None));
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            // A scope would be one of another machine.
            return (!text.contains('%')).then_some(Node::Address(address.ip(), Some(address.port())));
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                rest.split_once(']').map(|(host, port)| (host.parse::<Ipv6Addr>().map(IpAddr::V6), port))?
            }
            None => {
                text.split_at_checked(text.find(':')?).map(|(host, port)| (host.parse::<IpAddr>(), port))?
            }
        };
        let is_hidden =
            port.is_empty() || port.strip_prefix(":_").is_some_and(|name| is_token(name.as_bytes()));
        is_hidden.then_some(Node::Address(host.ok()?, None))
    }

    /// Its address, if it has one. An IPv4 address in an IPv6 one is an IPv4 address.
    pub fn address(self) -> Option<IpAddr> {
        match self {
            Node::Address(address, _) => Some(address.to_canonical()),
            _ => None,
        }
    }
}

/// What one proxy says of a request (RFC 7239 section 4).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Element<'a> {
    /// Who sent the request to the proxy.
    pub for_node: Option<Cow<'a, [u8]>>,
    /// Where the proxy took it.
    pub by_node: Option<Cow<'a, [u8]>>,
    /// The `Host` that it came with.
    pub host: Option<Cow<'a, [u8]>>,
    /// The scheme that it came by.
    pub proto: Option<Cow<'a, [u8]>>,
}

impl Element<'_> {
    /// Who sent the request to the proxy.
    pub fn node_for(&self) -> Option<Node<'_>> {
        self.for_node.as_deref().map(Node::parse)
    }
}

/// A line of `Forwarded` that is malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadForwarded;

impl std::fmt::Display for BadForwarded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a malformed Forwarded")
    }
}

impl std::error::Error for BadForwarded {}

/// The elements of a line of `Forwarded`, from the left. Parameters that we don't know are left out; a parameter that comes
/// twice in one element is an error (RFC 7239 section 4), and nothing comes behind an error.
pub fn elements(line: &[u8]) -> impl Iterator<Item = Result<Element<'_>, BadForwarded>> {
    let mut rest = Some(line.trim_ascii());
    std::iter::from_fn(move || {
        let text = rest.take()?;
        match element(text) {
            Some((element, behind)) => {
                rest = behind;
                Some(Ok(element))
            }
            None => Some(Err(BadForwarded)),
        }
    })
}

/// The element in front, and what is behind its comma.
fn element(mut rest: &[u8]) -> Option<(Element<'_>, Option<&[u8]>)> {
    let mut element = Element::default();
    loop {
        rest = rest.trim_ascii_start();
        if !matches!(rest, [] | [b';' | b',', ..]) {
            rest = pair(rest, &mut element)?.trim_ascii_start();
        }
        match rest {
            [] => return Some((element, None)),
            [b',', behind @ ..] => return Some((element, Some(behind))),
            [b';', behind @ ..] => rest = behind,
            _ => return None,
        }
    }
}

/// Reads `name=value` into an element. Says what is behind it.
fn pair<'a>(text: &'a [u8], element: &mut Element<'a>) -> Option<&'a [u8]> {
    let equals = text.iter().position(|&byte| byte == b'=')?;
    let (name, behind) = (&text[..equals], &text[equals + 1..]);
    let (value, behind) = match behind {
        [b'"', quoted @ ..] => unquote(quoted)?,
        _ => {
            let end = behind.iter().position(|byte| b";, \t".contains(byte)).unwrap_or(behind.len());
            // Not every proxy quotes what is no token: `for=[::1]:80` is common.
            let is_plain =
                end > 0 && behind[..end].iter().all(|byte| byte.is_ascii_graphic() && *byte != b'"');
            (Cow::Borrowed(is_plain.then(|| &behind[..end])?), &behind[end..])
        }
    };
    let place = match name.to_ascii_lowercase().as_slice() {
        b"for" => &mut element.for_node,
        b"by" => &mut element.by_node,
        b"host" => &mut element.host,
        b"proto" => &mut element.proto,
        name => return is_token(name).then_some(behind),
    };
    place.replace(value).is_none().then_some(behind)
}

/// Reads a quoted string behind its first quote (RFC 9110 section 5.6.4). Says what is behind it.
fn unquote(text: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let end = text.iter().position(|&byte| matches!(byte, b'"' | b'\\'))?;
    if text[end] == b'"' {
        return Some((Cow::Borrowed(&text[..end]), &text[end + 1..]));
    }
    let mut value = text[..end].to_vec();
    let mut rest = &text[end..];
    loop {
        match rest {
            [b'"', behind @ ..] => return Some((Cow::Owned(value), behind)),
            [b'\\', byte, behind @ ..] => {
                value.push(*byte);
                rest = behind;
            }
            [byte, behind @ ..] if *byte != b'\\' => {
                value.push(*byte);
                rest = behind;
            }
            _ => return None,
        }
    }
}

/// Writes an address behind what is there, as `X-Forwarded-For` has it. Each request says it, so that one of IPv4 does without
/// the machinery of formatting.
pub fn write_address(address: IpAddr, out: &mut Vec<u8>) {
    let IpAddr::V4(address) = address else { return write_display(out, &address) };
    for (index, octet) in address.octets().into_iter().enumerate() {
        if index > 0 {
            out.push(b'.');
        }
        if octet >= 100 {
            out.push(b'0' + octet / 100);
        }
        if octet >= 10 {
            out.push(b'0' + octet / 10 % 10);
        }
        out.push(b'0' + octet % 10);
    }
}

/// Writes an element that says who sent a request to us, by which scheme, and with which `Host`, behind what is there.
/// Without an address it is `unknown`, as for a client by a Unix socket.
pub fn write_element(client: Option<IpAddr>, proto: &str, host: Option<&[u8]>, out: &mut Vec<u8>) {
    match client.map(|address| address.to_canonical()) {
        None => out.extend_from_slice(b"for=unknown"),
        Some(address @ IpAddr::V4(_)) => {
            out.extend_from_slice(b"for=");
            write_address(address, out);
        }
        Some(address) => {
            out.extend_from_slice(b"for=\"[");
            write_address(address, out);
            out.extend_from_slice(b"]\"");
        }
    }
    out.extend_from_slice(b";proto=");
    out.extend_from_slice(proto.as_bytes());
    let Some(host) = host else { return };
    out.extend_from_slice(b";host=");
    if is_token(host) {
        return out.extend_from_slice(host);
    }
    out.push(b'"');
    for &byte in host {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, lines: &[&str]) -> Fields {
        let mut fields = Fields::new();
        lines.iter().for_each(|line| fields.push(name.as_bytes(), line.as_bytes()));
        fields
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn is_trusted(address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => address.octets()[0] == 10,
            IpAddr::V6(address) => address.segments()[0] == 0xfd00,
        }
    }

    #[test]
    fn the_first_stranger_from_the_right_is_the_client() {
        for (lines, peer, client) in [
            (&["1.1.1.1"][..], "9.9.9.9", "9.9.9.9"),
            (&["1.1.1.1"], "10.0.0.1", "1.1.1.1"),
            (&["6.6.6.6, 1.1.1.1, 10.0.0.2"], "10.0.0.1", "1.1.1.1"),
            (&["6.6.6.6", "1.1.1.1,10.0.0.2 ,"], "10.0.0.1", "1.1.1.1"),
            (&["10.0.0.3, 10.0.0.2"], "10.0.0.1", "10.0.0.3"),
            (&["1.1.1.1, nobody, 10.0.0.2"], "10.0.0.1", "10.0.0.2"),
            (&["1.1.1.1, unknown"], "10.0.0.1", "10.0.0.1"),
            (&["1.1.1.1:80, [fd00::1]:99"], "10.0.0.1", "1.1.1.1"),
            (&["2001:db8::1, fd00::1, [fd00::2]"], "10.0.0.1", "2001:db8::1"),
            (&["1.1.1.1, ::ffff:10.0.0.7"], "10.0.0.1", "1.1.1.1"),
            (&[], "10.0.0.1", "10.0.0.1"),
            (&["", ","], "10.0.0.1", "10.0.0.1"),
        ] {
            let fields = with("x-forwarded-for", lines);
            assert_eq!(client_by_x_forwarded_for(&fields, ip(peer), is_trusted), ip(client), "{lines:?}");
        }
    }

    #[test]
    fn forwarded_is_believed_as_far_as_its_writers_are() {
        for (lines, client) in [
            (&["for=1.1.1.1"][..], "1.1.1.1"),
            (&["for=6.6.6.6, For=\"1.1.1.1:443\";proto=https, by=x;for=10.0.0.2"], "1.1.1.1"),
            (&["for=6.6.6.6", "for=\"[2001:db8::1]:_x\" , for=\"[fd00::2]\""], "2001:db8::1"),
            (&["for=6.6.6.6, for=_hidden, for=10.0.0.2"], "10.0.0.2"),
            (&["for=6.6.6.6, for=unknown"], "10.0.0.1"),
            (&["for=6.6.6.6, for=\"1.1.1.1"], "10.0.0.1"),
            (&["for=6.6.6.6, proto=https"], "10.0.0.1"),
            (&["for=\"1.1.1.\\1\""], "1.1.1.1"),
            (&["for=\"a,for=6.6.6.6\""], "10.0.0.1"),
            (&["for=6.6.6.6;for=1.1.1.1"], "10.0.0.1"),
        ] {
            let fields = with("Forwarded", lines);
            assert_eq!(client_by_forwarded(&fields, ip("10.0.0.1"), is_trusted), ip(client), "{lines:?}");
        }
    }

    #[test]
    fn elements_are_taken_apart() {
        let line = b"for=\"[::1]:80\";by=_us;Host=\"a.b:8\\0\";proto=https;x=\"y,z\" , , for=a;";
        let all: Vec<_> = elements(line).collect::<Result<_, _>>().unwrap();
        assert_eq!(all.len(), 3);
        assert_eq!(all[0].node_for(), Some(Node::Address(ip("::1"), Some(80))));
        assert_eq!(all[0].host.as_deref(), Some(&b"a.b:80"[..]));
        assert_eq!(all[0].proto.as_deref(), Some(&b"https"[..]));
        assert_eq!(all[1], Element::default());
        assert_eq!(all[2].node_for(), Some(Node::Hidden(b"a")));
        for bad in ["for", "for=", "for=\"a", "for=\"a\\", "for=a b", "for=a\"b", "=a", "f r=a", "for=\"a\"b"]
        {
            assert!(elements(bad.as_bytes()).any(|element| element.is_err()), "{bad}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for (client, host, text) in [
            (Some("192.0.2.1"), Some("a.b"), "for=192.0.2.1;proto=http;host=a.b"),
            (Some("::ffff:192.0.2.1"), None, "for=192.0.2.1;proto=http"),
            (Some("2001:db8::1"), Some("a:80"), "for=\"[2001:db8::1]\";proto=http;host=\"a:80\""),
            (None, Some("[::1]"), "for=unknown;proto=http;host=\"[::1]\""),
        ] {
            let mut out = Vec::new();
            let client = client.map(ip);
            write_element(client, "http", host.map(str::as_bytes), &mut out);
            assert_eq!(String::from_utf8(out.clone()).unwrap(), text);
            let element = elements(&out).next().unwrap().unwrap();
            assert_eq!(element.host.as_deref(), host.map(str::as_bytes));
            let address = element.node_for().and_then(Node::address);
            assert_eq!(address, client.map(|address| address.to_canonical()));
        }
    }

    #[test]
    fn addresses_are_written_as_ever() {
        for text in ["0.0.0.0", "1.20.100.255", "109.9.10.199", "::1", "2001:db8::7"] {
            let mut out = Vec::new();
            write_address(ip(text), &mut out);
            assert_eq!(out, text.as_bytes());
        }
    }
}
