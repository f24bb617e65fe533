//! The keys of `[[http.route]]`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wmproxy_net::acl::Prefix;
use wmproxy_net::options::OneOrMany;
use wmproxy_wire::head::coding::Encoding;
use wmproxy_wire::units::ByteRate;

use super::endpoint::{FilesEndpointOptions, RedirectOptions, RespondOptions, ReverseProxyOptions};
use super::filter::{
    BasicAuthOptions, HeaderRules, LimitConnectionsOptions, LimitRequestsOptions, PageStatus,
};
use super::listener::is_empty;
use super::value::{HostPattern, MethodName, PathPattern, TryStep, ValuePattern};

/// A route: which requests it is for, what is done with them on the way, and the one endpoint that answers them. A
/// request takes the first route in the file that is for it, among those for its host; then among those for the
/// longest wildcard that its host is below, and so on to shorter ones; then among those for any host. Where there is
/// none, it gets a 404.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RouteOptions {
    /// Names the route in logs and metrics. By default it is its number in the listener, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The hosts that it is for: a name, or `"*.example.com"` for every name below `example.com`, however many labels
    /// more it has. The port that a client asks for does not count. By default any, also none.
    #[serde(skip_serializing_if = "is_empty")]
    pub host: OneOrMany<HostPattern>,
    /// The paths that it is for: `"/api"` for itself and what lies below it, with a slash at its end or without; `"=/api"`
    /// for itself alone; `"~^/v[0-9]+/"` for what a regular expression finds something in. Compared with the path in
    /// its normal form: dot segments resolved, `%` escapes of letters, digits and `-._~` decoded. By default any.
    #[serde(skip_serializing_if = "is_empty")]
    pub path: OneOrMany<PathPattern>,
    /// The methods that it is for. `HEAD` is not in `GET`. By default any.
    #[serde(skip_serializing_if = "is_empty")]
    pub methods: OneOrMany<MethodName>,
    /// What fields of the request have to be, as in `{ "x-canary" = "1" }`: a value, `"*"` for any, or `"~..."` for one
    /// in which a regular expression finds something. Of several fields of a name one is enough; all names count.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, ValuePattern>,
    /// What parameters of the query have to be, in the same way; escapes in both are decoded.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub query: BTreeMap<String, ValuePattern>,
    /// The clients that it is for: addresses and prefixes. Others go on to the next route; see `allow`. By default all.
    #[serde(skip_serializing_if = "is_empty")]
    pub client_ip: OneOrMany<Prefix>,
    /// Endpoint: passes the request on. The name of an `[upstream]`, an address, a list of addresses, a URL like
    /// `"https://app.internal:8443/base"`, or a table with more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reverse_proxy: Option<ReverseProxyOptions>,
    /// Endpoint: serves the files below a directory: `"/srv/www"`, or a table with more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<FilesEndpointOptions>,
    /// Endpoint: sends the client elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redirect: Option<RedirectOptions>,
    /// Endpoint: answers with what is written here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub respond: Option<RespondOptions>,
    /// Takes this off the front of the path, on a border of segments: with `"/api"`, `/api/x` becomes `/x`, and `/apix`
    /// stays. Before `add_prefix` and `rewrite`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strip_prefix: Option<String>,
    /// Puts this in front of the path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub add_prefix: Option<String>,
    /// A regular expression and what to put in the place of what it finds in the path, as in
    /// `["^/old/(.*)$", "/new/$1"]`; `$1` is what its first parentheses hold. The query stays, unless the new text
    /// brings its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<(String, String)>,
    /// Paths to try one after the other, as in `["{path}", "{path}/index.html", "/index.html"]`: the first one that is
    /// answered with a status below 400 is the answer, and the last one whatever it says. `"=404"` at the end answers
    /// so. For GET and HEAD only; other methods take the first.
    #[serde(rename = "try", skip_serializing_if = "Vec::is_empty")]
    pub try_paths: Vec<TryStep>,
    /// Changes of the request's fields, before it is passed on.
    #[serde(skip_serializing_if = "HeaderRules::is_empty")]
    pub request_headers: HeaderRules,
    /// Changes of the response's fields.
    #[serde(skip_serializing_if = "HeaderRules::is_empty")]
    pub response_headers: HeaderRules,
    /// Which clients are served: addresses and prefixes. Others get a 403. Of `allow` and `deny` the longest prefix that
    /// holds the client decides, and `deny` when both say the same. Whoever is in neither is served unless `allow`
    /// names somebody.
    #[serde(skip_serializing_if = "is_empty")]
    pub allow: OneOrMany<Prefix>,
    /// Which clients are not; see `allow`.
    #[serde(skip_serializing_if = "is_empty")]
    pub deny: OneOrMany<Prefix>,
    /// Asks for a name and a password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub basic_auth: Option<BasicAuthOptions>,
    /// How often requests may come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_requests: Option<LimitRequestsOptions>,
    /// How many requests may be under way at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_connections: Option<LimitConnectionsOptions>,
    /// How fast the bytes of each response pass, as in `"4m/s"`. By default there is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<ByteRate>,
    /// Compresses responses on the fly with the first of these that the client takes best: `zstd`, `br`, `gzip`. Only
    /// types that gain by it, of 1 KB and more, that are not compressed yet.
    #[serde(skip_serializing_if = "is_empty")]
    pub compress: OneOrMany<Encoding>,
    /// Sends a copy of each request to this upstream, too, and forgets the answer: the name of an `[upstream]`, an
    /// address, or a URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<String>,
    /// Files to send as the body of responses with a status, whoever made them, as in
    /// `{ 404 = "404.html", 5xx = "sorry.html" }`; the status stays. They are read when the config is.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub error_pages: BTreeMap<PageStatus, String>,
}
