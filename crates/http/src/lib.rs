//! The HTTP mode: a server that routes each request through filters to an endpoint, above all to a peer behind it.
//!
//! What lives here: the options of `[[http]]`, connections of HTTP/1 and HTTP/2, the table of routes, filters, endpoints,
//! and what is [known](facts) of a request on its way through them. What must not: the wire format of HTTP/1 and the form
//! of heads (`wire`), the choice of a peer and idle connections to it (`upstream`), sockets and TLS (`net`).
//!
//! A request passes through so: a connection reads its head; whom it is for is normalised once; the router finds its
//! route; the route's filters answer it or let it pass; the endpoint answers, a reverse proxy by leasing a peer and
//! passing both bodies on at the same time; the filters see the response; its end is a line of the access log.

pub mod auth;
pub mod endpoint;
pub mod facts;
pub mod filter;
pub mod forward;
pub mod options;
pub mod router;
pub mod traffic;
pub mod vars;

mod desk;
mod exchange;
mod h1;
mod h2;
mod live;
mod refusals;
mod reply;
mod route;
mod routes;
mod scratch;
mod service;
mod timer;
mod upgrade;

pub use endpoint::files::files_open;
pub use h2::hop;
pub use route::BuildError;
pub use service::{HttpService, RequestLog};

/// Closes connections to peers and origins that the calling worker keeps for requests to come, and that are not a group's: for
/// when the process drains.
pub fn close_shared() {
    h2::close_all();
    forward::close_all();
}

#[cfg(test)]
mod testing;
