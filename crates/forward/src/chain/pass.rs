//! The way through one hop: a parent is chosen, connected to and asked; when it is of no use, another one is.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use wmproxy_net::connect::{ConnectError, Fault};
use wmproxy_net::stream::{ResetOnDrop, Stream};
use wmproxy_runtime::clock;
use wmproxy_upstream::{Attempt, Connected, DialError, FailKind, Group, Lease, LeaseKey, Peer};
use wmproxy_wire::destination::Destination;

use super::Chain;
use super::handshake::{Progress, Refusal};
use super::parent::{Named, Parent};

/// Where connections are made from.
pub(super) trait Place: Sized {
    /// Goes through the leased parent.
    async fn open(
        chain: &Chain,
        lease: &mut Lease,
        parent: &Parent,
        to: &Destination,
        deadline: Instant,
    ) -> Result<Stream, Blocked>;

    /// Connects to the leased parent.
    async fn connect(group: &Group, lease: &mut Lease, attempt: Attempt<'_>) -> Result<Connected, DialError>;
}

/// A worker.
#[derive(Debug)]
pub(super) struct Worker;

/// Any thread.
#[derive(Debug)]
pub(super) struct Anywhere;

impl Place for Worker {
    async fn open(
        chain: &Chain,
        lease: &mut Lease,
        parent: &Parent,
        to: &Destination,
        deadline: Instant,
    ) -> Result<Stream, Blocked> {
        if parent.shares() {
            return chain.share(lease, parent, to, deadline).await;
        }
        chain.open_alone::<Worker>(lease, parent, to, deadline).await
    }

    async fn connect(group: &Group, lease: &mut Lease, attempt: Attempt<'_>) -> Result<Connected, DialError> {
        group.connect(lease, attempt).await
    }
}

impl Place for Anywhere {
    async fn open(
        chain: &Chain,
        lease: &mut Lease,
        parent: &Parent,
        to: &Destination,
        deadline: Instant,
    ) -> Result<Stream, Blocked> {
        chain.open_alone::<Anywhere>(lease, parent, to, deadline).await
    }

    async fn connect(group: &Group, lease: &mut Lease, attempt: Attempt<'_>) -> Result<Connected, DialError> {
        group.connect_alone(lease, attempt).await
    }
}

/// Why there is no way through a parent.
pub(super) struct Blocked {
    pub(super) error: ConnectError,
    /// Whether another parent may do better.
    pub(super) leaves_others: bool,
}

impl Chain {
    /// Goes through the hop, and through those before it, to `to`.
    pub(super) async fn pass<P: Place>(&self, to: &Destination) -> Result<Stream, ConnectError> {
        let deadline = Instant::now() + self.limit();
        let key = LeaseKey::default();
        let mut tried: Vec<Arc<Peer>> = vec![];
        let mut last = None;
        for _ in 0..=self.group.spec().retries {
            let mut lease = match self.group.lease_in_turn(&key, &tried, None).await {
                Ok(lease) => lease,
                Err(reason) => return Err(last.unwrap_or_else(|| self.without_parent(&reason))),
            };
            match self.pass_parent::<P>(&mut lease, to, deadline).await {
                Ok(stream) => {
                    // As long as the connection is open it is one of the parent's.
                    stream.keep(Box::new(lease));
                    return Ok(stream);
                }
                Err(Blocked { error, leaves_others: true }) => last = Some(error),
                Err(Blocked { error, .. }) => return Err(error),
            }
            tried.push(Arc::clone(lease.peer()));
        }
        Err(last.unwrap_or_else(|| self.without_parent(&"none was tried")))
    }

    async fn pass_parent<P: Place>(
        &self,
        lease: &mut Lease,
        to: &Destination,
        deadline: Instant,
    ) -> Result<Stream, Blocked> {
        let parent = self.parent_of(lease)?;
        P::open(self, lease, parent, to, deadline).await
    }

    /// Goes through a parent by a connection that nobody else has.
    async fn open_alone<P: Place>(
        &self,
        lease: &mut Lease,
        parent: &Parent,
        to: &Destination,
        deadline: Instant,
    ) -> Result<Stream, Blocked> {
        let connected = self.reach::<P>(lease, parent, deadline).await?;
        let stream = connected.stream;
        let mut progress = Progress::Meeting;
        let talk = async {
            parent.secure(&stream).await?;
            parent.ask(&stream, to, &self.finder, &mut progress).await
        };
        let asked = answer(&stream, self.step(deadline), talk).await;
        let asked = asked.unwrap_or_else(|| Err(silence(progress, to)));
        self.judge(lease, parent, asked, Some(connected.connect_time))?;
        Ok(stream)
    }

    /// Connects to a parent, through the hops before.
    pub(super) async fn reach<P: Place>(
        &self,
        lease: &mut Lease,
        parent: &Parent,
        deadline: Instant,
    ) -> Result<Connected, Blocked> {
        // The hops before have limits of their own.
        let limit = if self.number == 1 { self.step(deadline) } else { deadline };
        let attempt =
            Attempt { limit: limit.saturating_duration_since(Instant::now()), ..self.group.attempt() };
        P::connect(&self.group, lease, attempt).await.map_err(|error| self.unreached(parent, error))
    }

    /// Tells the lease how it was with the parent.
    pub(super) fn judge<T>(
        &self,
        lease: &mut Lease,
        parent: &Parent,
        asked: Result<T, Refusal>,
        connect_time: Option<Duration>,
    ) -> Result<T, Blocked> {
        // A no to the destination is an answer, too.
        if asked.as_ref().err().is_none_or(|refusal| refusal.blame.is_none()) {
            lease.succeeded(connect_time, clock::now().0);
        }
        asked.map_err(|refusal| self.blocked(lease, parent, refusal))
    }

    /// Tells the lease that the parent is of no use.
    pub(super) fn blocked(&self, lease: &mut Lease, parent: &Parent, refusal: Refusal) -> Blocked {
        if let Some(kind) = refusal.blame {
            lease.failed(kind, clock::now().0);
        }
        self.told(parent, refusal)
    }

    fn told(&self, parent: &Parent, Refusal { fault, text, blame }: Refusal) -> Blocked {
        let error = ConnectError::new(fault, format!("{} {text}", self.named(parent)));
        Blocked { error, leaves_others: blame.is_some() }
    }

    pub(super) fn named<'a>(&self, parent: &'a Parent) -> Named<'a> {
        Named { number: self.number, parent }
    }

    /// Until when one step may take.
    pub(super) fn step(&self, deadline: Instant) -> Instant {
        deadline.min(Instant::now() + self.spec.connect_timeout)
    }

    pub(super) fn parent_of(&self, lease: &Lease) -> Result<&Parent, Blocked> {
        let parent = self.group.server_of(lease.peer()).and_then(|index| self.parents.get(index));
        // Its name has just got other addresses.
        let gone = || ConnectError::new(Fault::HopDown, format!("proxy {} has moved", self.number));
        parent.ok_or_else(|| Blocked { error: gone(), leaves_others: true })
    }

    fn unreached(&self, parent: &Parent, error: DialError) -> Blocked {
        let leaves_others = error.leaves_others();
        let named = self.named(parent);
        let error = match error {
            // What the hops before say of themselves is all there is to say.
            DialError::Hop { source, .. } => source.into(),
            DialError::NoWay { source, .. } => {
                ConnectError::new(Fault::NoWay, format!("can't connect to {named} as configured: {source}"))
            }
            DialError::Resources { source, .. } => {
                let text = format!("can't connect to {named}, for want of resources here: {source}");
                ConnectError::new(Fault::Resources, text)
            }
            DialError::Failed { source, .. } => {
                ConnectError::new(Fault::HopDown, format!("can't connect to {named}: {source}"))
            }
            DialError::NoPeer { reason, .. } => self.without_parent(&reason),
        };
        Blocked { error, leaves_others }
    }

    pub(super) fn without_parent(&self, reason: &dyn std::fmt::Display) -> ConnectError {
        ConnectError::new(Fault::HopDown, format!("proxy {} can't be used: {reason}", self.number))
    }
}

/// What a proxy answers over `stream` until `due`; none if that is nothing, and then the connection is reset, as it is when
/// nobody waits any more. Who only hears that we have nothing more to say goes on for a client that has left; and where chains
/// lead in a circle, each round would begin the next for ever.
pub(super) async fn answer<T>(stream: &Stream, due: Instant, talk: impl Future<Output = T>) -> Option<T> {
    let unanswered = ResetOnDrop::new(stream);
    let answer = timeout_at(due, talk).await.ok();
    match answer.is_some() {
        true => unanswered.disarm(),
        false => drop(unanswered),
    }
    answer
}

/// What it means that a proxy says nothing.
pub(super) fn silence(progress: Progress, to: &dyn std::fmt::Display) -> Refusal {
    match progress {
        Progress::Meeting => Refusal::of_proxy(Fault::HopDown, FailKind::Timeout, "does not answer in time"),
        Progress::Asked => {
            let text = format!("does not say in time whether there is a way to {to}");
            Refusal::of_destination(Fault::TimedOut, text)
        }
    }
}
