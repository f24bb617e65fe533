//! The way through a parent by a connection that carries many.

use tokio::time::{Instant, timeout_at};
use wmproxy_http::hop::Tunnel;
use wmproxy_net::connect::{ConnectError, Fault};
use wmproxy_net::stream::Stream;
use wmproxy_net::tls::TlsInfo;
use wmproxy_upstream::{FailKind, Lease};
use wmproxy_wire::destination::Destination;

use super::Chain;
use super::handshake::{self, Progress, Refusal};
use super::parent::Parent;
use super::pass::{Blocked, Worker, answer, silence};

impl Chain {
    /// Goes through a parent that may speak HTTP/2, as one of many on a connection of this worker's.
    pub(super) async fn share(
        &self,
        lease: &mut Lease,
        parent: &Parent,
        to: &Destination,
        deadline: Instant,
    ) -> Result<Stream, Blocked> {
        let authorization = handshake::authorization(parent.who());
        // All addresses of a parent are one proxy.
        let proxy = self.parents.iter().position(|one| std::ptr::eq(one, parent)).unwrap_or(0) as u64;
        // What became of a connection that had to be made.
        let (mut blocked, mut connect_time) = (None, None);
        let opening = self.shared.open(proxy, to, authorization.as_deref().map(str::as_bytes), async || {
            let made = self.make_shared(lease, parent, deadline).await;
            let (stream, tls, time) = made.map_err(|why| {
                let error = why.error.clone();
                blocked = Some(why);
                error
            })?;
            connect_time = Some(time);
            Ok((stream, tls))
        });
        let opened = timeout_at(deadline, opening).await;
        if let Some(blocked) = blocked {
            return Err(blocked);
        }
        let asked = match opened {
            Err(_) => Err(silence(Progress::Asked, to)),
            Ok(Err(error)) => Err(refusal(error)),
            Ok(Ok(Tunnel::Refused(status))) => Err(handshake::refusal(status, parent.who().is_some())),
            Ok(Ok(Tunnel::Open(stream))) => Ok(stream),
            Ok(Ok(Tunnel::Http1(stream))) => self.ask_http1(stream, parent, to, deadline).await,
        };
        self.judge(lease, parent, asked, connect_time)
    }

    /// Makes a connection that others will use, too.
    async fn make_shared(
        &self,
        lease: &mut Lease,
        parent: &Parent,
        deadline: Instant,
    ) -> Result<(Stream, TlsInfo, std::time::Duration), Blocked> {
        let connected = self.reach::<Worker>(lease, parent, deadline).await?;
        let (stream, time) = (connected.stream, connected.connect_time);
        let secured = timeout_at(self.step(deadline), parent.secure_shared(&stream)).await;
        let secured = secured.unwrap_or_else(|_| Err(silence(Progress::Meeting, &"")));
        match secured {
            Ok(tls) => Ok((stream, tls, time)),
            Err(refusal) => Err(self.blocked(lease, parent, refusal)),
        }
    }

    async fn ask_http1(
        &self,
        stream: Stream,
        parent: &Parent,
        to: &Destination,
        deadline: Instant,
    ) -> Result<Stream, Refusal> {
        let mut progress = Progress::Meeting;
        let ask = parent.ask(&stream, to, &self.finder, &mut progress);
        let asked = answer(&stream, self.step(deadline), ask).await;
        asked.unwrap_or_else(|| Err(silence(Progress::Asked, to)))?;
        Ok(stream)
    }
}

/// Whose fault it is that no tunnel opened.
fn refusal(error: ConnectError) -> Refusal {
    match error.fault {
        // By CONNECT_ERROR the proxy speaks of the destination.
        Fault::Refused => Refusal::of_destination(Fault::Refused, "reset the tunnel: it could not connect"),
        Fault::Broken => Refusal::broken(error),
        _ => Refusal::of_proxy(Fault::HopDown, FailKind::Reset, format!("failed: {error}")),
    }
}
