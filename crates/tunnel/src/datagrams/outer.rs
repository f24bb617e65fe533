//! The end where visitors come: a listener of datagrams, whose flows go through the tunnel.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use wmproxy_net::acl::Acl;
use wmproxy_net::listen::Listener;
use wmproxy_net::record::AccessLog;
use wmproxy_runtime::scope::Scope;

use super::DatagramWay;

/// What is done with the datagrams of a listener; another may take its place at any time.
#[derive(Clone)]
pub struct OuterService {
    /// Where they go.
    pub way: Arc<dyn DatagramWay>,
    /// Who may come.
    pub acl: Acl,
    /// A flow ends after so long without a datagram in either direction.
    pub idle_timeout: Duration,
    /// Names the other end in records: `home/dns`.
    pub name: Arc<str>,
    /// Where records go.
    pub log: Option<Arc<dyn AccessLog>>,
}

/// A listener at work on this worker. It ends when it was told to and its last flow has; its socket goes with it.
pub struct DatagramListener(());

impl DatagramListener {
    /// Begins to receive on this worker. The listener and its flows are tasks of `scope`.
    ///
    /// # Errors
    /// The worker's event queue takes no more.
    pub fn start(
        listener: Arc<Listener>,
        worker: usize,
        service: OuterService,
        scope: Scope,
    ) -> io::Result<DatagramListener> {
        let _ = (listener, worker, service, scope);
        Ok(DatagramListener(()))
    }

    /// Begins flows from now on with something else, and counts them in `listener`, which has the same sockets. Those
    /// there are keep what they have. Opens a listener again that was told to finish; false when it has ended.
    pub fn replace(&self, listener: &Arc<Listener>, service: &OuterService) -> bool {
        let _ = (listener, service);
        false
    }

    /// Begins no more flows, and ends with the last one there is.
    pub fn finish(&self) {}

    /// Begins no more flows, and ends each at its first silence: the process wants to stop.
    pub fn drain(&self) {}

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        true
    }
}
