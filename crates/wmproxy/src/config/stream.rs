//! The plan of `[[stream]]`: a listener for each address and port, and the group that each goes to.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use wmproxy_net::addr::{AddressSpec, ListenSpec, Protocol, TargetSpec};
use wmproxy_net::options::Toggle;
use wmproxy_stream::options::{StreamOptions, UdpOptions};
use wmproxy_upstream::GroupSpec;

use super::loops;
use super::options::Options;
use super::plan::{AccessLogPlan, ListenerPlan, ModePlan};
use super::problem::{Found, MANY_PROBLEMS, MAX_PROBLEMS, nearest};
use super::resolve::Planner;
use super::tree::Path;

/// Every port there is, once. A config that asks for more has a mistaken range.
const MAX_LISTENERS: usize = 65_536;

/// Where a stream goes.
enum Target {
    /// To an upstream of the config.
    Named(Arc<str>),
    /// To these addresses; each has one port, or as many as every `listen` has.
    Inline(Vec<AddressSpec>),
}

impl Planner<'_> {
    pub(super) fn streams(&mut self, options: &Options, access_log: Option<&AccessLogPlan>) {
        let table = Path::default().key("stream");
        let names = self.names(&options.stream, &table);
        for (index, (stream, name)) in options.stream.iter().zip(names).enumerate() {
            if self.errors() >= MAX_PROBLEMS {
                self.push(Found::nowhere(MANY_PROBLEMS));
                return;
            }
            let path = table.index(index);
            self.check_stream(stream, &path);
            let access_log = self.stream_access_log(stream, options, &path, access_log);
            let listens = self.listens_of(stream, &path);
            let target = self.target(stream, &path);
            if let Some(target) = target
                && self.ranges_match(&target, &listens, &path)
            {
                self.check_loop(&listens, &target, &path);
                self.listeners_of(stream, &name, &listens, &target, access_log.as_ref());
                let group = self.group_of(&target, 0);
                if let Some(group) = self.groups.get(&group).cloned() {
                    self.check_way(stream, &group, &path);
                }
            }
        }
    }

    /// The name of each stream: its own, or one made of its first address.
    fn names(&mut self, streams: &[StreamOptions], table: &Path) -> Vec<Arc<str>> {
        let mut first: HashMap<&str, Path> = HashMap::new();
        for (index, stream) in streams.iter().enumerate() {
            let Some(name) = &stream.name else { continue };
            let path = table.index(index).key("name");
            self.check_name(&path, name, false);
            if let Some(other) = first.get(name.as_str()) {
                let found = self.error(&path, format!("two streams are named `{name}`"));
                self.push(found.related(self.span(other), "the other one"));
            } else {
                first.insert(name, path);
            }
        }
        let mut taken: HashSet<String> = first.keys().map(|name| (*name).to_owned()).collect();
        let mut next: HashMap<String, usize> = HashMap::new();
        let name = |stream: &StreamOptions| match &stream.name {
            Some(name) => name.as_str().into(),
            None => {
                let base = derived_name(stream);
                let number = next.entry(base.clone()).or_insert(1);
                let mut name = base.clone();
                while !taken.insert(name.clone()) {
                    *number += 1;
                    name = format!("{base}-{number}");
                }
                name.into()
            }
        };
        streams.iter().map(name).collect()
    }

    fn check_stream(&mut self, stream: &StreamOptions, path: &Path) {
        if stream.idle_timeout.is_some_and(|time| time.is_zero()) {
            self.problem(&path.key("idle_timeout"), "without any time to be idle nothing would be passed on");
        }
        self.check_sockets(stream, path);
        if stream.per_client_burst == Some(0) {
            self.problem(&path.key("per_client_burst"), "nobody could come; the least is 1");
        }
        if stream.per_client_burst.is_some() && stream.per_client_rate.is_none() {
            let found = self.error(&path.key("per_client_burst"), "without `per_client_rate` this has no effect");
            self.push(found.warning());
        }
        let listens = stream.listen.iter().flat_map(|list| &list.0);
        let mut protocols = listens.map(|listen| listen.protocol).peekable();
        let only_tcp = protocols.peek().is_some() && protocols.all(|protocol| protocol == Protocol::Tcp);
        if only_tcp && stream.udp != UdpOptions::default() {
            let found = self.error(&path.key("udp"), "no address of `listen` is udp, so this has no effect");
            self.push(found.warning().hint("a udp address is written \"udp://:53\""));
        }
    }

    fn stream_access_log(
        &mut self,
        stream: &StreamOptions,
        options: &Options,
        path: &Path,
        default: Option<&AccessLogPlan>,
    ) -> Option<AccessLogPlan> {
        match &stream.access_log {
            None => default.cloned(),
            Some(Toggle::Off) => None,
            Some(Toggle::On(own)) => {
                let (own_path, default_path) = (path.key("access_log"), Path::default().key("access_log"));
                let mut layers = vec![(&own_path, own)];
                layers.extend(options.access_log.as_ref().map(|default| (&default_path, default)));
                Some(self.access_log(&layers))
            }
        }
    }

    /// The addresses to listen on, none of which anybody else has.
    fn listens_of(&mut self, stream: &StreamOptions, path: &Path) -> Vec<ListenSpec> {
        let listen = path.key("listen");
        let list = stream.listen.as_ref().map_or(&[][..], |list| &list.0);
        if list.is_empty() && !self.is_damaged(&listen) && !self.was_dropped(&listen) {
            let what = if stream.listen.is_some() { "empty" } else { "missing" };
            let found = self.error(&listen, format!("`listen` is {what}: no address to listen on"));
            self.push(found.hint("write listen = \"127.0.0.1:5432\", or \"udp://:53\" for udp"));
        }
        for (index, spec) in list.iter().enumerate() {
            // A text that is no list has no element to point at.
            let one = listen.index(index);
            let place = if self.node(&one).is_some() { &one } else { &listen };
            self.claim(spec.protocol, &spec.address, place);
        }
        list.to_vec()
    }

    fn target(&mut self, stream: &StreamOptions, path: &Path) -> Option<Target> {
        let path = path.key("upstream");
        let list = stream.upstream.as_ref().map_or(&[][..], |list| &list.0);
        if list.is_empty() {
            if !self.is_damaged(&path) && !self.was_dropped(&path) {
                let what = if stream.upstream.is_some() { "empty" } else { "missing" };
                let found = self.error(&path, format!("`upstream` is {what}: nowhere to go"));
                self.push(
                    found.hint("write the name of an [upstream], or an address like \"10.0.0.5:5432\""),
                );
            }
            return None;
        }
        if let [name] = list
            && self.upstreams.contains(name)
        {
            self.used.insert(name.clone());
            return Some(Target::Named(name.as_str().into()));
        }
        let mut addresses = Vec::new();
        for (index, text) in list.iter().enumerate() {
            let element = path.index(index);
            let place = if self.node(&element).is_some() { &element } else { &path };
            match self.inline(text, place) {
                Ok(address) if addresses.contains(&address) => {
                    self.problem(place, format!("`{text}` is in this list already"));
                }
                Ok(address) => addresses.push(address),
                Err(found) => self.push(found),
            }
        }
        (addresses.len() == list.len()).then_some(Target::Inline(addresses))
    }

    fn inline(&mut self, text: &str, path: &Path) -> Result<AddressSpec, Found> {
        if self.upstreams.contains(text) {
            self.used.insert(text.to_owned());
            let hint = format!("add these addresses to the servers of [upstream.{text}]");
            return Err(self.error(path, "the name of an upstream stands alone, not in a list").hint(hint));
        }
        let is_name = !text.contains(':') && text.parse::<IpAddr>().is_err();
        if is_name {
            let hint = match nearest(text, self.upstreams.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("add [upstream.{text}], or write an address like \"10.0.0.5:5432\""),
            };
            return Err(self.error(path, format!("no upstream named `{text}`")).hint(hint));
        }
        let address: AddressSpec = text.parse().map_err(|error| self.error(path, format!("{error}")))?;
        match TargetSpec::expand(&address) {
            Ok(_) => Ok(address),
            Err(error) => Err(self.error(path, error.to_string())),
        }
    }

    /// A range of target ports maps to ranges of listener ports one by one, so all have to be equally long.
    fn ranges_match(&mut self, target: &Target, listens: &[ListenSpec], path: &Path) -> bool {
        let Target::Inline(addresses) = target else { return true };
        let Some(ports) = addresses.iter().map(AddressSpec::count).find(|count| *count > 1) else {
            return true;
        };
        let targets =
            addresses.iter().all(|address| matches!(address.count(), 1) || address.count() == ports);
        let sources = listens.iter().all(|listen| listen.address.count() == ports);
        if !targets || !sources {
            let message = format!("these are {ports} ports, one for each port of a listener");
            let found = self.error(&path.key("upstream"), message);
            self.push(found.hint(format!("every range, and every address of `listen`, needs {ports} ports")));
        }
        targets && sources
    }

    fn check_loop(&mut self, listens: &[ListenSpec], target: &Target, path: &Path) {
        let is_loop = |listen: &ListenSpec| match target {
            Target::Inline(addresses) => addresses.iter().any(|address| loops::is_own(listen, address)),
            Target::Named(name) => self.groups.get(name).is_some_and(|group| {
                let mut servers = group.servers.iter().filter(|server| !server.down);
                servers.any(|server| loops::is_own_server(listen, &server.target))
            }),
        };
        let Some(listen) = listens.iter().find(|listen| is_loop(listen)) else { return };
        let message = format!("this goes to its own listener {listen}: each connection would open the next");
        let found = self.error(&path.key("upstream"), message).warning();
        self.push(found.related(self.span(&path.key("listen")), "the listener"));
    }

    fn listeners_of(
        &mut self,
        stream: &StreamOptions,
        name: &Arc<str>,
        listens: &[ListenSpec],
        target: &Target,
        access_log: Option<&AccessLogPlan>,
    ) {
        for listen in listens {
            if self.listeners.len() + listen.address.count() > MAX_LISTENERS {
                let message = format!("more than {MAX_LISTENERS} listeners, each port of a range being one");
                self.push(Found::nowhere(message));
                return;
            }
            for index in 0..listen.address.count() {
                let group = self.group_of(target, index);
                let spec = stream.spec(name.clone(), group, listen.protocol);
                self.listeners.push(ListenerPlan {
                    name: name.clone(),
                    protocol: listen.protocol,
                    address: nth_port(&listen.address, index),
                    mode: ModePlan::Stream(spec),
                    access_log: access_log.cloned(),
                });
            }
        }
    }

    /// The group for the listener's port number `index`; an inline one is named after its addresses.
    fn group_of(&mut self, target: &Target, index: usize) -> Arc<str> {
        let addresses = match target {
            Target::Named(name) => return name.clone(),
            Target::Inline(addresses) => addresses,
        };
        let one = |address: &AddressSpec| TargetSpec::expand(&nth_port(address, index)).unwrap_or_default();
        let targets: Vec<TargetSpec> = addresses.iter().flat_map(one).collect();
        let names: Vec<String> = targets.iter().map(ToString::to_string).collect();
        let name: Arc<str> = names.join(",").into();
        let spec = || GroupSpec::inline(name.clone(), targets);
        self.groups.entry(name.clone()).or_insert_with(spec);
        name
    }
}

/// As in `tcp-5432`, `udp-8000-8010` or `unix-app.sock`.
fn derived_name(stream: &StreamOptions) -> String {
    match stream.listen.as_ref().and_then(|list| list.0.first()) {
        None => "stream".to_owned(),
        Some(ListenSpec { address: AddressSpec::Unix(path), .. }) => {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            format!(
                "unix-{}",
                file.replace(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '_', "-")
            )
        }
        Some(ListenSpec { protocol, address: AddressSpec::Inet { first_port, last_port, .. } }) => {
            let range = if first_port == last_port { String::new() } else { format!("-{last_port}") };
            format!("{protocol}-{first_port}{range}")
        }
    }
}

/// An address's port number `index`, counted from 0, or its only one.
fn nth_port(address: &AddressSpec, index: usize) -> AddressSpec {
    match address {
        AddressSpec::Inet { host, first_port, last_port } if first_port != last_port => {
            let port = first_port.saturating_add(u16::try_from(index).unwrap_or(u16::MAX)).min(*last_port);
            AddressSpec::Inet { host: host.clone(), first_port: port, last_port: port }
        }
        _ => address.clone(),
    }
}
