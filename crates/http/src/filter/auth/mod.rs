//! Names and passwords (RFC 7617).
//!
//! What lives here: the file of users, which is read again when it changes, and what a request's name and password
//! mean there. What must not: how passwords are compared ([`crate::auth`]), and anything slow on a worker.
//!
//! A name that nobody has costs as much as a wrong password, so that nobody learns who has an account.

mod users;

#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use wmproxy_wire::head::{Known, Request, Response, is_value};

#[cfg(test)]
pub(crate) use crate::auth::authorization;
use crate::auth::{LONGEST, Running, Tag, credentials};
pub use users::{Store, UsersError};

/// Asks for a name and a password.
#[derive(Debug)]
pub(crate) struct BasicAuth {
    store: Arc<Store>,
    challenge: Box<[u8]>,
}

/// What is to be said of a request's name and password at once.
#[derive(Debug)]
pub(crate) enum Answer {
    /// They were right a short time ago. This is whose they are.
    Known(Arc<str>),
    /// There are none, or they can't be right.
    Refused,
    /// That takes some work.
    Check(Check),
    /// There is too much of such work already.
    Busy,
}

/// A password that is being compared.
#[derive(Debug)]
pub(crate) struct Check {
    running: Running,
    /// Whose it would be; none for nobody's.
    user: Option<Arc<str>>,
    tag: Tag,
    store: Arc<Store>,
}

/// Why `basic_auth` can't be made of its options.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The realm can't stand in a field.
    #[error("a realm has no control characters in it and no space around it")]
    Realm,
    /// Something is wrong with the file of users.
    #[error(transparent)]
    Users(#[from] UsersError),
}

impl BasicAuth {
    /// Asks in the name of a realm.
    ///
    /// # Errors
    /// The realm can't stand in a field.
    pub(crate) fn new(store: Arc<Store>, realm: &str) -> Result<BasicAuth, AuthError> {
        if !is_value(realm.as_bytes()) {
            return Err(AuthError::Realm);
        }
        let realm = realm.replace('\\', "\\\\").replace('"', "\\\"");
        let challenge = format!("Basic realm=\"{realm}\", charset=\"UTF-8\"").into_bytes().into();
        Ok(BasicAuth { store, challenge })
    }

    /// Says whose a request's name and password are, as far as that is known without work.
    pub(crate) fn ask(&self, request: &Request) -> Answer {
        self.store.follow();
        let mut lines = request.fields.all(Known::Authorization);
        // Two of them would leave open which one another looks at.
        let (Some(line), None) = (lines.next(), lines.next()) else { return Answer::Refused };
        let mut buffer = [0; LONGEST];
        let Some((name, password)) = credentials(line, &mut buffer) else { return Answer::Refused };
        let users = self.store.users();
        let tag = Tag::new(users.version(), name, password);
        let (user, hash) = match users.find(name) {
            Some(user) if self.store.cache().has(tag) => return Answer::Known(user.name.clone()),
            Some(user) => (Some(user.name.clone()), &user.hash),
            None => match users.any_hash() {
                Some(hash) => (None, hash),
                None => return Answer::Refused,
            },
        };
        match Running::start(hash.clone(), password.into()) {
            Some(running) => Answer::Check(Check { running, user, tag, store: self.store.clone() }),
            None => Answer::Busy,
        }
    }

    /// Fills in the head of a response that asks for a name and a password.
    pub(crate) fn challenge(&self, response: &mut Response) {
        response.clear();
        response.set_status(401);
        response.fields.push_known(Known::WwwAuthenticate, &self.challenge);
    }
}

impl Check {
    /// Whose name and password they are, when that is known: nobody's, if they are wrong.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Arc<str>>> {
        let is_right = ready!(Pin::new(&mut self.running).poll(cx));
        let user = self.user.take().filter(|_| is_right);
        if user.is_some() {
            self.store.cache().remember(self.tag);
        }
        Poll::Ready(user)
    }
}
