//! The users of one listener.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use wmproxy_http::auth::{Hash, LONGEST, Tag};
use wmproxy_http::forward::Unknown;

use super::account::Account;
use super::accounts::Accounts;
use super::logins::Claim;
use crate::egress::Egress;
use crate::options::UserSpec;

/// Makes numbers of hashes and names that nobody can foretell.
static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Who may use a listener.
#[derive(Debug)]
pub(crate) struct Users {
    by_name: HashMap<Arc<str>, User>,
    /// The hashes of all who have one: what names are compared with that nobody has.
    hashes: Vec<Arc<Hash>>,
    accounts: Arc<Accounts>,
}

/// Somebody who may use it.
#[derive(Debug)]
pub(crate) struct User {
    pub(crate) account: Arc<Account>,
    pub(crate) egress: Arc<Egress>,
    /// None for who has to show a certificate.
    hash: Option<Arc<Hash>>,
}

/// Why there are no such users.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// A password's hash is none, or one that is not taken.
    #[error("the password of `{user}`: {reason}")]
    Password {
        /// Whose.
        user: Arc<str>,
        /// What is wrong with it. The hash is not in it.
        reason: String,
    },
    /// Two have one name.
    #[error("there are two users `{0}`")]
    Twice(Arc<str>),
    /// There are no rules of that name.
    #[error("there is no egress `{0}`")]
    Egress(Arc<str>),
}

impl Users {
    pub(crate) fn new(
        specs: &[UserSpec],
        egress: impl Fn(Option<&Arc<str>>) -> Result<Arc<Egress>, UserError>,
        accounts: &Arc<Accounts>,
        now: SystemTime,
    ) -> Result<Users, UserError> {
        let mut users = Users { by_name: HashMap::new(), hashes: Vec::new(), accounts: accounts.clone() };
        for spec in specs {
            let parse =
                |password: &wmproxy_wire::units::Secret| password.expose().parse::<Hash>().map(Arc::new);
            let wrong = |reason| UserError::Password { user: spec.name.clone(), reason };
            let hash = spec.password.as_ref().map(parse).transpose().map_err(wrong)?;
            users.hashes.extend(hash.clone());
            let egress = egress(spec.egress.as_ref())?;
            let user = User { account: accounts.account(spec, now), egress, hash };
            if users.by_name.insert(spec.name.clone(), user).is_some() {
                return Err(UserError::Twice(spec.name.clone()));
            }
        }
        Ok(users)
    }

    /// Whether nobody has to say who they are.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Whoever has a name.
    pub(crate) fn find(&self, name: &str) -> Option<&User> {
        self.by_name.get(name)
    }

    /// Whoever has this name and password, if they were right a short time ago.
    pub(crate) fn find_known(&self, name: &[u8], password: &[u8]) -> Option<&User> {
        let (tag, user, _) = self.sort(name, password)?;
        user.filter(|_| self.accounts.logins().knows(tag))
    }

    /// Whoever has this name and password. Of a name that nobody has, or who has no password, the password is compared with
    /// somebody's hash, always the same one's for a name, so that it takes as long as with a name that is there.
    ///
    /// # Errors
    /// Nobody has them, or that is not looked at now.
    pub(crate) async fn find_by_password(
        &self,
        name: &[u8],
        password: &[u8],
        listener: &str,
        client: Option<IpAddr>,
    ) -> Result<&User, Unknown> {
        let (tag, user, hash) = self.sort(name, password).ok_or(Unknown::Unauthenticated)?;
        let claim = Claim { tag, hash, is_nobody: user.is_none(), password, listener, client };
        let is_right = self.accounts.logins().is_right(claim).await?;
        user.filter(|_| is_right).ok_or(Unknown::Unauthenticated)
    }

    /// What stands for a name and a password, whose name it is, and what the password is to be compared with. None for what
    /// needs no comparing.
    fn sort(&self, name: &[u8], password: &[u8]) -> Option<(Tag, Option<&User>, &Arc<Hash>)> {
        // What could not be said over HTTP is nobody's over SOCKS either.
        if name.len() + password.len() >= LONGEST {
            return None;
        }
        let user = std::str::from_utf8(name).ok().and_then(|name| self.find(name));
        let user = user.and_then(|user| Some((user, user.hash.as_ref()?)));
        // Of a user the tag changes with its hash, and of nobody when somebody gets the name.
        let version = user.map_or(0, |(_, hash)| KEY.hash_one(hash));
        let tag = Tag::new(version, &String::from_utf8_lossy(name), password);
        match user {
            Some((user, hash)) => Some((tag, Some(user), hash)),
            None => Some((tag, None, self.stand_in(name)?)),
        }
    }

    fn stand_in(&self, name: &[u8]) -> Option<&Arc<Hash>> {
        let count = u64::try_from(self.hashes.len()).ok().filter(|count| *count > 0)?;
        self.hashes.get(usize::try_from(KEY.hash_one(name) % count).ok()?)
    }
}
