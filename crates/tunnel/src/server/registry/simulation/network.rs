//! What arrives in a world, and in which order.

use super::world::{Up, World};

impl World {
    /// Something arrives at the server. Whether anything was on the way.
    pub(super) fn hear(&mut self) -> bool {
        let loaded: Vec<usize> = (0..self.wires.len()).filter(|at| !self.wires[*at].up.is_empty()).collect();
        if loaded.is_empty() {
            return false;
        }
        let wire = self.rng.pick(&loaded);
        let wire = &mut self.wires[wire];
        let which = if self.is_unruly { self.rng.below(wire.up.len()) } else { 0 };
        let name = &self.clients[wire.client].name;
        match wire.up.remove(which).unwrap() {
            _ if !wire.is_served => {}
            Up::Register(register) => drop(self.registry.register(name, wire.session, register)),
            Up::State(state) => drop(self.registry.set_state(name, wire.session, state)),
            Up::Leaving => {
                self.registry.left(name, wire.session);
                wire.is_served = false;
            }
        }
        true
    }

    /// Something arrives at a client. Whether anything was on the way.
    pub(super) fn tell(&mut self) -> bool {
        let loaded: Vec<usize> =
            (0..self.wires.len()).filter(|at| !self.wires[*at].down.is_empty()).collect();
        if loaded.is_empty() {
            return false;
        }
        let wire = self.rng.pick(&loaded);
        let wire = &mut self.wires[wire];
        let which = if self.is_unruly { self.rng.below(wire.down.len()) } else { 0 };
        let (index, session) = (wire.client, wire.session);
        let message = wire.down.remove(which).unwrap();
        let client = &mut self.clients[index];
        if client.session != Some(session) {
            return true;
        }
        match message {
            None => self.forget_session(index, false),
            Some(registered) => {
                if client.heard.as_ref().is_none_or(|heard| heard.epoch <= registered.epoch) {
                    client.heard = Some(registered);
                }
            }
        }
        true
    }
}
