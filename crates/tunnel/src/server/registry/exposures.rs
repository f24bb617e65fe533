//! What follows from the state: what is to be open, who leads where, and what clients are to be told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use wmproxy_wire::tunnel::message::{Placed, Refusal, Registered, Service};

use super::claim::{Claim, Spot, is_name};
use super::grants::Pattern;
use super::{Entry, Owner, Registry, SessionNumber, Standing};
use crate::server::{Exposure, Place};

/// Ports that are tried for a service that takes any. Other programs have few of those that are granted.
const MAX_PICKS: usize = 32;

/// A service that may be reached.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    /// `home/ssh`.
    pub(crate) name: Arc<str>,
    /// The client.
    pub(crate) client: Arc<str>,
    /// The session in which it has its number; none while its client is away.
    pub(crate) session: Option<SessionNumber>,
    /// The rest.
    pub(crate) service: Arc<Service>,
}

/// A service as it stands.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    pub(crate) service: &'a Service,
    pub(crate) exposure: Option<&'a Arc<str>>,
    pub(crate) result: Result<Vec<String>, Refusal>,
}

impl Registry {
    /// All that is to be open, by the order of the names.
    pub(crate) fn exposures(&self) -> Vec<Exposure> {
        let mut exposures = BTreeMap::<Arc<str>, (Exposure, Vec<Arc<str>>)>::new();
        for (client, owner) in &self.owners {
            for entry in &owner.entries {
                let (Ok(claim), Standing::Held { exposure: Some(name), port }) =
                    (&entry.claim, &entry.standing)
                else {
                    continue;
                };
                let new = || (exposure(name, claim, *port), Vec::new());
                let (exposure, down) = exposures.entry(name.clone()).or_insert_with(new);
                let is_up = owner.registered().is_some() && entry.service.is_up;
                let members = if is_up { &mut exposure.members } else { down };
                members.push(member_name(client, &entry.service));
            }
        }
        let all_if_none = |(mut exposure, down): (Exposure, Vec<Arc<str>>)| {
            if exposure.members.is_empty() {
                exposure.members = down;
            }
            exposure
        };
        exposures.into_values().map(all_if_none).collect()
    }

    /// Notes what became of [exposures](Registry::exposures). True if another port is to be tried for one of them: settle, and
    /// publish again.
    pub(crate) fn published(
        &mut self,
        exposures: &[Exposure],
        results: Vec<Result<Vec<Place>, Refusal>>,
    ) -> bool {
        let mut again = false;
        for (exposure, result) in exposures.iter().zip(results) {
            if result.is_err() && self.gives_up(exposure) {
                again = true;
                continue;
            }
            self.places.insert(exposure.name.clone(), result);
        }
        again
    }

    /// Takes a port that can't be had from those who take any. False if there is none such, or it has tried enough.
    fn gives_up(&mut self, exposure: &Exposure) -> bool {
        let mut any = false;
        for entry in self.owners.values_mut().flat_map(|owner| &mut owner.entries) {
            let takes_any = matches!(&entry.claim, Ok(Claim { spot: Spot::Port(0), .. }));
            let has_it = matches!(&entry.standing, Standing::Held { exposure: Some(name), port }
                if *name == exposure.name && *port == exposure.port);
            if takes_any && has_it && entry.avoid.len() < MAX_PICKS && entry.avoid.insert(exposure.port) {
                (entry.picked, entry.standing) = (None, Standing::New);
                any = true;
            }
        }
        any
    }

    /// Whether something that is to be open could not be opened.
    pub(crate) fn has_failures(&self) -> bool {
        self.places.values().any(Result::is_err)
    }

    /// What sessions are to be told, because it is not what they were told last. Who has something of which nobody knows yet
    /// whether it could be opened waits.
    pub(crate) fn answers(&mut self) -> Vec<(SessionNumber, Registered)> {
        let mut answers = Vec::new();
        let places = &self.places;
        for (client, owner) in &mut self.owners {
            let (Some(session), Some(epoch)) = (owner.registered(), owner.epoch) else { continue };
            let placed = |entry: &Entry| {
                let result = result(client, entry, places)?;
                Some(Placed { id: entry.service.id, result })
            };
            let Some(results) = owner.entries.iter().map(placed).collect() else { continue };
            let answer = Some(Registered { epoch, results });
            if owner.told != answer {
                owner.told.clone_from(&answer);
                answers.extend(answer.map(|answer| (session, answer)));
            }
        }
        answers
    }

    /// The sessions whose registration stands.
    pub(crate) fn numbered(&self) -> BTreeSet<SessionNumber> {
        self.owners.values().filter_map(Owner::registered).collect()
    }

    /// Whether a client may visit private services of others.
    pub(crate) fn may_visit(&self, client: &str) -> bool {
        self.grants.get(client).is_some_and(|grants| grants.private)
    }

    /// Who may be reached, and in which session.
    pub(crate) fn members(&self) -> impl Iterator<Item = Member> {
        self.owners.iter().flat_map(|(client, owner)| {
            owner.entries.iter().filter(|entry| entry.is_held()).map(|entry| Member {
                name: member_name(client, &entry.service),
                client: client.clone(),
                session: owner.registered(),
                service: entry.service.clone(),
            })
        })
    }

    /// The clients that have a session or whose services are kept, with those.
    pub(crate) fn reports(&self) -> impl Iterator<Item = (&Arc<str>, Vec<Report<'_>>)> {
        self.owners.iter().map(|(client, owner)| (client, self.reports_of(client, owner)))
    }

    /// Those beyond the number that is granted are left out, and so are those without a name that is one: what is shown to
    /// people must be neither as long nor as strange as a client likes. The client itself is told of them.
    fn reports_of<'a>(&'a self, client: &str, owner: &'a Owner) -> Vec<Report<'a>> {
        let max = self.grants.get(client).map_or(0, |grants| grants.max_services);
        let has_name = |entry: &&Entry| is_name(&entry.service.name);
        let report = |entry: &'a Entry| Report {
            service: &entry.service,
            exposure: entry.exposure(),
            result: result(client, entry, &self.places).unwrap_or(Ok(Vec::new())),
        };
        owner.entries.iter().take(max).filter(has_name).map(report).collect()
    }
}

type Places = BTreeMap<Arc<str>, Result<Vec<Place>, Refusal>>;

/// Where visitors reach a service, or why not; none while that is not known yet.
fn result(client: &str, entry: &Entry, places: &Places) -> Option<Result<Vec<String>, Refusal>> {
    let name = match &entry.standing {
        Standing::New => return None,
        Standing::Refused(refusal) => return Some(Err(refusal.clone())),
        Standing::Held { exposure: None, .. } => {
            return Some(Ok(vec![member_name(client, &entry.service).to_string()]));
        }
        Standing::Held { exposure: Some(name), .. } => name,
    };
    let kind = entry.service.kind.as_str();
    let text = |place: &Place| match place {
        Place::Address(address) => format!("{kind}://{address}"),
        Place::Url(url) => url.clone(),
    };
    places.get(name).map(|result| match result {
        Ok(places) => Ok(places.iter().map(text).collect()),
        Err(refusal) => Err(refusal.clone()),
    })
}

fn member_name(client: &str, service: &Service) -> Arc<str> {
    format!("{client}/{}", service.name).into()
}

fn exposure(name: &Arc<str>, claim: &Claim, port: u16) -> Exposure {
    let (hosts, paths) = match &claim.spot {
        Spot::Hosts(hosts, paths) => (hosts.iter().map(Pattern::to_string).collect(), paths.clone()),
        Spot::Port(_) | Spot::Private => (Vec::new(), Vec::new()),
    };
    Exposure {
        name: name.clone(),
        kind: claim.kind,
        port,
        hosts,
        paths,
        visitors: claim.terms.visitors.clone(),
        terminate: claim.terms.terminate,
        max_connections: claim.terms.max_connections,
        http: claim.terms.http.clone(),
        members: Vec::new(),
    }
}
