//! What is kept of TLS from one generation to the next, and the watch over its files.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::SystemTime;

use super::acceptor::{Acceptor, AcceptorSpec};
use super::connector::{Connector, ConnectorSpec};
use super::files::{Fault, Stamp};
use super::renewal::{Fresh, Renewal};

/// What is known of files that may change.
#[derive(Debug)]
pub(super) struct Watched {
    /// As they were when they were last loaded, or when that was tried in vain.
    tried: Stamp,
    /// As they were when they were last looked at, if that was different.
    seen: Option<Stamp>,
    /// What was wrong when they were last tried, if something was.
    fault: Option<String>,
    /// How often they were loaded.
    loads: u64,
}

impl Watched {
    pub(super) fn new(now: Stamp) -> Watched {
        Watched { tried: now, seen: None, fault: None, loads: 1 }
    }

    /// Whether they are to be loaded: they are other files than were tried last, or those could not be loaded. What was
    /// wrong may be mended without a trace on the files, as a right to read them.
    fn has_changed(&self, now: &Stamp) -> bool {
        self.tried != *now || self.fault.is_some()
    }

    /// The same once they are as they were at the look before: a certificate and its key are replaced one by one, and
    /// in between they do not fit.
    fn has_settled(&mut self, now: &Stamp) -> bool {
        let before = self.seen.take();
        if self.tried != *now && before.as_ref() != Some(now) {
            self.seen = Some(now.clone());
            return false;
        }
        self.has_changed(now)
    }

    /// Loads them if they have settled, and says whether it did. What was wrong before is not told once more, for this is
    /// done again and again.
    pub(super) fn follow(
        &mut self,
        now: Stamp,
        load: impl FnOnce() -> Result<bool, Fault>,
    ) -> Result<bool, Fault> {
        if !self.has_settled(&now) {
            return Ok(false);
        }
        let before = self.fault.take();
        let result = load();
        self.have_tried(now, result.as_ref().err());
        if result.is_err() && self.fault == before { Ok(false) } else { result }
    }

    /// Loads them, to be used later, if they have changed, were it this moment, or if `anyway`. What is then in use is to be
    /// told by [`Watched::have_tried`]; what is wrong is noted, and always told.
    pub(super) fn renew<T>(
        &mut self,
        now: Stamp,
        anyway: bool,
        load: impl FnOnce() -> Result<T, Fault>,
    ) -> Result<Option<Fresh<T>>, Fault> {
        if !self.has_changed(&now) && !anyway {
            return Ok(None);
        }
        match load() {
            Ok(loaded) => Ok(Some(Fresh { loaded, stamp: now, loads: self.loads })),
            Err(fault) => {
                self.have_tried(now, Some(&fault));
                Err(fault)
            }
        }
    }

    /// Whether newer files than these came to use while it was made ready.
    pub(super) fn is_behind<T>(&self, fresh: &Fresh<T>) -> bool {
        self.loads != fresh.loads
    }

    /// Notes which files were loaded, or what came of the attempt.
    pub(super) fn have_tried(&mut self, then: Stamp, fault: Option<&Fault>) {
        self.tried = then;
        self.seen = None;
        self.fault = fault.map(ToString::to_string);
        self.loads += u64::from(fault.is_none());
    }
}

/// The acceptors and connectors in use. A new generation gets those of the old one where its options are the same, so
/// that tickets and sessions outlive a reload.
#[derive(Debug, Default)]
pub struct Store {
    acceptors: Mutex<Vec<Weak<Acceptor>>>,
    connectors: Mutex<Vec<Weak<Connector>>>,
}

impl Store {
    /// An empty store.
    pub fn new() -> Store {
        Store::default()
    }

    /// The acceptor of a spec, with its files as they are now: at once if it is new, else when `renewal` is applied.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn acceptor(&self, spec: &AcceptorSpec, renewal: &mut Renewal) -> Result<Arc<Acceptor>, Fault> {
        let mut kept = self.acceptors.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|old| old.strong_count() > 0);
        if let Some(old) = kept.iter().filter_map(Weak::upgrade).find(|old| old.spec() == spec) {
            renewal.add_acceptor(&old)?;
            return Ok(old);
        }
        let new = Arc::new(Acceptor::load(spec.clone())?.0);
        kept.push(Arc::downgrade(&new));
        Ok(new)
    }

    /// The connector of a spec, with its files as they are now: at once if it is new, else when `renewal` is applied.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn connector(&self, spec: &ConnectorSpec, renewal: &mut Renewal) -> Result<Arc<Connector>, Fault> {
        let mut kept = self.connectors.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|old| old.strong_count() > 0);
        if let Some(old) = kept.iter().filter_map(Weak::upgrade).find(|old| old.spec() == spec) {
            renewal.add_connector(&old)?;
            return Ok(old);
        }
        let system = renewal.system_for(spec)?;
        let new = Arc::new(Connector::load_with(spec.clone(), system)?.0);
        kept.push(Arc::downgrade(&new));
        Ok(new)
    }

    /// The certificates that listeners show, by their files, and when each ends. The soonest counts where one is in use
    /// in two versions.
    pub fn certificates(&self) -> BTreeMap<PathBuf, SystemTime> {
        let acceptors = self.acceptors.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = BTreeMap::new();
        for acceptor in acceptors.iter().filter_map(Weak::upgrade) {
            for (cert, info) in acceptor.spec().certs.iter().zip(acceptor.certificates()) {
                let ends = found.entry(cert.file()).or_insert(info.not_after);
                *ends = info.not_after.min(*ends);
            }
        }
        found
    }

    /// Whether anything of it is in use.
    pub fn is_used(&self) -> bool {
        let acceptors = self.acceptors.lock().unwrap_or_else(PoisonError::into_inner);
        let connectors = self.connectors.lock().unwrap_or_else(PoisonError::into_inner);
        acceptors.iter().any(|one| one.strong_count() > 0)
            || connectors.iter().any(|one| one.strong_count() > 0)
    }

    /// Loads anew what has changed on disk; to be called every second or so, and not on a worker. What is broken now
    /// is logged once, and what was in use before stays so.
    pub fn follow(&self) {
        let live = |result: Result<bool, Fault>| match result {
            Ok(true) => tracing::info!("certificates were loaded anew"),
            Ok(false) => {}
            Err(fault) => tracing::error!("{fault}; the certificates loaded before stay in use"),
        };
        let acceptors = self.acceptors.lock().unwrap_or_else(PoisonError::into_inner).clone();
        acceptors.iter().filter_map(Weak::upgrade).for_each(|acceptor| live(acceptor.follow()));
        let connectors = self.connectors.lock().unwrap_or_else(PoisonError::into_inner).clone();
        connectors.iter().filter_map(Weak::upgrade).for_each(|connector| live(connector.follow()));
    }
}
