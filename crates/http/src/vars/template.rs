//! A text with variables in braces, taken apart once.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use wmproxy_wire::head::is_value;

use super::{Plain, Var};
use crate::facts::Scene;

/// A text with variables in braces: `{name}` is a variable, `{{` and `}}` are braces.
#[derive(Clone)]
pub struct Template {
    text: Box<str>,
    pieces: Box<[Piece]>,
}

/// A part of a [`Template`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// As it is.
    Text(Box<str>),
    /// What a request fills in.
    Var(Var),
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Piece::Text(text) => f.write_str(text),
            Piece::Var(var) => write!(f, "{{{var}}}"),
        }
    }
}

/// What is wrong with a template's text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A brace was opened and not closed, or the other way round.
    #[error("a `{0}` without its counterpart: a variable is written `{{name}}`, a brace `{0}{0}`")]
    Brace(char),
    /// No variable has this name.
    #[error("unknown variable `{{{name}}}`{}", hint(near.as_deref()))]
    Unknown {
        /// What was written.
        name: String,
        /// What was perhaps meant.
        near: Option<String>,
    },
    /// What stands behind the colon can't be a name.
    #[error("`{{{0}}}` has no name behind the colon; it is written as in `{{header:User-Agent}}`")]
    BadName(String),
}

/// What would be right.
fn hint(near: Option<&str>) -> String {
    match near {
        Some(near) => format!(": did you mean `{{{near}}}`?"),
        None => {
            let names: Vec<_> = Plain::ALL.iter().map(|plain| plain.as_str()).collect();
            format!("; there are {}, header:NAME, response:NAME, cookie:NAME, query:NAME", names.join(", "))
        }
    }
}

thread_local! {
    /// Where texts are put together that go elsewhere at once.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What a scratch buffer may keep between uses: more than a head may usually have.
const KEPT: usize = 64 << 10;

/// Hands an empty buffer to `f` that keeps its memory for the next one.
pub(crate) fn with_scratch<R>(f: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    // Taken out, for `f` may come back here.
    let mut scratch = SCRATCH.take();
    scratch.clear();
    let result = f(&mut scratch);
    if scratch.capacity() <= KEPT {
        SCRATCH.set(scratch);
    }
    result
}

impl Template {
    /// Takes a text apart.
    ///
    /// # Errors
    /// What is wrong and what would be right, for the one who wrote it.
    pub fn parse(text: &str) -> Result<Template, TemplateError> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let brace = if rest.as_bytes()[at] == b'{' { '{' } else { '}' };
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                plain.push(brace);
                rest = after;
                continue;
            }
            let (name, after) = match brace {
                '{' => rest.split_once('}').ok_or(TemplateError::Brace('{'))?,
                _ => return Err(TemplateError::Brace('}')),
            };
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain).into()));
            }
            pieces.push(Piece::Var(Var::parse(name)?));
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain.into()));
        }
        Ok(Template { text: text.into(), pieces: pieces.into() })
    }

    /// One of parts that need no text.
    pub(crate) fn of(pieces: Box<[Piece]>) -> Template {
        let text = pieces.iter().map(ToString::to_string).collect::<String>();
        Template { text: text.into(), pieces }
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its parts.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The variables in it, in order.
    pub fn vars(&self) -> impl Iterator<Item = &Var> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Var(var) => Some(var),
            Piece::Text(_) => None,
        })
    }

    /// Whether a variable is in it.
    pub fn has(&self, plain: Plain) -> bool {
        self.vars().any(|var| *var == Var::Plain(plain))
    }

    /// Adds the text to `out`; nothing for what is not known. The values are what clients sent, byte for byte.
    pub fn render(&self, scene: &Scene<'_>, out: &mut Vec<u8>) {
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Var(var) => var.value(scene).push(out),
            }
        }
    }

    /// The same as the value of a field: without control bytes, nor whitespace around it.
    pub fn render_value(&self, scene: &Scene<'_>, out: &mut Vec<u8>) {
        let start = out.len();
        self.render(scene, out);
        clean_value(out, start);
    }

    /// The same as a URI reference: what it may not hold is percent-encoded (RFC 3986 section 2), and one that begins with
    /// a path does not come to begin with a host.
    pub fn render_uri(&self, scene: &Scene<'_>, out: &mut Vec<u8>) {
        with_scratch(|raw| {
            self.render(scene, raw);
            let mut raw = &raw[..];
            if raw.first() == Some(&b'/') {
                // To a browser `//host` and `/\host` are another site.
                let slashes = raw.iter().take_while(|byte| matches!(byte, b'/' | b'\\')).count();
                out.push(b'/');
                raw = &raw[slashes..];
            }
            raw.iter().for_each(|&byte| push_uri_byte(byte, out));
        });
    }
}

/// Adds a byte of a reference, encoded if it may not stand there. A `%` stays, for it was sent so.
fn push_uri_byte(byte: u8, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    if byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&byte) {
        out.push(byte);
    } else {
        out.extend([b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
    }
}

/// Makes what follows `start` a valid value of a field.
fn clean_value(out: &mut Vec<u8>, start: usize) {
    if is_value(&out[start..]) {
        return;
    }
    let mut kept = start;
    for at in start..out.len() {
        let byte = out[at];
        if byte == b'\t' || (byte >= b' ' && byte != 0x7f) {
            out[kept] = byte;
            kept += 1;
        }
    }
    out.truncate(kept);
    let end = start + out[start..].trim_ascii_end().len();
    out.truncate(end);
    let blank = out.len() - start - out[start..].trim_ascii_start().len();
    out.drain(start..start + blank);
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

impl PartialEq for Template {
    fn eq(&self, other: &Template) -> bool {
        self.text == other.text
    }
}

impl Eq for Template {}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Template, TemplateError> {
        Template::parse(text)
    }
}

impl Serialize for Template {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Template, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for Template {
    fn schema_name() -> Cow<'static, str> {
        "Template".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "a text with variables in braces, as in \"{client_ip}\"",
        })
    }
}
