//! What the options come to: every default filled in, every name resolved, nothing left to be wrong.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use wmproxy_files::options::FilesSpec;
use wmproxy_net::acl::{Acl, Prefix};
use wmproxy_net::limit::Limits;
use wmproxy_net::options::OneOrMany;
use wmproxy_net::preface::Trusted;
use wmproxy_net::relay::Splice;
use wmproxy_net::sockopt::{ListenSocket, Source, TcpOptions, Way};
use wmproxy_net::tls::{AcceptorSpec, ConnectorSpec};
use wmproxy_wire::bucket::Frequency;
use wmproxy_wire::head::coding::Encoding;
use wmproxy_wire::units::{ByteRate, HumanDuration};

use super::filter::{HeaderRules, LimitConnectionsOptions, LimitRequestsOptions, PageStatus};
use super::listener::{HttpLimits, HttpOptions, HttpProtocol, HttpTimeouts};
use super::route::RouteOptions;
use super::value::{HostPattern, MethodName, PathPattern, TryStep, ValuePattern};
use crate::vars::Template;

/// What the data plane needs to know of one listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpSpec {
    /// The listener's name.
    pub name: Arc<str>,
    /// Whether HTTP/1 is spoken. One of the two is.
    pub h1: bool,
    /// Whether HTTP/2 is spoken.
    pub h2: bool,
    /// What its TLS is made of, if it serves https. The config's reader sets it: it knows where files lie. Its ALPN is
    /// what `h1` and `h2` say.
    pub tls: Option<AcceptorSpec>,
    /// How long clients may take; none of them is zero.
    pub timeouts: HttpTimeouts,
    /// How much they may send.
    pub limits: HttpLimits,
    /// Who has to begin with a PROXY header.
    pub proxy_protocol: Option<Trusted>,
    /// Whose forwarding fields are believed, and a PROXY header if they begin with one.
    pub trusted_proxies: Option<Trusted>,
    /// The most connections at a time; 0 is no limit.
    pub max_connections: u32,
    /// The most connections at a time of one client address; 0 is no limit.
    pub per_client_connections: u32,
    /// How often one client may connect.
    pub per_client: Option<Frequency>,
    /// Who may connect.
    pub acl: Acl,
    /// Whether large bodies are spliced.
    pub splice: Splice,
    /// What is set on the listening sockets, and with them on those of clients.
    pub socket: ListenSocket,
    /// The address that peers see, unless their group says another.
    pub source: Option<Source>,
    /// The routes in the order of the config. Shared by the listeners of one table.
    pub routes: Arc<[RouteSpec]>,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteSpec {
    /// Its name in logs and metrics.
    pub name: Arc<str>,
    /// Which requests it is for.
    pub matches: MatchSpec,
    /// What of the path is changed for the endpoint.
    pub rewrite: RewriteSpec,
    /// What is tried one after the other; empty for the path itself alone.
    pub try_paths: Vec<TryStep>,
    /// What happens on the way.
    pub filters: FilterSpec,
    /// Who answers.
    pub endpoint: EndpointSpec,
}

/// Which requests a route is for. An empty list is for all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MatchSpec {
    /// Their host is one of these.
    pub hosts: Vec<HostPattern>,
    /// Their path fits one of these.
    pub paths: Vec<PathPattern>,
    /// Their method is one of these.
    pub methods: Vec<MethodName>,
    /// Each of these fields, by its name in lower case, fits.
    pub headers: Vec<(Box<str>, ValuePattern)>,
    /// Each of these parameters fits.
    pub query: Vec<(Box<str>, ValuePattern)>,
    /// The client is in one of these.
    pub clients: Vec<Prefix>,
}

/// What of the path is changed, in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RewriteSpec {
    /// Taken off the front; no slash at its end.
    pub strip_prefix: Option<Box<str>>,
    /// Put in front; no slash at its end.
    pub add_prefix: Option<Box<str>>,
    /// A regular expression that compiles, and what stands for what it finds.
    pub rewrite: Option<(Box<str>, Box<str>)>,
}

/// What happens to requests and responses on the way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FilterSpec {
    /// Changes of the request's fields.
    pub request_headers: HeaderRules,
    /// Changes of the response's fields.
    pub response_headers: HeaderRules,
    /// Which clients are served.
    pub acl: Acl,
    /// Who has to say a password.
    pub basic_auth: Option<AuthSpec>,
    /// How often requests may come; its `rate` is there.
    pub limit_requests: Option<LimitRequestsOptions>,
    /// How many may be under way; its `max` is there.
    pub limit_connections: Option<LimitConnectionsOptions>,
    /// How fast the bytes of a response pass.
    pub rate_limit: Option<ByteRate>,
    /// Ways to compress, the best first.
    pub compress: Vec<Encoding>,
    /// Where copies of requests go. Its `timeout` is that of the copy.
    pub mirror: Option<ReverseSpec>,
    /// What stands for the bodies of errors.
    pub error_pages: BTreeMap<PageStatus, ErrorPage>,
}

/// Who has to say a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthSpec {
    /// Where names and hashes are.
    pub users: UsersSpec,
    /// What clients show their users.
    pub realm: Box<str>,
    /// Whether `Authorization` is passed on.
    pub forward: bool,
}

/// Where names and hashes of passwords are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum UsersSpec {
    /// In a file, which is read again when it changes.
    File(PathBuf),
    /// Here: names, each with its hash.
    Listed(Arc<[(String, String)]>),
}

/// A body for an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorPage {
    /// Its bytes.
    pub body: Arc<[u8]>,
    /// Their type.
    pub content_type: &'static str,
}

/// Who answers requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndpointSpec {
    /// A peer.
    Reverse(ReverseSpec),
    /// Files below a directory.
    Files(FilesSpec),
    /// A redirect.
    Redirect {
        /// Where to.
        to: Template,
        /// 301, 302, 303, 307 or 308.
        status: u16,
    },
    /// A fixed response.
    Respond {
        /// From 200 to 599.
        status: u16,
        /// The body.
        body: Template,
        /// The type of the body, a valid value.
        content_type: Box<str>,
    },
}

/// Where requests are passed on to, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReverseSpec {
    /// The group's name.
    pub group: Arc<str>,
    /// What goes before each path: empty, or beginning with a slash and not ending with one.
    pub base: Box<str>,
    /// The `Host` for servers where it is not the client's: that of a URL, or none for the server's address.
    pub authority: Option<Box<str>>,
    /// Whether servers see the client's `Host`.
    pub preserve_host: bool,
    /// How long a response may take to begin, and how long nothing of it may come; never zero.
    pub timeout: Duration,
    /// How long one try may take; never zero, and not above `timeout`.
    pub try_timeout: Duration,
    /// Whether a request's body is read before a peer is asked.
    pub buffer: bool,
    /// Whether HTTP/2 is spoken in the clear. By TLS it is where the group offers it and the peer agrees.
    pub h2: bool,
}

impl ReverseSpec {
    /// Whether HTTP/2 is to be spoken with servers that are talked to by this TLS, or in the clear.
    pub(crate) fn wants_h2(&self, tls: Option<&ConnectorSpec>) -> bool {
        tls.map_or(self.h2, |tls| tls.alpn.iter().any(|protocol| protocol == "h2"))
    }
}

impl HttpOptions {
    /// The listener's settings with every default filled in.
    pub fn spec(&self, name: Arc<str>, routes: Arc<[RouteSpec]>) -> HttpSpec {
        HttpSpec {
            name,
            h1: self.protocols.0.contains(&HttpProtocol::H1),
            h2: self.protocols.0.contains(&HttpProtocol::H2),
            tls: None,
            timeouts: self.timeouts,
            limits: self.limits,
            proxy_protocol: Trusted::new(&self.accept_proxy_protocol.0),
            trusted_proxies: Trusted::new(&self.trusted_proxies.0),
            max_connections: self.max_connections,
            per_client_connections: self.per_client_connections,
            per_client: self.per_client_rate.map(|rate| Frequency::new(rate, self.per_client_burst)),
            acl: acl(&self.allow, &self.deny),
            splice: self.splice,
            socket: self.socket(),
            source: self.source,
            routes,
        }
    }

    fn socket(&self) -> ListenSocket {
        ListenSocket {
            way: Way { interface: self.interface.clone(), mark: self.mark, dscp: self.dscp },
            transparent: self.transparent,
            fast_open: self.tcp_fast_open,
            mptcp: self.mptcp,
            tcp: TcpOptions {
                nodelay: self.tcp_nodelay,
                keepalive: self.tcp_keepalive.on().copied(),
                user_timeout: self.tcp_user_timeout.map(HumanDuration::get),
            },
        }
    }
}

impl HttpSpec {
    /// What the listener's gate keeps to.
    pub fn limits(&self) -> Limits {
        Limits {
            max: self.max_connections,
            max_per_client: self.per_client_connections,
            per_client: self.per_client,
            up: None,
            down: None,
        }
    }

    /// The names of all groups that requests and their copies go to; one may come more than once.
    pub fn groups(&self) -> impl Iterator<Item = &Arc<str>> {
        self.routes.iter().flat_map(|route| {
            let proxied = match &route.endpoint {
                EndpointSpec::Reverse(to) => Some(&to.group),
                EndpointSpec::Files(_) | EndpointSpec::Redirect { .. } | EndpointSpec::Respond { .. } => None,
            };
            proxied.into_iter().chain(route.filters.mirror.as_ref().map(|to| &to.group))
        })
    }
}

impl RouteOptions {
    /// Which requests it is for.
    pub fn matches(&self) -> MatchSpec {
        let named = |patterns: &BTreeMap<String, ValuePattern>, name: fn(&str) -> String| {
            patterns.iter().map(|(key, value)| (name(key).into(), value.clone())).collect()
        };
        MatchSpec {
            hosts: self.host.0.clone(),
            paths: self.path.0.clone(),
            methods: self.methods.0.clone(),
            headers: named(&self.headers, str::to_ascii_lowercase),
            query: named(&self.query, str::to_owned),
            clients: self.client_ip.0.clone(),
        }
    }

    /// What of the path is changed.
    pub fn rewrite(&self) -> RewriteSpec {
        let prefix = |prefix: &Option<String>| {
            prefix.as_deref().map(|text| text.strip_suffix('/').unwrap_or(text).into())
        };
        let rewrite = self.rewrite.as_ref();
        RewriteSpec {
            strip_prefix: prefix(&self.strip_prefix),
            add_prefix: prefix(&self.add_prefix),
            rewrite: rewrite.map(|(regex, with)| (regex.as_str().into(), with.as_str().into())),
        }
    }

    /// What happens on the way, without what needs files and other tables: `basic_auth`, `mirror`, `error_pages`.
    pub fn filters(&self) -> FilterSpec {
        FilterSpec {
            request_headers: self.request_headers.clone(),
            response_headers: self.response_headers.clone(),
            acl: acl(&self.allow, &self.deny),
            basic_auth: None,
            limit_requests: self.limit_requests.clone(),
            limit_connections: self.limit_connections.clone(),
            rate_limit: self.rate_limit,
            compress: self.compress.0.clone(),
            mirror: None,
            error_pages: BTreeMap::new(),
        }
    }
}

fn acl(allow: &OneOrMany<Prefix>, deny: &OneOrMany<Prefix>) -> Acl {
    let nets = |list: &OneOrMany<Prefix>| list.0.iter().map(|prefix| prefix.net()).collect::<Vec<_>>();
    Acl::new(&nets(allow), &nets(deny))
}
