//! What is found out about a client before its flow begins: who it is by a PROXY header, whom it wants by the hello of
//! QUIC, and whether it goes on with a connection that it has already.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use wmproxy_net::preface::{self, Proxied};
use wmproxy_net::record::{Record, UdpDrop};
use wmproxy_net::udp::Cargo;
use wmproxy_upstream::{Group, LeaseKey};
use wmproxy_wire::client_hello::ClientHello;
use wmproxy_wire::flow::{Cid, FlowKey, Now};
use wmproxy_wire::quic_initial::NoHello;

use super::cids::Known;
use super::held::{Beginner, Datagrams};
use super::lanes::Taken;
use super::{Inner, Mode, UdpService, now};

/// What is known of a client.
#[derive(Debug, Default)]
pub(super) struct Opening {
    /// What a PROXY header said, if one had to come.
    proxied: Option<Proxied>,
    hello: Option<ClientHello>,
    /// The connection that it has already.
    pub(super) known: Option<Known>,
    /// The connection id that a QUIC client made up.
    dcid: Option<Cid>,
    pub(super) lane: Option<Taken>,
}

/// A client that may begin a flow.
struct Judged {
    opening: Opening,
    /// What was held of it, to be sent first.
    held: Datagrams,
}

/// Why datagrams are dropped, and how many that were held besides the one at hand.
struct Dropped(UdpDrop, usize);

impl Opening {
    /// Who the client is.
    pub(super) fn client(&self, key: FlowKey) -> SocketAddr {
        let named = self.proxied.as_ref().and_then(|proxied| proxied.addresses);
        named.map_or(key.client(), |(source, _)| source)
    }

    /// What its peer is chosen by.
    pub(super) fn lease_key(&self, key: FlowKey) -> LeaseKey {
        let mut lease = LeaseKey::of_client(Some(self.client(key)));
        if let Some(name) = self.hello.as_ref().and_then(|hello| hello.server_name.as_deref()) {
            lease = lease.with_sni(name);
        }
        match &self.dcid {
            Some(dcid) => lease.with_quic_cid(dcid.as_bytes()),
            None => lease,
        }
    }

    /// Where it goes.
    pub(super) fn group(&self, service: &UdpService) -> Result<Arc<Group>, UdpDrop> {
        if let Some(known) = &self.known {
            return Ok(known.target.group.clone());
        }
        let routes = &service.routes;
        let (group, otherwise) = match &self.hello {
            Some(hello) => (routes.find(hello.server_name.as_deref(), hello.alpn.iter()), UdpDrop::NoRoute),
            None if routes.is_plain() => (routes.default(), UdpDrop::NoRoute),
            None => (routes.default(), UdpDrop::NotQuic),
        };
        group.cloned().ok_or(otherwise)
    }

    /// Notes in the flow's record what the client told of itself.
    pub(super) fn note(&mut self, record: &mut Record) {
        if let Some(proxied) = self.proxied.take() {
            proxied.note(record);
        }
        if let Some(hello) = &self.hello {
            preface::note_hello(record.preface_mut(), hello);
        }
    }
}

impl Inner {
    /// Sends on what a client sent to a listener where flows depend on more than its address.
    pub(super) fn forward_special(self: &Rc<Self>, key: FlowKey, cargo: Cargo<'_>) {
        let service = self.service.borrow().clone();
        let is_trusted =
            service.spec.trusted.as_ref().is_some_and(|trusted| trusted.covers(Some(key.client())));
        if is_trusted {
            self.forward_proxied(&service, key, cargo);
        } else {
            self.forward_for(&service, key, cargo, None);
        }
    }

    /// Takes the PROXY headers off the datagrams of a proxy, and sends the rest on for whom they name.
    fn forward_proxied(self: &Rc<Self>, service: &UdpService, key: FlowKey, cargo: Cargo<'_>) {
        let mut run: Vec<&[u8]> = Vec::new();
        let mut said: Option<Proxied> = None;
        for index in 0..cargo.count() {
            let datagram = cargo.datagram(index);
            let (proxied, used) = match preface::datagram_header(datagram) {
                Ok(Some((proxied, used))) => (Some(proxied), used),
                Ok(None) => (None, 0),
                Err(error) => {
                    tracing::debug!(listener = %service.spec.name, proxy = %key.client(), %error, "a datagram was dropped");
                    self.flows.count_drop(UdpDrop::BadProxyHeader, 1);
                    continue;
                }
            };
            // A header holds until another comes.
            if proxied.is_some() && proxied != said {
                self.forward_for(service, key, Cargo::Loose(&std::mem::take(&mut run)), said.as_ref());
                said = proxied;
            }
            run.push(&datagram[used..]);
        }
        self.forward_for(service, key, Cargo::Loose(&run), said.as_ref());
    }

    fn forward_for(
        self: &Rc<Self>,
        service: &UdpService,
        key: FlowKey,
        cargo: Cargo<'_>,
        proxied: Option<&Proxied>,
    ) {
        // Those that have a lane from before a reload stay in it.
        if !service.routes.is_plain() || self.lanes.has(&key) {
            return self.forward_lanes(service, key, cargo, proxied);
        }
        if let Some(proxied) = proxied {
            self.make_way(key, proxied);
        }
        self.forward_client(key, cargo, |datagram| {
            // Without names to route by nothing is ever held.
            let judged = self.judge(service, key, datagram, proxied).map_err(|Dropped(why, _)| why)?;
            self.begin(key, judged.map(|judged| judged.opening).unwrap_or_default())
        });
    }

    /// The next datagram from `key` begins a flow, if the one there is belongs to somebody else behind the same proxy.
    fn make_way(&self, key: FlowKey, proxied: &Proxied) {
        let mut table = self.flows.table();
        let Some(id) = table.lookup(&key) else { return };
        let client = proxied.addresses.map_or(key.client(), |(source, _)| source);
        if table.get(id).is_some_and(|flow| flow.record.client != Some(client)) {
            table.spend(id);
        }
    }

    /// Sends on the datagrams of an address that may have connections to several servers.
    fn forward_lanes(
        self: &Rc<Self>,
        service: &UdpService,
        key: FlowKey,
        cargo: Cargo<'_>,
        proxied: Option<&Proxied>,
    ) {
        let count = cargo.count();
        let lane_of = |index: usize| self.lanes.find(&key, cargo.datagram(index));
        let mut start = 0;
        // The usual case needs no look at each.
        if let Some(lane) = self.lanes.only(&key)
            && cargo.datagrams().all(|datagram| datagram.first().is_none_or(|first| first & 0x80 == 0))
        {
            start = self.forward_known(lane, cargo, 0, count);
        }
        while start < count {
            let lane = lane_of(start);
            let Some(lane) = lane.filter(|lane| self.flows.table().lookup(lane).is_some()) else {
                self.forward_first(service, key, cargo.datagram(start), proxied);
                start += 1;
                continue;
            };
            let end = (start + 1..count).find(|index| lane_of(*index) != Some(lane)).unwrap_or(count);
            let sent = self.forward_known(lane, cargo, start, end);
            // Less if the flow takes no more: then the next one begins another.
            start += sent.max(1);
        }
    }

    /// Begins the flow of a connection, or holds its datagram until it is known whose it is.
    fn forward_first(
        self: &Rc<Self>,
        service: &UdpService,
        key: FlowKey,
        datagram: &[u8],
        proxied: Option<&Proxied>,
    ) {
        let begun = match self.judge(service, key, datagram, proxied) {
            Ok(None) => return,
            Ok(Some(judged)) => self.begin_lane(key, judged),
            Err(dropped) => Err(dropped),
        };
        match begun {
            Ok((lane, held)) => {
                let all: Vec<&[u8]> = held.iter().map(|held| &held[..]).chain([datagram]).collect();
                let sent = self.forward_known(lane, Cargo::Loose(&all), 0, all.len());
                if sent < all.len() {
                    self.flows.count_drop(UdpDrop::NoFlow, (all.len() - sent) as u64);
                }
            }
            Err(Dropped(why, held)) => self.flows.count_drop(why, held as u64 + 1),
        }
    }

    fn begin_lane(
        self: &Rc<Self>,
        key: FlowKey,
        Judged { mut opening, held }: Judged,
    ) -> Result<(FlowKey, Datagrams), Dropped> {
        let dropped = |why| Dropped(why, held.len());
        let taken = self.lanes.take(key, opening.dcid).ok_or(dropped(UdpDrop::ClientLimit))?;
        let lane = taken.key();
        opening.lane = Some(taken);
        self.begin(lane, opening).map_err(dropped)?;
        Ok((lane, held))
    }

    /// Finds out what there is to know before a flow begins with `datagram`. None: it is held until more comes.
    fn judge(
        &self,
        service: &UdpService,
        key: FlowKey,
        datagram: &[u8],
        proxied: Option<&Proxied>,
    ) -> Result<Option<Judged>, Dropped> {
        let is_trusted =
            service.spec.trusted.as_ref().is_some_and(|trusted| trusted.covers(Some(key.client())));
        let beginner = Beginner::of(key, datagram);
        let is_held = self.held.borrow().has(&beginner);
        if is_trusted && proxied.is_none() && !is_held {
            return Err(Dropped(UdpDrop::BadProxyHeader, 0));
        }
        let opening = Opening { proxied: proxied.cloned(), ..Opening::default() };
        // Before anything is held, and not again: a later datagram need not say once more who it is from.
        if !is_held && !service.spec.acl.permits(opening.client(key).ip()) {
            return Err(Dropped(UdpDrop::Denied, 0));
        }
        let mut judged = Judged { opening, held: Vec::new() };
        let mut no_hello = None;
        if !service.routes.is_plain() && self.flows.mode() == Mode::Open {
            let deadline = now().as_millis() + service.spec.preface_timeout.as_millis() as u64;
            let opening = std::mem::take(&mut judged.opening);
            let settled =
                self.held.borrow_mut().push(beginner, datagram, Now::from_millis(deadline), || opening);
            let Some(settled) = settled else {
                self.shed();
                return Ok(None);
            };
            judged = Judged { opening: settled.about, held: settled.held };
            match settled.hello {
                Ok(hello) => judged.opening.hello = Some(hello),
                Err(error) => no_hello = Some(error),
            }
        }
        judged.opening.dcid = beginner.dcid();
        if judged.opening.hello.is_none()
            && let Some(cids) = &*self.cids.borrow()
        {
            judged.opening.known = cids.find(datagram, judged.opening.client(key).ip());
        }
        match no_hello {
            None | Some(NoHello::NotQuic | NoHello::UnknownVersion) => Ok(Some(judged)),
            // A server knows the keys by the connection that it goes on with.
            Some(NoHello::Undecryptable) if judged.opening.known.is_some() => Ok(Some(judged)),
            // A damaged beginning is one that every server would drop, and the same will come again undamaged.
            Some(error) => {
                tracing::debug!(listener = %service.spec.name, client = %key.client(), %error, "a client was dropped");
                Err(Dropped(UdpDrop::BadClientHello, judged.held.len()))
            }
        }
    }

    /// Lets those go who have waited for longest, while there are too many.
    fn shed(&self) {
        loop {
            let datagrams = self.held.borrow_mut().shed();
            if datagrams == 0 {
                return self.flows.wake();
            }
            self.flows.count_drop(UdpDrop::PrefaceLimit, datagrams as u64);
        }
    }

    /// Lets those go who have waited for too long.
    pub(super) fn expire_held(&self) {
        loop {
            let datagrams = self.held.borrow_mut().expire(now());
            if datagrams == 0 {
                return;
            }
            self.flows.count_drop(UdpDrop::PrefaceTimeout, datagrams as u64);
        }
    }

    /// Lets everybody go who waits, for no more flows begin.
    pub(super) fn drop_held(&self) {
        let datagrams = self.held.borrow_mut().clear();
        if datagrams > 0 {
            self.flows.count_drop(UdpDrop::Draining, datagrams as u64);
        }
    }

    /// Whether a flow may begin now.
    pub(super) fn is_open_for(&self, opening: &Opening) -> bool {
        match self.flows.mode() {
            Mode::Open => true,
            // Its connection was there before.
            Mode::Finishing => opening.known.is_some(),
            Mode::Draining => false,
        }
    }
}
