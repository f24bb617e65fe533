//! What variables stand for.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use wmproxy_net::addr::Address;
use wmproxy_wire::destination::Destination;
use wmproxy_wire::head::{Fields, Known, civil};

use super::{Name, Plain, RequestId, Var};
use crate::facts::Scene;

/// What a variable stands for in some scene.
#[derive(Debug, Clone, Copy)]
pub enum Value<'a> {
    /// It is not known, or there is none.
    None,
    /// A number.
    Number(u64),
    /// A length of time.
    Seconds(Duration),
    /// A moment.
    Time(SystemTime),
    /// An IP address.
    Ip(IpAddr),
    /// An IP address and a port.
    Inet(SocketAddr),
    /// A peer's address.
    Address(&'a Address),
    /// Where a client of a forward proxy wants to go.
    Destination(&'a Destination),
    /// A host, without brackets, and a port.
    Host(&'a str, Option<u16>),
    /// A text of our own making: a name from the configuration, a word of the protocol.
    Word(&'a str),
    /// A text that a client or a server made up.
    Text(&'a [u8]),
    /// The lines of a field that has several.
    Lines(&'a Fields, &'a Name),
}

impl Var {
    /// What it stands for.
    pub fn value<'a>(&'a self, scene: &Scene<'a>) -> Value<'a> {
        match self {
            Var::Plain(plain) => plain.value(scene),
            Var::Header(name) => field(&scene.request.fields, name),
            Var::Response(name) => {
                scene.response.map_or(Value::None, |response| field(&response.fields, name))
            }
            Var::Cookie(name) => text(cookie(&scene.request.fields, name.as_bytes())),
            Var::Query(name) => text(query(scene).and_then(|query| parameter(query, name.as_bytes()))),
        }
    }
}

impl Plain {
    /// What it stands for.
    pub fn value<'a>(self, scene: &Scene<'a>) -> Value<'a> {
        let Scene { conn, request, response, facts } = *scene;
        match self {
            Plain::ClientIp => {
                facts.client.map_or(Value::None, |client| Value::Ip(client.ip().to_canonical()))
            }
            Plain::ClientPort => {
                facts.client.map_or(Value::None, |client| Value::Number(client.port().into()))
            }
            Plain::ClientAddr => facts.client.map_or(Value::None, |client| {
                Value::Inet(SocketAddr::new(client.ip().to_canonical(), client.port()))
            }),
            Plain::Host | Plain::Hostname if facts.host.is_empty() => Value::None,
            Plain::Host => {
                let port = facts.port.filter(|port| *port != facts.scheme.default_port());
                Value::Host(&facts.host, port)
            }
            Plain::Hostname => Value::Host(&facts.host, None),
            // There is no head, or none that could be read.
            Plain::Method | Plain::Version if request.asked_target().is_empty() => Value::None,
            Plain::Method => Value::Text(request.method_name()),
            Plain::Scheme => Value::Word(facts.scheme.as_str()),
            Plain::Uri => text(Some(request.asked_target())),
            Plain::Path => text(Some(&facts.path)),
            Plain::Query => text(query(scene)),
            Plain::Version => Value::Word(request.version.as_str()),
            Plain::User => facts.user.as_deref().map_or(Value::None, |user| Value::Text(user.as_bytes())),
            Plain::Sni => conn.sni.as_deref().map_or(Value::None, |sni| Value::Text(sni.as_bytes())),
            Plain::Listener => Value::Word(&conn.listener),
            Plain::Route => facts.route.as_deref().map_or(Value::None, Value::Word),
            Plain::Peer => match (&facts.peer, facts.address) {
                (Some(peer), _) => Value::Address(peer.address()),
                (None, Some(address)) => Value::Inet(address),
                (None, None) => Value::None,
            },
            Plain::Destination => facts.destination.as_ref().map_or(Value::None, Value::Destination),
            Plain::Way => facts.way.as_deref().map_or(Value::None, Value::Word),
            Plain::Kind => facts.kind.map_or(Value::None, |kind| Value::Word(kind.as_str())),
            Plain::Status => match (facts.status, response) {
                (0, None) => Value::None,
                // The filters of a response come before it is sent.
                (0, Some(response)) => Value::Number(response.status.into()),
                (status, _) => Value::Number(status.into()),
            },
            Plain::BytesIn => Value::Number(facts.bytes_in),
            Plain::BytesOut => Value::Number(facts.bytes_out),
            Plain::Duration => Value::Seconds(facts.began.elapsed()),
            Plain::UpstreamTime => facts.upstream_time.map_or(Value::None, Value::Seconds),
            Plain::RequestId => Value::Word(facts.request_id.get_or_init(RequestId::random).as_str()),
            Plain::Outcome => facts.outcome.map_or(Value::None, |outcome| Value::Word(outcome.as_str())),
            Plain::Time => Value::Time(SystemTime::now()),
        }
    }
}

/// A text; one without a byte is none.
fn text(text: Option<&[u8]>) -> Value<'_> {
    text.filter(|text| !text.is_empty()).map_or(Value::None, Value::Text)
}

fn field<'a>(fields: &'a Fields, name: &'a Name) -> Value<'a> {
    let mut lines = lines(fields, name);
    match (lines.next(), lines.next()) {
        (line, None) => text(line),
        _ => Value::Lines(fields, name),
    }
}

fn lines<'a>(fields: &'a Fields, name: &'a Name) -> impl Iterator<Item = &'a [u8]> {
    let is_it = move |field: &wmproxy_wire::head::Field<'_>| {
        field.known == name.known()
            && (name.known() != Known::Other || field.name.eq_ignore_ascii_case(name.as_str().as_bytes()))
    };
    fields.iter().filter(is_it).map(|field| field.value)
}

/// The query that the client asked with.
fn query<'a>(scene: &Scene<'a>) -> Option<&'a [u8]> {
    let target = scene.request.asked_target();
    let mark = target.iter().position(|&byte| byte == b'?')?;
    Some(&target[mark + 1..])
}

/// The first cookie of a name (RFC 6265 section 5.4).
fn cookie<'a>(fields: &'a Fields, name: &[u8]) -> Option<&'a [u8]> {
    let pairs = fields.all(Known::Cookie).flat_map(|line| line.split(|&byte| byte == b';'));
    pairs.map(<[u8]>::trim_ascii).find_map(|pair| value_of(pair, name))
}

/// The first parameter of a name; empty for one without a value.
fn parameter<'a>(query: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    query
        .split(|&byte| byte == b'&')
        .find_map(|pair| if pair == name { Some(&[][..]) } else { value_of(pair, name) })
}

fn value_of<'a>(pair: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    pair.strip_prefix(name)?.strip_prefix(b"=")
}

impl Value<'_> {
    /// Adds it as a text; nothing for none. A [`Value::Text`] comes as it is, whatever bytes are in it.
    pub fn push(self, out: &mut Vec<u8>) {
        // Writing to memory does not fail.
        let _ = match self {
            Value::None => Ok(()),
            Value::Number(number) => write!(out, "{number}"),
            Value::Seconds(time) => write!(out, "{}.{:06}", time.as_secs(), time.subsec_micros()),
            Value::Time(at) => return push_time(at, out),
            Value::Ip(ip) => write!(out, "{ip}"),
            Value::Inet(addr) => write!(out, "{addr}"),
            Value::Address(address) => write!(out, "{address}"),
            Value::Destination(destination) => write!(out, "{destination}"),
            Value::Host(host, port) => return push_host(host, port, out),
            Value::Word(word) => return out.extend_from_slice(word.as_bytes()),
            Value::Text(text) => return out.extend_from_slice(text),
            Value::Lines(fields, name) => {
                for (index, line) in lines(fields, name).enumerate() {
                    out.extend_from_slice(if index == 0 { b"" } else { b", " });
                    out.extend_from_slice(line);
                }
                Ok(())
            }
        };
    }
}

/// As in a URI: an IPv6 address in brackets.
fn push_host(host: &str, port: Option<u16>, out: &mut Vec<u8>) {
    let _ = match host.contains(':') {
        true => write!(out, "[{host}]"),
        false => write!(out, "{host}"),
    };
    if let Some(port) = port {
        let _ = write!(out, ":{port}");
    }
}

/// The time in UTC as in RFC 3339, to the millisecond.
fn push_time(at: SystemTime, out: &mut Vec<u8>) {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let _ = write!(
        out,
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
        since.subsec_millis()
    );
}
