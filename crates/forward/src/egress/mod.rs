//! Where clients may go, and by which way.

use std::time::Duration;

use wmproxy_http::forward::{Opened, Visit, Way};
use wmproxy_net::connect::{ConnectError, Fault};
use wmproxy_net::sockopt::PeerSocket;

/// The rules of one name.
#[derive(Debug)]
pub struct Egress;

impl Egress {
    /// Nobody may go anywhere before the rules are here.
    pub fn way(&self, _: &Visit<'_>) -> Result<Way, ConnectError> {
        Err(ConnectError::new(Fault::Denied, "there are no rules"))
    }

    /// See [`Egress::way`].
    pub async fn open(
        &self,
        _: Visit<'_>,
        _: &Way,
        _: &PeerSocket,
        _: Duration,
    ) -> Result<Opened, ConnectError> {
        Err(ConnectError::new(Fault::Denied, "there are no rules"))
    }
}
