//! A storm of wrong passwords, in a process of its own: how many are compared at a time is a limit of the whole process.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use tokio::task::JoinSet;
use wmproxy_forward::chain::Chains;
use wmproxy_forward::egress::{Egress, OwnListeners};
use wmproxy_forward::gateway::ForwardGateway;
use wmproxy_forward::options::{EgressOptions, ForwardOptions, ForwardSpec, UserSpec};
use wmproxy_forward::users::Accounts;
use wmproxy_http::facts::ConnFacts;
use wmproxy_http::forward::Unknown;
use wmproxy_net::addr::Address;
use wmproxy_upstream::{Finder, Resolver};
use wmproxy_wire::head::Scheme;
use wmproxy_wire::units::Secret;

fn from(n: u32) -> ConnFacts {
    ConnFacts {
        listener: "proxy".into(),
        client: Some(SocketAddr::from((Ipv4Addr::from(0xc612_0000 + n), 4711))),
        local: Address::Inet(([127, 0, 0, 1], 8090).into()),
        scheme: Scheme::Http,
        sni: None,
        identity: None,
    }
}

#[tokio::test]
async fn no_more_are_compared_than_the_machine_can_do_and_the_right_one_passes_afterwards() {
    let (finder, _) = Finder::new(Arc::new(Resolver::new(&[])));
    let rules = EgressOptions::default().spec("default");
    let egress = Egress::new(&rules, &Chains::new(), finder, Arc::new(OwnListeners::new())).unwrap();
    let alice = UserSpec {
        name: "alice".into(),
        // A cost that takes some ms, so that they pile up.
        password: Some(Secret::new(bcrypt::hash("right", 7).unwrap()).unwrap()),
        egress: None,
        rate_limit: None,
        max_connections: 0,
        max_associations: 0,
        quota: None,
    };
    let accounts = Accounts::open(None);
    let spec = ForwardSpec {
        users: vec![alice],
        egress: "default".into(),
        ..ForwardOptions::default().spec("proxy".into())
    };
    let gateway = ForwardGateway::new(&spec, &[("default".into(), egress)].into(), &accounts).unwrap();
    accounts.apply(&spec.users, SystemTime::now());
    let mut all = JoinSet::new();
    for n in 0..300 {
        let gateway = gateway.clone();
        all.spawn(async move {
            let password = n.to_string();
            gateway.admit_password(&from(n), b"alice", password.as_bytes()).await.map(drop)
        });
    }
    let said = all.join_all().await;
    let busy = said.iter().filter(|said| matches!(said, Err(Unknown::Later(_)))).count() as u64;
    let wrong = said.iter().filter(|said| matches!(said, Err(Unknown::Unauthenticated))).count() as u64;
    let counts = accounts.login_counts();
    assert_eq!((wrong + busy, counts.compared, counts.wrong, counts.busy), (300, wrong, wrong, busy));
    assert!(busy >= 150, "{busy}");
    assert!(gateway.admit_password(&from(0), b"alice", b"right").await.is_ok());
}
