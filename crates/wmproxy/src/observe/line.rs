//! One event of the program log as a line of text or of JSON.

use std::error::Error;
use std::fmt;
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::{Level, Metadata};

use super::clock;
use super::escape::{Context, push, push_escaped, push_json};

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// For people; `colour` where they sit at a terminal.
    Text {
        /// Level and keys stand out by ANSI colours.
        colour: bool,
    },
    /// One object a line.
    Json,
}

/// A field's value.
#[derive(Debug, Clone)]
enum Value {
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(String),
}

/// The fields of an event or a span, in their order.
#[derive(Debug, Clone, Default)]
pub(super) struct Fields(Vec<(&'static str, Value)>);

/// The field that `tracing` puts an event's text into.
const MESSAGE: &str = "message";

impl Fields {
    fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    fn set(&mut self, field: &Field, value: Value) {
        // A span may record a field again; the last word counts.
        match self.0.iter_mut().find(|(known, _)| *known == field.name()) {
            Some((_, old)) => *old = value,
            None => self.0.push((field.name(), value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, Value::Text(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, Value::Text(value.to_owned()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, Value::Bool(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, Value::Unsigned(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, Value::Signed(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, Value::Float(value));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        self.set(field, Value::Text(text));
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Bool(v) => v.fmt(f),
            Value::Unsigned(v) => v.fmt(f),
            Value::Signed(v) => v.fmt(f),
            Value::Float(v) => v.fmt(f),
            Value::Text(v) => v.fmt(f),
        }
    }
}

/// Appends the line of an event at `now`: its own fields, then those of its spans, the innermost first,
/// as far as their names are new.
pub(super) fn push_line(
    line: &mut Vec<u8>,
    style: Style,
    now: SystemTime,
    metadata: &Metadata<'_>,
    event: &Fields,
    spans: &[Fields],
) {
    let mut seen: Vec<&str> = vec![MESSAGE];
    let own = event.0.iter().chain(spans.iter().flat_map(|span| &span.0));
    let fields = own.filter(|(name, _)| {
        let new = !seen.contains(name);
        seen.push(name);
        new
    });
    match style {
        Style::Text { colour } => {
            push_head(line, colour, now, *metadata.level());
            if let Some(message) = event.get(MESSAGE) {
                line.push(b' ');
                push_escaped(line, Context::Plain, message);
            }
            for (name, value) in fields {
                let (dim, end) = if colour { ("\x1b[2m", "\x1b[0m") } else { ("", "") };
                push(line, format_args!(" {dim}{name}={end}"));
                push_text_value(line, value);
            }
        }
        Style::Json => {
            line.extend_from_slice(b"{\"time\":\"");
            clock::push_rfc3339(line, now);
            let level = metadata.level().as_str().to_ascii_lowercase();
            push(line, format_args!("\",\"level\":\"{level}\",\"target\":"));
            push_json(line, metadata.target());
            if let Some(message) = event.get(MESSAGE) {
                line.extend_from_slice(b",\"message\":");
                push_json(line, message);
            }
            for (name, value) in fields {
                line.push(b',');
                push_json(line, name);
                line.push(b':');
                push_json_value(line, value);
            }
            line.push(b'}');
        }
    }
    line.push(b'\n');
}

fn push_head(line: &mut Vec<u8>, colour: bool, now: SystemTime, level: Level) {
    if !colour {
        clock::push_readable(line, now);
        return push(line, format_args!(" {level:<5}"));
    }
    let shade = match level {
        Level::ERROR => "31",
        Level::WARN => "33",
        Level::INFO => "32",
        Level::DEBUG => "34",
        Level::TRACE => "35",
    };
    line.extend_from_slice(b"\x1b[2m");
    clock::push_readable(line, now);
    push(line, format_args!("\x1b[0m \x1b[{shade}m{level:<5}\x1b[0m"));
}

/// Quoted where it would not read as one word.
fn push_text_value(line: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Text(text) if text.is_empty() || text.contains([' ', '"', '=', '\\', '\n', '\t', '\r']) => {
            line.push(b'"');
            push_escaped(line, Context::Quoted, text);
            line.push(b'"');
        }
        value => push_escaped(line, Context::Plain, value),
    }
}

fn push_json_value(line: &mut Vec<u8>, value: &Value) {
    match value {
        // JSON has no word for what is no number.
        Value::Float(v) if !v.is_finite() => line.extend_from_slice(b"null"),
        Value::Text(text) => push_json(line, text),
        number => push(line, format_args!("{number}")),
    }
}
