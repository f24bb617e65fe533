//! Hot reload: everything new is ready before anything old changes.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;
use wmproxy_net::record::ListenerMetrics;
use wmproxy_runtime::signal::{Request, Signals};

use crate::admin::bind::Bound;
use crate::admin::{ReloadFailure, Reloaded};
use crate::config::Loaded;
use crate::config::plan::{AdminPlan, Plan};
use crate::generation::{self, Generation};
use crate::observe::log::{Log, Prepared};

use super::control::Stop;
use super::{Process, bind_admin};

/// A listener as the log names it: its name, and where it listens.
type Place = (Arc<str>, String);

fn places(generation: &Generation) -> BTreeSet<Place> {
    let place = |metrics: &Arc<ListenerMetrics>| {
        (metrics.name.clone(), format!("{}://{}", metrics.protocol, metrics.address))
    };
    generation.in_service().map(place).collect()
}

/// Tells what is listened on now and was not before, and the other way round.
fn report_changes(before: &BTreeSet<Place>, after: &BTreeSet<Place>) {
    for (name, address) in before.difference(after) {
        tracing::info!(%name, "no longer listening on {address}");
    }
    for (name, address) in after.difference(before) {
        tracing::info!(%name, "listening on {address}");
    }
}

/// A reload that is prepared and can take over.
struct Ready {
    loaded: Loaded,
    log: Prepared,
    generation: generation::Prepared,
    admin: Option<(AdminPlan, Bound)>,
}

/// The refusal of a reload once the process is on its way out.
pub(super) fn stopping() -> ReloadFailure {
    ReloadFailure::other("the process is stopping")
}

impl Process {
    pub(super) fn log_reload(&self, why: &str, outcome: &Result<Reloaded, ReloadFailure>) {
        match outcome {
            Ok(reloaded) => {
                tracing::info!(generation = reloaded.generation, "reloaded on {why}");
                for warning in &reloaded.warnings {
                    tracing::warn!("reload: {warning}");
                }
            }
            Err(failure) => {
                tracing::warn!("reload on {why} failed, nothing was changed: {}", failure.error);
                for line in failure.rendered.lines().filter(|line| !line.is_empty()) {
                    tracing::warn!("reload: {line}");
                }
            }
        }
    }

    /// Reads the config again and lets it take over. A request to stop goes before: while things are being prepared
    /// nothing has changed, and none is the answer. A signal to reload that comes meanwhile is noted in `again`.
    pub(super) async fn reload(
        &mut self,
        again: &mut bool,
        signals: &mut Signals,
        stops: &mut watch::Receiver<Stop>,
    ) -> Option<Result<Reloaded, ReloadFailure>> {
        let prepared = {
            let preparing = self.prepare();
            tokio::pin!(preparing);
            loop {
                tokio::select! {
                    biased;
                    _ = stops.wait_for(|stop| *stop != Stop::No) => return None,
                    request = signals.next() => match request {
                        Request::Stop => return None,
                        // The files may have changed since they were read.
                        Request::Reload => *again = true,
                        Request::ReopenLogs => self.house.sinks.reopen(),
                    },
                    prepared = &mut preparing => break prepared,
                }
            }
        };
        let outcome = match prepared {
            Ok(ready) => self.commit(ready).await,
            Err(failure) => Err(failure),
        };
        self.shared.count_reload(outcome.is_ok());
        Some(outcome)
    }

    /// Gets everything ready and changes nothing.
    async fn prepare(&self) -> Result<Ready, ReloadFailure> {
        let (source, global) = (self.run.source.clone(), self.run.global.clone());
        // Files may be slow; the admin API answers meanwhile.
        let loaded = tokio::task::spawn_blocking(move || source.load(&global)).await;
        let loaded =
            loaded.map_err(ReloadFailure::other)?.map_err(|problems| ReloadFailure::config(&problems))?;
        if loaded.plan.is_idle() && self.generation.in_service().next().is_some() {
            // Most likely a file that is just being written; who means it can stop the process.
            return Err(ReloadFailure::other(
                "the config has no listener, and one that listens nowhere is not run",
            ));
        }
        let other = |error: anyhow::Error| ReloadFailure::other(format!("{error:#}"));
        let log = Log::prepare(&self.house.sinks, &loaded.plan.log).map_err(other)?;
        let generation = self.house.prepare(&loaded.plan, &self.generation).await.map_err(other)?;
        let admin = self.prepare_admin(&loaded.plan).await.map_err(other)?;
        Ok(Ready { loaded, log, generation, admin })
    }

    async fn commit(&mut self, ready: Ready) -> Result<Reloaded, ReloadFailure> {
        let Ready { loaded, log, generation, admin } = ready;
        let Loaded { plan, warnings, files, .. } = loaded;
        let before = places(&self.generation);
        let mut notes: Vec<String> = warnings.lines();
        notes.extend(generation.warnings.iter().cloned());
        match &admin {
            Some((_, bound)) => self.house.outside.note_admin(Some(bound.address())),
            None if plan.admin.is_none() => self.house.outside.note_admin(None),
            None => {}
        }
        let old = std::mem::take(&mut self.generation);
        self.generation = match self.house.commit(generation, old).await {
            Ok(next) => next,
            Err((error, old)) => {
                self.generation = old;
                return Err(ReloadFailure::other(format!("{error:#}")));
            }
        };
        notes.extend(self.needs_restart(&plan));
        self.log.apply(log);
        report_changes(&before, &places(&self.generation));
        let token = plan.admin.as_ref().and_then(|admin| admin.token.clone());
        let number = self.shared.number() + 1;
        self.shared.publish(number, token, &self.generation);
        self.change_admin(&plan, admin);
        self.plan = plan;
        self.files = files;
        Ok(Reloaded { generation: number, warnings: notes })
    }

    /// Binds the admin endpoint's new address, if it has one.
    async fn prepare_admin(&self, plan: &Plan) -> anyhow::Result<Option<(AdminPlan, Bound)>> {
        match &plan.admin {
            Some(new) if self.admin.as_ref().is_none_or(|old| old.plan.listen != new.listen) => {
                Ok(Some((new.clone(), bind_admin(new).await?)))
            }
            Some(new) => {
                anyhow::ensure!(new.is_guarded(), "the admin API on {} needs a token", new.listen);
                Ok(None)
            }
            None => Ok(None),
        }
    }

    fn change_admin(&mut self, plan: &Plan, bound: Option<(AdminPlan, Bound)>) {
        if let Some((plan, bound)) = bound {
            let next = self.serve_admin(plan, bound);
            self.retire_admin();
            self.admin = Some(next);
        } else if plan.admin.is_none() {
            self.retire_admin();
        }
    }

    fn retire_admin(&mut self) {
        if let Some(old) = self.admin.take() {
            // The answer to the reload that does this still has to go out there: it ends by itself, not by its leash.
            drop(old._end);
            self.retired.push(old.task);
        }
    }

    fn needs_restart(&self, plan: &Plan) -> Vec<String> {
        let mut notes = Vec::new();
        if plan.workers != self.house.workers.count() {
            notes.push("`workers` changes with a restart only".to_owned());
        }
        if (&plan.user, &plan.group) != (&self.plan.user, &self.plan.group) {
            notes.push("`user` and `group` change with a restart only".to_owned());
        }
        notes
    }
}
