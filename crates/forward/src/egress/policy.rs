//! What the rules of an egress come to for a destination. Nothing here resolves, connects, or knows the time.
//!
//! What is denied is denied, whatever is allowed. What `allow` does not name is denied if there is an `allow` at all. Beyond
//! that a port of `deny_ports` has to be named by a rule that allows it, and an address that is not public by a rule about
//! such addresses (`10.0.0.0/8`, but not `0.0.0.0/0`), or, if it belongs to a private network, by a rule about the name that
//! leads there. Where clouds keep the secrets of a machine only a rule about that one address leads.

use std::net::IpAddr;

use super::class::{Class, class_of, leads_to};
use super::hours::Minute;
use super::list::{List, Said};
use super::ports::Ports;
use crate::options::PrivateNets;

/// The rules of an egress.
#[derive(Debug)]
pub(super) struct Policy {
    pub(super) private: PrivateNets,
    /// None where everything is allowed that is not denied.
    pub(super) allow: Option<List>,
    pub(super) deny: List,
    pub(super) deny_ports: Ports,
}

/// Why a destination is forbidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denial {
    /// A rule of `deny`.
    Denied,
    /// No rule of `allow`.
    NotAllowed,
    /// A port of `deny_ports`.
    Port,
    /// What the address is for.
    Class(Class),
    /// We listen there ourselves.
    Own,
    /// A route that rejects.
    Rejected,
}

impl Policy {
    /// Whether a name may be gone to, as far as that shows before it is resolved. If it is to be resolved, its addresses may
    /// be what `allow` names; that is left to [`address`](Policy::address), which wants to know what is said here.
    pub(super) fn name(&self, name: &str, port: u16, is_resolved: bool, at: Minute) -> Result<Said, Denial> {
        if (self.deny.of_port(port, at) | self.deny.of_name(name, port, at)).applies {
            return Err(Denial::Denied);
        }
        let said = match &self.allow {
            Some(allow) => allow.of_port(port, at) | allow.of_name(name, port, at),
            None => Said::default(),
        };
        let may_follow = is_resolved && self.allow.as_ref().is_some_and(List::has_nets);
        match self.suffices(said, port) {
            Err(_) if may_follow => Ok(said),
            Err(denial) => Err(denial),
            // Whoever resolves it finds itself (RFC 6761 section 6.3).
            Ok(())
                if !is_resolved && self.private == PrivateNets::Deny && is_localhost(name) && !said.name =>
            {
                Err(Denial::Class(Class::Loopback))
            }
            Ok(()) => Ok(said),
        }
    }

    /// Whether an address may be gone to; `name` is what was said of the name that led there, if one did. Gives back what
    /// is said of both.
    pub(super) fn address(&self, ip: IpAddr, port: u16, name: Said, at: Minute) -> Result<Said, Denial> {
        let ip = ip.to_canonical();
        if (self.deny.of_port(port, at) | self.deny.of_ip(ip, port, at)).applies {
            return Err(Denial::Denied);
        }
        let said = match &self.allow {
            Some(allow) => name | allow.of_port(port, at) | allow.of_ip(ip, port, at),
            None => name,
        };
        self.suffices(said, port)?;
        self.class(ip, said)?;
        if let Some(inner) = leads_to(ip).map(IpAddr::V4) {
            if self.deny.of_ip(inner, port, at).applies {
                return Err(Denial::Denied);
            }
            // That the way there is open does not open what is behind it.
            let inner_said =
                self.allow.as_ref().map_or_else(Said::default, |allow| allow.of_ip(inner, port, at));
            self.class(inner, inner_said)?;
        }
        Ok(said)
    }

    fn suffices(&self, said: Said, port: u16) -> Result<(), Denial> {
        if self.allow.is_some() && !said.applies {
            return Err(Denial::NotAllowed);
        }
        if !said.port && self.deny_ports.contains(port) {
            return Err(Denial::Port);
        }
        Ok(())
    }

    fn class(&self, ip: IpAddr, said: Said) -> Result<(), Denial> {
        let class = class_of(ip);
        let is_open = class == Class::Public
            || self.private == PrivateNets::Allow
            || said.host
            || said.special && class != Class::Metadata
            || said.name && class.is_local_network();
        if is_open { Ok(()) } else { Err(Denial::Class(class)) }
    }

    /// Whether it matters when it is.
    pub(super) fn has_hours(&self) -> bool {
        self.deny.has_hours() || self.allow.as_ref().is_some_and(List::has_hours)
    }

    /// Which of the rules for some hours hold, one after the other.
    pub(super) fn holding(&self, at: Minute) -> impl Iterator<Item = bool> {
        self.allow.iter().chain([&self.deny]).flat_map(move |list| list.holding(at))
    }
}

/// `localhost`, and all below it.
fn is_localhost(name: &str) -> bool {
    name.strip_suffix("localhost").is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}
