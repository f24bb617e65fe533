//! What a client offers, with the numbers by which its sessions know it.

use std::collections::HashMap;
use std::sync::Arc;

use wmproxy_wire::tunnel::message::{Kind, Register, Service};

use super::flows::Latest;
use super::status::ServiceStatus;
use super::{DatagramEnd, End, Offer};

/// Everything that is offered from some time on.
#[derive(Default)]
pub(super) struct Offers {
    /// Grows with each change.
    pub(super) epoch: u64,
    /// In the order of the options.
    pub(super) list: Vec<Arc<Offered>>,
    /// The number that was given out last. A number is never given to another service: a stream that is on its way to one
    /// that is gone must lead nowhere.
    last_id: u32,
}

/// A service that is offered.
pub(super) struct Offered {
    /// Its number; the same as long as its name and kind are.
    pub(super) id: u32,
    /// The service.
    pub(super) offer: Offer,
    /// Its end, if it takes datagrams, which outlives this offer of it.
    pub(super) latest: Option<Arc<Latest>>,
}

impl Offers {
    /// What comes after these: exactly `offers`.
    pub(super) fn followed_by(&self, offers: Vec<Offer>) -> Offers {
        let mut last_id = self.last_id;
        let known: HashMap<_, _> =
            self.list.iter().map(|before| ((before.name(), before.kind()), before)).collect();
        let mut numbered = |offer: Offer| {
            let service = &offer.spec.service;
            let before = known.get(&(service.name.as_str(), service.kind)).copied();
            let id = before.map_or_else(
                || {
                    last_id += 1;
                    last_id
                },
                |before| before.id,
            );
            let latest = match &offer.end {
                End::Bytes { .. } => None,
                End::Datagrams { end, .. } => Some(latest(before, end)),
            };
            Arc::new(Offered { id, offer, latest })
        };
        let list = offers.into_iter().map(&mut numbered).collect();
        Offers { epoch: self.epoch + 1, list, last_id }
    }

    /// The message that offers them.
    pub(super) fn register(&self) -> Register {
        let service = |offered: &Arc<Offered>| Service {
            id: offered.id,
            is_up: offered.is_up(),
            ..offered.offer.spec.service.clone()
        };
        Register { epoch: self.epoch, services: self.list.iter().map(service).collect() }
    }
}

impl Offered {
    /// The service's name.
    pub(super) fn name(&self) -> &str {
        &self.offer.spec.service.name
    }

    fn kind(&self) -> Kind {
        self.offer.spec.service.kind
    }

    /// How it is, over all servers.
    pub(super) fn status(&self) -> ServiceStatus {
        let Offer { spec, metrics, .. } = &self.offer;
        ServiceStatus {
            name: self.name().to_owned(),
            kind: self.kind().as_str().to_owned(),
            is_private: spec.service.is_private,
            is_up: self.is_up(),
            visitors: metrics.active(),
            visitors_total: metrics.blocks.sum(|block| &block.accepted),
            bytes_in: metrics.blocks.sum(|block| &block.bytes_in),
            bytes_out: metrics.blocks.sum(|block| &block.bytes_out),
        }
    }

    /// Whether what it leads to is able to serve.
    pub(super) fn is_up(&self) -> bool {
        self.offer.is_up.as_ref().is_none_or(|is_up| *is_up.borrow())
    }
}

/// The end of a service, in the place of the one before.
fn latest(before: Option<&Arc<Offered>>, end: &Arc<dyn DatagramEnd>) -> Arc<Latest> {
    match before.and_then(|before| before.latest.clone()) {
        Some(latest) => {
            latest.replace(end.clone());
            latest
        }
        None => Arc::new(Latest::new(end.clone())),
    }
}
