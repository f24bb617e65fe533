//! The HTTP reverse proxy, judged by what reaches its clients and its origins byte for byte.

mod access_log;
mod basic;
pub(super) mod bodies;
mod errors;
mod filters;
mod forwarded;
mod framing;
mod guards;
mod h2;
mod h2_attacks;
mod keepalive;
mod leaving;
mod limits;
mod onlookers;
mod reload;
mod retries;
mod routing;
mod smuggling;
mod timeouts;
mod upgrade;
mod upstreams;

use std::fmt::Display;

/// An `[[http]]` named `h` on a port of 127.0.0.1; `more` is further lines of the table, `routes` its routes.
pub(super) fn http(more: &str, routes: &str) -> String {
    format!("[[http]]\nname = \"h\"\nlisten = [\"127.0.0.1:0\"]\n{more}\n{routes}")
}

/// A route: the lines of its table.
pub(super) fn route(lines: &str) -> String {
    format!("[[http.route]]\n{lines}\n")
}

/// An `[[http]]` named `h` with one route.
pub(super) fn one_route(lines: &str) -> String {
    http("", &route(lines))
}

/// An `[[http]]` named `h` whose every request goes to one upstream.
pub(super) fn site(upstream: impl Display) -> String {
    site_with(upstream, "")
}

/// The same with further lines of the `[[http]]`.
pub(super) fn site_with(upstream: impl Display, more: &str) -> String {
    http(more, &route(&format!("reverse_proxy = \"{upstream}\"")))
}
