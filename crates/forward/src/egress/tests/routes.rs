use std::convert::Infallible;
use std::ops::RangeInclusive;

use wmproxy_net::addr::{Address, TargetSpec};
use wmproxy_net::tls::{Connector, ConnectorSpec};

use wmproxy_upstream::{Group, GroupSpec, Registry};

use super::opening::{open, with_names};
use super::*;
use crate::chain::Workshop;
use crate::options::{ChainSpec, HopKind, HopSpec, ParentGroupSpec};

pub(super) fn route(domains: &[&str], via: RouteTarget) -> EgressRouteSpec {
    EgressRouteSpec {
        domains: domains.iter().map(|text| (*text).into()).collect(),
        cidrs: vec![],
        ports: vec![],
        clients: vec![],
        users: vec![],
        protocols: vec![],
        via,
    }
}

/// Groups without TLS.
struct Groups(Registry, SocketAddr);

impl Workshop for Groups {
    type Error = Infallible;

    fn group(&mut self, name: &Arc<str>, _: Option<Arc<dyn Connect>>) -> Result<Arc<Group>, Infallible> {
        let target = TargetSpec::Address(Address::Inet(self.1));
        Ok(self.0.build(GroupSpec::inline(Arc::clone(name), vec![target])))
    }

    fn connector(&mut self, _: &ConnectorSpec) -> Result<Arc<Connector>, Infallible> {
        unreachable!("no parent has TLS")
    }
}

/// A chain of one proxy at this address.
fn chain(name: &str, kind: HopKind, address: SocketAddr, finder: &Arc<Finder>) -> Arc<Chain> {
    let parent = HopSpec { kind, address: address.into(), credentials: None, tls: None, multiplex: false };
    let hop = ParentGroupSpec { parents: vec![parent], group: format!("{name}/1").into() };
    let spec = ChainSpec { name: name.into(), hops: vec![hop], connect_timeout: Duration::from_secs(5) };
    match Chain::new(&spec, finder, &mut Groups(Registry::new(), address)) {
        Ok(chain) => chain,
        Err(never) => match never {},
    }
}

fn chains(finder: &Arc<Finder>) -> Chains {
    let address = "127.0.0.1:1".parse().unwrap();
    let named = |name: &str, kind| (Arc::from(name), chain(name, kind, address, finder));
    Chains::from([named("tor", HopKind::Socks5), named("old", HopKind::Socks4)])
}

fn through(name: &str) -> RouteTarget {
    RouteTarget::Chain(name.into())
}

fn routed(routes: Vec<EgressRouteSpec>, spec: EgressSpec) -> Arc<Egress> {
    let (finder, _) = Finder::new(Arc::new(Resolver::new(&["127.0.0.1:1".parse().unwrap()])));
    Egress::new(&EgressSpec { routes, ..spec }, &chains(&finder), finder, Arc::default()).unwrap()
}

fn way(egress: &Egress, visit: &Visit<'_>) -> String {
    egress.way(visit).map_or_else(|error| error.to_string(), |way| way.name.to_string())
}

#[test]
fn the_first_route_that_fits_is_taken() {
    let prefixes = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
    let egress = routed(
        vec![
            route(&["*.onion", "mixed.example"], through("tor")),
            EgressRouteSpec {
                ports: vec![22..=22, 6000..=6999],
                ..route(&["*.ssh.example"], RouteTarget::Direct)
            },
            EgressRouteSpec { users: vec!["alice".into()], ..route(&["*.ssh.example"], through("tor")) },
            route(&[".ssh.example"], RouteTarget::Reject),
            EgressRouteSpec {
                cidrs: prefixes(&["1.1.0.0/16", "2606::/16"]),
                ..route(&["mixed.example"], through("old"))
            },
            EgressRouteSpec { protocols: vec![Kind::Udp, Kind::Socks4], ..route(&[], through("tor")) },
            EgressRouteSpec { clients: prefixes(&["192.0.2.0/24"]), ..route(&[], RouteTarget::Reject) },
        ],
        spec(&[], &[]),
    );
    let nobody = somebody();
    let alice: Arc<dyn Guest> = Arc::new(Somebody(Some("alice".into())));
    let rejects = |to: &str| format!("a route of [egress.office] rejects {to}");
    for (text, kind, guest, client, expected) in [
        ("x.onion:80", Kind::Connect, &nobody, "127.0.0.1:1", "tor".to_owned()),
        ("onion:80", Kind::Connect, &nobody, "127.0.0.1:1", "direct".to_owned()),
        ("mixed.example:80", Kind::Connect, &nobody, "127.0.0.1:1", "tor".to_owned()),
        ("a.ssh.example:22", Kind::Connect, &alice, "127.0.0.1:1", "direct".to_owned()),
        ("a.ssh.example:6500", Kind::Connect, &alice, "127.0.0.1:1", "direct".to_owned()),
        ("a.ssh.example:80", Kind::Connect, &alice, "127.0.0.1:1", "tor".to_owned()),
        ("a.ssh.example:80", Kind::Connect, &nobody, "127.0.0.1:1", rejects("a.ssh.example:80")),
        ("ssh.example:22", Kind::Connect, &alice, "127.0.0.1:1", rejects("ssh.example:22")),
        ("1.1.1.1:80", Kind::Http, &nobody, "127.0.0.1:1", "old".to_owned()),
        ("[2606::1]:80", Kind::Http, &nobody, "127.0.0.1:1", "old".to_owned()),
        ("8.8.8.8:80", Kind::Http, &nobody, "127.0.0.1:1", "direct".to_owned()),
        ("8.8.8.8:80", Kind::Udp, &nobody, "127.0.0.1:1", "tor".to_owned()),
        ("8.8.8.8:80", Kind::Udp, &nobody, "192.0.2.1:1", "tor".to_owned()),
        ("8.8.8.8:80", Kind::Socks5, &nobody, "192.0.2.1:1", rejects("8.8.8.8:80")),
    ] {
        let (to, client) = (to(text), Some(client.parse().unwrap()));
        assert_eq!(
            way(&egress, &Visit { to: &to, kind, guest, client }),
            expected,
            "{text} {kind:?} {guest:?}"
        );
    }
}

#[test]
fn behind_a_chain_names_are_judged_by_rules_about_names() {
    let guest = somebody();
    let ask = |egress: &Egress, text: &str| {
        let to = to(text);
        way(egress, &Visit { to: &to, kind: Kind::Connect, guest: &guest, client: None })
    };
    let egress = routed(vec![route(&[], through("tor"))], spec(&[], &["*.bad.example"]));
    assert_eq!(ask(&egress, "example.com:80"), "tor");
    assert!(ask(&egress, "x.bad.example:80").contains("forbids"));
    // Nobody else than the last proxy is meant by these, and rules about addresses count for addresses.
    assert!(ask(&egress, "localhost:80").contains("is an address of this machine"));
    assert!(ask(&egress, "a.localhost:80").contains("is an address of this machine"));
    assert!(ask(&egress, "127.0.0.1:80").contains("is an address of this machine"));
    let egress =
        routed(vec![route(&[], through("tor"))], spec(&["10.0.0.0/8", "*.example.com", "localhost"], &[]));
    assert_eq!(ask(&egress, "a.example.com:80"), "tor");
    assert_eq!(ask(&egress, "10.0.0.1:80"), "tor");
    assert_eq!(ask(&egress, "localhost:80"), "tor");
    assert!(ask(&egress, "example.org:80").contains("no rule in allow"));
    // A proxy that takes no names: what they lead to is judged here, later.
    let egress = routed(vec![route(&[], through("old"))], spec(&["10.0.0.0/8"], &[]));
    assert_eq!(ask(&egress, "example.org:80"), "old");
}

#[test]
fn names_for_a_proxy_that_takes_none_are_resolved_and_judged() {
    with_names(|names, finder| async move {
        names.set("inside.test", &["10.0.0.1"], 60);
        names.set("six.test", &["2606:4700::1111"], 60);
        let spec = EgressSpec { routes: vec![route(&[], through("old"))], ..spec(&[], &[]) };
        let chains = chains(&finder);
        let egress = Egress::new(&spec, &chains, finder, Arc::default()).unwrap();
        let error = open(&egress, "inside.test:80").await.unwrap_err();
        assert_eq!(error.fault, Fault::Denied, "{error}");
        let error = open(&egress, "six.test:80").await.unwrap_err();
        assert_eq!(error.fault, Fault::Unsupported, "{error}");
    });
}

#[test]
fn no_chain_leads_to_our_own_listeners() {
    with_names(|_, finder| async move {
        let there: SocketAddr = "1.1.1.1:443".parse().unwrap();
        let own = Arc::new(OwnListeners::new());
        own.replace([(Protocol::Tcp, there)]);
        let spec = EgressSpec { routes: vec![route(&[], through("tor"))], ..spec(&[], &[]) };
        let egress = Egress::new(&spec, &chains(&finder), finder, own).unwrap();
        let error = open(&egress, &there.to_string()).await.unwrap_err();
        assert!(error.fault == Fault::Denied && error.text.contains("itself listens"), "{error}");
        // Others are asked of the proxy, which is not there.
        assert_eq!(open(&egress, "1.1.1.1:80").await.unwrap_err().fault, Fault::HopDown);
    });
}

#[test]
fn each_way_has_connections_and_datagrams_of_its_own() {
    let routes = vec![
        route(&["a.test"], through("tor")),
        route(&["b.test"], through("tor")),
        route(&["c.test"], through("old")),
    ];
    let egress = routed(routes, spec(&[], &[]));
    let guest = somebody();
    let way = |text: &str| {
        let to = to(text);
        egress.way(&Visit { to: &to, kind: Kind::Udp, guest: &guest, client: None }).unwrap()
    };
    let (a, b, c, d) = (way("a.test:1"), way("b.test:1"), way("c.test:1"), way("d.test:1"));
    assert!(a.key == b.key && a.key != c.key && a.key != d.key && c.key != d.key);
    assert!(matches!(egress.datagram_way(&a), DatagramWay::Chain(chain) if &**chain.name() == "tor"));
    assert!(matches!(egress.datagram_way(&d), DatagramWay::Direct));
}

/// Routes, one after the other.
fn plainly(routes: &[(Vec<String>, RangeInclusive<u16>)], name: &str, port: u16) -> Option<usize> {
    routes.iter().position(|(domains, ports)| {
        let fits = |text: &String| match text.strip_prefix("*.") {
            Some(under) => name.ends_with(&format!(".{under}")),
            None => name == text,
        };
        ports.contains(&port) && (domains.is_empty() || domains.iter().any(fits))
    })
}

proptest::proptest! {
    #[test]
    fn routes_fit_as_they_do_one_by_one(
        routes in proptest::collection::vec(
            (proptest::collection::vec("(\\*\\.)?([ab]\\.)?[ab]", 0..3), 1u16..4, 0u16..3),
            0..8,
        ),
        name in "([ab]\\.){0,2}[ab]",
        port in 1u16..6,
    ) {
        let routes: Vec<_> = routes.into_iter().map(|(domains, first, more)| (domains, first..=first + more)).collect();
        let specs: Vec<EgressRouteSpec> = routes.iter().map(|(domains, ports)| {
            let domains: Vec<&str> = domains.iter().map(String::as_str).collect();
            EgressRouteSpec { ports: vec![ports.clone()], ..route(&domains, RouteTarget::Direct) }
        }).collect();
        let (to, guest) = (to(&format!("{name}:{port}")), somebody());
        let visit = Visit { to: &to, kind: Kind::Connect, guest: &guest, client: None };
        let first = Routes::new(&specs).unwrap().first(&visit);
        proptest::prop_assert_eq!(first, plainly(&routes, &name, port));
    }
}
