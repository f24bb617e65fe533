//! Exposures that have sockets of their own, and which of them takes over whose.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use wmproxy_net::addr::Protocol;
use wmproxy_net::limit::Gate;
use wmproxy_net::listen::{Bound, Listener};
use wmproxy_tunnel::server::Exposure;
use wmproxy_upstream::Group;

use super::sockets;

/// An exposure with sockets of its own.
pub(super) struct Port {
    pub(super) exposure: Exposure,
    pub(super) group: Option<Arc<Group>>,
    /// One for each address; more than one where all addresses of the machine are meant.
    pub(super) parts: Vec<Part>,
}

#[derive(Clone)]
pub(super) struct Part {
    pub(super) id: u64,
    pub(super) listener: Arc<Listener>,
}

/// A UDP listener out of service: its port, and what it takes to put it into service again.
pub(super) struct Lingering {
    pub(super) port: u16,
    pub(super) id: u64,
    pub(super) bound: Weak<Bound>,
    pub(super) gate: Arc<Gate>,
}

impl Port {
    pub(super) fn protocol(&self) -> Protocol {
        sockets::protocol(&self.exposure)
    }

    /// The port, whoever picked it.
    pub(super) fn number(&self) -> Option<u16> {
        self.parts.first().and_then(|part| sockets::port_of(&part.listener.bound))
    }

    pub(super) fn spot(&self) -> (Protocol, Option<u16>) {
        (self.protocol(), self.number())
    }
}

/// Which of the old ports, by name, go to which of the exposures wanted, by index: to the one of the same name first, then to
/// any at the same port.
pub(super) fn heirs(old: &mut HashMap<Arc<str>, Port>, wanted: &[&Exposure]) -> HashMap<usize, Port> {
    let mut heirs = HashMap::new();
    for (index, exposure) in wanted.iter().enumerate() {
        let fits = |port: &Port| {
            let has_port = exposure.port == 0 || port.number() == Some(exposure.port);
            port.protocol() == sockets::protocol(exposure) && has_port
        };
        if old.get(&exposure.name).is_some_and(fits)
            && let Some(port) = old.remove(&exposure.name)
        {
            heirs.insert(index, port);
        }
    }
    let by_port: HashMap<_, _> = old.iter().map(|(name, port)| (port.spot(), name.clone())).collect();
    for (index, exposure) in wanted.iter().enumerate() {
        let spot = (sockets::protocol(exposure), Some(exposure.port));
        if !heirs.contains_key(&index)
            && let Some(port) = by_port.get(&spot).and_then(|name| old.remove(name))
        {
            heirs.insert(index, port);
        }
    }
    heirs
}
