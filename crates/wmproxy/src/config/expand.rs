//! Environment variables in texts: `${NAME}`, `${NAME:-default}`, and `$${` for a plain `${`.

use super::problem::Found;
use super::secrets::is_secret_name;
use super::tree::{Node, Source, Span, Value};

/// Said of a secret in place of a message that would quote it.
const NO_NAME: &str = "a `${` here begins no name of an environment variable";

/// Looks a variable up.
pub(super) type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What is wrong with a text's variables: the part of the text that is meant, and why.
struct Wrong<'a> {
    part: &'a str,
    message: String,
    hint: String,
    /// It is a variable, but has no value.
    unset: bool,
}

/// Expands the texts of one file.
pub(super) struct Expander<'a> {
    pub(super) source: &'a Source,
    pub(super) env: Env<'a>,
    pub(super) found: Vec<Found>,
    /// The values that went into secrets, or came from a variable that sounds like one.
    pub(super) hidden: Vec<String>,
}

impl Expander<'_> {
    /// Expands every text of a tree in place; one that can't be is dropped. `secret` is whether it is in the value of
    /// a secret's key.
    pub(super) fn expand(&mut self, node: &mut Node, secret: bool) {
        match &mut node.value {
            Value::Text(text) if text.contains("${") => {
                let hidden = &mut self.hidden;
                let env = |name: &str| {
                    let value = (self.env)(name);
                    if secret || is_secret_name(name) {
                        hidden.extend(value.clone());
                    }
                    value
                };
                match expand_text(text, env) {
                    Ok(expanded) => {
                        *text = expanded;
                        node.expanded = true;
                    }
                    Err(wrong) => {
                        let span = narrow(node.span, self.source, wrong.part);
                        // What is no variable after all may be a part of the secret.
                        let message = if secret && !wrong.unset { NO_NAME.into() } else { wrong.message };
                        self.found.push(Found::error(span, message).hint(wrong.hint));
                        node.dropped = true;
                    }
                }
            }
            Value::List(list) => list.iter_mut().for_each(|node| self.expand(node, secret)),
            Value::Table(table) => {
                for (key, entry) in table {
                    self.expand(&mut entry.node, secret || is_secret_name(key));
                }
            }
            _ => {}
        }
    }
}

/// The part of a text alone, unless escapes make it look different in the file.
fn narrow(span: Span, source: &Source, part: &str) -> Span {
    let raw = source.text.get(span.start..span.end);
    match raw.and_then(|raw| raw.find(part)) {
        Some(at) => Span::new(span.file, span.start + at..span.start + at + part.len()),
        None => span,
    }
}

fn expand_text<'a>(text: &'a str, mut env: impl FnMut(&str) -> Option<String>) -> Result<String, Wrong<'a>> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, variable) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = &variable[2..];
            continue;
        }
        out.push_str(before);
        let Some(end) = variable.find('}') else {
            return Err(Wrong {
                part: variable,
                message: "`${` without a closing `}`".into(),
                hint: "write `$${` for a plain `${`".into(),
                unset: false,
            });
        };
        out.push_str(&lookup(&variable[..=end], &mut env)?);
        rest = &variable[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

/// The value of `${NAME}` or `${NAME:-default}`.
fn lookup<'a>(variable: &'a str, env: &mut impl FnMut(&str) -> Option<String>) -> Result<String, Wrong<'a>> {
    let inner = &variable[2..variable.len() - 1];
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    let named = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && name.bytes().next().is_some_and(|b| !b.is_ascii_digit());
    if !named {
        return Err(Wrong {
            part: variable,
            message: format!("`{name}` is no name of an environment variable"),
            hint: "write `${NAME}` or `${NAME:-default}`, and `$${` for a plain `${`".into(),
            unset: false,
        });
    }
    // As in the shell, an empty variable counts as unset where there is a default.
    let value = env(name).filter(|value| default.is_none() || !value.is_empty());
    value.or_else(|| default.map(str::to_owned)).ok_or_else(|| Wrong {
        part: variable,
        message: format!("the environment variable `{name}` is not set"),
        hint: format!("set it, or give a default: `${{{name}:-default}}`"),
        unset: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> Result<String, String> {
        let env = |name: &str| match name {
            "HOST" => Some("db.example".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        expand_text(text, env).map_err(|wrong| wrong.message)
    }

    #[test]
    fn variables_defaults_and_escapes() {
        for (text, value) in [
            ("${HOST}:5432", "db.example:5432"),
            ("${HOST:-x}-${NO:-y z}", "db.example-y z"),
            ("${EMPTY}|${EMPTY:-d}|${NO:-}", "|d|"),
            ("$${HOST} $HOST $ {", "${HOST} $HOST $ {"),
            ("${NO:-a:-b}", "a:-b"),
        ] {
            assert_eq!(expanded(text).unwrap(), value, "{text}");
        }
        for (text, message) in [
            ("a ${NO} b", "the environment variable `NO` is not set"),
            ("${HOST", "`${` without a closing `}`"),
            ("${}", "`` is no name of an environment variable"),
            ("${1A}", "`1A` is no name of an environment variable"),
        ] {
            assert_eq!(expanded(text).unwrap_err(), message, "{text}");
        }
    }
}
