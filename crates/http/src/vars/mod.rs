//! Texts with variables in them, as header rules, redirects, limits and access logs have them.
//!
//! What lives here: the one table of [variables](Var), the [`Template`] that a text is compiled to when the configuration is
//! read, the [`Value`]s that variables have in a [`Scene`](crate::facts::Scene), and the [id](RequestId) of a request. What must
//! not: where a text goes to. A value may be what a client made up, so whoever writes it says what it may hold there:
//! [`Template::render_value`] for fields, [`Template::render_uri`] for references, an escape of its own for a log.

mod request_id;
mod template;
mod value;

#[cfg(test)]
mod tests;

use std::fmt;

use wmproxy_wire::head::{Known, is_token};

pub use request_id::RequestId;
pub(crate) use template::with_scratch;
pub use template::{Piece, Template, TemplateError};
pub use value::Value;

/// A thing known of a request or its response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Var {
    /// One of the plain ones.
    Plain(Plain),
    /// `header:NAME`: a field of the request, its lines joined by commas.
    Header(Name),
    /// `response:NAME`: a field of the response, likewise.
    Response(Name),
    /// `cookie:NAME`: the first cookie of that name.
    Cookie(Box<str>),
    /// `query:NAME`: the first such parameter of the query, as it stands there, not decoded.
    Query(Box<str>),
}

/// The name of a field, looked up once.
#[derive(Clone, PartialEq, Eq)]
pub struct Name {
    known: Known,
    text: Box<str>,
}

impl Name {
    /// A name that is a token; none otherwise.
    pub fn new(text: &str) -> Option<Name> {
        is_token(text.as_bytes()).then(|| Name { known: Known::of(text.as_bytes()), text: text.into() })
    }

    /// Which field it is, if it is one that we know.
    pub fn known(&self) -> Known {
        self.known
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

macro_rules! plain {
    ($($(#[doc = $doc:literal])+ $var:ident = $name:literal,)*) => {
        /// A variable without a name behind a colon.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Plain {
            $($(#[doc = $doc])+ $var,)*
        }

        impl Plain {
            /// Every one of them, in the order in which they are documented.
            pub const ALL: &[Plain] = &[$(Plain::$var,)*];

            /// As it is written between braces.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Plain::$var => $name,)*
                }
            }

            /// What it is, for the reference.
            pub const fn about(self) -> &'static str {
                match self {
                    $(Plain::$var => concat!($($doc),+),)*
                }
            }
        }
    };
}

plain! {
    /// The client's IP address; where a trusted proxy names another than came, that one.
    ClientIp = "client_ip",
    /// The client's port.
    ClientPort = "client_port",
    /// The client's address with its port.
    ClientAddr = "client_addr",
    /// The host that was asked for, in lower case, with its port unless that is the usual one of the scheme.
    Host = "host",
    /// The host that was asked for without a port.
    Hostname = "hostname",
    /// The method, such as `GET`.
    Method = "method",
    /// `http` or `https`, as the client came.
    Scheme = "scheme",
    /// Path and query as the client sent them.
    Uri = "uri",
    /// The path, normalised, without the query.
    Path = "path",
    /// The query without the question mark, as the client sent it.
    Query = "query",
    /// The version that the request came in, such as `HTTP/1.1`.
    Version = "version",
    /// Who has authenticated.
    User = "user",
    /// The server name that the client asked for in TLS.
    Sni = "sni",
    /// The listener's name.
    Listener = "listener",
    /// The route's name.
    Route = "route",
    /// The address of the server that the request went to, or the last one tried.
    Peer = "peer",
    /// Where a client of a forward proxy wants to go: a host and a port.
    Destination = "destination",
    /// The way that it goes there: `direct`, or the name of a chain.
    Way = "way",
    /// What a client of a forward proxy asks for: `http`, `connect`, `socks4`, `socks5` or `udp`.
    Kind = "kind",
    /// The status that the client got.
    Status = "status",
    /// Bytes of the request's body.
    BytesIn = "bytes_in",
    /// Bytes of the response's body, as they were sent.
    BytesOut = "bytes_out",
    /// Seconds since the first byte of the request.
    Duration = "duration",
    /// Seconds from passing the request on to the head of the server's response.
    UpstreamTime = "upstream_time",
    /// What names the request: 32 random digits, or what a trusted proxy says in `X-Request-Id`.
    RequestId = "request_id",
    /// How the request ended, `done` being a whole response; known in the access log only.
    Outcome = "outcome",
    /// The time of day.
    Time = "time",
}

/// What comes before the colon of those that have a name.
const FAMILIES: [&str; 4] = ["header", "response", "cookie", "query"];

impl Var {
    /// The variable that is written so between braces.
    ///
    /// # Errors
    /// There is none; perhaps there is one nearly so.
    pub fn parse(text: &str) -> Result<Var, TemplateError> {
        if let Some(plain) = Plain::ALL.iter().find(|plain| plain.as_str() == text) {
            return Ok(Var::Plain(*plain));
        }
        let Some((family, name)) = text.split_once(':') else { return Err(unknown(text)) };
        let bad = || TemplateError::BadName(text.to_owned());
        let field = || Name::new(name).ok_or_else(bad);
        let plain_text = || name.bytes().all(|byte| byte.is_ascii_graphic() && !b"=;,&#".contains(&byte));
        let other = || if !name.is_empty() && plain_text() { Ok(name.into()) } else { Err(bad()) };
        match family {
            "header" => Ok(Var::Header(field()?)),
            "response" => Ok(Var::Response(field()?)),
            "cookie" => Ok(Var::Cookie(other()?)),
            "query" => Ok(Var::Query(other()?)),
            _ => Err(unknown(text)),
        }
    }
}

impl fmt::Display for Var {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Var::Plain(plain) => f.write_str(plain.as_str()),
            Var::Header(name) => write!(f, "header:{}", name.as_str()),
            Var::Response(name) => write!(f, "response:{}", name.as_str()),
            Var::Cookie(name) => write!(f, "cookie:{name}"),
            Var::Query(name) => write!(f, "query:{name}"),
        }
    }
}

/// An error that names what was perhaps meant.
fn unknown(text: &str) -> TemplateError {
    // Two slips of the finger; with more, any short name would resemble any other.
    let nearest = |word: &str, of: &mut dyn Iterator<Item = &'static str>| {
        of.map(|known| (strsim::damerau_levenshtein(known, word), known))
            .min_by_key(|(distance, _)| *distance)
            .filter(|(distance, _)| *distance <= 2)
            .map(|(_, known)| known)
    };
    let near = match text.split_once(':') {
        Some((family, name)) => {
            nearest(family, &mut FAMILIES.into_iter()).map(|family| format!("{family}:{name}"))
        }
        None => nearest(text, &mut Plain::ALL.iter().map(|plain| plain.as_str())).map(str::to_owned),
    };
    TemplateError::Unknown { name: text.to_owned(), near }
}
