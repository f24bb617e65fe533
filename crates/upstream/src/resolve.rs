//! Keeping the peers of a group in line with its names, on the control runtime.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::Poll;

pub use crate::lookup::{ResolveError, Resolver};

use crate::group::Group;
use crate::names::Name;

#[cfg(test)]
mod tests;

impl Group {
    /// Whether any of its servers is a host name.
    pub fn has_names(&self) -> bool {
        !self.names().is_empty()
    }

    /// Resolves every name that is unknown or out of date, all at once, and takes over each answer as it comes. Takes
    /// ten seconds at the most; may be dropped before, and [`keep_resolved`] goes on with the names that are left.
    ///
    /// # Errors
    /// The names that failed. Those with addresses from before keep them; the group works without the others.
    pub async fn resolve_once(&self, resolver: &Resolver) -> Result<(), Vec<(String, ResolveError)>> {
        let lookups = self.names().iter().map(|name| async move {
            let refreshed = name.refresh(resolver, true).await;
            // At once, for another name may take long or have no answer.
            self.follow_names();
            Some((name.host().to_owned(), refreshed.err()?))
        });
        let failed: Vec<_> = join_all(lookups).await.into_iter().flatten().collect();
        if failed.is_empty() { Ok(()) } else { Err(failed) }
    }
}

/// Does [`Group::resolve_once`] for many groups side by side. What fails is logged where it is noticed.
pub async fn resolve_all(groups: &[Arc<Group>], resolver: &Resolver) {
    join_all(groups.iter().map(|group| group.resolve_once(resolver))).await;
}

/// Resolves the names of a group again whenever their answers expire. Ends when the group is gone, at the
/// latest when its next answer expires; at once when it has no names. Start it after
/// [`Group::resolve_once`], and drop it to stop.
pub fn keep_resolved(
    group: &Arc<Group>,
    resolver: Arc<Resolver>,
) -> impl Future<Output = ()> + Send + 'static {
    let names = group.names().to_vec();
    let group = Arc::downgrade(group);
    async move {
        let loops = names.into_iter().map(|name| keep_name(&group, name, &resolver));
        join_all(loops).await;
    }
}

async fn keep_name(group: &Weak<Group>, name: Arc<Name>, resolver: &Resolver) {
    loop {
        tokio::time::sleep_until(name.due()).await;
        if group.strong_count() == 0 {
            return;
        }
        // A failure is logged where it is noticed, and the name knows when to ask again.
        let _ = name.refresh(resolver, false).await;
        match group.upgrade() {
            Some(group) => group.follow_names(),
            None => return,
        }
    }
}

/// Runs futures side by side in the calling task, and gives their outputs in order.
async fn join_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<Pin<Box<F>>> = futures.map(Box::pin).collect();
    let mut outputs: Vec<Option<F::Output>> = running.iter().map(|_| None).collect();
    poll_fn(|cx| {
        // A handful of names: polling those that did not wake costs less than telling them apart.
        for (future, output) in running.iter_mut().zip(&mut outputs) {
            if output.is_none()
                && let Poll::Ready(value) = future.as_mut().poll(cx)
            {
                *output = Some(value);
            }
        }
        if outputs.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    outputs.into_iter().flatten().collect()
}
