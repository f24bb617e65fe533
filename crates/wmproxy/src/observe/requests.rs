//! Access logs of HTTP: one line for each request, by a template, as JSON, or as web servers have always written it.

use std::cell::RefCell;

use anyhow::Context as _;
use wmproxy_http::RequestLog;
use wmproxy_http::facts::Scene;
use wmproxy_http::vars::{Piece, Plain, Template, Value, Var};

use super::clock;
use super::escape::{Context, push, push_bytes, push_digits, push_number};
use super::sink::{Sink, Target};
use super::sinks::Sinks;
use crate::config::plan::{AccessFormat, AccessLogPlan};

/// An access log of requests over a sink.
#[derive(Debug)]
pub(crate) struct RequestFile {
    sink: Sink,
    format: LineFormat,
}

/// How a line is written.
#[derive(Debug)]
enum LineFormat {
    /// An object; null for what there was not. Each variable comes with what stands before it.
    Json(Vec<(Box<[u8]>, Var)>),
    /// The combined format of Apache and nginx; `-` for what there was not.
    Combined { referer: Var, agent: Var },
    /// A template; `-` for what there was not.
    Template(Vec<Part>),
}

/// A part of a template.
#[derive(Debug)]
enum Part {
    Text(Box<str>),
    /// Between quotes of the template blanks stay. Elsewhere they would make two words of one.
    Var(Var, Context),
}

/// The line of the embedded default: short enough to be read as it scrolls by.
pub(crate) const READABLE: &str = "{time} http {listener} {client_addr} {method} {uri} -> {route} {peer} {status} {duration}s out {bytes_out}";

/// Fields of the request that a line of JSON has as well.
const JSON_FIELDS: [(&str, &str); 2] = [("referer", "header:Referer"), ("user_agent", "header:User-Agent")];

/// What only a forward proxy knows of a request. Its log is another.
const FORWARD: [Plain; 3] = [Plain::Destination, Plain::Way, Plain::Kind];

thread_local! {
    /// The line that a worker is writing, and a value on its way there; their memory serves for the next one.
    static LINE: RefCell<(Vec<u8>, Vec<u8>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

impl RequestFile {
    /// Opens what a plan names; logs of several listeners may name the same file.
    ///
    /// # Errors
    /// A file that can't be opened, or a template that does not compile, which a checked plan has not.
    pub(crate) fn open(sinks: &Sinks, plan: &AccessLogPlan) -> anyhow::Result<Self> {
        let format = match &plan.format {
            AccessFormat::Json => LineFormat::json()?,
            AccessFormat::Combined => LineFormat::Combined {
                referer: Var::parse("header:Referer")?,
                agent: Var::parse("header:User-Agent")?,
            },
            AccessFormat::Template(text) => LineFormat::Template(parts(&Template::parse(text)?)),
        };
        let target = Target::from(&plan.file);
        let sink = sinks.open(&target).with_context(|| format!("can't open the access log {target}"))?;
        Ok(RequestFile { sink, format })
    }
}

impl RequestLog for RequestFile {
    fn write(&self, scene: &Scene<'_>) {
        LINE.with_borrow_mut(|(line, value)| {
            line.clear();
            self.format.push(line, value, scene);
            self.sink.write(line);
        });
    }
}

impl LineFormat {
    fn json() -> anyhow::Result<LineFormat> {
        let plain = Plain::ALL
            .iter()
            .filter(|var| !FORWARD.contains(var))
            .map(|var| Ok((var.as_str(), Var::Plain(*var))));
        let fields = JSON_FIELDS.iter().map(|(name, var)| Ok((*name, Var::parse(var)?)));
        let key = |i, name| format!("{}\"{name}\":", if i == 0 { '{' } else { ',' }).into_bytes().into();
        let keys = plain.chain(fields).enumerate();
        let list =
            keys.map(|(i, of)| of.map(|(name, var)| (key(i, name), var))).collect::<anyhow::Result<_>>()?;
        Ok(LineFormat::Json(list))
    }

    /// `value` is where a value is put together whose parts lie apart.
    fn push(&self, line: &mut Vec<u8>, value: &mut Vec<u8>, scene: &Scene<'_>) {
        match self {
            LineFormat::Json(fields) => {
                for (key, var) in fields {
                    line.extend_from_slice(key);
                    push_json(line, value, logged(var, scene));
                }
                line.push(b'}');
            }
            LineFormat::Combined { referer, agent } => push_combined(line, value, scene, [referer, agent]),
            LineFormat::Template(parts) => {
                for part in parts {
                    match part {
                        Part::Text(text) => line.extend_from_slice(text.as_bytes()),
                        Part::Var(var, context) => push_plain(line, value, *context, var.value(scene)),
                    }
                }
            }
        }
        line.push(b'\n');
    }
}

fn parts(template: &Template) -> Vec<Part> {
    let mut quotes = 0;
    let part = |piece: &Piece| match piece {
        Piece::Text(text) => {
            quotes += text.matches('"').count();
            Part::Text(text.clone())
        }
        Piece::Var(var) => {
            Part::Var(var.clone(), if quotes % 2 == 1 { Context::Quoted } else { Context::Word })
        }
    };
    template.pieces().iter().map(part).collect()
}

/// A variable for a line of everything: an id that nobody else asked for is not made for it.
fn logged<'a>(var: &'a Var, scene: &Scene<'a>) -> Value<'a> {
    match var {
        Var::Plain(Plain::RequestId) if scene.facts.request_id.get().is_none() => Value::None,
        var => var.value(scene),
    }
}

/// `192.0.2.1 - alice [22/Nov/2026:15:04:05 +0100] "GET /x HTTP/1.1" 200 34 "https://..." "curl/8.5"`
fn push_combined(line: &mut Vec<u8>, value: &mut Vec<u8>, scene: &Scene<'_>, [referer, agent]: [&Var; 2]) {
    let word = |line: &mut Vec<u8>, value: &mut Vec<u8>, var: Plain| {
        push_plain(line, value, Context::Quoted, var.value(scene));
    };
    word(line, value, Plain::ClientIp);
    line.extend_from_slice(b" - ");
    push_plain(line, value, Context::Word, Var::Plain(Plain::User).value(scene));
    line.extend_from_slice(b" [");
    clock::push_common(line, std::time::SystemTime::now());
    line.extend_from_slice(b"] \"");
    word(line, value, Plain::Method);
    line.push(b' ');
    word(line, value, Plain::Uri);
    line.push(b' ');
    word(line, value, Plain::Version);
    line.extend_from_slice(b"\" ");
    word(line, value, Plain::Status);
    line.push(b' ');
    word(line, value, Plain::BytesOut);
    for field in [referer, agent] {
        line.extend_from_slice(b" \"");
        push_plain(line, value, Context::Quoted, field.value(scene));
        line.push(b'"');
    }
}

/// Seconds with six digits behind the point, as in the lines of connections.
fn push_seconds(line: &mut Vec<u8>, duration: std::time::Duration) {
    push_number(line, duration.as_secs());
    line.push(b'.');
    push_digits(line, duration.subsec_micros().into(), 6);
}

/// Appends a value to a line for people, or in quotes in JSON: `-` for what there was not.
pub(super) fn push_plain(line: &mut Vec<u8>, scratch: &mut Vec<u8>, context: Context, value: Value<'_>) {
    match value {
        Value::None => line.push(b'-'),
        Value::Number(number) => push_number(line, number),
        Value::Seconds(duration) => push_seconds(line, duration),
        Value::Time(at) => clock::push_rfc3339(line, at),
        Value::Ip(ip) => push(line, format_args!("{ip}")),
        Value::Inet(address) => push(line, format_args!("{address}")),
        Value::Text(text) => push_bytes(line, context, text),
        value => {
            scratch.clear();
            value.push(scratch);
            push_bytes(line, context, scratch);
        }
    }
}

/// Appends a value to a line of JSON.
pub(super) fn push_json(line: &mut Vec<u8>, scratch: &mut Vec<u8>, value: Value<'_>) {
    match value {
        Value::None => line.extend_from_slice(b"null"),
        Value::Number(_) | Value::Seconds(_) => push_plain(line, scratch, Context::Json, value),
        value => {
            line.push(b'"');
            push_plain(line, scratch, Context::Json, value);
            line.push(b'"');
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use wmproxy_http::facts::{ConnFacts, Facts};
    use wmproxy_net::addr::Address;
    use wmproxy_wire::head::{Request, Response, Scheme};

    use super::*;

    /// The line of a request with all kinds of things in it.
    fn line(format: &LineFormat) -> String {
        let conn = ConnFacts {
            listener: "web".into(),
            client: Some(([192, 0, 2, 7], 4711).into()),
            local: Address::Inet(([127, 0, 0, 1], 443).into()),
            scheme: Scheme::Https,
            sni: None,
            identity: None,
        };
        let mut request = Request::new();
        request.set_method(b"GET");
        request.set_target(b"/a?b=\"c");
        request.fields.push(b"User-Agent", b"curl \"8\"\xff");
        let response = Response::with_status(200);
        let mut facts = Facts::default();
        facts.begin(&conn);
        facts.host.push_str("example.com");
        facts.status = 200;
        facts.bytes_out = 34;
        facts.user = Some("alice b".into());
        facts.upstream_time = Some(Duration::from_millis(1500));
        let scene = Scene { conn: &conn, request: &request, response: Some(&response), facts: &facts };
        let mut line = Vec::new();
        format.push(&mut line, &mut Vec::new(), &scene);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn the_combined_format_is_the_one_that_tools_read() {
        let [referer, agent] = ["header:Referer", "header:User-Agent"].map(|text| Var::parse(text).unwrap());
        let line = line(&LineFormat::Combined { referer, agent });
        let (before, rest) = line.split_once(" [").unwrap();
        let (_, behind) = rest.split_once("] ").unwrap();
        assert_eq!(before, "192.0.2.7 - alice\\u{20}b");
        assert_eq!(behind, "\"GET /a?b=\\\"c HTTP/1.1\" 200 34 \"-\" \"curl \\\"8\\\"\\xff\"\n");
    }

    #[test]
    fn json_has_every_variable_and_parses() {
        let line = line(&LineFormat::json().unwrap());
        let object: serde_json::Value = serde_json::from_str(&line).unwrap();
        for plain in Plain::ALL {
            let is_there = object.get(plain.as_str()).is_some();
            assert_eq!(is_there, !FORWARD.contains(plain), "{}", plain.as_str());
        }
        assert_eq!((&object["status"], &object["bytes_out"]), (&200.into(), &34.into()));
        assert_eq!(object["upstream_time"], 1.5);
        assert_eq!(object["user_agent"], "curl \"8\"\u{fffd}");
        assert_eq!(
            (&object["referer"], &object["request_id"]),
            (&serde_json::Value::Null, &serde_json::Value::Null)
        );
    }

    #[test]
    fn a_value_of_a_template_is_one_word_or_stays_in_its_quotes() {
        let of = |text: &str| line(&LineFormat::Template(parts(&Template::parse(text).unwrap())));
        assert_eq!(of("{host} {user} {peer}"), "example.com alice\\u{20}b -\n");
        assert_eq!(of("\"{user}\" {header:User-Agent}"), "\"alice b\" curl\\u{20}\\\"8\\\"\\xff\n");
    }
}
