//! Who is let in, and by which rules they go: what the engine of HTTP and SOCKS ask of this mode.

mod pac;
mod socks;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::future::ready;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use wmproxy_http::auth::{LONGEST, credentials};
use wmproxy_http::facts::ConnFacts;
use wmproxy_http::forward::{Gateway, Guest, Opened, Pending, Unknown, Visit, Way};
use wmproxy_net::connect::{ConnectError, Fault};
use wmproxy_net::sockopt::PeerSocket;

use crate::egress::Egress;
use crate::options::ForwardSpec;
use crate::users::{Accounts, ForwardGuest, User, UserError, Users};

/// The egress rules of a config by their names.
pub type Egresses = BTreeMap<Arc<str>, Arc<Egress>>;

/// What one listener knows of users, rules and ways out.
#[derive(Debug)]
pub struct ForwardGateway {
    users: Users,
    by_certificate: bool,
    egress: Arc<Egress>,
    /// Who comes to an open listener: all of them are alike, so there is one.
    anybody: Arc<dyn Guest>,
    socket: PeerSocket,
    connect_timeout: Duration,
    pac: bool,
}

impl ForwardGateway {
    /// That of a listener. Its users' accounts are opened where they are new; [`Accounts::apply`] has to follow, once the
    /// config counts.
    ///
    /// # Errors
    /// A user can't be one.
    pub fn new(
        spec: &ForwardSpec,
        egresses: &Egresses,
        accounts: &Arc<Accounts>,
    ) -> Result<Arc<ForwardGateway>, UserError> {
        let rules = |name: Option<&Arc<str>>| {
            let name = name.unwrap_or(&spec.egress);
            egresses.get(name).cloned().ok_or_else(|| UserError::Egress(name.clone()))
        };
        let egress = rules(None)?;
        Ok(Arc::new(ForwardGateway {
            users: Users::new(&spec.users, rules, accounts, SystemTime::now())?,
            by_certificate: spec.by_certificate,
            anybody: Arc::new(ForwardGuest::anybody(None, &egress)),
            egress,
            socket: PeerSocket::default().with(spec.listener.socket.tcp, spec.listener.source),
            connect_timeout: spec.connect_timeout,
            pac: spec.pac,
        }))
    }

    /// Whether who comes over `conn` has to say a name and a password.
    pub fn needs_password(&self, conn: &ConnFacts) -> bool {
        !self.users.is_empty() && self.user_of_certificate(conn).is_none()
    }

    /// Lets somebody in who says a name and a password, as over SOCKS (RFC 1929). Where nobody has to, they don't matter.
    ///
    /// # Errors
    /// Why they are not let in.
    pub async fn admit_password(
        &self,
        conn: &ConnFacts,
        name: &[u8],
        password: &[u8],
    ) -> Result<Arc<dyn Guest>, Unknown> {
        if self.users.is_empty() {
            return self.admit_nobody(conn);
        }
        if let Some(user) = self.users.find_known(name, password) {
            return self.welcome(user);
        }
        let client = conn.client.map(|client| client.ip());
        let user = self.users.find_by_password(name, password, &conn.listener, client).await?;
        self.welcome(user)
    }

    /// Lets somebody in who says nothing, by their certificate or because nobody has to say anything.
    ///
    /// # Errors
    /// Why they are not let in.
    pub fn admit_nobody(&self, conn: &ConnFacts) -> Result<Arc<dyn Guest>, Unknown> {
        if !self.users.is_empty() {
            let user = self.user_of_certificate(conn).ok_or(Unknown::Unauthenticated)?;
            return self.welcome(user);
        }
        match &conn.identity {
            Some(name) => Ok(Arc::new(ForwardGuest::anybody(Some(name.clone()), &self.egress))),
            // A certificate without a common name is one all the same, which the handshake has seen to; but there is nobody
            // whom it names.
            None if self.by_certificate => Err(Unknown::Unauthenticated),
            None => Ok(self.anybody.clone()),
        }
    }

    /// The user whom a certificate names, if that is enough.
    fn user_of_certificate(&self, conn: &ConnFacts) -> Option<&User> {
        self.users.find(conn.identity.as_deref().filter(|_| self.by_certificate)?)
    }

    fn welcome(&self, user: &User) -> Result<Arc<dyn Guest>, Unknown> {
        if !user.account.is_known() {
            return Err(Unknown::Unauthenticated);
        }
        let guest = ForwardGuest::of(&user.account, &user.egress).map_err(Unknown::Limited)?;
        Ok(Arc::new(guest))
    }
}

/// The one who visits, if it is still to be served.
fn guest<'a>(visit: &Visit<'a>) -> Result<&'a ForwardGuest, ConnectError> {
    let guest = visit.guest.as_any().downcast_ref::<ForwardGuest>();
    let guest = guest.ok_or_else(|| ConnectError::new(Fault::Denied, "whoever asks is not known here"))?;
    if let Some(account) = guest.account() {
        if !account.is_known() {
            return Err(ConnectError::new(Fault::Denied, "this user may not use the proxy any more"));
        }
        account.has_left().map_err(|text| ConnectError::new(Fault::Limited, text))?;
    }
    Ok(guest)
}

impl Gateway for ForwardGateway {
    fn admit<'a>(
        &'a self,
        conn: &'a ConnFacts,
        value: Option<&'a [u8]>,
    ) -> Pending<'a, Result<Arc<dyn Guest>, Unknown>> {
        let Some(value) = value.filter(|_| !self.users.is_empty()) else {
            return Box::pin(ready(self.admit_nobody(conn)));
        };
        let mut buffer = [0; LONGEST];
        let Some((name, password)) = credentials(value, &mut buffer) else {
            return Box::pin(ready(Err(Unknown::Unauthenticated)));
        };
        // Apart from the rest, whose future is large: most requests come from who has said the same before.
        if let Some(user) = self.users.find_known(name.as_bytes(), password) {
            return Box::pin(ready(self.welcome(user)));
        }
        Box::pin(async move {
            let (name, password) = credentials(value, &mut buffer).ok_or(Unknown::Unauthenticated)?;
            self.admit_password(conn, name.as_bytes(), password).await
        })
    }

    fn way(&self, visit: &Visit<'_>) -> Result<Way, ConnectError> {
        guest(visit)?.egress().way(visit)
    }

    fn open<'a>(&'a self, visit: Visit<'a>, way: &'a Way) -> Pending<'a, Result<Opened, ConnectError>> {
        Box::pin(
            async move { guest(&visit)?.egress().open(visit, way, &self.socket, self.connect_timeout).await },
        )
    }

    fn pac(&self, authority: &str, is_tls: bool) -> Option<String> {
        self.pac.then(|| pac::file(authority, is_tls)).flatten()
    }
}
