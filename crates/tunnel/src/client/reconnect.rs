//! How a client comes back: when it tries again to have a session with a server.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;

use super::TunnelClient;
use super::backoff::Backoff;
use super::control::{Control, Ending};
use super::link::Link;
use super::login::log_in;
use super::session::SessionError;

/// After a session of that length the pauses begin anew. Two clients with one name, which end each other's sessions, do so ever
/// more rarely instead of as fast as they can.
const STABLE: Duration = Duration::from_secs(10);

/// The longest pause where the server will be back soon, or is. Where the machine answers and nobody listens, an attempt costs
/// one packet each way; and a server whose session was lost has just been there, however often it dies.
const SOON: Duration = Duration::from_secs(1);

/// Something that runs beside the others.
type Beside = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Keeps a session with each server until the client leaves, and those that are left go.
pub(super) async fn keep_all(client: &Arc<TunnelClient>) {
    let (beside, mut more) = mpsc::unbounded_channel();
    let mut running: FuturesUnordered<Beside> = FuturesUnordered::new();
    for link in &client.links {
        running.push(Box::pin(keep(client.clone(), link.clone(), beside.clone())));
    }
    loop {
        tokio::select! {
            biased;
            Some(another) = more.recv() => running.push(another),
            ended = running.next() => if ended.is_none() { return },
        }
    }
}

/// Keeps a session with a server until the client leaves. What is left of a session that was replaced goes `beside`.
async fn keep(client: Arc<TunnelClient>, link: Arc<Link>, beside: mpsc::UnboundedSender<Beside>) {
    let mut backoff = Backoff::new(client.spec.max_backoff);
    let mut leaving = client.leaving.subscribe();
    loop {
        link.connecting();
        let logged_in = tokio::select! {
            logged_in = Box::pin(log_in(&client, &link)) => logged_in,
            _ = leaving.wait_for(|leaving| *leaving) => break,
        };
        let (error, longest) = match logged_in {
            Ok(logged_in) => {
                let control = Control::new(&client, &link, logged_in);
                let began = Instant::now();
                let error = have(control, &link, &beside).await;
                if began.elapsed() >= STABLE {
                    backoff.reset();
                }
                let is_soon = error.as_ref().is_some_and(SessionError::is_loss);
                (error, if is_soon { SOON } else { Duration::MAX })
            }
            Err(error) => {
                let longest = if error.is_nobody() { SOON } else { Duration::MAX };
                (Some(error), longest)
            }
        };
        if *leaving.borrow() {
            break;
        }
        if let Some(error) = error {
            let pause = if error.is_lasting() {
                // Only the options of either end can change that, so it is looked for rarely.
                client.spec.max_backoff
            } else {
                backoff.pause(longest)
            };
            rest(&client, &link, &error, pause, &mut backoff).await;
        }
    }
    link.ended();
}

/// Has a session, and says why it ended; nothing if this end wanted that.
async fn have(
    mut control: Control,
    link: &Link,
    beside: &mpsc::UnboundedSender<Beside>,
) -> Option<SessionError> {
    link.opened(control.session().clone());
    control.open();
    let ending = control.run().await;
    link.closed();
    match ending {
        Ending::Lost(error) => Some(error),
        Ending::Left => None,
        Ending::ServerLeaves => {
            // Another one may listen there already, and the first pause is next to none; those who are here stay with this one.
            let _ = beside.send(control.linger());
            Some(SessionError::Leaves)
        }
    }
}

/// Waits before the next attempt. A change of the network, or the end, is not waited for.
async fn rest(
    client: &TunnelClient,
    link: &Link,
    error: &SessionError,
    pause: Duration,
    backoff: &mut Backoff,
) {
    let mut network = client.network.subscribe();
    let mut leaving = client.leaving.subscribe();
    link.waiting(error.to_string(), pause);
    tokio::select! {
        () = tokio::time::sleep(pause) => {}
        _ = network.changed() => backoff.reset(),
        _ = leaving.wait_for(|leaving| *leaving) => {}
    }
}
