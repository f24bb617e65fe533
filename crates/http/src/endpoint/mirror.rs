//! Sends copies of requests to somebody who watches, and forgets the answers.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use wmproxy_runtime::clock;
use wmproxy_runtime::scope::Scope;
use wmproxy_upstream::{FailKind, Group, Lease, LeaseKey};
use wmproxy_wire::head::{Fields, Response};
use wmproxy_wire::http1::{self, Length};

use super::onward;
use crate::exchange::{Broken, Exchange, Line, NoResponse, Piece, Sink, Source};
use crate::filter::mirror::{Copy, Mirror, Mirrored};
use crate::h1::Wire;
use crate::h2;
use crate::options::ReverseSpec;
use crate::scratch::Scratch;

/// An answer that is longer is not read to its end, and costs the connection.
const LONGEST_ANSWER: usize = 1 << 20;

thread_local! {
    /// Copies on their way from this worker. Nobody waits for them at the end.
    static SENDING: Scope = Scope::new();
}

/// Where the copies of a route's requests go.
#[derive(Debug)]
pub(crate) struct Watcher {
    spec: ReverseSpec,
    group: Arc<Group>,
    mirror: Mirror,
}

/// Why a copy did not arrive.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("no peer")]
    NoPeer,
    #[error(transparent)]
    Dial(#[from] wmproxy_upstream::DialError),
    #[error(transparent)]
    H2(#[from] ::h2::Error),
    #[error(transparent)]
    Broken(#[from] Broken),
    #[error(transparent)]
    NoResponse(#[from] NoResponse),
}

impl Watcher {
    /// Copies go to the peers of `group`, which is the one that `spec` names.
    pub(crate) fn new(spec: ReverseSpec, group: Arc<Group>) -> Watcher {
        Watcher { spec, group, mirror: Mirror::default() }
    }

    /// Begins a copy of a request as it is going to a peer; `base` is what was put before its path there.
    pub(crate) fn copy(&self, ex: &Exchange<'_, '_>, base: &str) -> Option<Copy> {
        let mut copy = self.mirror.copy(ex.request, ex.body)?;
        let request = copy.request();
        let target = request.target();
        let target = [self.spec.base.as_bytes(), &target[base.len().min(target.len())..]].concat();
        request.set_target(&target);
        if let Some(authority) = self.spec.authority.as_deref().filter(|_| !self.spec.preserve_host) {
            onward::set_host(request, authority.as_bytes());
        }
        Some(copy)
    }

    /// Sends a copy, in a task of its own.
    pub(crate) fn send(self: &Arc<Self>, copy: Copy, client: Option<SocketAddr>) {
        let watcher = Arc::clone(self);
        SENDING.with(|scope| {
            scope.spawn(async move {
                let mirrored = copy.finish();
                let sent =
                    tokio::time::timeout(watcher.spec.timeout, watcher.deliver(&mirrored, client)).await;
                match sent {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(group = %watcher.spec.group, %error, "a copy is lost"),
                    Err(_) => tracing::debug!(group = %watcher.spec.group, "a copy got no answer in time"),
                }
                drop(mirrored.place);
            });
        });
    }

    async fn deliver(&self, mirrored: &Mirrored, client: Option<SocketAddr>) -> Result<(), Lost> {
        let leased = self.group.lease(&LeaseKey::of_client(client), &[], clock::now().0);
        let mut lease = leased.map_err(|_| Lost::NoPeer)?;
        let mut line = self.reach(&mut lease).await?;
        let asked = clock::now();
        let (mut wire, mut response) = (Wire::default(), Response::new());
        match ask(&mut line, &mut wire, mirrored, &mut response).await {
            Ok(()) => lease.answered(clock::now().since(asked), clock::now().0),
            Err(error) => {
                lease.failed(FailKind::Reset, clock::now().0);
                return Err(error);
            }
        }
        if let Line::H1(stream) = line
            && http1::is_persistent(response.version, &response.fields)
            && wire.is_clear()
        {
            self.group.put_idle(&lease, stream, None);
        }
        Ok(())
    }

    async fn reach(&self, lease: &mut Lease) -> Result<Line, Lost> {
        let is_h2 = self.spec.wants_h2(self.group.spec().tls.as_ref());
        if !is_h2 && let Some(stream) = self.group.take_idle(lease) {
            return Ok(Line::H1(stream));
        }
        let connected = self.group.connect(lease, self.group.attempt()).await?;
        if !is_h2 {
            return Ok(Line::H1(connected.stream));
        }
        Ok(h2::Making::alone().begin(connected, self.group.spec().keepalive.idle_timeout).await?)
    }
}

/// Sends a request, and reads its answer to the end.
async fn ask(
    line: &mut Line,
    wire: &mut Wire,
    mirrored: &Mirrored,
    response: &mut Response,
) -> Result<(), Lost> {
    let Mirrored { request, body, .. } = mirrored;
    let length = if body.is_empty() { Length::None } else { Length::Known(body.len() as u64) };
    line.back(wire).begin(request, length);
    let mut left = &body[..];
    poll_fn(|cx| poll_send(cx, line, wire, &mut left)).await?;
    let mut piece = loop {
        let piece = poll_fn(|cx| {
            let mut scratch = Scratch::take();
            let mut back = line.back(wire);
            let Poll::Ready(found) = back.poll_response(cx, &mut scratch, response, request) else {
                return Poll::Pending;
            };
            Poll::Ready(found.map_err(Lost::from).and_then(|(place, _)| {
                if response.is_interim() {
                    back.keep(scratch.at(&place));
                    return Ok(None);
                }
                Ok(Some(back.first_piece(&mut scratch, place, &mut Fields::new())?))
            }))
        });
        if let Some(piece) = piece.await? {
            break piece;
        }
    };
    let mut read = piece.place.len();
    while !piece.is_last && read <= LONGEST_ANSWER {
        piece = poll_fn(|cx| {
            let mut scratch = Scratch::take();
            line.back(wire).poll_piece(cx, &mut scratch, usize::MAX, &mut Fields::new())
        })
        .await?;
        read += piece.place.len();
    }
    Ok(())
}

/// Sends what is left of a body.
fn poll_send(
    cx: &mut Context<'_>,
    line: &mut Line,
    wire: &mut Wire,
    left: &mut &[u8],
) -> Poll<Result<(), Broken>> {
    let mut back = line.back(wire);
    while !left.is_empty() {
        let most = std::task::ready!(back.poll_ready(cx))?;
        let mut scratch = Scratch::take();
        let room = scratch.room();
        let n = left.len().min(most).min(room.len());
        room[..n].copy_from_slice(&left[..n]);
        *left = &left[n..];
        let piece = Piece { place: scratch.read(n), is_last: left.is_empty() };
        back.send(cx, &mut scratch, piece, &Fields::new())?;
    }
    back.poll_flush(cx)
}
