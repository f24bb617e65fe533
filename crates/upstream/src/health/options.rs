//! The options of health checks, and what they come to once they are checked.

mod values;

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wmproxy_net::addr::{Address, TargetSpec};
use wmproxy_net::preface::{Introduction, ProxyVersion};
use wmproxy_wire::units::HumanDuration;

use super::state::Thresholds;
pub use values::{Pattern, Statuses};

/// The most results in a row that a change of state can be made to wait for.
const MAX_THRESHOLD: u32 = 1000;

/// The longest text or datagram to send or to expect: what fits into a datagram on any network (1,280 bytes of IPv6,
/// less its headers) and is more than any ping.
const MAX_PATTERN: usize = 1232;

const INTERVAL: HumanDuration = HumanDuration::from_secs(5);
const TIMEOUT: HumanDuration = HumanDuration::from_secs(2);
const RISE: u32 = 2;
const FALL: u32 = 3;

/// Health checks of the servers of a group. Without this table there are none. A server that its checks hold for
/// down gets no connections until they hold it for up again; its first check decides alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HealthOptions {
    /// What a check is: `tcp` (connect, and perhaps say something and be answered), `http` (a request over
    /// HTTP/1.1) or `udp` (a datagram and its answer). Default `tcp`.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// How often each server is checked; each time up to 10 % sooner or later. Default `"5s"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "5s"))]
    pub interval: Option<HumanDuration>,
    /// How long a whole check may take, from connecting to the last byte that matters; at most `interval`. Default
    /// `"2s"`, or `interval` where that is shorter.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "2s"))]
    pub timeout: Option<HumanDuration>,
    /// So many checks in a row have to pass before a server that is down is up again. Default `2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    #[schemars(extend("default" = 2))]
    pub rise: Option<u32>,
    /// So many checks in a row have to fail before a server that is up is down. Default `3`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    #[schemars(extend("default" = 3))]
    pub fall: Option<u32>,
    /// The port to check instead of the server's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// Whether a check is made by TLS, as the group's `tls` says. By default as connections are, but in the clear on
    /// another `port`. For `tcp` and `http`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<bool>,
    /// Whether a check begins with a PROXY header of the group's `send_proxy_protocol`, which says that it comes from
    /// nobody but the proxy. By default as connections do, but not on another `port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send_proxy_protocol: Option<bool>,
    /// What to send once connected, as text or as `{ hex = "0a0b" }`. For `tcp` and `udp`; `udp` needs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send: Option<Pattern>,
    /// `send` in hexadecimal: `hex = "0a0b"` is the same as `send = { hex = "0a0b" }`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hex: Option<String>,
    /// What the answer has to contain, as text or as `{ hex = "0a0b" }`. For `tcp` it may come at once or in pieces,
    /// within the first 16 KiB. For `udp` any datagram may have it; without it any answer will do, and so will none:
    /// a server fails only when the network says that its port is closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect: Option<Pattern>,
    /// The method of the request, such as `HEAD`. Default `GET`; for `http`, like the next four.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "GET"))]
    pub method: Option<String>,
    /// The path of the request, with a query if need be. Default `"/"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "/"))]
    pub path: Option<String>,
    /// The Host of the request. By default the server as it is written in `servers`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Which status passes: ranges and numbers, as in `"200,204,300-399"`. Default `"200-399"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "200-399"))]
    pub expect_status: Option<Statuses>,
    /// What the body has to contain, within its first 64 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect_body: Option<String>,
}

/// What a check is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A connection, and perhaps an exchange on it.
    #[default]
    Tcp,
    /// A request over HTTP/1.1.
    Http,
    /// A datagram and its answer.
    Udp,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Kind::Tcp => "tcp",
            Kind::Http => "http",
            Kind::Udp => "udp",
        }
    }
}

/// Health checks as they are done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthSpec {
    /// From the start of one check of a peer to the next.
    pub interval: Duration,
    /// For a whole check.
    pub timeout: Duration,
    pub(crate) thresholds: Thresholds,
    pub(crate) port: Option<u16>,
    pub(crate) tls: bool,
    /// What peers get first.
    pub(crate) introduction: Option<Introduction>,
    pub(crate) probe: ProbeSpec,
}

/// What connections to the servers of a group begin with, so that its checks may, too.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Beginning {
    pub(crate) tls: bool,
    pub(crate) proxy: Option<ProxyVersion>,
}

/// What is asked and what has to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ProbeSpec {
    /// A connection; what to send, and what to wait for.
    Tcp { send: Arc<[u8]>, expect: Option<Arc<[u8]>> },
    /// A request.
    Http(Arc<HttpSpec>),
    /// A datagram, and what to wait for.
    Udp { send: Arc<[u8]>, expect: Option<Arc<[u8]>> },
}

/// A request and what has to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HttpSpec {
    pub(crate) method: String,
    pub(crate) path: String,
    /// The Host, unless it is the server's.
    pub(crate) host: Option<String>,
    pub(crate) statuses: Statuses,
    pub(crate) body: Option<String>,
}

impl HealthOptions {
    /// Checks what the types alone can't. `targets` are the servers of the group, and `beginning` is what connections to
    /// them begin with.
    ///
    /// # Errors
    /// Every problem, each with its key and what would be right.
    pub(crate) fn spec<'a>(
        &self,
        targets: impl Iterator<Item = &'a TargetSpec>,
        beginning: Beginning,
    ) -> Result<HealthSpec, Vec<(&'static str, String)>> {
        let mut problems = vec![];
        let interval = self.interval.unwrap_or(INTERVAL);
        let timeout = self.timeout.unwrap_or(TIMEOUT.min(interval));
        if interval.is_zero() {
            problems.push(("interval", "must be more than 0; the default is \"5s\"".to_owned()));
        } else if timeout.is_zero() {
            problems.push(("timeout", "no server answers in no time; the default is \"2s\"".to_owned()));
        } else if timeout > interval {
            let message = format!(
                "must be at most `interval`, which is \"{interval}\": a check ends before the next begins"
            );
            problems.push(("timeout", message));
        }
        let thresholds = Thresholds { rise: self.rise.unwrap_or(RISE), fall: self.fall.unwrap_or(FALL) };
        for (key, count) in [("rise", thresholds.rise), ("fall", thresholds.fall)] {
            if !(1..=MAX_THRESHOLD).contains(&count) {
                problems.push((key, format!("must be from 1 to {MAX_THRESHOLD}")));
            }
        }
        if self.port == Some(0) {
            problems.push(("port", "port 0 is nothing to connect to".to_owned()));
        }
        let is_unix = |target: &&TargetSpec| matches!(target, TargetSpec::Address(Address::Unix(_)));
        if let Some(unix) = { targets }.find(is_unix) {
            if self.port.is_some() {
                problems.push(("port", format!("{unix} has no port")));
            }
            if self.kind == Kind::Udp {
                problems.push(("type", format!("{unix} takes no datagrams")));
            }
        }
        let beginning = self.beginning(beginning, &mut problems);
        self.check_foreign(&mut problems);
        let probe = self.probe(&mut problems);
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(HealthSpec {
            interval: interval.get(),
            timeout: timeout.get(),
            thresholds,
            port: self.port,
            tls: beginning.tls,
            introduction: beginning.proxy.map(Introduction::own),
            probe,
        })
    }

    /// What checks begin with.
    fn beginning(&self, group: Beginning, problems: &mut Vec<(&'static str, String)>) -> Beginning {
        if self.tls == Some(true) && self.kind == Kind::Udp {
            problems.push((
                "tls",
                "has no effect with type = \"udp\"; it is for type = \"tcp\" or \"http\"".to_owned(),
            ));
        } else if self.tls == Some(true) && !group.tls {
            problems.push(("tls", "the group has no `tls`, which would say how".to_owned()));
        }
        if self.send_proxy_protocol == Some(true) && group.proxy.is_none() {
            let message = "the group has no `send_proxy_protocol`, which would say which version";
            problems.push(("send_proxy_protocol", message.to_owned()));
        }
        // Who listens on another port is mostly made for checks alone.
        let same_port = self.port.is_none();
        let proxy = group.proxy.filter(|_| self.send_proxy_protocol.unwrap_or(same_port));
        let (tls, proxy) = match self.kind {
            // There is but one version for datagrams.
            Kind::Udp => (false, proxy.map(|_| ProxyVersion::V2)),
            Kind::Tcp | Kind::Http => (group.tls && self.tls.unwrap_or(same_port), proxy),
        };
        Beginning { tls, proxy }
    }

    /// Keys that this type of check has no use for.
    fn check_foreign(&self, problems: &mut Vec<(&'static str, String)>) {
        let of_http = [
            ("method", self.method.is_some()),
            ("path", self.path.is_some()),
            ("host", self.host.is_some()),
            ("expect_status", self.expect_status.is_some()),
            ("expect_body", self.expect_body.is_some()),
        ];
        let of_others =
            [("send", self.send.is_some()), ("hex", self.hex.is_some()), ("expect", self.expect.is_some())];
        let (foreign, fitting) = match self.kind {
            Kind::Http => (&of_others[..], "type = \"tcp\" or \"udp\""),
            Kind::Tcp | Kind::Udp => (&of_http[..], "type = \"http\""),
        };
        for (key, _) in foreign.iter().filter(|(_, is_there)| *is_there) {
            let kind = self.kind.as_str();
            problems.push((key, format!("has no effect with type = \"{kind}\"; it is for {fitting}")));
        }
    }

    fn probe(&self, problems: &mut Vec<(&'static str, String)>) -> ProbeSpec {
        let hex = self.hex.as_deref().and_then(Pattern::of_hex);
        if self.hex.is_some() && self.send.is_some() {
            problems.push(("hex", "`send` says already what to send; say it once".to_owned()));
        } else if self.hex.is_some() && hex.is_none() {
            problems.push(("hex", "expected two hexadecimal digits for each byte, like \"0a0b\"".to_owned()));
        }
        let (key, send) = if self.send.is_some() { ("send", self.send.clone()) } else { ("hex", hex) };
        for (key, pattern) in [(key, &send), ("expect", &self.expect)] {
            let Some(pattern) = pattern else { continue };
            if pattern.bytes().is_empty() {
                problems.push((key, "is empty; leave it out".to_owned()));
            } else if pattern.bytes().len() > MAX_PATTERN {
                let len = pattern.bytes().len();
                problems.push((
                    key,
                    format!("these are {len} bytes; at most {MAX_PATTERN} are sent and expected"),
                ));
            }
        }
        let bytes = |pattern: &Option<Pattern>| pattern.as_ref().map(|pattern| Arc::from(pattern.bytes()));
        let (send, expect) = (bytes(&send), bytes(&self.expect));
        match self.kind {
            Kind::Tcp => ProbeSpec::Tcp { send: send.unwrap_or_default(), expect },
            Kind::Http => ProbeSpec::Http(Arc::new(self.http(problems))),
            Kind::Udp => {
                if send.is_none() && self.hex.is_none() {
                    let message = "type = \"udp\" needs `send`: a server that hears nothing says nothing";
                    problems.push(("send", message.to_owned()));
                }
                ProbeSpec::Udp { send: send.unwrap_or_default(), expect }
            }
        }
    }

    fn http(&self, problems: &mut Vec<(&'static str, String)>) -> HttpSpec {
        let method = self.method.clone().unwrap_or_else(|| "GET".to_owned());
        if method.is_empty() || !method.bytes().all(is_token) {
            problems.push(("method", "a method is a word like \"GET\" or \"HEAD\"".to_owned()));
        } else if method == "CONNECT" {
            problems.push(("method", "CONNECT asks for a tunnel, not for an answer".to_owned()));
        }
        let path = self.path.clone().unwrap_or_else(|| "/".to_owned());
        if !path.starts_with('/') || !path.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
            let message =
                "a path begins with \"/\"; what is not ASCII, and spaces, are written as in \"%20\"";
            problems.push(("path", message.to_owned()));
        }
        let is_host =
            |host: &str| !host.is_empty() && host.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
        if self.host.as_ref().is_some_and(|host| !is_host(host)) {
            problems.push(("host", "a host is like \"example.com\" or \"example.com:8080\"".to_owned()));
        }
        if let Some(body) = &self.expect_body {
            if body.is_empty() {
                problems.push(("expect_body", "is empty; leave it out".to_owned()));
            } else if body.len() > MAX_PATTERN {
                let len = body.len();
                problems.push((
                    "expect_body",
                    format!("these are {len} bytes; at most {MAX_PATTERN} are expected"),
                ));
            } else if method == "HEAD" {
                problems.push(("expect_body", "the answer to HEAD has no body".to_owned()));
            }
        }
        let statuses = self.expect_status.clone().unwrap_or_default();
        HttpSpec { method, path, host: self.host.clone(), statuses, body: self.expect_body.clone() }
    }
}

/// A character of a method (RFC 9110 section 5.6.2).
fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

#[cfg(test)]
mod tests;
