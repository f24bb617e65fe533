//! What `[[stream]]` says of its bridge, and what the data plane takes from it.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wmproxy_wire::units::Secret;
use wmproxy_wire::websocket::handshake::{Refusal, Request, is_field_value, is_token};

use super::url::BridgeUrl;
use crate::options::StreamOptions;

/// Which side of a bridge is the WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BridgeMode {
    /// The peers': what comes as TCP goes on as a WebSocket.
    Tcp2ws,
    /// The clients': what comes as a WebSocket goes on as TCP.
    Ws2tcp,
}

impl BridgeMode {
    /// The word in the config.
    pub fn as_str(self) -> &'static str {
        match self {
            BridgeMode::Tcp2ws => "tcp2ws",
            BridgeMode::Ws2tcp => "ws2tcp",
        }
    }
}

/// A bridge as it is built: every value checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeSpec {
    pub(super) side: Side,
    /// The subprotocols to offer, or to grant.
    pub(super) protocols: Vec<String>,
    /// Fields to add to our part of the handshake.
    headers: Vec<(String, Secret)>,
    /// How often the WebSocket's other end is asked whether it is still there.
    pub(super) ping: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Side {
    Tcp2Ws(Goal),
    Ws2Tcp(Entry),
}

/// What a WebSocket server is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Goal {
    /// The `Host` field.
    pub(super) host: String,
    /// The path with the query.
    pub(super) path: String,
}

/// What a WebSocket client may ask for; empty lists are anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) hosts: Vec<String>,
    pub(super) path: Option<String>,
    pub(super) origins: Vec<String>,
}

/// The subprotocol that clients for remote screens ask for, and without which browsers would not take our answer.
const PROTOCOL: &str = "binary";

/// Fields that the handshake itself has, or that would give its heads another meaning.
const RESERVED: [&str; 8] = [
    "host",
    "upgrade",
    "connection",
    "content-length",
    "transfer-encoding",
    "trailer",
    "te",
    "sec-websocket-",
];

impl BridgeSpec {
    /// The fields to add to our part of the handshake.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.expose()))
    }

    /// Checks what the options say of a bridge; none without one.
    ///
    /// # Errors
    /// Every problem, each with its key and what would be right.
    pub fn new(options: &StreamOptions) -> Result<Option<BridgeSpec>, Vec<(&'static str, String)>> {
        let mut problems = Vec::new();
        let mode = match options.bridge {
            Some(mode) => mode,
            None => {
                let said = |(key, said): (&'static str, bool)| said.then_some(key);
                for key in keys(options).into_iter().filter_map(said) {
                    problems.push((key, "has no effect without `bridge`".to_owned()));
                }
                return if problems.is_empty() { Ok(None) } else { Err(problems) };
            }
        };
        check_sides(options, mode, &mut problems);
        check_values(options, &mut problems);
        let goal = |url: &BridgeUrl| Goal { host: url.host_field(), path: url.path().to_owned() };
        let side = match (mode, &options.bridge_url) {
            (BridgeMode::Tcp2ws, Some(url)) => Side::Tcp2Ws(goal(url)),
            _ => Side::Ws2Tcp(Entry {
                hosts: options.bridge_host.0.clone(),
                path: options.bridge_path.clone(),
                origins: options.bridge_origin.0.clone(),
            }),
        };
        if !problems.is_empty() {
            return Err(problems);
        }
        let mut protocols = options.bridge_subprotocol.0.clone();
        if protocols.is_empty() && mode == BridgeMode::Ws2tcp {
            protocols.push(PROTOCOL.to_owned());
        }
        let headers = options.bridge_headers.iter().map(|(name, value)| (name.clone(), value.clone()));
        let ping = options.bridge_ping.map(|ping| ping.get());
        Ok(Some(BridgeSpec { side, protocols, headers: headers.collect(), ping }))
    }
}

/// The keys that need a bridge, and whether they are there.
fn keys(options: &StreamOptions) -> [(&'static str, bool); 7] {
    [
        ("bridge_url", options.bridge_url.is_some()),
        ("bridge_host", !options.bridge_host.0.is_empty()),
        ("bridge_path", options.bridge_path.is_some()),
        ("bridge_origin", !options.bridge_origin.0.is_empty()),
        ("bridge_subprotocol", !options.bridge_subprotocol.0.is_empty()),
        ("bridge_headers", !options.bridge_headers.is_empty()),
        ("bridge_ping", options.bridge_ping.is_some()),
    ]
}

/// Keys that belong to the other mode, and the one that can't be missing.
fn check_sides(options: &StreamOptions, mode: BridgeMode, problems: &mut Vec<(&'static str, String)>) {
    let others: &[&str] = match mode {
        BridgeMode::Tcp2ws => &["bridge_host", "bridge_path", "bridge_origin"],
        BridgeMode::Ws2tcp => &["bridge_url"],
    };
    let hint = match mode {
        BridgeMode::Tcp2ws => "is for bridge = \"ws2tcp\"; here `bridge_url` says host and path",
        BridgeMode::Ws2tcp => "is for bridge = \"tcp2ws\"; here `upstream` says where to go",
    };
    for (key, said) in keys(options) {
        if said && others.contains(&key) {
            problems.push((key, hint.to_owned()));
        }
    }
    if mode == BridgeMode::Tcp2ws && options.bridge_url.is_none() {
        let message = "bridge = \"tcp2ws\" needs a `bridge_url`, such as \"wss://host/path\"";
        problems.push(("bridge", message.to_owned()));
    }
}

fn check_values(options: &StreamOptions, problems: &mut Vec<(&'static str, String)>) {
    let mut problem = |key, message: String| problems.push((key, message));
    for protocol in &options.bridge_subprotocol.0 {
        if !is_token(protocol) {
            problem("bridge_subprotocol", format!("`{protocol}` is no token: letters, digits and -._"));
        }
    }
    for (name, value) in &options.bridge_headers {
        let lower = name.to_ascii_lowercase();
        if !is_token(name) {
            problem("bridge_headers", format!("`{name}` is no name of a field"));
        } else if RESERVED.iter().any(|taken| match taken.strip_suffix('-') {
            Some(_) => lower.starts_with(taken),
            None => lower == *taken,
        }) {
            problem("bridge_headers", format!("`{name}` belongs to the handshake itself"));
        } else if !is_field_value(value.expose()) {
            problem(
                "bridge_headers",
                format!("the value of `{name}` has control characters or outer blanks"),
            );
        }
    }
    if options.bridge_path.as_ref().is_some_and(|path| !path.starts_with('/') || path.contains(['?', '#'])) {
        problem("bridge_path", "expected a path without a query, such as \"/vnc\"".to_owned());
    }
    if options.bridge_ping.is_some_and(|ping| ping.get() < Duration::from_secs(1)) {
        problem("bridge_ping", "expected a time of at least \"1s\"".to_owned());
    }
}

impl Entry {
    /// Whether a request is one for this bridge.
    pub(super) fn check(&self, request: &Request<'_>) -> Result<(), Refusal> {
        let origins = &self.origins;
        if let Some(origin) = request.origin
            && !origins.is_empty()
            && !origins.iter().any(|ours| ours.eq_ignore_ascii_case(origin))
        {
            return Err(Refusal::Forbidden);
        }
        if !self.hosts.is_empty() && !self.hosts.iter().any(|ours| is_host(ours, request.host)) {
            return Err(Refusal::Forbidden);
        }
        match &self.path {
            Some(path) if path != request.path => Err(Refusal::NotFound),
            _ => Ok(()),
        }
    }
}

/// Whether a `Host` field names one of ours, which is meant with any port if it has none.
fn is_host(ours: &str, field: &str) -> bool {
    let name = match field.rfind(':').filter(|at| !field[*at..].contains(']')) {
        Some(at) => &field[..at],
        None => field,
    };
    ours.eq_ignore_ascii_case(field) || ours.eq_ignore_ascii_case(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request<'a>(host: &'a str, path: &'a str, origin: Option<&'a str>) -> Request<'a> {
        Request { path, host, key: "", origin, protocols: vec![] }
    }

    #[test]
    fn an_entry_lets_in_whom_it_names() {
        let entry = Entry {
            hosts: vec!["a.example".into(), "b.example:81".into(), "[::1]".into()],
            path: Some("/x".into()),
            origins: vec!["https://a.example".into()],
        };
        let ours = Some("https://A.example");
        for (host, path, origin, expected) in [
            ("A.example", "/x", None, Ok(())),
            ("a.example:8080", "/x", ours, Ok(())),
            ("b.example:81", "/x", ours, Ok(())),
            ("[::1]:80", "/x", ours, Ok(())),
            ("[::1]", "/x", ours, Ok(())),
            ("b.example", "/x", ours, Err(Refusal::Forbidden)),
            ("b.example:82", "/x", ours, Err(Refusal::Forbidden)),
            ("evil.example", "/x", ours, Err(Refusal::Forbidden)),
            ("a.example", "/x", Some("https://evil.example"), Err(Refusal::Forbidden)),
            ("a.example", "/x", Some("null"), Err(Refusal::Forbidden)),
            ("a.example", "/x/", ours, Err(Refusal::NotFound)),
            ("a.example", "/", ours, Err(Refusal::NotFound)),
        ] {
            assert_eq!(entry.check(&request(host, path, origin)), expected, "{host} {path} {origin:?}");
        }
        assert_eq!(Entry::default().check(&request("any", "/thing", Some("null"))), Ok(()));
    }

    fn options(change: impl FnOnce(&mut StreamOptions)) -> StreamOptions {
        let mut options = StreamOptions::default();
        change(&mut options);
        options
    }

    #[test]
    fn keys_that_do_nothing_are_problems() {
        let problems = |options: &StreamOptions| -> Vec<&'static str> {
            let problems = BridgeSpec::new(options).unwrap_err();
            problems.into_iter().map(|(key, _)| key).collect()
        };
        let without = options(|o| {
            o.bridge_path = Some("/".into());
            o.bridge_ping = Some("5s".parse().unwrap());
        });
        assert_eq!(problems(&without), ["bridge_path", "bridge_ping"]);
        let tcp2ws = options(|o| {
            o.bridge = Some(BridgeMode::Tcp2ws);
            o.bridge_host.0.push("a".into());
        });
        assert_eq!(problems(&tcp2ws), ["bridge_host", "bridge"]);
        let ws2tcp = options(|o| {
            o.bridge = Some(BridgeMode::Ws2tcp);
            o.bridge_url = Some("ws://a".parse().unwrap());
            o.bridge_path = Some("x".into());
            o.bridge_subprotocol.0.push("a b".into());
            o.bridge_ping = Some("10ms".parse().unwrap());
            for (name, value) in
                [("Host", "x"), ("Sec-WebSocket-Key", "x"), ("A:", "x"), ("B", "x\r\ny"), ("C", "fine")]
            {
                o.bridge_headers.insert(name.into(), value.parse().unwrap());
            }
        });
        let mut expected = vec!["bridge_url", "bridge_subprotocol"];
        expected.extend(["bridge_headers"; 4]);
        expected.extend(["bridge_path", "bridge_ping"]);
        assert_eq!(problems(&ws2tcp), expected);
        assert_eq!(BridgeSpec::new(&StreamOptions::default()), Ok(None));
    }
}
