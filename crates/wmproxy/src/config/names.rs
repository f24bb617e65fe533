//! What listeners are called, and the addresses that they want.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use wmproxy_forward::options::ForwardOptions;
use wmproxy_http::options::HttpOptions;
use wmproxy_net::addr::{AddressSpec, ListenSpec};
use wmproxy_net::options::OneOrMany;
use wmproxy_stream::options::StreamOptions;

use super::options::Options;
use super::resolve::Planner;
use super::tree::Path;

/// What a name has to be.
pub(crate) const NAMES: &str = "a name has 1 to 64 letters, digits, `-`, `_` and `.`";

/// Whether it can be a name: those become labels of metrics, and parts of URLs and of the names of files.
pub(crate) fn is_name(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=64).contains(&text.len()) && text.chars().all(fits)
}

/// The names of all listeners, in the order of their tables.
pub(super) struct Names {
    pub(super) stream: Vec<Arc<str>>,
    pub(super) http: Vec<Arc<str>>,
    pub(super) forward: Vec<Arc<str>>,
}

/// A table that has a name or gets one.
struct Named<'a> {
    path: Path,
    own: Option<&'a str>,
    derived: String,
}

impl Planner<'_> {
    /// The name of each listener: its own, or one made of its first address.
    pub(super) fn names(&mut self, options: &Options) -> Names {
        let (stream, http) = (Path::default().key("stream"), Path::default().key("http"));
        let streams =
            options.stream.iter().enumerate().map(|(i, options)| Named::stream(options, stream.index(i)));
        let https = options.http.iter().enumerate().map(|(i, options)| Named::http(options, http.index(i)));
        let forward = Path::default().key("forward");
        let forwards =
            options.forward.iter().enumerate().map(|(i, options)| Named::forward(options, forward.index(i)));
        let all: Vec<Named<'_>> = streams.chain(https).chain(forwards).collect();
        let mut taken = self.own_names(&all);
        let mut numbers: HashMap<&str, usize> = HashMap::new();
        let mut stream: Vec<Arc<str>> = Vec::with_capacity(all.len());
        for named in &all {
            stream.push(match named.own {
                Some(name) => name.into(),
                None => distinct(&named.derived, &mut taken, numbers.entry(&named.derived).or_insert(1)),
            });
        }
        let mut http = stream.split_off(options.stream.len());
        let forward = http.split_off(options.http.len());
        Names { stream, http, forward }
    }

    /// Names that are written, each of which one listener may have.
    fn own_names(&mut self, all: &[Named<'_>]) -> HashSet<String> {
        let mut first: HashMap<&str, Path> = HashMap::new();
        for Named { path, own, .. } in all {
            let Some(name) = own else { continue };
            let path = path.key("name");
            self.check_name(&path, name, false);
            if let Some(other) = first.get(name) {
                let found = self.error(&path, format!("two listeners are named `{name}`"));
                self.push(found.related(self.span(other), "the other one"));
            } else {
                first.insert(name, path);
            }
        }
        first.keys().map(|name| (*name).to_owned()).collect()
    }

    /// The addresses to listen on, none of which anybody else has. `hint` tells how they are written.
    pub(super) fn listens_of(
        &mut self,
        listen: Option<&OneOrMany<ListenSpec>>,
        path: &Path,
        hint: &str,
    ) -> Vec<ListenSpec> {
        let place = path.key("listen");
        let list = listen.map_or(&[][..], |list| &list.0);
        if list.is_empty() && !self.is_damaged(&place) && !self.was_dropped(&place) {
            let what = if listen.is_some() { "empty" } else { "missing" };
            let found = self.error(&place, format!("`listen` is {what}: no address to listen on"));
            self.push(found.hint(hint));
        }
        for (index, spec) in list.iter().enumerate() {
            // A text that is no list has no element to point at.
            let one = place.index(index);
            let place = if self.node(&one).is_some() { &one } else { &place };
            self.claim(spec.protocol, &spec.address, place);
        }
        list.to_vec()
    }
}

impl<'a> Named<'a> {
    fn stream(options: &'a StreamOptions, path: Path) -> Named<'a> {
        let first = options.listen.as_ref().and_then(|list| list.0.first());
        let derived = derived_name(first, "stream", |listen| listen.protocol.to_string());
        Named { path, own: options.name.as_deref(), derived }
    }

    fn http(options: &'a HttpOptions, path: Path) -> Named<'a> {
        let first = options.listen.as_ref().and_then(|list| list.0.first());
        let scheme = if options.tls.is_some() { "https" } else { "http" };
        let derived = derived_name(first, "http", |_| scheme.to_owned());
        Named { path, own: options.name.as_deref(), derived }
    }

    fn forward(options: &'a ForwardOptions, path: Path) -> Named<'a> {
        let first = options.listen.as_ref().and_then(|list| list.0.first());
        let derived = derived_name(first, "forward", |_| "forward".to_owned());
        Named { path, own: options.name.as_deref(), derived }
    }
}

/// As in `tcp-5432`, `udp-8000-8010`, `http-80` or `unix-app.sock`.
fn derived_name(first: Option<&ListenSpec>, none: &str, prefix: impl Fn(&ListenSpec) -> String) -> String {
    match first {
        None => none.to_owned(),
        Some(ListenSpec { address: AddressSpec::Unix(path), .. }) => {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            format!(
                "unix-{}",
                file.replace(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '_', "-")
            )
        }
        Some(listen @ ListenSpec { address: AddressSpec::Inet { first_port, last_port, .. }, .. }) => {
            let range = if first_port == last_port { String::new() } else { format!("-{last_port}") };
            format!("{}-{first_port}{range}", prefix(listen))
        }
    }
}

/// A name that nobody has: `base`, or with a number behind it, which `number` counts.
fn distinct(base: &str, taken: &mut HashSet<String>, number: &mut usize) -> Arc<str> {
    let mut name = base.to_owned();
    while !taken.insert(name.clone()) {
        *number += 1;
        name = format!("{base}-{number}");
    }
    name.into()
}
