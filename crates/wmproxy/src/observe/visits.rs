//! Access logs of forward proxies: one form of line for whatever a client speaks.
//!
//! Requests of HTTP come as their log has them, tunnels of SOCKS and associations of datagrams as closed records. What one
//! of them has no word for is left empty.

use std::cell::RefCell;

use anyhow::Context as _;
use wmproxy_http::RequestLog;
use wmproxy_http::facts::Scene;
use wmproxy_http::forward;
use wmproxy_http::vars::{self, Plain};
use wmproxy_net::record::{AccessLog, ClosedRecord, Outcome};

use super::access::{self, Value};
use super::escape::Context;
use super::requests;
use super::sink::{Sink, Target};
use super::sinks::Sinks;
use super::template::{self, Segment, Template, TemplateError};
use crate::config::plan::{AccessFormat, AccessLogPlan};

/// A thing known of a visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Var {
    Time,
    Listener,
    ClientAddr,
    Kind,
    User,
    Destination,
    Way,
    Peer,
    Status,
    BytesIn,
    BytesOut,
    ConnectTime,
    Duration,
    Outcome,
    ClientIp,
    ClientPort,
    Sni,
    Method,
    Path,
    DatagramsIn,
    DatagramsOut,
}

/// Each variable and its name. A line of JSON has the first [`IN_JSON`] of them, in this order.
const VARS: [(Var, &str); 21] = [
    (Var::Time, "time"),
    (Var::Listener, "listener"),
    (Var::ClientAddr, "client_addr"),
    (Var::Kind, "kind"),
    (Var::User, "user"),
    (Var::Destination, "destination"),
    (Var::Way, "way"),
    (Var::Peer, "peer"),
    (Var::Status, "status"),
    (Var::BytesIn, "bytes_in"),
    (Var::BytesOut, "bytes_out"),
    (Var::DatagramsIn, "datagrams_in"),
    (Var::DatagramsOut, "datagrams_out"),
    (Var::ConnectTime, "connect_time"),
    (Var::Duration, "duration"),
    (Var::Outcome, "outcome"),
    (Var::ClientIp, "client_ip"),
    (Var::ClientPort, "client_port"),
    (Var::Sni, "sni"),
    (Var::Method, "method"),
    (Var::Path, "path"),
];

const IN_JSON: usize = 16;

/// The line of the embedded default: short enough to be read as it scrolls by.
pub(crate) const READABLE: &str = "{time} {kind} {listener} {client_addr} {user} -> {destination} {way} {outcome} \
                                   {duration}s in {bytes_in} out {bytes_out}";

/// An access log of visits over a sink.
#[derive(Debug)]
pub(crate) struct VisitFile {
    sink: Sink,
    format: LineFormat,
}

/// How a line is written.
#[derive(Debug)]
enum LineFormat {
    /// An object; null for what there was not. Each variable comes with what stands before it.
    Json(Vec<(Box<[u8]>, Var)>),
    /// A template; `-` for what there was not.
    Template(Template<Var>),
}

thread_local! {
    /// The line that a worker is writing, and a value on its way there; their memory serves for the next one.
    static LINE: RefCell<(Vec<u8>, Vec<u8>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// Looks whether a text is the template of such a line.
///
/// # Errors
/// What is wrong and what would be right, for the one who wrote it.
pub(crate) fn check(text: &str) -> Result<(), TemplateError> {
    template::compile_with(text, &VARS).map(drop)
}

impl VisitFile {
    /// Opens what a plan names; logs of several listeners may name the same file.
    ///
    /// # Errors
    /// A file that can't be opened, or a template that does not compile, which a checked plan has not.
    pub(crate) fn open(sinks: &Sinks, plan: &AccessLogPlan) -> anyhow::Result<Self> {
        let format = match &plan.format {
            AccessFormat::Json => LineFormat::json(),
            AccessFormat::Combined => anyhow::bail!("`combined` is the format of HTTP requests"),
            AccessFormat::Template(text) => LineFormat::Template(template::compile_with(text, &VARS)?),
        };
        let target = Target::from(&plan.file);
        let sink = sinks.open(&target).with_context(|| format!("can't open the access log {target}"))?;
        Ok(VisitFile { sink, format })
    }

    fn line(&self, source: &Source<'_>) {
        LINE.with_borrow_mut(|(line, scratch)| {
            line.clear();
            self.format.push(line, scratch, source);
            self.sink.write(line);
        });
    }
}

impl RequestLog for VisitFile {
    fn write(&self, scene: &Scene<'_>) {
        self.line(&Source::Request(scene));
    }
}

impl AccessLog for VisitFile {
    fn write(&self, record: &ClosedRecord) {
        // A connection of HTTP has a line for each of its requests, and none for itself unless it came to none.
        if record.forwarded.is_some() || is_refusal(record) {
            self.line(&Source::Record(record));
        }
    }
}

/// Whether a connection was turned away before it said what it wants. Who just leaves asked for nothing.
fn is_refusal(record: &ClosedRecord) -> bool {
    let refused = matches!(
        record.outcome,
        Outcome::Denied
            | Outcome::ClientLimit
            | Outcome::RateLimited
            | Outcome::PrefaceTimeout
            | Outcome::BadProxyHeader
            | Outcome::ClientTls
            | Outcome::NoResources
    );
    // TLS may break later as well. Then requests came, each with its line.
    refused && record.bytes_in + record.bytes_out == 0
}

/// Where a line comes from.
enum Source<'a> {
    Request(&'a Scene<'a>),
    Record(&'a ClosedRecord),
}

impl LineFormat {
    fn json() -> LineFormat {
        let key = |i, name| format!("{}\"{name}\":", if i == 0 { '{' } else { ',' }).into_bytes().into();
        let fields = VARS[..IN_JSON].iter().enumerate();
        LineFormat::Json(fields.map(|(i, (var, name))| (key(i, name), *var)).collect())
    }

    /// `scratch` is where a value is put together whose parts lie apart.
    fn push(&self, line: &mut Vec<u8>, scratch: &mut Vec<u8>, source: &Source<'_>) {
        match self {
            LineFormat::Json(fields) => {
                for (key, var) in fields {
                    line.extend_from_slice(key);
                    match source {
                        Source::Request(scene) => requests::push_json(line, scratch, var.of_request(scene)),
                        Source::Record(record) => {
                            var.of_record(record, |value| access::push_json_value(line, value));
                        }
                    }
                }
                line.push(b'}');
            }
            LineFormat::Template(template) => {
                for segment in &template.segments {
                    match (segment, source) {
                        (Segment::Text(text), _) => line.extend_from_slice(text.as_bytes()),
                        (Segment::Var(var), Source::Request(scene)) => {
                            requests::push_plain(line, scratch, Context::Word, var.of_request(scene));
                        }
                        (Segment::Var(var), Source::Record(record)) => {
                            var.of_record(record, |value| access::push_plain(line, value));
                        }
                    }
                }
            }
        }
        line.push(b'\n');
    }
}

impl Var {
    fn of_request<'a>(self, scene: &Scene<'a>) -> vars::Value<'a> {
        let plain = match self {
            Var::Time => Plain::Time,
            Var::Listener => Plain::Listener,
            Var::ClientAddr => Plain::ClientAddr,
            Var::Kind => Plain::Kind,
            Var::User => Plain::User,
            Var::Destination => Plain::Destination,
            Var::Way => Plain::Way,
            Var::Peer => Plain::Peer,
            Var::Status => Plain::Status,
            Var::BytesIn => Plain::BytesIn,
            Var::BytesOut => Plain::BytesOut,
            Var::Duration => Plain::Duration,
            Var::Outcome => Plain::Outcome,
            Var::ClientIp => Plain::ClientIp,
            Var::ClientPort => Plain::ClientPort,
            Var::Sni => Plain::Sni,
            // A connection that came to no request has neither.
            Var::Method | Var::Path if scene.facts.status == 0 => return vars::Value::None,
            Var::Method => Plain::Method,
            Var::Path => Plain::Path,
            Var::ConnectTime => {
                return scene.facts.connect_time.map_or(vars::Value::None, vars::Value::Seconds);
            }
            Var::DatagramsIn | Var::DatagramsOut => return vars::Value::None,
        };
        plain.value(scene)
    }

    /// Hands the value to `f`. (A closure, because an address that is put together here lives no longer.)
    fn of_record<R>(self, record: &ClosedRecord, f: impl FnOnce(Value<'_>) -> R) -> R {
        let kind = record.forwarded.as_ref().and_then(|forwarded| forwarded.kind);
        let is_association = kind == Some(forward::Kind::Udp.as_str());
        let datagrams = |n| if is_association { Value::Number(n) } else { Value::None };
        match (self, record.client) {
            (Var::Time, _) => f(Value::Time(access::end(record))),
            (Var::Listener, _) => f(Value::Text(&record.listener)),
            (Var::ClientAddr, Some(client)) => f(Value::Safe(&client)),
            (Var::ClientIp, Some(client)) => f(Value::Safe(&client.ip())),
            (Var::ClientPort, Some(client)) => f(Value::Number(client.port().into())),
            (Var::ClientAddr | Var::ClientIp | Var::ClientPort, None) => f(Value::None),
            (Var::Kind | Var::User | Var::Destination | Var::Way, _) => self.of_forwarded(record, f),
            (Var::Peer, _) => f(record.peer.as_ref().map_or(Value::None, |peer| Value::Text(peer))),
            (Var::BytesIn, _) => f(Value::Number(record.bytes_in)),
            (Var::BytesOut, _) => f(Value::Number(record.bytes_out)),
            (Var::DatagramsIn, _) => f(datagrams(record.datagrams_in)),
            (Var::DatagramsOut, _) => f(datagrams(record.datagrams_out)),
            (Var::ConnectTime, _) => f(record.connect_time.map_or(Value::None, Value::Seconds)),
            (Var::Duration, _) => f(Value::Seconds(record.duration)),
            (Var::Outcome, _) => f(Value::Safe(&record.outcome.as_str())),
            (Var::Sni, _) => {
                let sni = record.preface.as_ref().and_then(|preface| preface.sni.as_ref());
                f(sni.map_or(Value::None, |name| Value::Text(name)))
            }
            (Var::Status | Var::Method | Var::Path, _) => f(Value::None),
        }
    }

    fn of_forwarded<R>(self, record: &ClosedRecord, f: impl FnOnce(Value<'_>) -> R) -> R {
        let Some(forwarded) = record.forwarded.as_deref() else { return f(Value::None) };
        match self {
            Var::Kind => f(forwarded.kind.as_ref().map_or(Value::None, |kind| Value::Safe(kind))),
            Var::User => f(forwarded.user.as_ref().map_or(Value::None, |user| Value::Word(user))),
            Var::Destination => f(forwarded.destination.as_ref().map_or(Value::None, |to| Value::Word(to))),
            Var::Way => f(forwarded.way.as_ref().map_or(Value::None, |way| Value::Text(way))),
            _ => f(Value::None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use wmproxy_http::facts::{ConnFacts, Facts};
    use wmproxy_http::forward::Kind;
    use wmproxy_net::addr::{Address, Protocol};
    use wmproxy_net::record::Forwarded;
    use wmproxy_wire::destination::{Destination, Host};
    use wmproxy_wire::head::{Request, Scheme};

    use super::*;

    fn destination() -> Destination {
        Destination { host: Host::Name("example.com".into()), port: 443 }
    }

    /// A tunnel of SOCKS.
    fn record() -> ClosedRecord {
        ClosedRecord {
            protocol: Protocol::Tcp,
            listener: "proxy".into(),
            client: Some("192.0.2.7:4711".parse().unwrap()),
            preface: None,
            forwarded: Some(Box::new(Forwarded {
                user: Some("alice b".into()),
                destination: Some(destination()),
                way: Some("tor".into()),
                kind: Some("socks5"),
            })),
            local: Address::Inet("127.0.0.1:8090".parse().unwrap()),
            group: None,
            peer: None,
            started: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            connect_time: Some(Duration::from_millis(5)),
            duration: Duration::from_millis(12),
            bytes_in: 1,
            bytes_out: 2,
            datagrams_in: 0,
            datagrams_out: 0,
            outcome: Outcome::Done,
        }
    }

    fn line(format: &LineFormat, source: &Source<'_>) -> String {
        let mut line = Vec::new();
        format.push(&mut line, &mut Vec::new(), source);
        String::from_utf8(line).unwrap()
    }

    /// The line of a request for a tunnel.
    fn line_of_connect(format: &LineFormat) -> String {
        let conn = ConnFacts {
            listener: "proxy".into(),
            client: Some("192.0.2.7:4711".parse().unwrap()),
            local: Address::Inet("127.0.0.1:8090".parse().unwrap()),
            scheme: Scheme::Http,
            sni: None,
            identity: None,
        };
        let mut facts = Facts::default();
        facts.begin(&conn);
        facts.user = Some("alice b".into());
        facts.kind = Some(Kind::Connect);
        facts.destination = Some(destination());
        facts.way = Some("direct".into());
        facts.address = Some("203.0.113.9:443".parse().unwrap());
        facts.connect_time = Some(Duration::from_millis(5));
        facts.status = 200;
        (facts.bytes_in, facts.bytes_out) = (1, 2);
        facts.outcome = Some(Outcome::Done);
        let request = Request::new();
        let scene = Scene { conn: &conn, request: &request, response: None, facts: &facts };
        line(format, &Source::Request(&scene))
    }

    #[test]
    fn a_template_fits_whatever_a_client_speaks() {
        let text = "{listener} {client_addr} {client_ip} {client_port} {kind} {user} {destination} {way} {peer} {status} \
                    {bytes_in} {bytes_out} {datagrams_in} {connect_time} {outcome} {sni}";
        let format = LineFormat::Template(template::compile_with(text, &VARS).unwrap());
        assert_eq!(
            line(&format, &Source::Record(&record())),
            "proxy 192.0.2.7:4711 192.0.2.7 4711 socks5 alice\\u{20}b example.com:443 tor - - 1 2 - 0.005000 done -\n"
        );
        assert_eq!(
            line_of_connect(&format),
            "proxy 192.0.2.7:4711 192.0.2.7 4711 connect alice\\u{20}b example.com:443 direct 203.0.113.9:443 200 1 2 - 0.005000 done -\n"
        );
        assert!(check(READABLE).is_ok() && check("{route}").is_err() && check("combined").is_err());
    }

    #[test]
    fn json_has_the_same_keys_for_all() {
        let keys = |line: String| -> Vec<String> {
            let value: serde_json::Value = serde_json::from_str(&line).unwrap();
            value.as_object().unwrap().keys().cloned().collect()
        };
        let expected: Vec<&str> = VARS[..IN_JSON].iter().map(|(_, name)| *name).collect();
        assert_eq!(keys(line(&LineFormat::json(), &Source::Record(&record()))), expected);
        assert_eq!(keys(line_of_connect(&LineFormat::json())), expected);
    }

    #[test]
    fn a_connection_of_http_has_no_line_unless_it_was_refused() {
        let of_http = ClosedRecord { forwarded: None, ..record() };
        assert!(!is_refusal(&of_http));
        assert!(!is_refusal(&ClosedRecord { outcome: Outcome::ClientTls, ..of_http.clone() }));
        let refused = ClosedRecord { outcome: Outcome::Denied, bytes_in: 0, bytes_out: 0, ..of_http.clone() };
        assert!(is_refusal(&refused));
    }
}
