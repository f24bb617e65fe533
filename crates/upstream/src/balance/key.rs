//! What about a client or its request decides its peer under hashing.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::Balance;
use crate::LeaseKey;
use crate::random;

/// What about a client decides its peer under [`Balance::Hash`] and [`Balance::Maglev`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// The client's IP address: all its connections go to one peer.
    ClientIp,
    /// The client's IP address and port: each of its connections may go to another peer.
    ClientAddr,
    /// The server name that the client asks for, in TLS or QUIC.
    Sni,
    /// The connection id that a QUIC client chose for its first Initial.
    QuicCid,
    /// The value of this header of the request, by its name in lower case.
    Header(Arc<str>),
    /// The value of this cookie of the request.
    Cookie(Arc<str>),
    /// The path of the request, without the query.
    Path,
    /// The value of this parameter of the request's query.
    Query(Arc<str>),
}

impl HashKey {
    /// Whether only a request of HTTP has it: [`LeaseKey::with_request`] says what it is there.
    pub fn is_of_request(&self) -> bool {
        matches!(self, HashKey::Header(_) | HashKey::Cookie(_) | HashKey::Path | HashKey::Query(_))
    }

    /// The point on the ring of a client. An IPv4 address counts the same when it came in over an IPv6
    /// socket. Clients without an address, those of a unix socket, count as one client. Who did not send what
    /// the key goes by is known by the IP address, rather than being one of many at the same point.
    pub(crate) fn point(&self, key: &LeaseKey) -> u64 {
        let sent = match self {
            HashKey::ClientIp => None,
            HashKey::ClientAddr => {
                key.client.map(|client| random::mix(ip_point(client.ip()) ^ u64::from(client.port())))
            }
            HashKey::Sni => key.sni,
            HashKey::QuicCid => key.quic_cid,
            HashKey::Header(_) | HashKey::Cookie(_) | HashKey::Path | HashKey::Query(_) => key.request,
        };
        sent.unwrap_or_else(|| key.client.map_or(0, |client| ip_point(client.ip())))
    }
}

fn ip_point(ip: IpAddr) -> u64 {
    let ip = match ip.to_canonical() {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    };
    random::mix((ip >> 64) as u64 ^ random::mix(ip as u64))
}

impl Balance {
    /// What about a client decides, where anything does.
    pub fn hash_key(&self) -> Option<&HashKey> {
        match self {
            Balance::Hash(key) | Balance::Maglev(key) => Some(key),
            _ => None,
        }
    }
}

const FORM: &str =
    "expected client_ip, client_addr, sni, quic_cid, path, header:NAME, cookie:NAME or query:NAME";

impl FromStr for HashKey {
    type Err = Cow<'static, str>;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some((kind, name)) = text.split_once(':') else {
            return Ok(match text {
                "client_ip" => HashKey::ClientIp,
                "client_addr" => HashKey::ClientAddr,
                "sni" => HashKey::Sni,
                "quic_cid" => HashKey::QuicCid,
                "path" => HashKey::Path,
                "header" | "cookie" | "query" => return Err(format!("which one? write `{text}:NAME`").into()),
                _ => return Err(FORM.into()),
            });
        };
        match kind {
            "header" if is_token(name) => Ok(HashKey::Header(name.to_ascii_lowercase().into())),
            "cookie" if is_token(name) => Ok(HashKey::Cookie(name.into())),
            // A query's names are compared as they are written in it.
            "query"
                if !name.is_empty()
                    && name.bytes().all(|b| b.is_ascii_graphic() && !b"&=#+;".contains(&b)) =>
            {
                Ok(HashKey::Query(name.into()))
            }
            "header" | "cookie" | "query" => Err(format!("`{name}` is no name of a {kind}").into()),
            _ => Err(FORM.into()),
        }
    }
}

/// Whether a text is a token (RFC 9110 section 5.6.2), as the names of headers and cookies are.
pub(crate) fn is_token(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(fits)
}

impl fmt::Display for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HashKey::ClientIp => f.write_str("client_ip"),
            HashKey::ClientAddr => f.write_str("client_addr"),
            HashKey::Sni => f.write_str("sni"),
            HashKey::QuicCid => f.write_str("quic_cid"),
            HashKey::Path => f.write_str("path"),
            HashKey::Header(name) => write!(f, "header:{name}"),
            HashKey::Cookie(name) => write!(f, "cookie:{name}"),
            HashKey::Query(name) => write!(f, "query:{name}"),
        }
    }
}

impl Serialize for HashKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HashKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for HashKey {
    fn schema_name() -> Cow<'static, str> {
        "HashKey".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^(client_ip|client_addr|sni|quic_cid|path|(header|cookie|query):.+)$"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_written_as_it_is_read() {
        for text in
            ["client_ip", "client_addr", "sni", "quic_cid", "path", "header:x-user", "cookie:Id", "query:q"]
        {
            let key: HashKey = text.parse().unwrap();
            assert_eq!(key.to_string(), text);
            assert_eq!(key.is_of_request(), text.contains(':') || text == "path", "{text}");
        }
        assert_eq!("header:X-User".parse(), Ok(HashKey::Header("x-user".into())), "headers have no case");
        for (text, expected) in [
            ("header", "which one? write `header:NAME`"),
            ("header:", "`` is no name of a header"),
            ("header:a b", "`a b` is no name of a header"),
            ("cookie:a=b", "`a=b` is no name of a cookie"),
            ("query:a&b", "`a&b` is no name of a query"),
            ("ip", FORM),
            ("path:x", FORM),
        ] {
            assert_eq!(text.parse::<HashKey>().unwrap_err(), expected);
        }
    }

    #[test]
    fn the_key_goes_by_what_the_client_sent_and_by_its_address_without() {
        let client = LeaseKey::of_client(Some("192.0.2.1:1".parse().unwrap()));
        let named = |name: &str| HashKey::Sni.point(&client.with_sni(name));
        assert_eq!(named("Example.com"), named("example.com."));
        assert_ne!(named("example.com"), named("example.org"));
        let other = LeaseKey::of_client(Some("192.0.2.9:1".parse().unwrap()));
        assert_eq!(named("example.com"), HashKey::Sni.point(&other.with_sni("example.com")));
        let with_id = |id: &[u8]| HashKey::QuicCid.point(&client.with_quic_cid(id));
        assert_ne!(with_id(&[1; 8]), with_id(&[2; 8]));
        let with_path = |key: LeaseKey, path: &[u8]| HashKey::Path.point(&key.with_request(path));
        assert_eq!(with_path(client, b"/a"), with_path(other, b"/a"));
        assert_ne!(with_path(client, b"/a"), with_path(client, b"/b"));
        for by in [HashKey::Sni, HashKey::QuicCid, HashKey::Path, HashKey::Header("x".into())] {
            assert_eq!(by.point(&client), HashKey::ClientIp.point(&client));
        }
    }

    #[test]
    fn a_clients_point_ignores_what_its_key_leaves_out() {
        let point = |by: HashKey, text: &str| by.point(&LeaseKey::of_client(Some(text.parse().unwrap())));
        assert_eq!(point(HashKey::ClientIp, "192.0.2.1:1"), point(HashKey::ClientIp, "192.0.2.1:2"));
        assert_eq!(point(HashKey::ClientIp, "192.0.2.1:1"), point(HashKey::ClientIp, "[::ffff:192.0.2.1]:1"));
        assert_ne!(point(HashKey::ClientIp, "192.0.2.1:1"), point(HashKey::ClientIp, "192.0.2.2:1"));
        assert_ne!(point(HashKey::ClientAddr, "192.0.2.1:1"), point(HashKey::ClientAddr, "192.0.2.1:2"));
        assert_ne!(point(HashKey::ClientIp, "[2001:db8::1]:1"), point(HashKey::ClientIp, "[2001:db9::1]:1"));
    }
}
