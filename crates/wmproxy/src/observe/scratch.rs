//! What tests of several rooms need: a folder of their own, and the state of an upstream group.

use std::fs;
use std::path::PathBuf;

use wmproxy_upstream::health::Health;
use wmproxy_upstream::status::{
    AnswerErrors, ConnectErrors, ConnectionsStatus, HealthStatus, LastCheckStatus, PeerState,
};
use wmproxy_upstream::{GroupStatus, PeerStatus};

/// A folder, removed with everything in it when the test is over.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("wmproxy-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Scratch(path.canonicalize().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A group whose peers were all ejected after four refusals.
pub(crate) fn group(name: &str, peers: &[&str]) -> GroupStatus {
    let peer = |address: &&str| PeerStatus {
        address: (*address).into(),
        weight: 1,
        max_connections: 0,
        backup: false,
        state: PeerState::Ejected,
        in_flight: 2,
        leases: 9,
        connect_errors: ConnectErrors { refused: 4, ..ConnectErrors::default() },
        answer_errors: AnswerErrors { status: 5, ..AnswerErrors::default() },
        ejections: 1,
        ejected_for_ms: 1500,
        connect_time_ms: Some(0.25),
        latency_ms: None,
        share_percent: 100,
        health: Some(HealthStatus {
            state: Health::Up,
            for_ms: Some(2000),
            passed: 7,
            failed: 3,
            skipped: 0,
            last: Some(LastCheckStatus { result: "passed", reason: None, ago_ms: 100, took_ms: 1.5 }),
        }),
    };
    GroupStatus {
        name: name.into(),
        balance: "round_robin",
        peers: peers.iter().map(peer).collect(),
        queued: 0,
        connections: Some(ConnectionsStatus { idle: 3, reused: 40, opened: 6, stale: 1 }),
        unresolved: vec!["app.internal".into()],
    }
}
