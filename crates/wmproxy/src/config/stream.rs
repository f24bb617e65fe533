//! The plan of `[[stream]]`: a listener for each address and port, and the group that each goes to.

use std::sync::Arc;

use wmproxy_net::addr::{AddressSpec, ListenSpec, Protocol};
use wmproxy_net::tls::AcceptorSpec;
use wmproxy_stream::options::{StreamOptions, UdpOptions};
use wmproxy_stream::route::Routes;

use super::access_log::LogOf;
use super::options::Options;
use super::plan::{AccessLogPlan, ListenerPlan, ModePlan};
use super::problem::{Found, MANY_PROBLEMS, MAX_PROBLEMS};
use super::resolve::Planner;
use super::routes::Destination;
use super::socket::SocketKeys;
use super::tree::Path;

/// Every port there is, once. A config that asks for more has a mistaken range.
pub(super) const MAX_LISTENERS: usize = 65_536;

/// How `listen` is written.
const LISTEN: &str = "write listen = \"127.0.0.1:5432\", or \"udp://:53\" for udp";

impl Planner<'_> {
    /// Plans the streams, which have these names.
    pub(super) fn streams(&mut self, options: &Options, names: &[Arc<str>]) {
        let table = Path::default().key("stream");
        for (index, (stream, name)) in options.stream.iter().zip(names).enumerate() {
            if self.errors() >= MAX_PROBLEMS {
                self.push(Found::nowhere(MANY_PROBLEMS));
                return;
            }
            let path = table.index(index);
            self.check_stream(stream, &path);
            let tls = stream.tls.as_ref().and_then(|tls| self.listener_tls(tls, &path.key("tls")));
            let access_log = self.listener_access_log(&stream.access_log, options, &path, LogOf::Connections);
            let listens = self.listens_of(stream.listen.as_ref(), &path, LISTEN);
            if let Some(table) = self.destinations(stream, &listens, &path) {
                self.listeners_of(stream, name, &listens, &table, access_log.as_ref(), tls.as_ref());
            }
        }
    }

    fn check_stream(&mut self, stream: &StreamOptions, path: &Path) {
        if stream.idle_timeout.is_some_and(|time| time.is_zero()) {
            self.problem(&path.key("idle_timeout"), "without any time to be idle nothing would be passed on");
        }
        if stream.preface_timeout.is_zero() {
            self.problem(
                &path.key("preface_timeout"),
                "nobody says anything in no time; the default is \"10s\"",
            );
        }
        self.check_sockets(&SocketKeys::from(stream), path);
        self.check_bridge(stream, path);
        self.check_empty(stream, path);
        if stream.per_client_burst == Some(0) {
            self.problem(&path.key("per_client_burst"), "nobody could come; the least is 1");
        }
        if stream.per_client_burst.is_some() && stream.per_client_rate.is_none() {
            let found =
                self.error(&path.key("per_client_burst"), "without `per_client_rate` this has no effect");
            self.push(found.warning());
        }
        let listens = stream.listen.iter().flat_map(|list| &list.0);
        let mut protocols = listens.map(|listen| listen.protocol).peekable();
        let only_tcp = protocols.peek().is_some() && protocols.all(|protocol| protocol == Protocol::Tcp);
        if stream.tls.is_some()
            && let Some(udp) =
                stream.listen.iter().flat_map(|list| &list.0).find(|l| l.protocol == Protocol::Udp)
        {
            let message = format!("{udp} is udp, which `tls` would leave in the clear");
            let found = self.error(&path.key("tls"), message);
            self.push(found.hint("give udp a [[stream]] of its own"));
        }
        if only_tcp && stream.udp != UdpOptions::default() {
            let found = self.error(&path.key("udp"), "no address of `listen` is udp, so this has no effect");
            self.push(found.warning().hint("a udp address is written \"udp://:53\""));
        }
    }

    /// Lists and tables that are there and say nothing: most likely something is missing in them.
    fn check_empty(&mut self, stream: &StreamOptions, path: &Path) {
        let allow = path.key("allow");
        if stream.allow.0.is_empty() && self.is_said(&allow) {
            let found = self.error(&allow, "`allow` is empty, and an empty list would let everybody come");
            self.push(
                found.hint("leave it out to let everybody come, or write deny = [\"0.0.0.0/0\", \"::/0\"]"),
            );
        }
        let empty = [
            ("sni", stream.sni.is_empty()),
            ("alpn", stream.alpn.is_empty()),
            ("accept_proxy_protocol", stream.accept_proxy_protocol.0.is_empty()),
            ("deny", stream.deny.0.is_empty()),
            ("rate_limit", stream.rate_limit.is_off()),
            ("listener_rate_limit", stream.listener_rate_limit.is_off()),
            ("bridge_host", stream.bridge_host.0.is_empty()),
            ("bridge_origin", stream.bridge_origin.0.is_empty()),
            ("bridge_subprotocol", stream.bridge_subprotocol.0.is_empty()),
            ("bridge_headers", stream.bridge_headers.is_empty()),
        ];
        for key in empty.into_iter().filter_map(|(key, is_empty)| is_empty.then_some(key)) {
            if self.is_said(&path.key(key)) {
                let found = self
                    .error(&path.key(key), format!("`{key}` is empty, which is as good as leaving it out"));
                self.push(found.warning());
            }
        }
    }

    /// Whether an option is written there, and was not found to be wrong already.
    pub(super) fn is_said(&self, path: &Path) -> bool {
        self.node(path).is_some() && !self.is_damaged(path) && !self.was_dropped(path)
    }

    fn listeners_of(
        &mut self,
        stream: &StreamOptions,
        name: &Arc<str>,
        listens: &[ListenSpec],
        table: &Routes<Destination>,
        access_log: Option<&AccessLogPlan>,
        tls: Option<&AcceptorSpec>,
    ) {
        let mut routes = None;
        for listen in listens {
            if self.listeners.len() + listen.address.count() > MAX_LISTENERS {
                let message = format!("more than {MAX_LISTENERS} listeners, each port of a range being one");
                self.push(Found::nowhere(message));
                return;
            }
            for index in 0..listen.address.count() {
                // Ports of one range mostly share a table, and it may be large.
                let same = routes.take().filter(|_| !table.destinations().any(Destination::has_range));
                let own = same.unwrap_or_else(|| self.routes(table, index));
                routes = Some(own.clone());
                let mut spec = stream.spec(name.clone(), own, listen.protocol);
                spec.tls = tls.cloned();
                self.listeners.push(ListenerPlan {
                    name: name.clone(),
                    protocol: listen.protocol,
                    address: nth_port(&listen.address, index),
                    mode: ModePlan::Stream(Box::new(spec)),
                    access_log: access_log.cloned(),
                });
            }
        }
    }
}

/// An address's port number `index`, counted from 0, or its only one.
pub(super) fn nth_port(address: &AddressSpec, index: usize) -> AddressSpec {
    match address {
        AddressSpec::Inet { host, first_port, last_port } if first_port != last_port => {
            let port = first_port.saturating_add(u16::try_from(index).unwrap_or(u16::MAX)).min(*last_port);
            AddressSpec::Inet { host: host.clone(), first_port: port, last_port: port }
        }
        _ => address.clone(),
    }
}
