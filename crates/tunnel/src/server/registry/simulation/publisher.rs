//! The publisher of a world, and the system whose ports it opens.

use std::collections::BTreeMap;
use std::sync::Arc;

use wmproxy_wire::tunnel::message::{Kind, Refusal, RefusalCode};

use super::world::World;
use crate::server::registry::{Claim, Standing};
use crate::server::{Exposure, Place};

impl World {
    /// The publisher goes on, as `keep_published` has it. Whether there was anything to do.
    pub(super) fn publish(&mut self) -> bool {
        if let Some(wanted) = self.publishing.take() {
            let results = self.make_open(&wanted);
            let is_again = self.registry.published(&wanted, results);
            self.published = Some(wanted);
            if !is_again {
                self.answer();
            }
            return true;
        }
        self.settle();
        let wanted = self.registry.exposures();
        if self.published.as_ref() == Some(&wanted) {
            return self.answer();
        }
        self.publishing = Some(wanted);
        true
    }

    /// Opens exactly these, as far as their ports are to be had.
    fn make_open(&mut self, wanted: &[Exposure]) -> Vec<Result<Vec<Place>, Refusal>> {
        self.open.clear();
        let mut results = Vec::new();
        for exposure in wanted {
            if self.busy.contains(&exposure.port) {
                let text = "address already in use".to_owned();
                results.push(Err(Refusal { code: RefusalCode::System, text }));
                continue;
            }
            self.open.insert(exposure.name.clone(), exposure.clone());
            results.push(Ok(places(exposure)));
        }
        results
    }

    fn answer(&mut self) -> bool {
        let answers = self.registry.answers();
        let any = !answers.is_empty();
        for (session, registered) in answers {
            let wire = self.wires.iter_mut().find(|wire| wire.session == session && wire.is_served);
            if let Some(wire) = wire.filter(|wire| !wire.is_cut) {
                wire.down.push_back(Some(registered));
            }
        }
        any
    }

    /// Has the registry settle, in which whoever has something and still may have it keeps it.
    pub(super) fn settle(&mut self) {
        let before = self.held();
        self.registry.settle(self.now);
        if std::mem::replace(&mut self.has_same_grants, true) {
            let after = self.held();
            for ((client, service), held) in before {
                let is_there = self
                    .registry
                    .owners
                    .get(&client)
                    .is_some_and(|owner| owner.entries.iter().any(|entry| entry.service.name == service));
                let now = after.get(&(client.clone(), service.clone()));
                assert!(!is_there || now == Some(&held), "{client}/{service} had {held:?}, and has {now:?}");
            }
        }
        let once = self.held();
        self.registry.settle(self.now);
        assert_eq!(once, self.held(), "to settle what is settled changes nothing");
    }

    /// What each service has.
    fn held(&self) -> BTreeMap<(Arc<str>, String), (Claim, Standing)> {
        let mut held = BTreeMap::new();
        for (client, owner) in &self.registry.owners {
            for entry in owner.entries.iter().filter(|entry| entry.is_held()) {
                let claim = entry.claim.clone().unwrap();
                held.insert((client.clone(), entry.service.name.clone()), (claim, entry.standing.clone()));
            }
        }
        held
    }
}

pub(super) fn places(exposure: &Exposure) -> Vec<Place> {
    match exposure.kind {
        Kind::Http | Kind::Https => exposure.hosts.iter().map(|host| Place::Url(host.clone())).collect(),
        _ => vec![Place::Address(([127, 0, 0, 1], exposure.port).into())],
    }
}
