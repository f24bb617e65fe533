//! The end where the local service is: a socket for each flow.

use std::sync::Arc;

use wmproxy_net::limit::Gate;
use wmproxy_net::record::{AccessLog, ListenerMetrics};
use wmproxy_runtime::scope::Scope;

use super::Carry;
use crate::client::DatagramEnd;

/// What the flows of a service go to.
#[derive(Clone)]
pub struct InnerService {
    /// Makes their sockets.
    pub end: Arc<dyn DatagramEnd>,
    /// Counts them.
    pub metrics: Arc<ListenerMetrics>,
    /// How many may be open, and how fast their bytes may pass.
    pub gate: Arc<Gate>,
    /// Where records go.
    pub log: Option<Arc<dyn AccessLog>>,
}

/// Serves the flows that come through `carry`, on the calling worker, until that has ended. The tasks of flows are of `scope`;
/// dropping the future ends them.
pub async fn serve(carry: Carry, service: InnerService, scope: Scope) {
    let _ = (carry, service, scope);
}
