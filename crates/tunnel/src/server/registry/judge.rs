//! Who gets what: each service gets what it asks for if its client's grants allow it and nobody else has it.
//!
//! Who has something keeps it as long as it is allowed to; after that, who asked first gets it. Services that take any port
//! come last, so that they are in nobody's way.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use wmproxy_wire::tunnel::message::{Kind, Refusal, RefusalCode};

use super::claim::{Claim, Spot};
use super::grants::{Grants, Pattern};
use super::{Entry, Registry, Standing, refusal};

/// Judges every service.
pub(super) fn judge(registry: &mut Registry) {
    let mut order = Vec::new();
    for (client, owner) in &registry.owners {
        for (index, entry) in owner.entries.iter().enumerate() {
            let takes_any = matches!(&entry.claim, Ok(Claim { spot: Spot::Port(0), .. }));
            order.push((!entry.is_held(), takes_any, entry.order, client.clone(), index));
        }
    }
    order.sort();
    let mut taken = Taken::default();
    for (.., client, index) in order {
        let (Some(grants), Some(owner)) = (registry.grants.get(&client), registry.owners.get_mut(&client))
        else {
            continue;
        };
        let entry = &mut owner.entries[index];
        entry.standing = match taken.take(grants, &client, index, entry) {
            Ok((exposure, port)) => {
                entry.picked = Some(port).filter(|port| *port != 0);
                Standing::Held { exposure, port }
            }
            Err(refused) => Standing::Refused(refused),
        };
    }
}

/// What is given away.
#[derive(Default)]
struct Taken {
    /// By whether it is of datagrams, and the number.
    ports: HashMap<(bool, u16), Holder>,
    hosts: HashMap<(Kind, String), HostUse>,
    /// The exposures with what their first member asked for.
    exposures: HashMap<Arc<str>, Claim>,
    /// The ports of groups.
    groups: HashMap<(Kind, String), Vec<u16>>,
}

/// Who has something.
#[derive(Clone)]
struct Holder {
    client: Arc<str>,
    service: String,
    exposure: Arc<str>,
}

struct HostUse {
    terminate: bool,
    /// By the beginnings of paths, without a slash at their end.
    paths: BTreeMap<String, Holder>,
}

/// The name of what leads to a service, if anything is to, and its port.
type Given = (Option<Arc<str>>, u16);

impl Taken {
    fn take(
        &mut self,
        grants: &Grants,
        client: &Arc<str>,
        index: usize,
        entry: &Entry,
    ) -> Result<Given, Refusal> {
        if index >= grants.max_services {
            let text = format!("this client may offer {} services", grants.max_services);
            return Err(refusal(RefusalCode::Limit, text));
        }
        let claim = entry.claim.as_ref().map_err(Refusal::clone)?;
        match &claim.spot {
            Spot::Private if grants.private => Ok((None, 0)),
            Spot::Private => {
                Err(refusal(RefusalCode::NotGranted, "this client may not offer private services"))
            }
            Spot::Port(asked) => self.take_port(grants, client, entry, claim, *asked),
            Spot::Hosts(hosts, paths) => self.take_hosts(grants, client, entry, claim, hosts, paths),
        }
    }

    fn take_port(
        &mut self,
        grants: &Grants,
        client: &Arc<str>,
        entry: &Entry,
        claim: &Claim,
        asked: u16,
    ) -> Result<Given, Refusal> {
        if !grants.has_ports() {
            return Err(refusal(RefusalCode::NotGranted, "this client may open no ports"));
        }
        let port = if asked == 0 { self.choose(grants, entry, claim) } else { Some(asked) };
        let Some(port) = port else {
            return Err(refusal(RefusalCode::Limit, "no port that this client may open is free"));
        };
        if !grants.covers_port(port) {
            let text = format!("this client may not open port {port}");
            return Err(refusal(RefusalCode::NotGranted, text));
        }
        let name = exposure_name(client, entry, claim, &port.to_string());
        let slot = (claim.kind == Kind::Udp, port);
        if let Some(holder) = self.ports.get(&slot) {
            self.join(holder, &name, client, claim, &format!("port {port}"))?;
        } else {
            self.ports.insert(slot, Holder::new(client, entry, &name));
            self.exposures.insert(name.clone(), claim.clone());
            if let Some(group) = &claim.group {
                self.groups.entry((claim.kind, group.clone())).or_default().push(port);
            }
        }
        Ok((Some(name), port))
    }

    /// The port of a service that takes any: the one that it has, that of its group, or a free one.
    fn choose(&self, grants: &Grants, entry: &Entry, claim: &Claim) -> Option<u16> {
        let is_udp = claim.kind == Kind::Udp;
        let may_have = |port: u16| grants.covers_port(port) && !entry.avoid.contains(&port);
        let is_free = |port: u16| may_have(port) && !self.ports.contains_key(&(is_udp, port));
        let group = claim.group.as_ref().and_then(|group| self.groups.get(&(claim.kind, group.clone())));
        let group = group.map_or(&[][..], Vec::as_slice);
        let of_group = group.iter().copied().find(|port| may_have(*port));
        let had = entry.picked.filter(|port| is_free(*port) || may_have(*port) && group.contains(port));
        // Others of its group may be elsewhere, for they asked for a port: who has one does not move to theirs.
        let (first, second) = if entry.is_held() { (had, of_group) } else { (of_group, had) };
        first.or(second).or_else(|| grants.pick_port(claim.seed, is_free))
    }

    fn take_hosts(
        &mut self,
        grants: &Grants,
        client: &Arc<str>,
        entry: &Entry,
        claim: &Claim,
        hosts: &[Pattern],
        paths: &[String],
    ) -> Result<Given, Refusal> {
        if let Some(host) = hosts.iter().find(|host| !grants.covers_host(host)) {
            let text = format!("this client may not answer for the host {host}");
            return Err(refusal(RefusalCode::NotGranted, text));
        }
        let first = hosts.first().map(Pattern::to_string).unwrap_or_default();
        let place = format!("{first}{}", paths.first().map_or("", String::as_str));
        let name = exposure_name(client, entry, claim, &place);
        let all = [String::new()];
        let paths: Vec<&str> = match paths {
            [] => all.iter().map(String::as_str).collect(),
            some => some.iter().map(|path| path.trim_end_matches('/')).collect(),
        };
        for host in hosts {
            let Some(used) = self.hosts.get(&(claim.kind, host.to_string())) else { continue };
            for path in &paths {
                if let Some(holder) = used.paths.get(*path) {
                    self.join(holder, &name, client, claim, &format!("host {host}{path}"))?;
                } else if used.terminate != claim.terms.terminate {
                    let text = format!("the host {host} is in use with `terminate` set otherwise");
                    return Err(refusal(RefusalCode::InUse, text));
                }
            }
        }
        if let Some(first) = self.exposures.get(&name) {
            is_alike(first, claim)?;
        }
        for host in hosts {
            let used = self
                .hosts
                .entry((claim.kind, host.to_string()))
                .or_insert_with(|| HostUse { terminate: claim.terms.terminate, paths: BTreeMap::new() });
            for path in &paths {
                let holder = || Holder::new(client, entry, &name);
                used.paths.entry((*path).to_owned()).or_insert_with(holder);
            }
        }
        self.exposures.entry(name.clone()).or_insert_with(|| claim.clone());
        Ok((Some(name), 0))
    }

    /// Whether a service may stand beside who has the place already: only in the same group.
    fn join(
        &self,
        holder: &Holder,
        name: &Arc<str>,
        client: &Arc<str>,
        claim: &Claim,
        place: &str,
    ) -> Result<(), Refusal> {
        if holder.exposure == *name && claim.group.is_some() {
            return self.exposures.get(name).map_or(Ok(()), |first| is_alike(first, claim));
        }
        let by = if holder.client == *client {
            format!("the service {} of this client", holder.service)
        } else {
            // Which, is none of this client's business.
            "another client".to_owned()
        };
        Err(refusal(RefusalCode::InUse, format!("{place} is in use by {by}")))
    }
}

/// Whether two of a group ask for the same; a port that is picked is the same as the one that it becomes.
fn is_alike(first: &Claim, other: &Claim) -> Result<(), Refusal> {
    let is_same_spot = match (&first.spot, &other.spot) {
        (Spot::Port(_), Spot::Port(_)) => true,
        (one, other) => one == other,
    };
    if is_same_spot && first.terms == other.terms {
        return Ok(());
    }
    let text = "services of a group have to be the same in hosts, paths, visitors, limits and rules; another one of it differs";
    Err(refusal(RefusalCode::InUse, text))
}

impl Holder {
    fn new(client: &Arc<str>, entry: &Entry, exposure: &Arc<str>) -> Holder {
        Holder { client: client.clone(), service: entry.service.name.clone(), exposure: exposure.clone() }
    }
}

/// `tcp:home/ssh`; of a group, which may be in several places, `tcp:ssh@20022`.
fn exposure_name(client: &str, entry: &Entry, claim: &Claim, place: &str) -> Arc<str> {
    let kind = claim.kind.as_str();
    match &claim.group {
        Some(group) => format!("{kind}:{group}@{place}").into(),
        None => format!("{kind}:{client}/{}", entry.service.name).into(),
    }
}
