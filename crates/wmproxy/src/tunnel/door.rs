//! Where clients of a tunnel server come in.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use wmproxy_net::accept::Service;
use wmproxy_net::acl::Acl;
use wmproxy_net::conn::{Conn, Serve, Served};
use wmproxy_net::preface::{self, Trusted, Welcome};
use wmproxy_net::record::Outcome;
use wmproxy_net::stream::ResetOnDrop;

use crate::modes::Mode;

/// What a client may be asked before it logs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DoorSpec {
    /// Who has to begin with a PROXY header.
    pub(crate) trusted: Option<Trusted>,
    /// Who may come.
    pub(crate) acl: Acl,
    /// How long the header may take.
    pub(crate) timeout: Duration,
}

/// Looks at who comes, and lets them in to what does the rest.
struct Door {
    spec: DoorSpec,
    inner: Arc<dyn Serve>,
}

/// The mode of a tunnel server's listener: `entrance` takes whom the spec lets in. Connections leave no line in an access log,
/// for what they are for does.
pub(crate) fn mode(spec: DoorSpec, entrance: Arc<dyn Serve>) -> Mode {
    let is_open = spec.trusted.is_none() && spec.acl.is_open();
    let serve = if is_open { entrance } else { Arc::new(Door { spec, inner: entrance }) };
    Mode::Tcp(Service { serve, log: None })
}

impl Door {
    async fn run(self: Arc<Self>, mut conn: Conn) {
        match self.look(&mut conn).await {
            Ok(()) => self.inner.clone().serve(conn).await,
            Err(outcome) => conn.record.close(outcome),
        }
    }

    async fn look(&self, conn: &mut Conn) -> Result<(), Outcome> {
        let Conn { stream, record, permit } = conn;
        let unfinished = ResetOnDrop::new(stream);
        let rules = Welcome {
            proxy_header: self.spec.trusted.as_ref(),
            optional_header: None,
            acl: &self.spec.acl,
            tls: None,
            tls_optional: false,
            wants_hello: false,
            timeout: self.spec.timeout,
        };
        preface::welcome(stream, record, permit, rules).await?;
        unfinished.disarm();
        Ok(())
    }
}

impl Serve for Door {
    fn speaks_for_another(&self, from: Option<SocketAddr>) -> bool {
        self.spec.trusted.as_ref().is_some_and(|trusted| trusted.covers(from))
    }

    fn serve(self: Arc<Self>, conn: Conn) -> Served {
        Box::pin(self.run(conn))
    }

    fn replaced(&self, by: &Arc<dyn Serve>) {
        self.inner.replaced(by);
    }

    fn retire(&self) {
        self.inner.retire();
    }
}
