//! The map of connection ids in a world of servers that choose them, clients whose addresses change, and flows that
//! come and go. The model looks through all live claims one by one.

use wmproxy_wire::flow::{Cid, CidMap, Claim};

use crate::rng::Rng;

/// What one flow holds, and what the model knows of it.
struct Flow {
    connection: usize,
    claim: Option<Claim>,
}

struct Connection {
    server: u8,
    cid: Vec<u8>,
}

struct World {
    rng: Rng,
    map: CidMap<u8>,
    connections: Vec<Connection>,
    flows: Vec<Flow>,
    /// The model: each id with its server and how many live flows claimed it for that server.
    live: Vec<(Vec<u8>, u8, u32)>,
}

/// Runs the world of this seed to its end.
pub(crate) fn run(seed: u64) {
    let rng = Rng::new(seed);
    let mut world = World { rng, map: CidMap::default(), connections: vec![], flows: vec![], live: vec![] };
    for _ in 0..world.rng.pick(&[20, 200, 600]) {
        world.step();
    }
    while !world.flows.is_empty() {
        world.end_flow();
    }
    assert!(world.map.is_empty() && world.live.is_empty(), "an id outlived its flows");
}

impl World {
    fn step(&mut self) {
        match self.rng.range(0, 9) {
            0..=2 => self.connect(),
            3..=5 => self.rebind(),
            6..=7 => self.end_flow(),
            _ => self.stray(),
        }
        assert_eq!(self.map.len(), self.live.len());
    }

    /// A client connects; the server's handshake shows its id.
    fn connect(&mut self) {
        let server = self.rng.range(1, 4) as u8;
        let length = self.rng.pick(&[0usize, 3, 4, 8, 8, 8, 18, 20, 21]);
        // Few values, so that servers choose the same now and then, and one is the beginning of another.
        let value = self.rng.range(0, 5) as u8;
        let cid = vec![value; length];
        self.connections.push(Connection { server, cid });
        self.open_flow(self.connections.len() - 1);
    }

    /// A client's datagram comes from a new address.
    fn rebind(&mut self) {
        if self.connections.is_empty() {
            return;
        }
        let index = self.rng.range(0, self.connections.len() as u64 - 1) as usize;
        let cid = self.connections[index].cid.clone();
        let datagram = self.short_header(&cid);
        let found = self.map.find(&datagram).map(|(cid, server)| (cid.as_bytes().to_vec(), *server));
        assert_eq!(found, self.expected(&datagram));
        if found == Some((cid, self.connections[index].server)) {
            self.open_flow(index);
        }
    }

    /// A datagram of whoever.
    fn stray(&mut self) {
        let length = self.rng.range(0, 30) as usize;
        let bytes: Vec<u8> = (0..length).map(|_| self.rng.range(0, 5) as u8).collect();
        let found = self.map.find(&bytes).map(|(cid, server)| (cid.as_bytes().to_vec(), *server));
        assert_eq!(found, self.expected(&bytes));
    }

    fn short_header(&mut self, cid: &[u8]) -> Vec<u8> {
        let rest = self.rng.range(0, 40) as usize;
        [&[0x40][..], cid, &vec![0xee; rest]].concat()
    }

    fn expected(&self, datagram: &[u8]) -> Option<(Vec<u8>, u8)> {
        let behind = datagram.get(1..)?;
        let fitting = self.live.iter().filter(|(cid, ..)| behind.starts_with(cid));
        fitting.max_by_key(|(cid, ..)| cid.len()).map(|(cid, server, _)| (cid.clone(), *server))
    }

    fn open_flow(&mut self, connection: usize) {
        let Connection { server, cid } = &self.connections[connection];
        let claim = Cid::new(cid).map(|cid| self.map.claim(cid, *server));
        assert_eq!(claim.is_some(), (4..=20).contains(&cid.len()));
        if claim.is_some() {
            match self.live.iter_mut().find(|(live, ..)| live == cid) {
                Some((_, owner, claims)) if owner == server => *claims += 1,
                Some(entry) => {
                    // Another server's: whatever was claimed for it is void.
                    *entry = (cid.clone(), *server, 1);
                    for flow in &mut self.flows {
                        if self.connections[flow.connection].cid == *cid
                            && let Some(void) = flow.claim.take()
                        {
                            self.map.release(&void);
                        }
                    }
                }
                None => self.live.push((cid.clone(), *server, 1)),
            }
        }
        self.flows.push(Flow { connection, claim });
    }

    fn end_flow(&mut self) {
        if self.flows.is_empty() {
            return;
        }
        let index = self.rng.range(0, self.flows.len() as u64 - 1) as usize;
        let flow = self.flows.swap_remove(index);
        let Some(claim) = flow.claim else { return };
        let cid = &self.connections[flow.connection].cid;
        assert_eq!(claim.key().as_bytes(), cid);
        self.map.release(&claim);
        let at = self.live.iter().position(|(live, ..)| live == cid).unwrap();
        self.live[at].2 -= 1;
        if self.live[at].2 == 0 {
            self.live.swap_remove(at);
        }
    }
}
