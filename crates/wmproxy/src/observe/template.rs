//! The template of an access log line: text with variables in braces, taken apart once.

use std::fmt;

/// A thing known of a closed record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Var {
    Time,
    Listener,
    Protocol,
    ClientAddr,
    ClientIp,
    ClientPort,
    Via,
    Destination,
    Local,
    Sni,
    Alpn,
    ProxyTlvs,
    Group,
    Peer,
    BytesIn,
    BytesOut,
    DatagramsIn,
    DatagramsOut,
    ConnectTime,
    Duration,
    Outcome,
    Fault,
}

/// Each variable and its name, in the order in which a JSON line has them.
pub(super) const VARS: [(Var, &str); 22] = [
    (Var::Time, "time"),
    (Var::Listener, "listener"),
    (Var::Protocol, "protocol"),
    (Var::ClientAddr, "client_addr"),
    (Var::ClientIp, "client_ip"),
    (Var::ClientPort, "client_port"),
    (Var::Via, "via"),
    (Var::Destination, "destination"),
    (Var::Local, "local"),
    (Var::Sni, "sni"),
    (Var::Alpn, "alpn"),
    (Var::ProxyTlvs, "proxy_tlvs"),
    (Var::Group, "group"),
    (Var::Peer, "peer"),
    (Var::BytesIn, "bytes_in"),
    (Var::BytesOut, "bytes_out"),
    (Var::DatagramsIn, "datagrams_in"),
    (Var::DatagramsOut, "datagrams_out"),
    (Var::ConnectTime, "connect_time"),
    (Var::Duration, "duration"),
    (Var::Outcome, "outcome"),
    (Var::Fault, "fault"),
];

/// The names of all variables.
#[cfg(test)]
pub(crate) const VARIABLES: &[&str] = &{
    let mut names = [""; VARS.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = VARS[i].1;
        i += 1;
    }
    names
};

/// The line of the embedded default: short enough to be read as it scrolls by.
pub(crate) const READABLE: &str = "{time} {protocol} {listener} {client_addr} -> {peer} {outcome} \
                                   {duration}s in {bytes_in} out {bytes_out}";

/// A part of a line, with variables of some kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Segment<V> {
    Text(Box<str>),
    Var(V),
}

/// A compiled template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template<V = Var> {
    pub(super) segments: Box<[Segment<V>]>,
}

/// What is wrong with a template's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TemplateError {
    /// A brace was opened and not closed, or the other way round.
    Brace(char),
    /// No variable has this name; perhaps another was meant, or one of those that there are.
    Unknown(String, Option<&'static str>, String),
    /// A line without any variable says nothing.
    Constant,
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TemplateError::Brace(c) => {
                write!(
                    f,
                    "a `{c}` without its counterpart: a variable is written `{{name}}`, a brace `{c}{c}`"
                )
            }
            TemplateError::Unknown(name, Some(near), _) => {
                write!(f, "unknown variable `{{{name}}}`: did you mean `{{{near}}}`?")
            }
            TemplateError::Unknown(name, None, all) => {
                write!(f, "unknown variable `{{{name}}}`; there are {all}")
            }
            TemplateError::Constant => {
                write!(f, "no variable in it; try `{READABLE}`")
            }
        }
    }
}

impl std::error::Error for TemplateError {}

/// Takes the text of a connection's template apart: `{name}` is a variable, `{{` and `}}` are braces.
///
/// # Errors
/// What is wrong and what would be right, for the one who wrote it.
pub(crate) fn compile(text: &str) -> Result<Template, TemplateError> {
    compile_with(text, &VARS)
}

/// The same with the variables of `table`.
pub(super) fn compile_with<V: Copy>(
    text: &str,
    table: &[(V, &'static str)],
) -> Result<Template<V>, TemplateError> {
    let mut segments = Vec::new();
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
            segments.push(Segment::Text(std::mem::take(&mut plain).into()));
        }
        segments.push(Segment::Var(variable(name, table)?));
        rest = after;
    }
    plain.push_str(rest);
    if segments.is_empty() {
        return Err(TemplateError::Constant);
    }
    if !plain.is_empty() {
        segments.push(Segment::Text(plain.into()));
    }
    Ok(Template { segments: segments.into() })
}

fn variable<V: Copy>(name: &str, table: &[(V, &'static str)]) -> Result<V, TemplateError> {
    if let Some((var, _)) = table.iter().find(|(_, known)| *known == name) {
        return Ok(*var);
    }
    let distance = |known: &str| strsim::damerau_levenshtein(known, name);
    // Two slips of the finger; with more, any short name would resemble any other.
    let names = || table.iter().map(|(_, known)| *known);
    let near = names().min_by_key(|known| distance(known)).filter(|known| distance(known) <= 2);
    Err(TemplateError::Unknown(name.to_owned(), near, names().collect::<Vec<_>>().join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_text_and_variables() {
        let template = compile("{{{peer}}} {outcome}!").unwrap();
        let text = |s: &str| Segment::Text(s.into());
        assert_eq!(
            *template.segments,
            [text("{"), Segment::Var(Var::Peer), text("} "), Segment::Var(Var::Outcome), text("!")]
        );
        assert!(compile(READABLE).is_ok());
        for name in VARIABLES {
            assert!(compile(&format!("{{{name}}}")).is_ok(), "{name}");
        }
    }

    #[test]
    fn a_bad_template_says_what_would_be_right() {
        for (text, expected) in [
            ("{peer", TemplateError::Brace('{')),
            ("peer}", TemplateError::Brace('}')),
            ("{byte_in}", TemplateError::Unknown("byte_in".into(), Some("bytes_in"), VARIABLES.join(", "))),
            ("{}", TemplateError::Unknown(String::new(), None, VARIABLES.join(", "))),
            ("{user_agent}", TemplateError::Unknown("user_agent".into(), None, VARIABLES.join(", "))),
            ("no variable", TemplateError::Constant),
            ("", TemplateError::Constant),
        ] {
            assert_eq!(compile(text).unwrap_err(), expected, "{text}");
        }
        assert!(compile("{xyz_xyz}").unwrap_err().to_string().contains("client_addr"));
    }
}
