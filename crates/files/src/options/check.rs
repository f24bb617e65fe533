//! From options to a spec: every value is looked at, and all that is wrong is told at once.

use std::collections::BTreeMap;
use std::path::PathBuf;

use wmproxy_wire::head::{is_token, is_value};

use super::{Cors, FilesOptions, FilesSpec};

/// What is wrong with an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// Where.
    pub place: Place,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// A place in the table of options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A key.
    Key(&'static str),
    /// A key in the table that a key holds.
    Entry(&'static str, String),
    /// An element of the list that a key holds.
    Item(&'static str, usize),
}

impl FilesOptions {
    /// The spec that it comes to, with `root` found by who knows where the config lies. It does not look at the root, nor at
    /// other routes: with nothing said, there are archives.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn spec(&self, root: PathBuf) -> Result<FilesSpec, Vec<Wrong>> {
        let mut wrong = Vec::new();
        let mut say = |place: Place, message: String| wrong.push(Wrong { place, message });
        self.check_names(&mut say);
        self.check_values(&mut say);
        self.check_origins(&mut say);
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let below = |path: &String| Box::from(path.trim_start_matches('/'));
        Ok(FilesSpec {
            root,
            index: self.index.iter().map(|name| name.as_str().into()).collect(),
            browse: self.browse,
            archive: self.archive.unwrap_or(true),
            spa: self.spa.as_ref().map(below),
            precompressed: self.precompressed.clone(),
            hidden: self.hidden,
            follow_symlinks: self.follow_symlinks,
            cache_control: self.cache_control.as_deref().map(Into::into),
            mime: self
                .mime
                .iter()
                .map(|(end, kind)| (end.to_ascii_lowercase().into(), kind.as_str().into()))
                .collect(),
            cors: self.cors.clone(),
            error_pages: self.error_pages.iter().map(|(status, path)| (status.get(), below(path))).collect(),
        })
    }

    /// What names files: `index`, `spa`, `error_pages`.
    fn check_names(&self, say: &mut impl FnMut(Place, String)) {
        for (number, name) in self.index.iter().enumerate() {
            let place = || Place::Item("index", number);
            match not_below(name) {
                Some(why) => say(place(), why),
                None if name.contains('/') => {
                    say(place(), "the name of a file in a directory, without a slash".to_owned());
                }
                None if self.index[..number].contains(name) => {
                    say(place(), "this is in the list already".to_owned());
                }
                None => {}
            }
        }
        if let Some(why) = self.spa.as_ref().and_then(|path| not_below(path)) {
            say(Place::Key("spa"), why);
        }
        for (status, path) in &self.error_pages {
            if let Some(why) = not_below(path) {
                say(Place::Entry("error_pages", status.to_string()), why);
            }
        }
    }

    /// What becomes a field of responses, or decides one.
    fn check_values(&self, say: &mut impl FnMut(Place, String)) {
        for (number, coding) in self.precompressed.iter().enumerate() {
            if self.precompressed[..number].contains(coding) {
                say(Place::Item("precompressed", number), "this is in the list already".to_owned());
            }
        }
        match self.cache_control.as_deref() {
            Some("") => {
                say(Place::Key("cache_control"), "an empty field says nothing; leave it out".to_owned())
            }
            Some(value) if !is_value(value.as_bytes()) => {
                let message = "a field has no control characters in it and no space around it";
                say(Place::Key("cache_control"), message.to_owned());
            }
            _ => {}
        }
        let mut ends = BTreeMap::new();
        for (end, kind) in &self.mime {
            let place = || Place::Entry("mime", end.clone());
            if !end.starts_with('.') {
                say(
                    place(),
                    format!(
                        "the end of names begins with its dot: \".{}\"",
                        end.trim_start_matches(['*', '.'])
                    ),
                );
            } else if end.len() == 1 || end.contains(['/', '\0']) {
                say(place(), "no name of a file ends like this".to_owned());
            } else if ends.insert(end.to_ascii_lowercase(), ()).is_some() {
                say(
                    place(),
                    "this end is here already: whether letters are large makes no difference".to_owned(),
                );
            }
            if !is_media_type(kind) {
                say(place(), "expected a type as \"text/html\" or \"text/html; charset=utf-8\"".to_owned());
            }
        }
    }

    fn check_origins(&self, say: &mut impl FnMut(Place, String)) {
        let Cors::Origins(origins) = &self.cors else { return };
        for (number, origin) in origins.iter().enumerate() {
            if let Some(why) = not_an_origin(origin) {
                say(Place::Item("cors", number), why);
            }
        }
    }
}

/// Why a text is no path of a file below the root, if it is none. A slash may stand in front: it stands for the root.
fn not_below(path: &str) -> Option<String> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let why = match path {
        "" => "this names no file",
        path if path.contains('\0') => "no name of a file has NUL in it",
        path if path.contains('\\') => "names with a backslash are never served",
        path if path.ends_with('/') => "this names a directory; name a file",
        path if path.split('/').any(|part| part == "..") => {
            "this leads out of the root: name a file below it"
        }
        path if path.split('/').any(|part| part.is_empty() || part == ".") => {
            "write the path without `.` and doubled slashes"
        }
        _ => return None,
    };
    Some(why.to_owned())
}

/// Whether it is a type and a subtype, and what follows may stand in a field (RFC 9110 section 8.3.1).
fn is_media_type(text: &str) -> bool {
    let name = text.split(';').next().unwrap_or_default().trim_end();
    let parts = name.split_once('/');
    is_value(text.as_bytes())
        && parts.is_some_and(|(kind, sub)| is_token(kind.as_bytes()) && is_token(sub.as_bytes()))
}

/// Why a text is no origin as browsers write it (RFC 6454 section 6.2), if it is none: one that they write otherwise would
/// never be met.
fn not_an_origin(text: &str) -> Option<String> {
    let form = || Some("expected an origin as browsers send it: \"https://app.example.com\"".to_owned());
    if text == "*" {
        return Some("for every origin write cors = true".to_owned());
    }
    if text == "null" {
        return Some(
            "\"null\" is the origin of whatever hides its own; for every origin write cors = true".to_owned(),
        );
    }
    let Some((scheme, rest)) = text.split_once("://") else { return form() };
    if let Some((host, _)) = rest.split_once('/') {
        return Some(format!("an origin has no path, not even a slash: \"{scheme}://{host}\""));
    }
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Some(format!("browsers send origins in small letters: \"{}\"", text.to_ascii_lowercase()));
    }
    if !text.is_ascii() {
        return Some("browsers send names of other alphabets as \"xn--…\"; write it so".to_owned());
    }
    let (host, port) = split_port(rest);
    let usual = match scheme {
        "http" => Some("80"),
        "https" => Some("443"),
        _ => None,
    };
    if port.is_some() && port == usual {
        return Some(format!("browsers leave out the usual port: \"{scheme}://{host}\""));
    }
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        }
    };
    let is_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|number| number.to_string() == port));
    if is_scheme && is_host && is_port { None } else { form() }
}

/// Takes the port off an authority, if there is one.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        // A colon in brackets is one of an address.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    }
}
