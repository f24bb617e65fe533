//! A server's registry, some clients, what is on the way between them, and a system whose ports are not all free.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use wmproxy_runtime::clock::Ticks;
use wmproxy_wire::tunnel::message::{Register, Registered, Service, State};

use super::chance::{GRACE, NAMES, PORTS, Rng, service, spec};
use crate::options::ServerSpec;
use crate::server::Exposure;
use crate::server::registry::{Registry, SessionNumber};

/// What may happen.
#[derive(Debug, Clone, Copy)]
pub(super) enum Event {
    /// A client logs in, if it has no session that it knows of.
    Login(usize),
    /// A client offers something else.
    Change(usize),
    /// A service of a client goes down or comes up.
    Health(usize),
    /// A client takes its leave.
    Leave(usize),
    /// A client is killed.
    Kill(usize),
    /// The network between a client and the server fails, which nobody is told.
    Cut(usize),
    /// The server is killed.
    Crash,
    /// A client that is cut off finds out.
    ClientNotices,
    /// The server finds out that a client is cut off, or is done with a session that it has ended.
    ServerNotices,
    /// Something that a client has said arrives.
    Hear,
    /// Something that the server has said arrives.
    Tell,
    /// The publisher goes on.
    Publish,
    /// The server's grants change.
    Configure,
    /// Time passes.
    Wait,
}

impl Event {
    pub(super) const LOSSES: [Event; 7] = [
        Event::Crash,
        Event::Kill(0),
        Event::Kill(1),
        Event::Kill(2),
        Event::Cut(0),
        Event::Cut(1),
        Event::Cut(2),
    ];
}

#[derive(Debug)]
pub(super) enum Up {
    Register(Register),
    State(State),
    Leaving,
}

/// The control connection of a session.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) client: usize,
    pub(super) session: SessionNumber,
    pub(super) up: VecDeque<Up>,
    pub(super) down: VecDeque<Option<Registered>>,
    /// Nothing passes any more.
    pub(super) is_cut: bool,
    /// The server still reads from it.
    pub(super) is_served: bool,
}

/// A client, and what it knows.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) name: Arc<str>,
    pub(super) services: Vec<Service>,
    pub(super) session: Option<SessionNumber>,
    pub(super) epoch: u64,
    /// What the server has said last.
    pub(super) heard: Option<Registered>,
    /// It does not want a session now.
    is_off: bool,
}

pub(super) struct World {
    pub(super) rng: Rng,
    pub(super) now: Ticks,
    pub(super) registry: Registry,
    pub(super) spec: ServerSpec,
    pub(super) clients: Vec<Client>,
    pub(super) wires: Vec<Wire>,
    next_session: SessionNumber,
    /// What the publisher has made so.
    pub(super) published: Option<Vec<Exposure>>,
    /// What it is about to make so.
    pub(super) publishing: Option<Vec<Exposure>>,
    /// What is open, by names.
    pub(super) open: BTreeMap<Arc<str>, Exposure>,
    /// Ports that others have.
    pub(super) busy: BTreeSet<u16>,
    /// Whether registrations of a session may overtake each other.
    pub(super) is_unruly: bool,
    /// Whether the grants are as they were when the registry settled last.
    pub(super) has_same_grants: bool,
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        let mut rng = Rng(seed);
        let clients = NAMES.map(|name| Client {
            name: name.into(),
            services: Vec::new(),
            session: None,
            epoch: 0,
            heard: None,
            is_off: false,
        });
        let spec = spec(&mut rng);
        let is_unruly = rng.percent(30);
        let busy = PORTS.into_iter().filter(|_| rng.percent(15)).collect();
        let mut world = World {
            rng,
            now: Ticks(1000),
            registry: Registry::new(&spec),
            spec,
            clients: clients.into(),
            wires: Vec::new(),
            next_session: 1,
            published: None,
            publishing: None,
            open: BTreeMap::new(),
            busy,
            is_unruly,
            has_same_grants: true,
        };
        (0..NAMES.len()).for_each(|client| world.change(client));
        world
    }

    /// Anything happens.
    pub(super) fn step(&mut self) {
        use Event::*;
        let client = self.rng.below(NAMES.len());
        let event = match self.rng.below(100) {
            0..3 => Leave(client),
            3..6 => Kill(client),
            6..10 => Cut(client),
            10 => Crash,
            11..13 => Configure,
            13..18 => Wait,
            18..25 => ClientNotices,
            25..32 => ServerNotices,
            32..38 => Change(client),
            38..45 => Health(client),
            _ => return self.calm_step(),
        };
        self.happen(event);
    }

    /// Something happens that happens all the time.
    pub(super) fn calm_step(&mut self) {
        use Event::*;
        let client = self.rng.below(NAMES.len());
        let event = match self.rng.below(10) {
            0 => Change(client),
            1..3 => Login(client),
            3..6 => Hear,
            6..8 => Tell,
            _ => Publish,
        };
        self.happen(event);
    }

    pub(super) fn happen(&mut self, event: Event) {
        match event {
            Event::Login(client) => drop(self.login(client)),
            Event::Change(client) => self.change(client),
            Event::Health(client) => self.health(client),
            Event::Leave(client) => {
                self.say(client, Up::Leaving);
                self.forget_session(client, true);
            }
            Event::Kill(client) => {
                self.cut(client);
                self.forget_session(client, self.rng.0.is_multiple_of(4));
            }
            Event::Cut(client) => self.cut(client),
            Event::Crash => self.crash(),
            Event::ClientNotices => drop(self.clients_notice()),
            Event::ServerNotices => drop(self.server_notices()),
            Event::Hear => drop(self.hear()),
            Event::Tell => drop(self.tell()),
            Event::Publish => drop(self.publish()),
            Event::Configure => {
                self.spec = spec(&mut self.rng);
                self.configure();
            }
            Event::Wait => {
                let wait = self.rng.pick(&[1, 100, 5_000, 20_000, 60_000]);
                self.now = self.now + Duration::from_millis(wait);
            }
        }
    }

    /// All that is lost is found to be lost, everybody comes back, everything arrives, and whoever is not wanted any more is
    /// forgotten.
    pub(super) fn come_to_rest(&mut self) {
        for client in &mut self.clients {
            client.is_off = false;
        }
        self.settle_down();
        if self.is_unruly {
            // What was overtaken is said once more, as who changes anything says everything.
            (0..NAMES.len()).for_each(|client| self.register(client));
            self.is_unruly = false;
        }
        self.now = self.now + 2 * GRACE;
        self.settle_down();
    }

    fn settle_down(&mut self) {
        for _ in 0..1000 {
            let mut any = self.clients_notice() | self.server_notices();
            for client in 0..NAMES.len() {
                any |= self.login(client);
            }
            while self.hear() || self.tell() {
                any = true;
            }
            while self.publish() {
                any = true;
            }
            if !any {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    fn wire(&mut self, client: usize) -> Option<&mut Wire> {
        let session = self.clients[client].session?;
        self.wires.iter_mut().find(|wire| wire.session == session)
    }

    /// Whether a login is granted.
    fn login(&mut self, client: usize) -> bool {
        let Client { name, session, is_off, .. } = &mut self.clients[client];
        if session.is_some() || *is_off {
            *is_off &= !self.rng.percent(10);
            return false;
        }
        if !self.spec.clients.iter().any(|grant| grant.name == *name) {
            return false;
        }
        let number = self.next_session;
        self.next_session += 1;
        *session = Some(number);
        let old = self.registry.login(name, number);
        let old = self.wires.iter_mut().find(|wire| Some(wire.session) == old);
        if let Some(wire) = old.filter(|wire| !wire.is_cut) {
            wire.down.push_back(None);
        }
        let (up, down) = (VecDeque::new(), VecDeque::new());
        self.wires.push(Wire { client, session: number, up, down, is_cut: false, is_served: true });
        self.clients[client].epoch = 0;
        self.clients[client].heard = None;
        self.register(client);
        true
    }

    fn say(&mut self, client: usize, message: Up) {
        if let Some(wire) = self.wire(client).filter(|wire| !wire.is_cut) {
            wire.up.push_back(message);
        }
    }

    fn register(&mut self, client: usize) {
        let Client { epoch, services, .. } = &mut self.clients[client];
        *epoch += 1;
        let register = Register { epoch: *epoch, services: services.clone() };
        self.say(client, Up::Register(register));
    }

    fn change(&mut self, client: usize) {
        let rng = &mut self.rng;
        let mut services = std::mem::take(&mut self.clients[client].services);
        services.retain(|_| rng.percent(70));
        for id in 0..3 {
            if rng.percent(50) && services.iter().all(|service| service.id != id) {
                services.push(service(rng, id));
            }
        }
        self.clients[client].services = services;
        self.register(client);
    }

    fn health(&mut self, client: usize) {
        let count = self.clients[client].services.len();
        if count > 0 {
            let index = self.rng.below(count);
            let service = &mut self.clients[client].services[index];
            service.is_up = !service.is_up;
            let state = State { id: service.id, is_up: service.is_up };
            self.say(client, Up::State(state));
        }
    }

    pub(super) fn forget_session(&mut self, client: usize, is_off: bool) {
        let client = &mut self.clients[client];
        (client.session, client.is_off) = (None, is_off);
    }

    fn cut(&mut self, client: usize) {
        if let Some(wire) = self.wire(client) {
            wire.is_cut = true;
            wire.up.clear();
            wire.down.clear();
        }
    }

    /// The server is gone, with all that it knew; another begins at once.
    fn crash(&mut self) {
        for wire in &mut self.wires {
            (wire.is_cut, wire.is_served) = (true, false);
        }
        self.registry = Registry::new(&self.spec);
        (self.published, self.publishing) = (None, None);
        self.open.clear();
    }

    fn configure(&mut self) {
        self.has_same_grants = false;
        self.registry.configure(&self.spec);
        for wire in &mut self.wires {
            let name = &self.clients[wire.client].name;
            if !self.spec.clients.iter().any(|grant| grant.name == *name) && !wire.is_cut {
                wire.down.push_back(None);
            }
        }
    }

    /// Clients find out that they are cut off. Whether any did.
    fn clients_notice(&mut self) -> bool {
        let mut any = false;
        for client in 0..NAMES.len() {
            let is_lost =
                self.clients[client].session.is_some() && self.wire(client).is_none_or(|wire| wire.is_cut);
            if is_lost {
                self.forget_session(client, false);
                any = true;
            }
        }
        any
    }

    /// The server finds out that sessions are over. Whether any was.
    fn server_notices(&mut self) -> bool {
        let mut any = false;
        for wire in self.wires.iter_mut().filter(|wire| wire.is_served) {
            let client = &self.clients[wire.client];
            let is_over = wire.is_cut || client.session != Some(wire.session) && wire.up.is_empty();
            if is_over {
                wire.is_served = false;
                self.registry.lost(&client.name, wire.session, self.now);
                any = true;
            }
        }
        self.wires.retain(|wire| wire.is_served || !wire.is_cut && !wire.down.is_empty());
        any
    }
}
