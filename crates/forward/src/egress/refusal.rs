//! What is said to whoever may not go somewhere.

use std::fmt;
use std::net::SocketAddr;

use wmproxy_http::forward::Visit;
use wmproxy_net::connect::{ConnectError, Fault};
use wmproxy_wire::destination::{Destination, Host};

use super::policy::Denial;
use super::{Egress, counts};

impl Egress {
    /// Says why a destination is forbidden as it was written, and what would allow it.
    pub(super) fn refuse(&self, denial: Denial, visit: &Visit<'_>) -> ConnectError {
        counts::note(denial);
        let (to, port, name) = (visit.to, visit.to.port, &self.name);
        // The first rule of `allow` closes everything else, which is not what somebody wants who opens one address.
        let all = if self.policy.allow.is_none() { "\"*\", " } else { "" };
        let text = match denial {
            Denial::Denied => format!("a rule in deny of [egress.{name}] forbids {to}"),
            Denial::NotAllowed => format!("no rule in allow of [egress.{name}] names {to}"),
            Denial::Port => {
                format!(
                    "port {port} is in deny_ports of [egress.{name}]; allow = [{all}\":{port}\"] opens it"
                )
            }
            Denial::Class(class) => {
                format!(
                    "{} is {}; [egress.{name}] allow = [{all}\"{to}\"] opens it",
                    HostOf(to),
                    class.text()
                )
            }
            Denial::Own => format!(
                "{to} is where this proxy itself listens; [egress.{name}] allow = [{all}\"{to}\"] opens it"
            ),
            Denial::Rejected => format!("a route of [egress.{name}] rejects {to}"),
        };
        ConnectError::new(Fault::Denied, text)
    }

    /// Says that an address is forbidden which a destination turned out to have. What addresses names have inside is nothing
    /// for strangers: the log knows.
    pub(super) fn refuse_found(
        &self,
        address: SocketAddr,
        denial: Denial,
        visit: &Visit<'_>,
    ) -> ConnectError {
        if matches!(visit.to.host, Host::Ip(_)) {
            return self.refuse(denial, &Visit { to: &address.into(), ..*visit });
        }
        counts::note(denial);
        tracing::debug!(egress = %self.name, to = %visit.to, %address, ?denial, "a name leads to an address that is not allowed");
        let text = format!("{} leads to an address that [egress.{}] does not allow", visit.to, self.name);
        ConnectError::new(Fault::Denied, text)
    }
}

/// Prints the host of a destination.
struct HostOf<'a>(&'a Destination);

impl fmt::Display for HostOf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.host {
            Host::Ip(ip) => ip.fmt(f),
            Host::Name(name) => f.write_str(name),
        }
    }
}
