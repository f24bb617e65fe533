//! Access logs: one line for each closed record, by a template or as JSON.

use std::cell::RefCell;
use std::fmt;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use wmproxy_net::addr::Protocol;
use wmproxy_net::record::{AccessLog, ClosedRecord};
use wmproxy_wire::proxy_protocol::Tlvs;

use super::clock;
use super::escape::{Context, push, push_digits, push_escaped, push_json, push_number};
use super::sink::{Sink, Target};
use super::sinks::Sinks;
use super::template::{self, Segment, Template, VARS, Var};
use crate::config::plan::{AccessFormat, AccessLogPlan};

/// How a line is written.
#[derive(Debug, Clone, PartialEq, Eq)]
enum LineFormat {
    /// An object with every variable; null for what there was not. Each comes with what stands before it.
    Json(Vec<(Box<[u8]>, Var)>),
    /// A template; `-` for what there was not.
    Template(Template),
}

/// An access log over a sink.
#[derive(Debug)]
pub(crate) struct AccessFile {
    sink: Sink,
    format: LineFormat,
}

thread_local! {
    /// The line that a worker is writing; its memory serves for the next one.
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl AccessFile {
    /// Opens what a plan names; logs of several listeners may name the same file.
    ///
    /// # Errors
    /// A file that can't be opened, or a template that does not compile, which a checked plan has not.
    pub(crate) fn open(sinks: &Sinks, plan: &AccessLogPlan) -> anyhow::Result<Self> {
        let format = match &plan.format {
            AccessFormat::Json => LineFormat::json(),
            AccessFormat::Combined => anyhow::bail!("`combined` is the format of HTTP requests"),
            AccessFormat::Template(text) => LineFormat::Template(template::compile(text)?),
        };
        let target = Target::from(&plan.file);
        let sink = sinks.open(&target).with_context(|| format!("can't open the access log {target}"))?;
        Ok(AccessFile { sink, format })
    }
}

impl AccessLog for AccessFile {
    fn write(&self, record: &ClosedRecord) {
        LINE.with_borrow_mut(|line| {
            line.clear();
            self.format.push(line, record);
            self.sink.write(line);
        });
    }
}

impl LineFormat {
    fn json() -> LineFormat {
        let key = |i, name| format!("{}\"{name}\":", if i == 0 { '{' } else { ',' }).into_bytes().into();
        LineFormat::Json(VARS.iter().enumerate().map(|(i, (var, name))| (key(i, name), *var)).collect())
    }

    fn push(&self, line: &mut Vec<u8>, record: &ClosedRecord) {
        match self {
            LineFormat::Json(fields) => {
                for (key, var) in fields {
                    line.extend_from_slice(key);
                    var.of(record, |value| push_json_value(line, value));
                }
                line.push(b'}');
            }
            LineFormat::Template(template) => {
                for segment in &template.segments {
                    match segment {
                        Segment::Text(text) => line.extend_from_slice(text.as_bytes()),
                        Segment::Var(var) => var.of(record, |value| push_plain(line, value)),
                    }
                }
            }
        }
        line.push(b'\n');
    }
}

/// A variable's value.
pub(super) enum Value<'a> {
    None,
    Number(u64),
    Seconds(Duration),
    Time(SystemTime),
    /// Of our own words, or digits and dots: nothing to escape.
    Safe(&'a dyn fmt::Display),
    Text(&'a dyn fmt::Display),
    /// Of a client's making, and with blanks if it likes.
    Word(&'a dyn fmt::Display),
}

impl Var {
    /// Hands the value to `f`. (A closure, because an address that is put together here lives no longer.)
    fn of<R>(self, record: &ClosedRecord, f: impl FnOnce(Value<'_>) -> R) -> R {
        let datagrams = |n| if record.protocol == Protocol::Udp { Value::Number(n) } else { Value::None };
        match (self, record.client) {
            // A line is written at the end, so that is its time, and lines are in order.
            (Var::Time, _) => f(Value::Time(end(record))),
            (Var::Listener, _) => f(Value::Text(&record.listener)),
            (Var::Protocol, _) => f(Value::Safe(&record.protocol)),
            (Var::ClientAddr, Some(client)) => f(Value::Safe(&client)),
            (Var::ClientIp, Some(client)) => f(Value::Safe(&client.ip())),
            (Var::ClientPort, Some(client)) => f(Value::Number(client.port().into())),
            (Var::ClientAddr | Var::ClientIp | Var::ClientPort, None) => f(Value::None),
            (Var::Via | Var::Destination | Var::Sni | Var::Alpn | Var::ProxyTlvs, _) => {
                self.of_preface(record, f)
            }
            (Var::Local, _) => f(Value::Text(&record.local)),
            (Var::Group, _) => f(record.group.as_ref().map_or(Value::None, |group| Value::Text(group))),
            (Var::Peer, _) => f(record.peer.as_ref().map_or(Value::None, |peer| Value::Text(peer))),
            (Var::BytesIn, _) => f(Value::Number(record.bytes_in)),
            (Var::BytesOut, _) => f(Value::Number(record.bytes_out)),
            (Var::DatagramsIn, _) => f(datagrams(record.datagrams_in)),
            (Var::DatagramsOut, _) => f(datagrams(record.datagrams_out)),
            (Var::ConnectTime, _) => f(record.connect_time.map_or(Value::None, Value::Seconds)),
            (Var::Duration, _) => f(Value::Seconds(record.duration)),
            (Var::Outcome, _) => f(Value::Safe(&record.outcome.as_str())),
            (Var::Fault, _) => f(Value::Safe(&record.outcome.fault().as_str())),
        }
    }
}

impl Var {
    /// What the client told of itself before its data.
    fn of_preface<R>(self, record: &ClosedRecord, f: impl FnOnce(Value<'_>) -> R) -> R {
        let Some(preface) = record.preface.as_deref() else { return f(Value::None) };
        match self {
            Var::Via => f(preface.via.as_ref().map_or(Value::None, |via| Value::Safe(via))),
            Var::Destination => f(preface.destination.as_ref().map_or(Value::None, |to| Value::Safe(to))),
            Var::Sni => f(preface.sni.as_ref().map_or(Value::None, |name| Value::Text(name))),
            Var::Alpn => f(preface.alpn.as_ref().map_or(Value::None, |names| Value::Word(names))),
            Var::ProxyTlvs if !preface.proxy_tlvs.is_empty() => {
                f(Value::Word(&Tlvs::new(&preface.proxy_tlvs)))
            }
            _ => f(Value::None),
        }
    }
}

/// When a record was closed.
pub(super) fn end(record: &ClosedRecord) -> SystemTime {
    record.started.checked_add(record.duration).unwrap_or(record.started)
}

/// Seconds with six digits behind the point: a connection on one machine is made in tens of microseconds.
fn push_seconds(line: &mut Vec<u8>, duration: Duration) {
    push_number(line, duration.as_secs());
    line.push(b'.');
    push_digits(line, duration.subsec_micros().into(), 6);
}

/// Appends a value to a line for people: `-` for what there was not.
pub(super) fn push_plain(line: &mut Vec<u8>, value: Value<'_>) {
    match value {
        Value::None => line.push(b'-'),
        Value::Number(n) => push_number(line, n),
        Value::Seconds(duration) => push_seconds(line, duration),
        Value::Time(at) => clock::push_rfc3339(line, at),
        Value::Safe(text) => push(line, format_args!("{text}")),
        Value::Text(text) => push_escaped(line, Context::Plain, text),
        Value::Word(text) => push_escaped(line, Context::Word, text),
    }
}

/// Appends a value to a line of JSON.
pub(super) fn push_json_value(line: &mut Vec<u8>, value: Value<'_>) {
    match value {
        Value::None => line.extend_from_slice(b"null"),
        Value::Number(n) => push_number(line, n),
        Value::Seconds(duration) => push_seconds(line, duration),
        Value::Time(at) => {
            line.push(b'"');
            clock::push_rfc3339(line, at);
            line.push(b'"');
        }
        Value::Safe(text) => {
            line.push(b'"');
            push(line, format_args!("{text}"));
            line.push(b'"');
        }
        Value::Text(text) | Value::Word(text) => push_json(line, text),
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use wmproxy_net::addr::Address;
    use wmproxy_net::record::{Outcome, Preface};

    use super::*;
    use crate::config::plan::LogFile;
    use crate::observe::scratch::Scratch;
    use crate::observe::template::{VARIABLES, compile};

    fn record() -> ClosedRecord {
        ClosedRecord {
            protocol: Protocol::Udp,
            listener: "dns".into(),
            client: Some("[::1]:4242".parse().unwrap()),
            preface: Some(Box::new(Preface {
                via: Some("10.0.0.1:99".parse().unwrap()),
                destination: Some("[::2]:443".parse().unwrap()),
                proxy_tlvs: [2, 0, 3, b'a', b'.', b'b'].into(),
                sni: Some("x.example".into()),
                alpn: Some("h2".into()),
            })),
            forwarded: None,
            local: Address::Inet("127.0.0.1:53".parse().unwrap()),
            group: Some("up".into()),
            peer: Some(Address::Inet("10.0.0.5:53".parse().unwrap())),
            started: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            connect_time: Some(Duration::from_micros(42)),
            duration: Duration::from_millis(12),
            bytes_in: 1,
            bytes_out: 2,
            datagrams_in: 3,
            datagrams_out: 4,
            outcome: Outcome::PeerReset,
        }
    }

    /// Of a connection over unix sockets that got nowhere.
    fn bare() -> ClosedRecord {
        ClosedRecord {
            protocol: Protocol::Tcp,
            listener: "we\"ird\n".into(),
            client: None,
            preface: None,
            local: Address::Unix("/run/a\nb".into()),
            group: None,
            peer: None,
            connect_time: None,
            outcome: Outcome::Denied,
            ..record()
        }
    }

    fn line(format: &LineFormat, record: &ClosedRecord) -> String {
        let mut line = Vec::new();
        format.push(&mut line, record);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn a_template_gives_one_line_with_every_value() {
        let text = "{protocol} {listener} {client_addr} {client_ip} {client_port} {via} {destination} {local} {sni} {alpn} {proxy_tlvs} {group} {peer} {bytes_in} \
                    {bytes_out} {datagrams_in} {datagrams_out} {connect_time} {duration} {outcome} {fault}";
        let format = LineFormat::Template(compile(text).unwrap());
        assert_eq!(
            line(&format, &record()),
            "udp dns [::1]:4242 ::1 4242 10.0.0.1:99 [::2]:443 127.0.0.1:53 x.example h2 authority=a.b up 10.0.0.5:53 1 2 3 4 0.000042 0.012000 peer_reset upstream\n"
        );
        assert_eq!(
            line(&format, &bare()),
            "tcp we\"ird\\n - - - - - unix:/run/a\\nb - - - - - 1 2 - - - 0.012000 denied client\n"
        );
    }

    #[test]
    fn json_has_every_variable_and_parses() {
        let parse = |record: &ClosedRecord| -> serde_json::Value {
            serde_json::from_str(&line(&LineFormat::json(), record)).unwrap()
        };
        let full = parse(&record());
        let keys: Vec<_> = full.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, VARIABLES);
        assert_eq!(full["client_port"], 4242);
        assert_eq!(full["duration"], 0.012);
        assert_eq!(full["peer"], "10.0.0.5:53");
        let time: jiff::Timestamp = full["time"].as_str().unwrap().parse().unwrap();
        assert_eq!(time.as_millisecond(), 1_700_000_000_012);

        let bare = parse(&bare());
        assert_eq!(bare["listener"], "we\"ird\n");
        assert_eq!(bare["local"], "unix:/run/a\nb");
        for missing in [
            "client_addr",
            "client_ip",
            "client_port",
            "via",
            "destination",
            "sni",
            "alpn",
            "proxy_tlvs",
            "group",
            "peer",
            "connect_time",
            "datagrams_in",
        ] {
            assert!(bare[missing].is_null(), "{missing}");
        }
    }

    #[test]
    fn lines_reach_the_file() {
        let dir = Scratch::new("access");
        let sinks = Sinks::new();
        let plan = AccessLogPlan {
            file: LogFile::Path(dir.path("access.log")),
            format: AccessFormat::Template("{peer} {outcome}".into()),
        };
        let log = AccessFile::open(&sinks, &plan).unwrap();
        log.write(&record());
        log.write(&bare());
        assert!(sinks.flush(Duration::from_secs(10)));
        assert_eq!(
            std::fs::read_to_string(dir.path("access.log")).unwrap(),
            "10.0.0.5:53 peer_reset\n- denied\n"
        );
    }
}
