//! A little internet around one flow table: clients that send, a network that loses, repeats, delays and
//! reorders, peers that answer or do not, and the owner of the table in the middle, on a clock that jumps
//! from event to event.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use wmproxy_wire::flow::{FlowKey, Limits, Now};

use crate::model::{Checked, Tag};
use crate::rng::Rng;

/// What is random about a world but does not change while it runs.
struct Habits {
    loss: u64,
    duplication: u64,
    delay: u64,
    /// How many datagrams the peer answers each one with; none is a one-way peer.
    answers: u64,
    /// Of a hundred datagrams at the peer, so many are answered by "port unreachable".
    unreachable: u64,
    /// How late the owner's timer may fire.
    timer_slack: u64,
    addresses: u64,
    ports: u64,
    locals: u64,
}

/// A datagram carries what it needs to be recognised wherever it turns up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Datagram {
    client: SocketAddr,
    local: IpAddr,
    number: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A client sends so many datagrams, one right after the other.
    Send {
        client: SocketAddr,
        local: IpAddr,
        datagrams: u64,
    },
    AtProxy(Datagram),
    AtPeer(Tag, Datagram),
    Answer(Tag, Datagram),
    Unreachable(Tag),
    Timer,
    Reload,
    /// Another table wants room, as with a limit over all workers.
    Steal,
    Stale,
}

pub(crate) struct World {
    rng: Rng,
    habits: Habits,
    checked: Checked,
    /// The most flows that the owner wants at a time; 0 is no limit.
    most: usize,
    /// The upstream socket of each flow, which stands for it: whom it was made for, and what it sent.
    sockets: HashMap<Tag, FlowKey>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    sequence: u64,
    now: u64,
    /// The owner's clock, which now and then is a little behind what it said before.
    clock: Now,
    timer: Option<u64>,
    /// When the owner stops, in some worlds.
    stop: Option<u64>,
    sent: u64,
    /// Requests at the owner, and what became of them.
    arrived: u64,
    forwarded: u64,
}

/// Runs the world of this seed to its end.
pub(crate) fn run(seed: u64) {
    let mut rng = Rng::new(seed);
    let storm = rng.range(1, 200) == 1;
    let habits = Habits {
        loss: rng.pick(&[0, 0, 5, 40]),
        duplication: rng.pick(&[0, 0, 10]),
        delay: rng.pick(&[0, 3, 50, 400]),
        answers: rng.pick(&[0, 1, 1, 1, 3]),
        unreachable: rng.pick(&[0, 0, 0, 10]),
        timer_slack: rng.pick(&[0, 1, 100]),
        addresses: if storm { rng.range(1, 3_000) } else { rng.range(1, 12) },
        ports: if storm { rng.range(1, 1_000) } else { rng.range(1, 6) },
        locals: rng.range(1, 3),
    };
    let (limits, most) = some_limits(&mut rng);
    let mut world = World {
        rng,
        habits,
        checked: Checked::new(limits),
        most,
        sockets: HashMap::new(),
        events: BinaryHeap::new(),
        sequence: 0,
        now: 0,
        clock: Now::default(),
        timer: None,
        stop: None,
        sent: 0,
        arrived: 0,
        forwarded: 0,
    };
    world.plan(if storm { 3_000 } else { 20 });
    world.play();
    world.finish();
}

/// Limits of the table, and the owner's own.
fn some_limits(rng: &mut Rng) -> (Limits, usize) {
    let few = rng.range(1, 20);
    let many = rng.range(1, 1_500);
    let limits = Limits {
        idle_timeout: Duration::from_millis(rng.pick(&[1, 20, 300, 300, 2_000])),
        max_requests: rng.pick(&[0, 0, 1, 2, 7]),
        max_responses: rng.pick(&[0, 0, 1, 2, 7]),
    };
    (limits, rng.pick(&[0, 1, few, few, many]) as usize)
}

impl World {
    /// Decides in advance what comes from outside: the clients' datagrams, reloads and mischief.
    fn plan(&mut self, sends: u64) {
        let length = self.rng.pick(&[50, 1_000, 10_000]);
        if self.rng.percent(20) {
            self.stop = Some(self.rng.range(0, length));
        }
        for _ in 0..sends {
            let at = self.rng.range(0, length);
            let datagrams = self.rng.pick(&[1, 1, 1, 2, 5, 20]);
            let event = Event::Send { client: self.some_client(), local: self.some_local(), datagrams };
            self.schedule(at, event);
        }
        for _ in 0..self.rng.pick(&[0, 0, 1, 5]) {
            let at = self.rng.range(0, length);
            self.schedule(at, Event::Reload);
        }
        for _ in 0..self.rng.pick(&[0, 0, 3]) {
            let at = self.rng.range(0, length);
            self.schedule(at, Event::Steal);
        }
        for _ in 0..5 {
            let at = self.rng.range(0, length);
            self.schedule(at, Event::Stale);
        }
    }

    fn play(&mut self) {
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            if self.stop.is_some_and(|stop| at > stop) {
                break;
            }
            self.now = at;
            let behind = if self.rng.percent(3) { self.rng.range(0, 5) } else { 0 };
            self.clock = Now::from_millis(at.saturating_sub(behind));
            self.happen(event);
            self.set_timer();
        }
    }

    /// Silence has ended all flows by now, or the stop does.
    fn finish(&mut self) {
        if self.stop.is_some() {
            self.checked.compare();
            while let Some(tag) = self.checked.pop() {
                self.close(tag);
            }
        }
        self.checked.check_empty();
        assert!(self.sockets.is_empty(), "a socket outlived its flow");
        assert_eq!(self.arrived, self.forwarded, "a request was lost inside");
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Send { client, local, datagrams } => {
                for _ in 0..datagrams {
                    self.sent += 1;
                    let datagram = Datagram { client, local, number: self.sent };
                    self.transmit(Event::AtProxy(datagram));
                }
            }
            Event::AtProxy(first) => self.receive(first),
            Event::AtPeer(tag, datagram) => self.reach_peer(tag, datagram),
            Event::Answer(tag, first) => self.answer(tag, first),
            Event::Unreachable(tag) => {
                if self.sockets.contains_key(&tag) {
                    self.checked.end(tag);
                    self.close(tag);
                }
            }
            Event::Timer => {
                self.timer = None;
                for tag in self.checked.expire(self.clock) {
                    self.close(tag);
                }
            }
            Event::Reload => {
                let (limits, most) = some_limits(&mut self.rng);
                self.checked.set_limits(limits);
                self.most = most;
                self.checked.compare();
            }
            Event::Steal => {
                if let Some(tag) = self.checked.evict_oldest() {
                    self.close(tag);
                }
            }
            Event::Stale => {
                if !self.checked.stale.is_empty() {
                    let index = self.rng.range(0, self.checked.stale.len() as u64 - 1) as usize;
                    self.checked.poke(self.clock, self.checked.stale[index]);
                }
            }
        }
    }

    /// The owner's receive: all datagrams of one client that are there make one batch.
    fn receive(&mut self, first: Datagram) {
        let key = FlowKey::new(first.client, first.local);
        let mut batch = vec![first];
        while let Some(Reverse((at, _, Event::AtProxy(next)))) = self.events.peek().copied()
            && at == self.now
            && (next.client, next.local) == (first.client, first.local)
        {
            batch.push(next);
            self.events.pop();
        }
        self.arrived += batch.len() as u64;
        let mut rest = &batch[..];
        while !rest.is_empty() {
            let tag = self.checked.lookup(&key).unwrap_or_else(|| self.begin(key));
            let pass = self.checked.on_request(self.clock, tag, rest.len() as u64);
            assert!(pass >= 1, "a flow that was just found takes a datagram");
            let (now, later) = rest.split_at(pass as usize);
            for datagram in now {
                assert_eq!(self.sockets[&tag], FlowKey::new(datagram.client, datagram.local));
                self.forwarded += 1;
                self.transmit(Event::AtPeer(tag, *datagram));
            }
            rest = later;
        }
    }

    fn begin(&mut self, key: FlowKey) -> Tag {
        while self.most != 0 && self.sockets.len() >= self.most {
            let oldest = self.checked.evict_oldest().expect("each socket has its flow");
            self.close(oldest);
        }
        let tag = self.checked.insert(self.clock, key);
        assert!(self.sockets.insert(tag, key).is_none());
        tag
    }

    fn reach_peer(&mut self, tag: Tag, datagram: Datagram) {
        if self.rng.percent(self.habits.unreachable) {
            self.transmit(Event::Unreachable(tag));
            return;
        }
        for _ in 0..self.habits.answers {
            self.transmit(Event::Answer(tag, datagram));
        }
    }

    /// What arrives at a flow's socket, all that is there as one batch. After the socket is closed the
    /// kernel drops it.
    fn answer(&mut self, tag: Tag, first: Datagram) {
        let mut batch = vec![first];
        while let Some(Reverse((at, _, Event::Answer(other, next)))) = self.events.peek().copied()
            && (at, other) == (self.now, tag)
        {
            batch.push(next);
            self.events.pop();
        }
        let Some(key) = self.sockets.get(&tag).copied() else { return };
        assert_eq!(self.checked.flows[&tag].key, key);
        let (pass, ended) = self.checked.on_response(self.clock, tag, batch.len() as u64);
        for datagram in &batch[..pass as usize] {
            assert_eq!(
                FlowKey::new(datagram.client, datagram.local),
                key,
                "an answer went to another client, or left from another address"
            );
        }
        if ended {
            self.close(tag);
        }
    }

    fn close(&mut self, tag: Tag) {
        assert!(self.sockets.remove(&tag).is_some(), "a flow ended twice");
    }

    /// The owner keeps one timer for the next expiry, which may fire late but is never missed.
    fn set_timer(&mut self) {
        let Some(due) = self.checked.next_expiry() else { return };
        if self.timer.is_none_or(|at| at > due.as_millis()) {
            let late = self.rng.range(0, self.habits.timer_slack);
            let at = due.as_millis().max(self.now) + late;
            self.timer = Some(at);
            self.schedule(at, Event::Timer);
        }
    }

    fn transmit(&mut self, event: Event) {
        let copies = 1 + u64::from(self.rng.percent(self.habits.duplication));
        for _ in 0..copies {
            if !self.rng.percent(self.habits.loss) {
                let at = self.now + self.rng.range(0, self.habits.delay);
                self.schedule(at, event);
            }
        }
    }

    fn schedule(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((at, self.sequence, event)));
    }

    fn some_client(&mut self) -> SocketAddr {
        let address = self.rng.range(1, self.habits.addresses) as u16;
        let port = 1_024 + self.rng.range(1, self.habits.ports) as u16;
        if address.is_multiple_of(4) {
            (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, address), port).into()
        } else {
            let [high, low] = address.to_be_bytes();
            (Ipv4Addr::new(10, 0, high, low), port).into()
        }
    }

    fn some_local(&mut self) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, self.rng.range(1, self.habits.locals) as u8).into()
    }
}
