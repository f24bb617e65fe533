//! What the tests of users and of the gateway share.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use wmproxy_http::facts::ConnFacts;
use wmproxy_net::addr::Address;
use wmproxy_testkit::TempDir;
use wmproxy_upstream::{Finder, Resolver};
use wmproxy_wire::head::Scheme;
use wmproxy_wire::units::{ByteRate, ByteSize, Secret};

use crate::chain::Chains;
use crate::egress::{Egress, OwnListeners};
use crate::options::{EgressOptions, ForwardOptions, ForwardSpec, Quota, QuotaPeriod, UserSpec};

/// 2026-11-23T12:00:00Z.
pub(crate) const NOON: u64 = 1_795_435_200;

pub(crate) fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// The same clock for all of a day.
pub(crate) fn noon() -> SystemTime {
    at(NOON)
}

/// A user without a password and without limits.
pub(crate) fn user(name: &str) -> UserSpec {
    UserSpec {
        name: name.into(),
        password: None,
        egress: None,
        rate_limit: None,
        max_connections: 0,
        max_associations: 0,
        quota: None,
    }
}

/// One with a password, of a hash that takes next to no time.
pub(crate) fn user_with(name: &str, password: &str) -> UserSpec {
    let hash = bcrypt::hash(password, 4).unwrap();
    UserSpec { password: Some(Secret::new(hash).unwrap()), ..user(name) }
}

pub(crate) fn quota(bytes: u64, period: QuotaPeriod) -> Option<Quota> {
    Some(Quota { bytes: ByteSize::new(bytes), period })
}

pub(crate) fn rate(bytes: u64) -> Option<ByteRate> {
    NonZeroU64::new(bytes).map(ByteRate::new)
}

/// Rules by which nothing private is reached.
pub(crate) fn egress(name: &str) -> Arc<Egress> {
    let (finder, _) = Finder::new(Arc::new(Resolver::new(&[])));
    Egress::new(&EgressOptions::default().spec(name), &Chains::new(), finder, Arc::new(OwnListeners::new()))
        .unwrap()
}

/// A listener that these may use.
pub(crate) fn listener(users: Vec<UserSpec>) -> ForwardSpec {
    ForwardSpec { users, egress: "default".into(), ..ForwardOptions::default().spec("proxy".into()) }
}

/// A connection from an address, and whom its certificate names.
pub(crate) fn conn(client: &str, identity: Option<&str>) -> ConnFacts {
    ConnFacts {
        listener: "proxy".into(),
        client: Some(SocketAddr::new(client.parse().unwrap(), 4711)),
        local: Address::Inet(([127, 0, 0, 1], 8090).into()),
        scheme: Scheme::Https,
        sni: None,
        identity: identity.map(Into::into),
    }
}

/// A directory for quotas that goes with the test, and is not there before it is made.
#[derive(Debug)]
pub(crate) struct StateDir(TempDir);

impl StateDir {
    pub(crate) fn new() -> StateDir {
        StateDir(TempDir::new())
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.join("state")
    }

    /// What the file of quotas says.
    pub(crate) fn text(&self) -> String {
        std::fs::read_to_string(self.0.join("state/forward-quotas.json")).unwrap_or_default()
    }

    pub(crate) fn write(&self, text: &str) {
        self.0.write("state/forward-quotas.json", text);
    }

    /// The names in it.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}
