//! What the admin API sees of the process, and how it asks for something.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio::sync::{mpsc, oneshot, watch};
use wmproxy_forward::users::Accounts;
use wmproxy_http::traffic::Traffic;
use wmproxy_net::record::ListenerMetrics;
use wmproxy_net::tls::Store;
use wmproxy_runtime::clock;
use wmproxy_upstream::Group;
use wmproxy_wire::units::Secret;

use crate::admin::{Control, ReloadFailure, Reloaded};
use crate::generation::tunnels::AtWork;
use crate::generation::{Generation, House};
use crate::modes::Scopes;
use crate::observe::sinks::Sinks;
use crate::observe::snapshot::{Snapshot, TunnelSnapshot};

/// Somebody wants a reload, and waits here for what comes of it.
pub(super) type ReloadAsked = oneshot::Sender<Result<Reloaded, ReloadFailure>>;

/// Whether the process is to stop. It has a way of its own, past the reloads that are waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stop {
    No,
    Drain,
    Now,
}

/// The process as others see it. The deciding task publishes here what it has done.
pub(super) struct Shared {
    started: SystemTime,
    config: Option<PathBuf>,
    workers: usize,
    scopes: Scopes,
    sinks: Arc<Sinks>,
    tls: Arc<Store>,
    traffic: Arc<Traffic>,
    accounts: Arc<Accounts>,
    tunnels: Arc<AtWork>,
    reloads: mpsc::UnboundedSender<ReloadAsked>,
    stop: watch::Sender<Stop>,
    draining: AtomicBool,
    reloads_ok: AtomicU64,
    reloads_failed: AtomicU64,
    face: Mutex<Face>,
}

/// The part of it that a reload changes.
#[derive(Default, Clone)]
struct Face {
    number: u64,
    token: Option<Secret>,
    listeners: Vec<Arc<ListenerMetrics>>,
    groups: Vec<Arc<Group>>,
}

impl Shared {
    pub(super) fn new(
        config: Option<PathBuf>,
        house: &House,
        reloads: mpsc::UnboundedSender<ReloadAsked>,
    ) -> Arc<Shared> {
        Arc::new(Shared {
            started: SystemTime::now(),
            config,
            workers: house.workers.count(),
            scopes: house.scopes.clone(),
            sinks: house.sinks.clone(),
            tls: house.tls.clone(),
            traffic: house.traffic.clone(),
            accounts: house.outside.accounts.clone(),
            tunnels: house.tunnels.at_work(),
            reloads,
            stop: watch::Sender::new(Stop::No),
            draining: AtomicBool::new(false),
            reloads_ok: AtomicU64::new(0),
            reloads_failed: AtomicU64::new(0),
            face: Mutex::default(),
        })
    }

    /// Shows a generation from now on.
    pub(super) fn publish(&self, number: u64, token: Option<Secret>, generation: &Generation) {
        let face = Face { number, token, listeners: generation.listeners(), groups: generation.groups() };
        *self.face.lock().unwrap_or_else(PoisonError::into_inner) = face;
    }

    /// The number of the generation in force.
    pub(super) fn number(&self) -> u64 {
        self.face.lock().unwrap_or_else(PoisonError::into_inner).number
    }

    /// Connections and flows that are open.
    pub(super) fn active(&self) -> u64 {
        let face = self.face.lock().unwrap_or_else(PoisonError::into_inner);
        let own: u64 = face.listeners.iter().map(|listener| listener.active()).sum();
        own + self.tunnels.listeners().iter().map(|listener| listener.active()).sum::<u64>()
    }

    /// Hears when the process is to stop.
    pub(super) fn stops(&self) -> watch::Receiver<Stop> {
        self.stop.subscribe()
    }

    pub(super) fn begin_drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub(super) fn count_reload(&self, ok: bool) {
        let counter = if ok { &self.reloads_ok } else { &self.reloads_failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Control for Shared {
    fn snapshot(&self) -> Snapshot {
        let mut face = self.face.lock().unwrap_or_else(PoisonError::into_inner).clone();
        face.listeners.extend(self.tunnels.listeners());
        face.groups.extend(self.tunnels.groups());
        let now = clock::now().0;
        Snapshot {
            started: self.started,
            config: self.config.clone(),
            generation: face.number,
            workers: self.workers,
            tasks: (self.scopes.connections.live() + self.scopes.listeners.live()) as u64,
            panics: wmproxy_runtime::panic::count(),
            draining: self.draining.load(Ordering::Relaxed),
            reloads_ok: self.reloads_ok.load(Ordering::Relaxed),
            reloads_failed: self.reloads_failed.load(Ordering::Relaxed),
            log_dropped: self.sinks.counters().dropped.get(),
            log_failed: self.sinks.counters().failed.get(),
            listeners: face.listeners,
            traffic: self.traffic.all(),
            groups: face.groups.iter().map(|group| group.snapshot(now)).collect(),
            users: self.accounts.status(),
            logins: self.accounts.login_counts(),
            denials: wmproxy_forward::egress::denials().collect(),
            tunnels: TunnelSnapshot {
                server: self.tunnels.server_status(),
                client: self.tunnels.client_status(),
            },
            certificates: self.tls.certificates(),
        }
    }

    fn token(&self) -> Option<Secret> {
        self.face.lock().unwrap_or_else(PoisonError::into_inner).token.clone()
    }

    fn reload(&self) -> oneshot::Receiver<Result<Reloaded, ReloadFailure>> {
        let (answer, receiver) = oneshot::channel();
        // With the deciding task gone the answer is dropped, which says so.
        let _ = self.reloads.send(answer);
        receiver
    }

    fn stop(&self, now: bool) {
        let wanted = if now { Stop::Now } else { Stop::Drain };
        self.stop.send_modify(|stop| *stop = wanted.max(*stop));
    }
}
