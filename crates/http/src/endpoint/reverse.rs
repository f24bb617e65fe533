//! The endpoint that passes requests on to a peer.

use std::sync::Arc;
use std::time::Instant;

use wmproxy_net::connect::Visitor;
use wmproxy_net::preface::Introduction;
use wmproxy_net::sockopt::PeerSocket;
use wmproxy_runtime::clock;
use wmproxy_upstream::balance::HashKey;
use wmproxy_upstream::{Attempt, Connected, FailKind, Group, Lease, LeaseKey, Peer};
use wmproxy_wire::head::{Known, cookie, query_param};

use super::passing::{self, Stay, Verdict};
use super::{onward, sticky};
use crate::exchange::{Answer, Cut, End, Exchange, Line, NoResponse, Patience, Trouble};
use crate::filter::rewrite::BadPath;
use crate::filter::tries::Next;
use crate::filter::{Filters, Pass};
use crate::h2;
use crate::options::ReverseSpec;
use crate::reply::Failure;
use crate::route::Route;
use crate::upgrade::{self, Wanted};

/// A group of peers behind us.
#[derive(Debug)]
pub(crate) struct Reverse {
    spec: ReverseSpec,
    group: Arc<Group>,
    /// What is set on the sockets of connections that are made for one client each.
    own: PeerSocket,
    /// Whether a connection may serve one client after the other.
    keeps_idle: bool,
    /// Whether HTTP/2 is spoken; with TLS, where the peer wants it, too.
    is_h2: bool,
}

/// A connection to a peer, and the right to use it.
struct Link {
    line: Line,
    lease: Lease,
    /// Whether it served a request before.
    is_reused: bool,
}

/// What has been tried for a request.
struct Tries {
    key: LeaseKey,
    /// So many more peers may be asked.
    left: u32,
    tried: Vec<Arc<Peer>>,
    /// The peer that the client had before, if it is to stay with that.
    stuck: Option<Arc<Peer>>,
    /// A connection that was idle turned out to be dead, so the next is a new one.
    only_fresh: bool,
    /// A peer has refused it unread.
    was_refused: bool,
    /// How the last one failed.
    last: Option<Failure>,
}

impl Reverse {
    /// Passes requests on to the peers of `group`, which is the one that `spec` names, by connections made as the listener
    /// wants it.
    pub(crate) fn new(spec: ReverseSpec, group: Arc<Group>, listener: &crate::options::HttpSpec) -> Reverse {
        let own = group.spec().socket.with(listener.socket.tcp, listener.source);
        // Other options of TCP change nothing that another client could see; another source would.
        let keeps_idle = group.keeps_idle() && own.source == group.spec().socket.source;
        let is_h2 = spec.wants_h2(group.spec().tls.as_ref());
        Reverse { spec, group, own, keeps_idle, is_h2 }
    }

    /// Asks a peer, and passes its response on. Where the route has several paths to try, one after the other.
    pub(crate) async fn answer(
        &self,
        ex: &mut Exchange<'_, '_>,
        route: &Route,
        pass: &Pass,
    ) -> Result<End, Failure> {
        let filters = &route.filters;
        let wanted = upgrade::wanted(ex);
        let target = |ex: &mut _, index| {
            onward::retarget(ex, &self.spec, filters, index).map_err(|BadPath| Failure::Status(400))
        };
        target(ex, 0)?;
        if self.spec.buffer {
            Box::pin(ex.hold()).await?;
        }
        onward::prepare(ex, &self.spec, wanted.as_ref().map(Wanted::protocols));
        filters.change_request(ex.conn, ex.request, ex.facts);
        if let Some(watcher) = route.watcher.as_ref().filter(|_| wanted.is_none()) {
            ex.copy = watcher.copy(ex, &self.spec.base).map(Box::new);
        }
        let patience = Patience {
            head: self.spec.try_timeout,
            pause: self.spec.timeout,
            total: self.spec.timeout,
            began: clock::now(),
        };
        let mut index = 0;
        loop {
            let (link, answer) = self.ask(ex, wanted.as_ref(), patience).await?;
            match filters.tries.as_ref().map(|tries| tries.after(index, ex.response.status, ex.request)) {
                Some(Next::Ask(next)) if ex.can_ask_again() => {
                    self.turn_down(ex, link, answer);
                    index = next;
                    target(ex, index)?;
                }
                Some(Next::Status(status)) => return Err(Failure::Status(status)),
                _ => {
                    return self
                        .pass_back(ex, link, answer, patience, wanted.as_ref(), (filters, pass))
                        .await;
                }
            }
        }
    }

    /// Asks peers until one answers.
    async fn ask(
        &self,
        ex: &mut Exchange<'_, '_>,
        wanted: Option<&Wanted>,
        patience: Patience,
    ) -> Result<(Link, Answer), Failure> {
        let mut tries = self.tries(ex);
        loop {
            let mut link = self.reach(ex, &mut tries).await?;
            ex.facts.peer = Some(Arc::clone(link.lease.peer()));
            // HTTP/1.0 needs no Host, what we send does.
            let has_none = ex.facts.host.is_empty() && ex.request.fields.get(Known::Host).is_none();
            if (!self.spec.preserve_host || has_none) && self.spec.authority.is_none() {
                onward::set_host(ex.request, link.lease.address().to_string().as_bytes());
            }
            if let Some(wanted) = wanted {
                wanted.fit(ex.request, &link.line)?;
            }
            let asked = Instant::now();
            match ex.ask(&mut link.line, patience).await {
                Ok(answer) => {
                    let time = asked.elapsed();
                    ex.facts.upstream_time = Some(time);
                    match self.group.spec().is_failure(ex.response.status) {
                        true => link.lease.failed(FailKind::Status, clock::now().0),
                        false => link.lease.answered(time, clock::now().0),
                    }
                    sticky::remember(&self.group, ex, tries.stuck.as_ref(), link.lease.peer());
                    return Ok((link, answer));
                }
                Err(trouble) if tries.goes_on(ex, &mut link, &trouble) => {}
                Err(trouble) => return Err(trouble.into()),
            }
        }
    }

    fn tries(&self, ex: &Exchange<'_, '_>) -> Tries {
        let retries = self.group.spec().retries;
        let mut key = LeaseKey::of_client(ex.facts.client);
        if let Some(by) = self.group.spec().balance.hash_key() {
            key = with_key(key, by, ex);
        }
        let stuck = sticky::peer_of(&self.group, ex);
        Tries {
            key,
            left: retries.saturating_add(1),
            tried: Vec::new(),
            stuck,
            only_fresh: false,
            was_refused: false,
            last: None,
        }
    }

    /// A connection to a peer: an idle one, or a new one.
    async fn reach(&self, ex: &Exchange<'_, '_>, tries: &mut Tries) -> Result<Link, Failure> {
        while tries.left > 0 {
            let leased = match sticky::lease(&self.group, tries.stuck.as_ref(), &tries.tried) {
                Some(lease) => Ok(lease),
                None => self.group.lease_in_turn(&tries.key, &tries.tried, ex.front.stream()).await,
            };
            // That there is no other peer says less than how the one before failed.
            let mut lease = leased.map_err(|reason| tries.last.unwrap_or(reason.into()))?;
            if !tries.only_fresh
                && let Some(stream) = self.keeps_idle.then(|| self.group.take_idle(&lease)).flatten()
            {
                return Ok(Link { line: Line::H1(stream), lease, is_reused: true });
            }
            tries.left -= 1;
            // Boxed, for what it needs is gone when the connection is there.
            match Box::pin(self.connect(ex, &mut lease)).await {
                Ok((line, is_reused)) => {
                    let is_reused = is_reused && !tries.only_fresh;
                    return Ok(Link { line, lease, is_reused });
                }
                Err((failure, leaves_others)) => {
                    tries.tried.push(Arc::clone(lease.peer()));
                    tries.last = Some(failure);
                    if !leaves_others {
                        break;
                    }
                }
            }
        }
        Err(tries.last.unwrap_or(Failure::Status(502)))
    }

    /// A way to the leased peer that is new to us: a connection, or where HTTP/2 is spoken, a stream of one that may be there,
    /// which is said then.
    async fn connect(
        &self,
        ex: &Exchange<'_, '_>,
        lease: &mut Lease,
    ) -> Result<(Line, bool), (Failure, bool)> {
        let (mut stream, is_reused) = match self.shared(lease).await? {
            Some(h2::Found::Stream(stream)) => (stream, true),
            Some(h2::Found::Nothing(making)) => match self.begin(ex, lease, Some(making)).await? {
                Line::H2(stream) => (*stream, false),
                line => return Ok((line, false)),
            },
            None => return Ok((self.begin(ex, lease, None).await?, false)),
        };
        if ex.request.protocol().is_some() {
            let takes = tokio::time::timeout(self.group.spec().connect_timeout, stream.takes_connect()).await;
            if takes != Ok(true) {
                tracing::debug!(listener = %ex.conn.listener, "a peer takes no WebSockets over HTTP/2");
                return Err((Failure::Status(502), true));
            }
        }
        Ok((Line::H2(Box::new(stream)), is_reused))
    }

    /// Connects, and begins with HTTP/2 where that is spoken.
    async fn begin(
        &self,
        ex: &Exchange<'_, '_>,
        lease: &mut Lease,
        making: Option<h2::Making>,
    ) -> Result<Line, (Failure, bool)> {
        let connected = self.dial(ex, lease).await?;
        let Some(making) = making else { return Ok(Line::H1(connected.stream)) };
        let begun = making.begin(connected, self.group.spec().keepalive.idle_timeout);
        let (kind, status) = match tokio::time::timeout(self.group.spec().connect_timeout, begun).await {
            Ok(Ok(line)) => return Ok(line),
            Ok(Err(error)) => {
                tracing::debug!(listener = %ex.conn.listener, %error, "no HTTP/2 with a peer");
                (FailKind::Reset, 502)
            }
            Err(_) => (FailKind::Timeout, 504),
        };
        lease.failed(kind, clock::now().0);
        Err((Failure::Status(status), true))
    }

    /// Where HTTP/2 is spoken: a stream of a connection, or the right to make one.
    async fn shared(&self, lease: &Lease) -> Result<Option<h2::Found>, (Failure, bool)> {
        if !self.is_h2 {
            return Ok(None);
        }
        if !self.keeps_idle {
            return Ok(Some(h2::Found::Nothing(h2::Making::alone())));
        }
        let found = h2::find(self.group.idle_key(lease.peer()), lease.peer());
        // Whoever makes one that others wait for has as long.
        let found = tokio::time::timeout(self.group.spec().connect_timeout, found).await;
        found.map(Some).map_err(|_| (Failure::Status(504), true))
    }

    async fn dial(&self, ex: &Exchange<'_, '_>, lease: &mut Lease) -> Result<Connected, (Failure, bool)> {
        let introduction = (self.group.spec().send_proxy_protocol)
            .map(|version| Introduction::new(version, &ex.record.borrow()));
        let visitor = Visitor { client: ex.conn.client, local: ex.record.borrow().destination() };
        let attempt = self.group.attempt();
        let attempt = match self.keeps_idle {
            true => attempt,
            false => Attempt {
                options: &self.own,
                visitor: &visitor,
                introduction: introduction.as_ref(),
                ..attempt
            },
        };
        self.group.connect(lease, attempt).await.map_err(|error| {
            tracing::debug!(listener = %ex.conn.listener, %error, "no peer for a request");
            (Failure::from(&error), error.leaves_others())
        })
    }

    /// Passes a response on, and keeps the connection for the next request if it can be.
    async fn pass_back(
        &self,
        ex: &mut Exchange<'_, '_>,
        mut link: Link,
        answer: Answer,
        patience: Patience,
        wanted: Option<&Wanted>,
        (filters, pass): (&Filters, &Pass),
    ) -> Result<End, Failure> {
        if passing::is_granted(ex, &link.line, wanted)?
            && let Some(wanted) = wanted
        {
            return Box::pin(upgrade::run(ex, &mut link.line, answer, wanted)).await;
        }
        if filters.error_page(ex.response.status).is_some() {
            self.turn_down(ex, link, answer);
            onward::strip(&mut ex.response.fields);
            return Ok(Box::pin(ex.deliver(filters, pass, b"")).await.into());
        }
        let stay = passing::stay(ex);
        onward::strip(&mut ex.response.fields);
        let passage = ex.begin_filtered(filters, pass, answer.length);
        match ex.pass(&mut link.line, answer, patience, passage).await {
            Ok(()) => {}
            Err(cut) => {
                tracing::debug!(listener = %ex.conn.listener, %cut, "a response is cut off");
                match cut {
                    Cut::Peer(_) => link.lease.failed(FailKind::Broken, clock::now().0),
                    Cut::PeerSlow => link.lease.failed(FailKind::AnswerTimeout, clock::now().0),
                    Cut::Client(_) | Cut::ClientSlow | Cut::Spent | Cut::Changed | Cut::Unreadable(_) => {}
                }
                return Ok(End::Cut(cut.outcome()));
            }
        }
        self.keep(ex, link, stay);
        Ok(End::Done)
    }

    /// Keeps a connection for the next request, if it may serve one.
    fn keep(&self, ex: &Exchange<'_, '_>, link: Link, stay: Option<Stay>) {
        if self.keeps_idle
            && let Some((stream, limit)) = passing::left(ex, link.line, stay)
        {
            self.group.put_idle(&link.lease, stream, limit);
        }
    }

    /// Passes a response on to nobody.
    fn turn_down(&self, ex: &mut Exchange<'_, '_>, mut link: Link, answer: Answer) {
        let stay = passing::stay(ex);
        if passing::discard(ex, &mut link.line, answer) {
            self.keep(ex, link, stay);
        }
    }
}

impl Tries {
    /// Whether the request is asked once more after this.
    fn goes_on(&mut self, ex: &Exchange<'_, '_>, link: &mut Link, trouble: &Trouble) -> bool {
        let verdict = passing::judge(trouble, link.is_reused);
        if verdict != Verdict::Innocent {
            tracing::debug!(listener = %ex.conn.listener, peer = %link.lease.address(), ?trouble, "a request failed");
        }
        match verdict {
            Verdict::Innocent => false,
            Verdict::Refused => {
                // A peer that stops to listen refuses what crosses its word of it, which says nothing about the peer.
                if !std::mem::replace(&mut self.was_refused, true) {
                    self.left += 1;
                }
                ex.up.moved == 0 && !ex.has_begun && self.left > 0
            }
            Verdict::Stale => {
                self.only_fresh = true;
                passing::may_ask_again(ex)
            }
            Verdict::Failed(kind) => {
                link.lease.failed(kind, clock::now().0);
                self.tried.push(Arc::clone(link.lease.peer()));
                self.last = Some(match kind {
                    FailKind::AnswerTimeout => Failure::Status(504),
                    _ => Failure::Status(502),
                });
                let is_answer = matches!(trouble, Trouble::Peer(NoResponse::Bad(_)));
                passing::may_ask_again(ex) && self.left > 0 && !is_answer
            }
        }
    }
}

/// What the request has of what its peer is chosen by.
fn with_key(key: LeaseKey, by: &HashKey, ex: &Exchange<'_, '_>) -> LeaseKey {
    let request = &ex.request;
    let value = match by {
        HashKey::Header(name) => request.fields.all_named(name.as_bytes()).next(),
        HashKey::Cookie(name) => cookie(&request.fields, name.as_bytes()),
        HashKey::Query(name) => request.query().and_then(|query| query_param(query, name.as_bytes())),
        HashKey::Path => Some(ex.facts.path.as_slice()),
        HashKey::Sni => return ex.conn.sni.as_deref().map_or(key, |name| key.with_sni(name)),
        HashKey::ClientIp | HashKey::ClientAddr | HashKey::QuicCid => None,
    };
    value.map_or(key, |value| key.with_request(value))
}
