//! Somebody who was let in.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use wmproxy_http::forward::Guest;
use wmproxy_net::limit::{Direction, Permit};
use wmproxy_net::relay::{Brake, Terms};

use super::account::Account;
use crate::egress::Egress;

/// Somebody who was let in: a user, whoever a certificate names, or anybody. As long as it is held it takes one of its user's
/// connections.
pub struct ForwardGuest {
    name: Option<Arc<str>>,
    egress: Arc<Egress>,
    seat: Option<Seat>,
}

/// A user's place, given back when it is dropped.
struct Seat {
    account: Arc<Account>,
    _permit: Permit,
}

impl ForwardGuest {
    /// A user, with a place of its own.
    ///
    /// # Errors
    /// Why it gets none.
    pub(crate) fn of(account: &Arc<Account>, egress: &Arc<Egress>) -> Result<ForwardGuest, &'static str> {
        let seat = Seat { account: account.clone(), _permit: account.enter()? };
        Ok(ForwardGuest { name: Some(account.name().clone()), egress: egress.clone(), seat: Some(seat) })
    }

    /// Somebody who is no user: without a name, or with one that is for logs only.
    pub(crate) fn anybody(name: Option<Arc<str>>, egress: &Arc<Egress>) -> ForwardGuest {
        ForwardGuest { name, egress: egress.clone(), seat: None }
    }

    /// The rules on where it may go.
    pub fn egress(&self) -> &Arc<Egress> {
        &self.egress
    }

    /// What it has used up, if it is a user.
    pub fn account(&self) -> Option<&Arc<Account>> {
        self.seat.as_ref().map(|seat| &seat.account)
    }

    /// A place for one more association of datagrams, to be held as long as there is one; none where nobody counts them.
    ///
    /// # Errors
    /// Why there is none to be had, in words for the client.
    pub fn associate(&self) -> Result<Option<Permit>, &'static str> {
        self.account().map(|account| account.associate()).transpose()
    }
}

impl Guest for ForwardGuest {
    fn name(&self) -> Option<&Arc<str>> {
        self.name.as_ref()
    }

    fn spend(&self, bytes: u64) -> bool {
        self.account().is_none_or(|account| account.budget().spend(bytes))
    }

    fn terms(&self, mut terms: Terms, permit: &Permit) -> Terms {
        for (brake, direction) in [(&mut terms.up, Direction::Up), (&mut terms.down, Direction::Down)] {
            let listener = brake.take().or_else(|| Brake::new(None, permit.gate(), direction));
            *brake = match self.account() {
                Some(account) => Brake::and(listener, account.gate(), direction),
                None => listener,
            };
        }
        terms.budget = self.account().map(|account| account.budget().clone());
        terms
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl fmt::Debug for ForwardGuest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ForwardGuest").field(&self.name).finish()
    }
}
