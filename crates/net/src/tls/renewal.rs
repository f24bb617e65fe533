//! What a generation loads anew while it is being prepared.

use std::sync::Arc;

use rustls::RootCertStore;

use super::acceptor::{self, Acceptor};
use super::connector::{self, Connector};
use super::files::{self, Fault, Stamp};

/// The changed files of acceptors and connectors that are in use already. They show nothing of them before
/// [`Renewal::apply`]; dropped, it leaves them as they were.
#[derive(Debug, Default)]
pub struct Renewal {
    acceptors: Vec<(Arc<Acceptor>, Fresh<acceptor::Loaded>)>,
    connectors: Vec<(Arc<Connector>, Fresh<connector::Loaded>)>,
    /// Whom the system trusts, as it says now; asked for once, and only if somebody wants to know.
    system: Option<Arc<RootCertStore>>,
}

/// What files came to, and what they were then.
#[derive(Debug)]
pub(super) struct Fresh<T> {
    pub(super) loaded: T,
    pub(super) stamp: Stamp,
    /// How often these files had been loaded by then.
    pub(super) loads: u64,
}

impl Renewal {
    /// With nothing in it.
    pub fn new() -> Renewal {
        Renewal::default()
    }

    /// Loads the files of an acceptor in use, if they have changed.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(super) fn add_acceptor(&mut self, acceptor: &Arc<Acceptor>) -> Result<(), Fault> {
        if !self.acceptors.iter().any(|(known, _)| Arc::ptr_eq(known, acceptor))
            && let Some(fresh) = acceptor.renew()?
        {
            self.acceptors.push((Arc::clone(acceptor), fresh));
        }
        Ok(())
    }

    /// Loads the files of a connector in use, if they have changed, or whom the system trusts.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(super) fn add_connector(&mut self, connector: &Arc<Connector>) -> Result<(), Fault> {
        let system = self.system_for(connector.spec())?;
        if !self.connectors.iter().any(|(known, _)| Arc::ptr_eq(known, connector))
            && let Some(fresh) = connector.renew(system)?
        {
            self.connectors.push((Arc::clone(connector), fresh));
        }
        Ok(())
    }

    /// Whom the system trusts, where `spec` goes by that.
    ///
    /// # Errors
    /// It trusts nobody.
    pub(super) fn system_for(
        &mut self,
        spec: &connector::ConnectorSpec,
    ) -> Result<Option<Arc<RootCertStore>>, Fault> {
        if spec.trusts_system() && self.system.is_none() {
            self.system = Some(files::read_system_roots()?);
        }
        Ok(self.system.clone().filter(|_| spec.trusts_system()))
    }

    /// Puts all of it to use: for handshakes from now on.
    pub fn apply(self) {
        for (acceptor, fresh) in self.acceptors {
            acceptor.apply(fresh);
        }
        for (connector, fresh) in self.connectors {
            connector.apply(fresh);
        }
        if let Some(roots) = self.system {
            files::use_system_roots(&roots);
        }
    }
}
