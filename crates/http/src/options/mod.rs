//! The options of `[[http]]`, and what the data plane takes from them.
//!
//! What lives here: every key of a listener and of its routes with what it means to a user, the forms of text that they
//! are written in, and the specs that they come to. What must not: looking at files, other tables or addresses, which
//! is the config reader's, and running any of it.

mod endpoint;
mod filter;
mod listener;
mod route;
mod spec;
mod target;
#[cfg(test)]
mod tests;
mod text;
mod value;

pub use endpoint::{
    FilesEndpointOptions, RedirectOptions, RespondOptions, ReverseProxyOptions, ReverseProxyTable,
};
pub use filter::{BasicAuthOptions, HeaderRules, LimitConnectionsOptions, LimitRequestsOptions, PageStatus};
pub use listener::{HttpLimits, HttpOptions, HttpProtocol, HttpTimeouts};
pub use route::RouteOptions;
pub use spec::{
    AuthSpec, EndpointSpec, ErrorPage, FilterSpec, HttpSpec, MatchSpec, ReverseSpec, RewriteSpec, RouteSpec,
    UsersSpec,
};
pub use target::{TargetUrl, UrlError, UrlScheme};
pub use value::{BodyLimit, HostPattern, MethodName, PathPattern, TryStep, ValuePattern};
pub(crate) use value::{REGEX_SIZE, regex_reason};
pub use wmproxy_wire::head::coding::Encoding;
