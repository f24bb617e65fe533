//! The plan of `[[http]]`: a listener for each address and port, and the routes that they share.

mod archive;
mod endpoint;
pub(crate) mod files;
mod filters;
mod route;

use std::sync::Arc;

use wmproxy_http::options::{BodyLimit, HttpLimits, HttpOptions, HttpProtocol, HttpTimeouts, RouteSpec};
use wmproxy_net::acl::Prefix;
use wmproxy_net::addr::{AddressSpec, ListenSpec, Protocol};
use wmproxy_net::options::OneOrMany;
use wmproxy_net::tls::AcceptorSpec;
use wmproxy_wire::units::{ByteSize, HumanDuration};

use super::access_log::LogOf;
use super::options::Options;
use super::plan::{AccessLogPlan, ListenerPlan, ModePlan};
use super::problem::{Found, MANY_PROBLEMS, MAX_PROBLEMS};
use super::resolve::Planner;
use super::socket::SocketKeys;
use super::stream::{MAX_LISTENERS, nth_port};
use super::tree::Path;

/// How `listen` is written.
const LISTEN: &str = "write listen = \":80\", or \"127.0.0.1:8080\" for this machine alone";

/// What is taken in TLS for each protocol, the dearest first (RFC 7301, RFC 9113 section 3.1). Who speaks only HTTP/1.0
/// may say so.
const ALPN: [(HttpProtocol, &str); 3] =
    [(HttpProtocol::H2, "h2"), (HttpProtocol::H1, "http/1.1"), (HttpProtocol::H1, "http/1.0")];

/// A table `[[http]]`, for those who plan a part of it.
struct Server<'a> {
    options: &'a HttpOptions,
    listens: &'a [ListenSpec],
    path: &'a Path,
}

impl Planner<'_> {
    /// Plans the HTTP servers, which have these names.
    pub(super) fn https(&mut self, options: &Options, names: &[Arc<str>]) {
        let table = Path::default().key("http");
        for (index, (http, name)) in options.http.iter().zip(names).enumerate() {
            if self.errors() >= MAX_PROBLEMS {
                self.push(Found::nowhere(MANY_PROBLEMS));
                return;
            }
            let path = table.index(index);
            self.check_http(http, &path);
            let tls = self.http_tls(http, &path);
            let access_log = self.listener_access_log(&http.access_log, options, &path, LogOf::Requests);
            let listens = self.listens_of(http.listen.as_ref(), &path, LISTEN);
            let listens: Vec<_> =
                listens.into_iter().filter(|listen| listen.protocol == Protocol::Tcp).collect();
            let routes = self.http_routes(&Server { options: http, listens: &listens, path: &path });
            self.http_listeners(http, name, &listens, routes, access_log.as_ref(), tls.as_ref());
        }
    }

    fn check_http(&mut self, http: &HttpOptions, path: &Path) {
        self.check_allow(&http.allow, path);
        self.check_sockets(&SocketKeys::from(http), path);
        self.check_protocols(http, path);
        self.check_timeouts(&http.timeouts, &path.key("timeouts"));
        self.check_limits(&http.limits, &path.key("limits"));
        if http.per_client_burst == Some(0) {
            self.problem(&path.key("per_client_burst"), "nobody could come; the least is 1");
        }
        if http.per_client_burst.is_some() && http.per_client_rate.is_none() {
            let found =
                self.error(&path.key("per_client_burst"), "without `per_client_rate` this has no effect");
            self.push(found.warning());
        }
        let listens = http.listen.iter().flat_map(|list| &list.0);
        for (index, listen) in listens.enumerate().filter(|(_, listen)| listen.protocol == Protocol::Udp) {
            let one = path.key("listen").index(index);
            let place = if self.node(&one).is_some() { one } else { path.key("listen") };
            let found = self.error(&place, format!("{listen} is udp, and HTTP is served over tcp"));
            self.push(found.hint("write the address without \"udp://\""));
        }
    }

    /// An `allow` without anybody in it: it lets everybody come, which may not be what is meant.
    pub(super) fn check_allow(&mut self, allow: &OneOrMany<Prefix>, path: &Path) {
        let place = path.key("allow");
        if allow.0.is_empty() && self.is_said(&place) {
            let found = self.error(&place, "`allow` is empty, and so lets everybody come").warning();
            self.push(found.hint("leave it out, or write deny = [\"0.0.0.0/0\", \"::/0\"] for nobody"));
        }
    }

    fn check_protocols(&mut self, http: &HttpOptions, path: &Path) {
        let place = path.key("protocols");
        let list = &http.protocols.0;
        if list.is_empty() && !self.is_damaged(&place) {
            self.problem(&place, "no protocol is left; the default is [\"h1\", \"h2\"]");
        }
        if (1..list.len()).any(|index| list[..index].contains(&list[index])) {
            self.problem(&place, "a protocol is in this list twice");
        }
    }

    fn check_timeouts(&mut self, timeouts: &HttpTimeouts, path: &Path) {
        let HttpTimeouts { preface, header, body, keepalive, write, upgrade } = *timeouts;
        let all: [(&str, HumanDuration); 6] = [
            ("preface", preface),
            ("header", header),
            ("body", body),
            ("keepalive", keepalive),
            ("write", write),
            ("upgrade", upgrade),
        ];
        for (key, _) in all.into_iter().filter(|(_, time)| time.is_zero()) {
            self.problem(&path.key(key), "nobody does anything in no time");
        }
    }

    pub(in super::super) fn check_limits(&mut self, limits: &HttpLimits, path: &Path) {
        let size = |bytes: ByteSize, least: u64, most: u64| (least..=most).contains(&bytes.get());
        if !size(limits.header_bytes, 1 << 10, 1 << 20) {
            self.problem(&path.key("header_bytes"), "expected a size from \"1k\" to \"1m\"");
        }
        if !size(limits.target_bytes, 1, limits.header_bytes.get()) {
            let message = format!("expected a size up to that of the whole head, {}", limits.header_bytes);
            self.problem(&path.key("target_bytes"), message);
        }
        if !(1..=1000).contains(&limits.header_count) {
            self.problem(&path.key("header_count"), "expected a number from 1 to 1000");
        }
        if !(1..=1000).contains(&limits.h2_streams) {
            self.problem(&path.key("h2_streams"), "expected a number from 1 to 1000");
        }
        if limits.body == BodyLimit::Bytes(ByteSize::new(0)) {
            let found = self.error(&path.key("body"), "requests could have no body at all");
            self.push(found.warning().hint("write \"unlimited\" for no limit"));
        }
    }

    /// What the listener's TLS is made of; what it offers is what is spoken.
    fn http_tls(&mut self, http: &HttpOptions, path: &Path) -> Option<AcceptorSpec> {
        let path = path.key("tls");
        let tls = http.tls.as_ref()?;
        for (index, options) in tls.certificates().iter() {
            if !options.alpn.is_empty() {
                let place = index.map_or_else(|| path.clone(), |index| path.index(index)).key("alpn");
                let found = self.error(&place, "what an HTTP listener offers follows from what it speaks");
                self.push(found.hint("say `protocols` beside `tls`, and leave `alpn` out"));
            }
        }
        let mut spec = self.listener_tls(tls, &path)?;
        let spoken = ALPN.iter().filter(|(protocol, _)| http.protocols.0.contains(protocol));
        spec.alpn = spoken.map(|(_, name)| (*name).to_owned()).collect();
        Some(spec)
    }

    fn http_listeners(
        &mut self,
        http: &HttpOptions,
        name: &Arc<str>,
        listens: &[ListenSpec],
        routes: Arc<[RouteSpec]>,
        access_log: Option<&AccessLogPlan>,
        tls: Option<&AcceptorSpec>,
    ) {
        let mut spec = http.spec(name.clone(), routes);
        spec.tls = tls.cloned();
        for listen in listens {
            if self.listeners.len() + listen.address.count() > MAX_LISTENERS {
                let message = format!("more than {MAX_LISTENERS} listeners, each port of a range being one");
                self.push(Found::nowhere(message));
                return;
            }
            for index in 0..listen.address.count() {
                let address: AddressSpec = nth_port(&listen.address, index);
                self.listeners.push(ListenerPlan {
                    name: name.clone(),
                    protocol: Protocol::Tcp,
                    address,
                    mode: ModePlan::Http(Box::new(spec.clone())),
                    access_log: access_log.cloned(),
                });
            }
        }
    }
}
