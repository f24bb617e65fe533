//! What has to be so when nothing is on the way any more, seen from outside: by what was told to clients and what is open.

use std::collections::BTreeMap;
use std::sync::Arc;

use wmproxy_wire::tunnel::message::{Kind, Placed, Refusal, RefusalCode, Service};

use super::publisher::places;
use super::world::{Client, World};
use crate::options::GrantSpec;
use crate::server::Place;

pub(super) fn check(world: &World) {
    let mut offered = Vec::new();
    for client in &world.clients {
        let Some(grant) = world.spec.clients.iter().find(|grant| grant.name == client.name) else {
            assert_eq!(client.session, None, "{} is not the server's", client.name);
            continue;
        };
        assert!(client.session.is_some(), "{} has a session", client.name);
        let heard = client.heard.as_ref().expect("it was told what became of its services");
        assert_eq!(heard.epoch, client.epoch, "of the last that {} has said", client.name);
        assert_eq!(heard.results.len(), client.services.len());
        for (service, placed) in client.services.iter().zip(&heard.results) {
            assert_eq!(placed.id, service.id);
            offered.push(Offered { client, grant, service, placed });
        }
    }
    let mut members = BTreeMap::<Arc<str>, Vec<&Offered<'_>>>::new();
    for one in &offered {
        match &one.placed.result {
            Ok(places) => {
                if let Some(name) = one.is_granted(world, places) {
                    members.entry(name).or_default().push(one);
                }
            }
            Err(refusal) => one.is_refused(world, refusal, &offered),
        }
    }
    assert!(world.open.keys().eq(members.keys()), "nothing is open but what somebody was told");
    for (name, members) in members {
        leads_to(world, &name, &members);
    }
    let known: Vec<_> = world.registry.members().collect();
    let granted = offered.iter().filter(|one| one.placed.result.is_ok());
    for one in granted {
        let known = known.iter().find(|member| *member.name == *one.name()).expect("it can be reached");
        assert_eq!((known.session, &known.client), (one.client.session, &one.client.name));
        assert_eq!(*known.service, *one.service, "as its client has said last");
    }
}

/// A service of a client, and what the client was told of it.
struct Offered<'a> {
    client: &'a Client,
    grant: &'a GrantSpec,
    service: &'a Service,
    placed: &'a Placed,
}

/// A place leads to its members that are up, or to all.
fn leads_to(world: &World, name: &str, members: &[&Offered<'_>]) {
    let up: Vec<String> = members.iter().filter(|one| one.service.is_up).map(|one| one.name()).collect();
    let all: Vec<String> = members.iter().map(|one| one.name()).collect();
    let mut expected = if up.is_empty() { all } else { up };
    expected.sort();
    let mut leads: Vec<String> = world.open[name].members.iter().map(|name| name.to_string()).collect();
    leads.sort();
    assert_eq!(leads, expected, "{name}");
    let first = members[0];
    for other in &members[1..] {
        assert!(first.service.group.is_some() && first.service.group == other.service.group);
    }
}

impl Offered<'_> {
    fn name(&self) -> String {
        format!("{}/{}", self.client.name, self.service.name)
    }

    fn is_web(&self) -> bool {
        matches!(self.service.kind, Kind::Http | Kind::Https)
    }

    fn may_open(&self, port: u16) -> bool {
        self.grant.ports.iter().any(|range| (range.first..=range.last).contains(&port))
    }

    /// Whether a host is granted: by itself, or by all of that level.
    fn may_answer_for(&self, host: &str) -> bool {
        self.grant.hosts.iter().any(|grant| grant == host || grant == "*.example.com")
    }

    /// What it was told is so. The name of what leads to it, if anything does.
    fn is_granted(&self, world: &World, told: &[String]) -> Option<Arc<str>> {
        if self.service.is_private {
            assert!(self.grant.private);
            assert_eq!(told, [self.name()]);
            return None;
        }
        let shown = |place: &Place| match place {
            Place::Address(address) => {
                let kind = if self.service.kind == Kind::Udp { "udp" } else { "tcp" };
                format!("{kind}://{address}")
            }
            Place::Url(url) => url.clone(),
        };
        let has_it = |member: &Arc<str>| **member == *self.name();
        let of_group = |name: &str| self.service.group.is_some() && name.contains(":g@");
        let (name, exposure) = world
            .open
            .iter()
            .find(|(name, exposure)| {
                (exposure.members.iter().any(has_it) || of_group(name))
                    && (exposure.kind, &exposure.paths) == (self.service.kind, &self.service.paths)
                    && places(exposure).iter().map(shown).eq(told.iter().cloned())
            })
            .unwrap_or_else(|| panic!("{} is not at {told:?}", self.name()));
        if self.is_web() {
            assert!(self.service.hosts.iter().all(|host| self.may_answer_for(host)));
        } else {
            assert!(self.may_open(exposure.port));
            assert!([0, exposure.port].contains(&self.service.port));
        }
        Some(name.clone())
    }

    /// Why it was refused is so.
    fn is_refused(&self, world: &World, refusal: &Refusal, offered: &[Offered<'_>]) {
        let service = self.service;
        let mut others = offered.iter().filter(|other| !std::ptr::eq(*other, self));
        let is_alike = |other: &Offered<'_>| {
            service.group.is_some()
                && (other.service.kind, &other.service.group) == (service.kind, &service.group)
        };
        match refusal.code {
            RefusalCode::NotGranted if service.is_private => assert!(!self.grant.private),
            RefusalCode::NotGranted if self.is_web() => {
                assert!(!service.hosts.iter().all(|host| self.may_answer_for(host)));
            }
            RefusalCode::NotGranted => assert!(!self.may_open(service.port) || self.grant.ports.is_empty()),
            // One that takes any port stays with its group, of which somebody asks for this one.
            RefusalCode::System => {
                let asks = |port| world.busy.contains(&port);
                assert!(
                    asks(service.port) || others.any(|other| is_alike(other) && asks(other.service.port))
                );
            }
            RefusalCode::InUse if self.is_web() => {
                let shares = |other: &Offered<'_>| {
                    other.service.kind == service.kind
                        && other.service.hosts.iter().any(|host| service.hosts.contains(host))
                };
                assert!(
                    others.any(|other| other.placed.result.is_ok() && (shares(other) || is_alike(other)))
                );
            }
            RefusalCode::InUse => {
                // Who has a port that can't be opened has it all the same.
                let has_any = |other: &Offered<'_>| match &other.placed.result {
                    Ok(_) => true,
                    Err(refusal) => refusal.code == RefusalCode::System,
                };
                let has_it =
                    |other: &Offered<'_>| other.has_port(service.kind, service.port) || is_alike(other);
                let by_other = others.any(|other| has_any(other) && has_it(other));
                let is_asked_for = by_other || world.busy.contains(&service.port);
                assert!(is_asked_for, "nobody else has what {} asks", self.name());
            }
            RefusalCode::Limit => {
                assert_eq!(service.port, 0);
                for range in &self.grant.ports {
                    let is_taken = offered.iter().any(|other| other.has_port(service.kind, range.first));
                    assert!(is_taken || world.busy.contains(&range.first), "{} is free", range.first);
                }
            }
            _ => panic!("{} is refused: {refusal:?}", self.name()),
        }
    }

    /// Whether it was told that it has this port.
    fn has_port(&self, kind: Kind, port: u16) -> bool {
        let shown = format!(":{port}");
        self.service.kind == kind
            && self
                .placed
                .result
                .as_ref()
                .is_ok_and(|places| places.iter().any(|place| place.ends_with(&shown)))
    }
}
