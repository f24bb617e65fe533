//! Another path for the endpoint than the client asked for.

use std::borrow::Cow;

use regex::bytes::{Captures, Regex, RegexBuilder};
use wmproxy_wire::head::Request;

use crate::facts::{ConnFacts, Facts, Scene};
use crate::options::{REGEX_SIZE, RewriteSpec, regex_reason};
use crate::vars::{Piece, Template, TemplateError, Var, with_scratch};

/// What is done to a path, in this order.
#[derive(Debug)]
pub struct Rewrite {
    strip: Option<Box<str>>,
    add: Option<Box<str>>,
    replace: Option<(Regex, Replacement)>,
}

/// Why a rewrite can't be made of its options.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RewriteError {
    /// The regular expression does not compile.
    #[error("no regular expression: {0}")]
    Regex(String),
    /// The replacement does not compile.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The replacement names parentheses that are not there.
    #[error("the replacement has ${0}, and the regular expression {1} pairs of parentheses")]
    NoGroup(usize, usize),
}

/// A rewritten path would lead out of where it was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadPath;

/// What stands for what a regular expression finds.
#[derive(Debug)]
struct Replacement {
    pieces: Box<[Part]>,
    /// Whether it brings its own query.
    has_query: bool,
}

#[derive(Debug)]
enum Part {
    /// As it is.
    Text(Box<[u8]>),
    /// What these parentheses hold.
    Group(usize),
    /// What a request says.
    Var(Var),
}

impl Rewrite {
    /// A rewrite; none where the options ask for none.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn new(spec: &RewriteSpec) -> Result<Option<Rewrite>, RewriteError> {
        let replace = match &spec.rewrite {
            Some((regex, with)) => {
                let compiled = RegexBuilder::new(regex).size_limit(REGEX_SIZE).build();
                let regex = compiled.map_err(|error| RewriteError::Regex(regex_reason(&error)))?;
                let with = Replacement::parse(with, regex.captures_len() - 1)?;
                Some((regex, with))
            }
            None => None,
        };
        let rewrite = Rewrite { strip: spec.strip_prefix.clone(), add: spec.add_prefix.clone(), replace };
        let is_any = rewrite.strip.is_some() || rewrite.add.is_some() || rewrite.replace.is_some();
        Ok(is_any.then_some(rewrite))
    }

    /// Whether nothing is left of a path, and nothing put in its place.
    pub(super) fn strips_all(&self, path: &[u8]) -> bool {
        self.add.is_none()
            && self.replace.is_none()
            && self.strip.as_deref().is_some_and(|prefix| prefix.as_bytes() == path)
    }

    /// Adds the target to `out` that the endpoint is asked for instead of `path`, which is in its normal form. The query
    /// of the request follows, unless the replacement has its own. False when there is nothing to change.
    ///
    /// # Errors
    /// What came out has dot segments, which the client must have aimed at.
    pub fn apply(&self, path: &[u8], scene: &Scene<'_>, out: &mut Vec<u8>) -> Result<bool, BadPath> {
        if !path.starts_with(b"/") {
            // `*`, or the authority of a CONNECT.
            return Ok(false);
        }
        let stripped = self.strip.as_deref().and_then(|prefix| strip_prefix(path, prefix.as_bytes()));
        let mut changed = Cow::Borrowed(stripped.unwrap_or(path));
        if let Some(prefix) = &self.add {
            changed = Cow::Owned([prefix.as_bytes(), &*changed].concat());
        }
        let found = self.replace.as_ref().and_then(|(regex, with)| Some((regex.captures(&changed)?, with)));
        if stripped.is_none() && self.add.is_none() && found.is_none() {
            return Ok(false);
        }
        let start = out.len();
        let mut query = request_query(scene);
        match found {
            Some((captures, with)) => {
                with.replace(&changed, &captures, scene, out);
                query = query.filter(|_| !with.has_query);
            }
            None => out.extend_from_slice(&changed),
        }
        if out.get(start) != Some(&b'/') {
            out.insert(start, b'/');
        }
        let path = out[start..].split(|&byte| byte == b'?').next().unwrap_or_default();
        if has_dot_segment(path) {
            return Err(BadPath);
        }
        if let Some(query) = query {
            out.push(b'?');
            out.extend_from_slice(query);
        }
        Ok(true)
    }
}

/// Gives a request the target that is made of a path, by default its own.
///
/// # Errors
/// See [`Rewrite::apply`].
pub(super) fn retarget(
    rewrite: Option<&Rewrite>,
    path: Option<&[u8]>,
    conn: &ConnFacts,
    request: &mut Request,
    facts: &Facts,
) -> Result<(), BadPath> {
    with_scratch(|target| {
        let scene = Scene { conn, request, response: None, facts };
        let from = path.unwrap_or(&facts.path);
        let is_changed = match rewrite {
            Some(rewrite) => rewrite.apply(from, &scene, target)?,
            None => false,
        };
        if !is_changed {
            let Some(path) = path else { return Ok(()) };
            if !path.starts_with(b"/") || has_dot_segment(path) {
                return Err(BadPath);
            }
            path.iter().for_each(|&byte| push_encoded(byte, false, target));
            if let Some(query) = request_query(&scene) {
                target.push(b'?');
                target.extend_from_slice(query);
            }
        }
        request.rewrite_target(target);
        Ok(())
    })
}

/// What follows a prefix of whole segments.
fn strip_prefix<'a>(path: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let rest = path.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with(b"/")).then_some(rest)
}

fn request_query<'a>(scene: &Scene<'a>) -> Option<&'a [u8]> {
    let target = scene.request.asked_target();
    let mark = target.iter().position(|&byte| byte == b'?')?;
    Some(&target[mark + 1..])
}

/// Whether a segment is `.` or `..`, encoded or not: what captures of a path are put together to may be one, as with
/// `"^/static(.*)"`, `"/files/$1"` and the path `/static../secret`.
fn has_dot_segment(path: &[u8]) -> bool {
    path.split(|&byte| byte == b'/').any(|segment| {
        let mut rest = segment;
        let mut dots = 0;
        while !rest.is_empty() {
            rest = match rest {
                [b'.', rest @ ..] | [b'%', b'2', b'e' | b'E', rest @ ..] => rest,
                _ => return false,
            };
            dots += 1;
        }
        matches!(dots, 1 | 2)
    })
}

impl Replacement {
    fn parse(text: &str, groups: usize) -> Result<Replacement, RewriteError> {
        let template = Template::parse(text)?;
        let mut pieces = Vec::new();
        let mut has_query = false;
        for piece in template.pieces() {
            match piece {
                Piece::Var(var) => pieces.push(Part::Var(var.clone())),
                Piece::Text(text) => {
                    has_query |= text.contains('?');
                    split_groups(text, groups, &mut pieces)?;
                }
            }
        }
        Ok(Replacement { pieces: pieces.into(), has_query })
    }

    /// Puts the replacement where the match is, and leaves the rest of the path.
    fn replace(&self, path: &[u8], captures: &Captures<'_>, scene: &Scene<'_>, out: &mut Vec<u8>) {
        let Some(whole) = captures.get(0) else { return };
        out.extend_from_slice(&path[..whole.start()]);
        let mut is_query = false;
        for piece in &self.pieces {
            match piece {
                Part::Text(text) => {
                    is_query |= text.contains(&b'?');
                    out.extend_from_slice(text);
                }
                Part::Group(index) => {
                    let group = captures.get(*index).map_or(&[][..], |group| group.as_bytes());
                    out.extend_from_slice(group);
                }
                Part::Var(var) => with_scratch(|value| {
                    var.value(scene).push(value);
                    value.iter().for_each(|&byte| push_encoded(byte, is_query, out));
                }),
            }
        }
        out.extend_from_slice(&path[whole.end()..]);
    }
}

/// Takes a text apart at `$1` to `$9`; `$$` is a dollar.
fn split_groups(text: &str, groups: usize, pieces: &mut Vec<Part>) -> Result<(), RewriteError> {
    let mut plain = Vec::new();
    let mut bytes = text.bytes().peekable();
    let mut is_query = false;
    while let Some(byte) = bytes.next() {
        match (byte, bytes.peek()) {
            (b'$', Some(digit @ b'1'..=b'9')) => {
                let index = usize::from(digit - b'0');
                if index > groups {
                    return Err(RewriteError::NoGroup(index, groups));
                }
                bytes.next();
                if !plain.is_empty() {
                    pieces.push(Part::Text(std::mem::take(&mut plain).into()));
                }
                pieces.push(Part::Group(index));
            }
            (b'$', Some(b'$')) => {
                bytes.next();
                plain.push(b'$');
            }
            (b'?', _) if !is_query => {
                is_query = true;
                plain.push(b'?');
            }
            _ => push_encoded(byte, is_query, &mut plain),
        }
    }
    if !plain.is_empty() {
        pieces.push(Part::Text(plain.into()));
    }
    Ok(())
}

/// Adds a byte of a path or a query, encoded if it may not stand there (RFC 3986 section 3.3 and 3.4).
fn push_encoded(byte: u8, is_query: bool, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let is_plain = byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%/".contains(&byte);
    if is_plain || (is_query && byte == b'?') {
        out.push(byte);
    } else {
        out.extend([b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{conn, get};

    fn spec(strip: Option<&str>, add: Option<&str>, rewrite: Option<(&str, &str)>) -> RewriteSpec {
        RewriteSpec {
            strip_prefix: strip.map(Into::into),
            add_prefix: add.map(Into::into),
            rewrite: rewrite.map(|(regex, with)| (regex.into(), with.into())),
        }
    }

    /// The target that comes out; none when the client's stays.
    fn apply(spec: &RewriteSpec, target: &str) -> Result<Option<String>, BadPath> {
        let ((request, facts), conn) = (get(target), conn());
        let scene = Scene { conn: &conn, request: &request, response: None, facts: &facts };
        let mut out = Vec::new();
        let rewrite = Rewrite::new(spec).unwrap().unwrap();
        let is_changed = rewrite.apply(&facts.path, &scene, &mut out)?;
        Ok(is_changed.then(|| String::from_utf8(out).unwrap()))
    }

    #[test]
    fn prefixes_end_on_borders_of_segments() {
        let strip = spec(Some("/api"), None, None);
        for (target, expected) in [
            ("/api", Some("/")),
            ("/api/", Some("/")),
            ("/api?x=1", Some("/?x=1")),
            ("/api/x/y?z", Some("/x/y?z")),
            ("/apix", None),
            ("/v1/api", None),
            ("*", None),
        ] {
            assert_eq!(apply(&strip, target).unwrap().as_deref(), expected, "{target}");
        }
        let both = spec(Some("/api"), Some("/v2"), None);
        assert_eq!(apply(&both, "/api/x").unwrap().as_deref(), Some("/v2/x"));
        assert_eq!(apply(&both, "/x?y").unwrap().as_deref(), Some("/v2/x?y"));
    }

    #[test]
    fn what_is_found_is_replaced() {
        for (regex, with, target, expected) in [
            ("^/old/(.*)$", "/new/$1", "/old/a/b?c=d", Some("/new/a/b?c=d")),
            ("^/old/(.*)$", "/new/$1", "/older", None),
            ("/x/", "/y/", "/a/x/b/x/", Some("/a/y/b/x/")),
            ("^/u/([0-9]+)/(.*)$", "/$2?id=$1", "/u/7/show?a=b", Some("/show?id=7")),
            ("^/u/([0-9]+)$", "/show?id=$1&{query}", "/u/7?a=b&c", Some("/show?id=7&a=b&c")),
            ("^/a$", "b", "/a", Some("/b")),
            ("^/a(x)?$", "/[$1]$$1", "/a", Some("/%5B%5D$1")),
            ("^", "/{hostname}", "/p", Some("/example.com/p")),
            ("^/d/(.*)$", "/{query:to}/$1", "/d/a?to=x y\"#", Some("/x%20y%22%23/a?to=x y\"#")),
        ] {
            assert_eq!(
                apply(&spec(None, None, Some((regex, with))), target).unwrap().as_deref(),
                expected,
                "{with}"
            );
        }
    }

    #[test]
    fn no_capture_climbs_out() {
        for (regex, with, target) in [
            ("^/static(.*)", "/files/$1", "/static../secret"),
            ("^/static(.*)", "/files/$1", "/static."),
            ("^/a/(.*)", "/{query:dir}/$1", "/a/b?dir=%2e%2E"),
            ("^/a/(.*)", "/{query:dir}", "/a/b?dir=x/../../y"),
        ] {
            assert_eq!(apply(&spec(None, None, Some((regex, with))), target), Err(BadPath), "{target}");
        }
        let harmless = spec(None, None, Some(("^/static(.*)", "/files/$1")));
        assert_eq!(apply(&harmless, "/static.../a").unwrap().as_deref(), Some("/files/.../a"));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let error = |regex, with| Rewrite::new(&spec(None, None, Some((regex, with)))).unwrap_err();
        assert!(matches!(error("(", "/"), RewriteError::Regex(_)));
        assert!(matches!(error("a{1000}{1000}", "/"), RewriteError::Regex(_)));
        assert_eq!(error("^/(a)", "/$2"), RewriteError::NoGroup(2, 1));
        assert!(matches!(error("a", "{nobody}"), RewriteError::Template(_)));
        assert!(Rewrite::new(&spec(None, None, None)).unwrap().is_none());
    }
}
