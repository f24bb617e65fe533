//! The last moments of listening sockets: nobody new finds them, and who had been promised a connection still gets it.
//!
//! The kernel answers a client's SYN by itself, and the client takes the connection for made with that answer. Were the
//! socket closed before the client's own answer has come, the kernel would answer that one with a reset.

use std::sync::atomic::Ordering;

use super::{Bound, handshakes};
use crate::addr::Address;
use crate::sockopt;

impl Bound {
    /// Has the kernel pass these sockets by: newcomers are refused, or go to another listener that has the address, too.
    /// Handshakes under way go on, and [`Bound::until_deserted`] waits for them. False where only closing ends the coming:
    /// with sockets of unix, and where others of the same address, which replace these, share the newcomers with them.
    pub(crate) fn step_aside(&self) -> bool {
        let Address::Inet(_) = self.address else { return false };
        // All of them, whichever worker comes first, for clients go to any; and once, for it takes a right to do it again.
        let hide = || {
            !self.is_shared.load(Ordering::Relaxed)
                && self.sockets.iter().all(|socket| sockopt::hide(socket).is_ok())
        };
        *self.is_aside.get_or_init(hide)
    }

    /// Waits until nobody is on the way to these sockets. To be called behind [`Bound::step_aside`], on any number of
    /// workers: they wait for the same.
    pub(crate) async fn until_deserted(&self) {
        let Address::Inet(address) = self.address else { return };
        self.deserted.get_or_init(|| handshakes::over(address)).await;
    }
}
