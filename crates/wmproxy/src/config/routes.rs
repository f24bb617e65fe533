//! Where a stream goes: its `upstream`, and what `sni` and `alpn` say, each checked and made a group.

use std::net::IpAddr;
use std::sync::Arc;

use wmproxy_net::addr::{AddressSpec, ListenSpec, Protocol, TargetSpec};
use wmproxy_net::options::OneOrMany;
use wmproxy_net::preface::ProxyVersion;
use wmproxy_stream::bridge::url::BridgeUrl;
use wmproxy_stream::options::StreamOptions;
use wmproxy_stream::route::{NamePattern, Routes};
use wmproxy_upstream::GroupSpec;

use super::problem::{Found, nearest};
use super::resolve::Planner;
use super::socket::SocketKeys;
use super::stream::nth_port;
use super::tree::Path;
use super::{bridge, loops};

/// The key of `sni` that is no name: where everybody else goes.
const DEFAULT: &str = "default";

/// The longest name of a protocol that TLS can carry (RFC 7301 section 3.1).
const MAX_PROTOCOL: usize = 255;

/// A place to go, and where the config says it.
pub(super) struct Destination {
    path: Path,
    target: Target,
}

pub(super) enum Target {
    /// To an upstream of the config.
    Named(Arc<str>),
    /// To these addresses; each has one port, or as many as every `listen` has.
    Inline(Vec<AddressSpec>),
    /// To the server of a bridge, and where that is.
    Url(BridgeUrl, Vec<AddressSpec>),
}

impl Destination {
    /// Whether each port of a listener goes to another one.
    pub(super) fn has_range(&self) -> bool {
        match &self.target {
            Target::Named(_) => false,
            Target::Inline(addresses) | Target::Url(_, addresses) => {
                addresses.iter().any(|address| address.count() > 1)
            }
        }
    }
}

impl Planner<'_> {
    /// The table of a stream's destinations; none if something is wrong with it.
    pub(super) fn destinations(
        &mut self,
        stream: &StreamOptions,
        listens: &[ListenSpec],
        path: &Path,
    ) -> Option<Routes<Destination>> {
        let before = self.errors();
        let mut table = Routes::new(self.default_destination(stream, path));
        self.name_routes(stream, path, &mut table);
        self.protocol_routes(stream, path, &mut table);
        let is_damaged = ["upstream", "sni", "alpn"].iter().any(|key| {
            let path = path.key(key);
            self.is_damaged(&path) || self.was_dropped(&path)
        });
        if self.errors() > before || is_damaged || table.destinations().next().is_none() {
            return None;
        }
        for Destination { path: place, target } in table.destinations() {
            if self.ranges_match(target, listens, place) {
                self.check_loop(listens, target, place, path);
                let group = self.group_of(target, 0);
                if let Some(group) = self.groups.get(&group).cloned() {
                    self.check_way(&SocketKeys::from(stream), &group, path);
                    self.check_header(listens, &group, place);
                    self.check_request(&group, place);
                }
            }
        }
        (self.errors() == before).then_some(table)
    }

    /// Version 1 of the PROXY protocol has no word for datagrams, and a chain no way for them.
    fn check_header(&mut self, listens: &[ListenSpec], group: &GroupSpec, path: &Path) {
        let udp = listens.iter().find(|listen| listen.protocol == Protocol::Udp);
        if let (Some(udp), Some(via)) = (udp, &group.via) {
            let message = format!("`{}` is reached via the chain `{via}`, and {udp} is udp", group.name);
            let found = self.error(path, message);
            self.push(found.hint("datagrams do not pass there; give udp an upstream without `via`"));
        }
        if let Some(udp) = udp.filter(|_| group.send_proxy_protocol == Some(ProxyVersion::V1)) {
            let message = format!("`{}` wants PROXY headers of v1, and {udp} is udp", group.name);
            let found = self.error(path, message);
            self.push(found.hint("with send_proxy_protocol = \"v2\" it can have both"));
        }
    }

    /// A stream has no requests that anything could be read from.
    fn check_request(&mut self, group: &GroupSpec, path: &Path) {
        let key = group.balance.hash_key().filter(|key| key.is_of_request());
        if let Some(key) = key {
            let message = format!("`{}` goes by `{key}` of HTTP requests, and this is a stream", group.name);
            let found = self.error(path, message).warning();
            self.push(found.hint("its clients go by their addresses here"));
        }
        if group.sticky.is_some() {
            let message = format!("`{}` has `sticky`, and a stream has no cookies", group.name);
            let found = self.error(path, message).warning();
            self.push(found.hint("with balance = \"hash\" a client's address keeps it with its server"));
        }
    }

    /// Where everybody goes for whom there is no route.
    fn default_destination(&mut self, stream: &StreamOptions, path: &Path) -> Option<Destination> {
        let upstream = path.key("upstream");
        if let Some(url) = bridge::target_of(stream) {
            let target = Target::Url(url.clone(), bridge::address_of(url));
            return Some(Destination { path: upstream, target });
        }
        if stream.upstream.is_none() && self.lacks_bridge(path) {
            return None;
        }
        let by_hello = [("sni", !stream.sni.is_empty()), ("alpn", !stream.alpn.is_empty())];
        if let Some((key, _)) = by_hello.into_iter().find(|(_, used)| *used)
            && stream.bridge.is_some()
            && stream.tls.is_none()
        {
            let found = self.error(
                &path.key(key),
                format!("a bridge's client begins with no ClientHello: `{key}` needs `tls` here"),
            );
            self.push(found);
            return None;
        }
        if let Some(list) = stream.sni.get(DEFAULT) {
            let place = path.key("sni").key(DEFAULT);
            if stream.upstream.is_some() {
                let found = self.error(&upstream, "this has no effect: `sni.default` says where others go");
                self.push(found.warning().related(self.span(&place), "here"));
            }
            return self.destination(list, place);
        }
        let has_routes = !stream.sni.is_empty() || !stream.alpn.is_empty();
        match &stream.upstream {
            // Who has no route is turned away then.
            None if has_routes => None,
            None => {
                self.nowhere(&upstream, "`upstream` is missing: nowhere to go");
                None
            }
            Some(OneOrMany(list)) if list.is_empty() => {
                self.nowhere(&upstream, "`upstream` is empty: nowhere to go");
                None
            }
            Some(list) => {
                let mut destination = self.destination(list, upstream)?;
                if let Some(url) = bridge::secure_url(stream) {
                    self.check_secure(&mut destination, url, path);
                }
                Some(destination)
            }
        }
    }

    /// Sees to it that a bridge to `wss` goes by TLS wherever it goes.
    fn check_secure(&mut self, destination: &mut Destination, url: &BridgeUrl, stream: &Path) {
        destination.target = match &destination.target {
            Target::Inline(addresses) => Target::Url(url.clone(), addresses.clone()),
            Target::Named(name) => {
                let name = name.clone();
                return self.check_secure_group(&name, stream);
            }
            Target::Url(..) => return,
        };
    }

    fn name_routes(&mut self, stream: &StreamOptions, path: &Path, table: &mut Routes<Destination>) {
        let sni = path.key("sni");
        for (name, list) in stream.sni.iter().filter(|(name, _)| *name != DEFAULT) {
            let place = sni.key(name);
            let pattern = NamePattern::parse(name).map_err(|error| self.problem(&place, error.to_string()));
            let destination = self.destination(list, place.clone());
            if let (Ok(pattern), Some(destination)) = (pattern, destination)
                && !table.add_name(pattern, destination)
            {
                self.problem(&place, "this name is in the table already, written otherwise");
            }
        }
    }

    fn protocol_routes(&mut self, stream: &StreamOptions, path: &Path, table: &mut Routes<Destination>) {
        let alpn = path.key("alpn");
        for (protocol, list) in &stream.alpn {
            let place = alpn.key(protocol);
            if protocol.is_empty() || protocol.len() > MAX_PROTOCOL {
                self.problem(&place, format!("a protocol has 1 to {MAX_PROTOCOL} bytes, such as `h2`"));
            }
            if let Some(destination) = self.destination(list, place) {
                table.add_protocol(protocol.as_bytes(), destination);
            }
        }
    }

    fn destination(&mut self, list: &OneOrMany<String>, path: Path) -> Option<Destination> {
        let target = self.target(&list.0, &path)?;
        Some(Destination { path, target })
    }

    fn nowhere(&mut self, path: &Path, message: &str) {
        if !self.is_damaged(path) && !self.was_dropped(path) {
            let found = self.error(path, message);
            self.push(found.hint("write the name of an [upstream], or an address like \"10.0.0.5:5432\""));
        }
    }

    pub(super) fn target(&mut self, list: &[String], path: &Path) -> Option<Target> {
        if list.is_empty() {
            self.nowhere(path, "this list is empty: nowhere to go");
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
            let place = if self.node(&element).is_some() { &element } else { path };
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
        let (Target::Inline(addresses) | Target::Url(_, addresses)) = target else { return true };
        let Some(ports) = addresses.iter().map(AddressSpec::count).find(|count| *count > 1) else {
            return true;
        };
        let targets =
            addresses.iter().all(|address| matches!(address.count(), 1) || address.count() == ports);
        let sources = listens.iter().all(|listen| listen.address.count() == ports);
        if !targets || !sources {
            let message = format!("these are {ports} ports, one for each port of a listener");
            let found = self.error(path, message);
            self.push(found.hint(format!("every range, and every address of `listen`, needs {ports} ports")));
        }
        targets && sources
    }

    pub(super) fn check_loop(
        &mut self,
        listens: &[ListenSpec],
        target: &Target,
        place: &Path,
        stream: &Path,
    ) {
        let is_loop = |listen: &ListenSpec| match target {
            Target::Inline(addresses) | Target::Url(_, addresses) => {
                addresses.iter().any(|address| loops::is_own(listen, address))
            }
            Target::Named(name) => self.groups.get(name).is_some_and(|group| {
                let mut servers = group.servers.iter().filter(|server| !server.down);
                servers.any(|server| loops::is_own_server(listen, &server.target))
            }),
        };
        let Some(listen) = listens.iter().find(|listen| is_loop(listen)) else { return };
        let message = format!("this goes to its own listener {listen}: each connection would open the next");
        let found = self.error(place, message).warning();
        self.push(found.related(self.span(&stream.key("listen")), "the listener"));
    }

    /// The table for the listener's port number `index`.
    pub(super) fn routes(&mut self, table: &Routes<Destination>, index: usize) -> Arc<Routes<Arc<str>>> {
        let group = |to: &Destination| Ok::<_, std::convert::Infallible>(self.group_of(&to.target, index));
        match table.try_map(group) {
            Ok(routes) => Arc::new(routes),
        }
    }

    /// The group for the listener's port number `index`; an inline one is named after its addresses.
    pub(super) fn group_of(&mut self, target: &Target, index: usize) -> Arc<str> {
        let addresses = match target {
            Target::Named(name) => return name.clone(),
            Target::Inline(addresses) | Target::Url(_, addresses) => addresses,
        };
        let one = |address: &AddressSpec| TargetSpec::expand(&nth_port(address, index)).unwrap_or_default();
        let targets: Vec<TargetSpec> = addresses.iter().flat_map(one).collect();
        let names: Vec<String> = targets.iter().map(ToString::to_string).collect();
        if let Target::Url(url, _) = target {
            return self.bridge_group(url, &names.join(","), targets);
        }
        let name: Arc<str> = names.join(",").into();
        let spec = || GroupSpec::inline(name.clone(), targets);
        self.groups.entry(name.clone()).or_insert_with(spec);
        name
    }
}
