//! Who gets what, in tables.

use std::time::Duration;

use wmproxy_wire::tunnel::message::{HttpRules, Kind};
use wmproxy_wire::units::Secret;

use super::*;
use crate::options::{GrantSpec, PortRange};
use crate::server::Exposure;

const GRACE: Duration = Duration::from_secs(10);

fn grant(name: &str, ports: &[(u16, u16)], hosts: &[&str]) -> GrantSpec {
    GrantSpec {
        name: name.into(),
        key: Secret::new(format!("key of {name}")).unwrap(),
        ports: ports.iter().map(|&(first, last)| PortRange { first, last }).collect(),
        hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        private: false,
        max_services: 10,
        max_connections: 0,
        rate_limit: None,
    }
}

fn spec(clients: Vec<GrantSpec>) -> ServerSpec {
    ServerSpec {
        clients,
        login_timeout: Duration::from_secs(10),
        max_pending: 100,
        max_pending_per_address: 10,
        heartbeat: Duration::from_secs(10),
        max_pool: 8,
        wait_timeout: Duration::from_secs(5),
        max_waiting: 10,
        grace: GRACE,
    }
}

fn service(id: u32, name: &str, kind: Kind) -> Service {
    Service {
        id,
        name: name.into(),
        kind,
        is_private: false,
        port: 0,
        hosts: Vec::new(),
        paths: Vec::new(),
        visitors: Vec::new(),
        clients: Vec::new(),
        group: None,
        is_up: true,
        terminate: false,
        max_connections: 0,
        rate_up: 0,
        rate_down: 0,
        http: HttpRules::default(),
    }
}

fn tcp(id: u32, name: &str, port: u16) -> Service {
    Service { port, ..service(id, name, Kind::Tcp) }
}

fn web(id: u32, name: &str, hosts: &[&str], paths: &[&str]) -> Service {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    Service { hosts: texts(hosts), paths: texts(paths), ..service(id, name, Kind::Http) }
}

/// A registry with what is open, as a server would have it.
struct Bench {
    registry: Registry,
    now: Ticks,
    sessions: SessionNumber,
    /// Ports that can't be had.
    broken: Vec<u16>,
}

impl Bench {
    fn new(clients: Vec<GrantSpec>) -> Bench {
        let registry = Registry::new(&spec(clients));
        Bench { registry, now: Ticks(1), sessions: 0, broken: Vec::new() }
    }

    fn login(&mut self, client: &str) -> SessionNumber {
        self.sessions += 1;
        self.registry.login(&client.into(), self.sessions);
        self.sessions
    }

    /// Registers, and answers with what the session is told.
    fn register(
        &mut self,
        client: &str,
        session: SessionNumber,
        epoch: u64,
        services: Vec<Service>,
    ) -> Vec<Result<Vec<String>, RefusalCode>> {
        assert!(self.registry.register(client, session, Register { epoch, services }));
        let answers = self.settle();
        let (_, answer) = answers.into_iter().find(|(told, _)| *told == session).expect("an answer");
        assert_eq!(answer.epoch, epoch);
        answer.results.into_iter().map(|placed| placed.result.map_err(|refusal| refusal.code)).collect()
    }

    /// What a server does after a change.
    fn settle(&mut self) -> Vec<(SessionNumber, Registered)> {
        loop {
            self.registry.settle(self.now);
            let wanted = self.registry.exposures();
            let open = |exposure: &Exposure| match exposure.port {
                port if self.broken.contains(&port) => Err(refusal(RefusalCode::System, "in use")),
                0 => Ok(exposure.hosts.iter().map(|host| Place::Url(format!("http://{host}"))).collect()),
                port => Ok(vec![Place::Address(([203, 0, 113, 7], port).into())]),
            };
            let results = wanted.iter().map(open).collect();
            if !self.registry.published(&wanted, results) {
                return self.registry.answers();
            }
        }
    }

    fn open(&self) -> Vec<(String, Vec<String>)> {
        let texts = |members: Vec<Arc<str>>| members.iter().map(|member| member.to_string()).collect();
        let exposures = self.registry.exposures().into_iter();
        exposures.map(|exposure| (exposure.name.to_string(), texts(exposure.members))).collect()
    }
}

fn at(port: u16) -> Result<Vec<String>, RefusalCode> {
    Ok(vec![format!("tcp://203.0.113.7:{port}")])
}

#[test]
fn grants_decide_about_ports() {
    let mut bench =
        Bench::new(vec![grant("home", &[(20000, 20010), (80, 80)], &[]), grant("poor", &[], &["*"])]);
    let home = bench.login("home");
    let udp = Service { port: 20000, ..service(4, "dns", Kind::Udp) };
    let results = bench.register(
        "home",
        home,
        1,
        vec![
            tcp(1, "low", 20000),
            tcp(2, "high", 20010),
            tcp(3, "above", 20011),
            udp,
            tcp(5, "privileged", 80),
            tcp(6, "twice", 20000),
            tcp(7, "low", 20005),
            tcp(1, "id", 20006),
            tcp(9, "a/b", 20007),
            tcp(10, "", 20007),
        ],
    );
    let (refused, invalid) = (RefusalCode::NotGranted, RefusalCode::Invalid);
    assert_eq!(results[..3], [at(20000), at(20010), Err(refused)]);
    assert_eq!(results[3], Ok(vec!["udp://203.0.113.7:20000".to_owned()]));
    assert_eq!(results[4..6], [at(80), Err(RefusalCode::InUse)]);
    assert_eq!(results[6..], [Err(invalid), Err(invalid), Err(invalid), Err(invalid)]);
    let poor = bench.login("poor");
    assert_eq!(bench.register("poor", poor, 1, vec![tcp(1, "any", 0)]), [Err(refused)]);
}

#[test]
fn grants_decide_about_hosts() {
    let grants = ["*.home.example.com", "one.example.org", "192.0.2.1", "bücher.example"];
    let mut bench = Bench::new(vec![grant("home", &[], &grants), grant("all", &[], &["*"])]);
    let home = bench.login("home");
    let table = [
        ("nas.home.example.com", Ok("nas.home.example.com")),
        ("NAS2.Home.Example.COM.", Ok("nas2.home.example.com")),
        ("a.b.home.example.com", Ok("a.b.home.example.com")),
        ("*.x.home.example.com", Ok("*.x.home.example.com")),
        ("*.home.example.com", Ok("*.home.example.com")),
        ("home.example.com", Err(RefusalCode::NotGranted)),
        ("evilhome.example.com", Err(RefusalCode::NotGranted)),
        ("*.example.com", Err(RefusalCode::NotGranted)),
        ("*.com", Err(RefusalCode::NotGranted)),
        ("*", Err(RefusalCode::Invalid)),
        ("one.example.org", Ok("one.example.org")),
        ("*.one.example.org", Err(RefusalCode::NotGranted)),
        ("two.one.example.org", Err(RefusalCode::NotGranted)),
        ("192.0.2.1", Ok("192.0.2.1")),
        ("BÜCHER.example", Ok("xn--bcher-kva.example")),
        ("*a.home.example.com", Err(RefusalCode::Invalid)),
        ("a.*.home.example.com", Err(RefusalCode::Invalid)),
        ("a b.home.example.com", Err(RefusalCode::Invalid)),
        ("", Err(RefusalCode::Invalid)),
    ];
    for (epoch, (host, expected)) in table.into_iter().enumerate() {
        let results = bench.register("home", home, epoch as u64 + 1, vec![web(1, "web", &[host], &[])]);
        assert_eq!(results, [expected.map(|host| vec![format!("http://{host}")])], "{host}");
    }
    let all = bench.login("all");
    let results = bench.register("all", all, 1, vec![web(1, "a", &["*.com"], &[]), web(2, "b", &["*"], &[])]);
    assert_eq!(results, [Ok(vec!["http://*.com".to_owned()]), Err(RefusalCode::Invalid)]);
}

#[test]
fn a_host_is_shared_by_paths_and_told_apart_by_kind() {
    let mut bench = Bench::new(vec![grant("a", &[], &["*"]), grant("b", &[], &["*"])]);
    let a = bench.login("a");
    let b = bench.login("b");
    let host = ["h.example"];
    let results =
        bench.register("a", a, 1, vec![web(1, "root", &host, &[]), web(2, "api", &host, &["/api"])]);
    assert!(results.iter().all(Result::is_ok));
    let https =
        |id, name: &str, terminate| Service { kind: Kind::Https, terminate, ..web(id, name, &host, &[]) };
    let results = bench.register(
        "b",
        b,
        1,
        vec![
            web(1, "same", &host, &["/"]),
            web(2, "slash", &host, &["/api/"]),
            web(3, "other", &host, &["/api/v2"]),
            https(4, "tls", false),
            Service { paths: vec!["/x".into()], ..https(5, "path", false) },
            web(6, "bad", &host, &["x"]),
            Service { paths: vec!["/x".into()], ..https(7, "ends", true) },
        ],
    );
    let (in_use, invalid) = (Err(RefusalCode::InUse), Err(RefusalCode::Invalid));
    let ok = Ok(vec!["http://h.example".to_owned()]);
    assert_eq!(results, [in_use.clone(), in_use.clone(), ok.clone(), ok, invalid.clone(), invalid, in_use]);
}

#[test]
fn what_another_has_is_refused_until_it_leaves() {
    let mut bench = Bench::new(vec![grant("a", &[(1000, 2000)], &[]), grant("b", &[(1000, 2000)], &[])]);
    let a = bench.login("a");
    assert_eq!(bench.register("a", a, 1, vec![tcp(1, "x", 1500)]), [at(1500)]);
    let b = bench.login("b");
    assert_eq!(bench.register("b", b, 1, vec![tcp(1, "x", 1500)]), [Err(RefusalCode::InUse)]);
    // In other terms it is still the same place.
    let limited = Service { max_connections: 3, ..tcp(1, "x", 1500) };
    assert_eq!(bench.register("a", a, 2, vec![limited]), [at(1500)]);
    // Who is lost keeps its place for a while.
    assert!(bench.registry.lost("a", a, bench.now));
    assert_eq!(bench.registry.deadline(), Some(bench.now + GRACE));
    bench.now = bench.now + (GRACE - Duration::from_millis(1));
    assert_eq!(bench.settle(), []);
    assert_eq!(bench.open(), [("tcp:a/x".into(), vec!["a/x".into()])]);
    bench.now = bench.now + Duration::from_millis(1);
    let answers = bench.settle();
    assert_eq!(answers.len(), 1, "b is told that it has the port now");
    assert_eq!((answers[0].0, answers[0].1.results[0].result.is_ok()), (b, true));
    assert_eq!(bench.open(), [("tcp:b/x".into(), vec!["b/x".into()])]);
    // Who takes its leave gives it up at once.
    assert!(bench.registry.left("b", b));
    assert_eq!((bench.settle(), bench.open()), (vec![], vec![]));
}

#[test]
fn a_new_session_takes_over_what_the_old_one_had() {
    let mut bench = Bench::new(vec![grant("a", &[(1000, 2000)], &[])]);
    let old = bench.login("a");
    bench.register("a", old, 1, vec![tcp(1, "x", 0), tcp(2, "y", 1500)]);
    let before = bench.registry.exposures();
    assert_eq!(bench.registry.login(&"a".into(), 99), Some(old));
    bench.settle();
    assert_eq!(bench.registry.exposures(), before, "nothing closes in between");
    assert!(bench.registry.members().all(|member| member.session.is_none()), "but nobody is led there");
    // Nothing that the old one says counts any more.
    let state = State { id: 1, is_up: false };
    assert!(!bench.registry.set_state("a", old, state) && !bench.registry.set_state("a", 99, state));
    assert!(!bench.registry.register("a", old, Register { epoch: 9, services: Vec::new() }));
    assert!(!bench.registry.lost("a", old, bench.now) && !bench.registry.left("a", old));
    let results = bench.register("a", 99, 1, vec![tcp(7, "y", 1500), tcp(8, "x", 0)]);
    assert_eq!((results[0].clone(), results.len()), (at(1500), 2));
    assert_eq!(bench.registry.exposures(), before);
    let numbers: Vec<_> =
        bench.registry.members().map(|member| (member.session, member.service.id)).collect();
    assert_eq!(numbers, [(Some(99), 7), (Some(99), 8)]);
    // Older registrations of the same session change nothing.
    assert!(!bench.registry.register("a", 99, Register { epoch: 1, services: Vec::new() }));
}

#[test]
fn a_port_that_is_picked_is_granted_free_and_kept() {
    let mut bench =
        Bench::new(vec![grant("a", &[(1, 5), (3000, 3002)], &[]), grant("b", &[(3000, 3002)], &[])]);
    let a = bench.login("a");
    let results = bench.register("a", a, 1, vec![tcp(1, "x", 0), tcp(2, "y", 0), tcp(3, "z", 0)]);
    let mut ports: Vec<_> = results.into_iter().map(Result::unwrap).collect();
    let first = ports[0].clone();
    ports.sort();
    assert_eq!(ports, [3000, 3001, 3002].map(|port| at(port).unwrap()), "none below 1024 is picked");
    let b = bench.login("b");
    assert_eq!(bench.register("b", b, 1, vec![tcp(1, "x", 0)]), [Err(RefusalCode::Limit)]);
    assert_eq!(bench.register("a", a, 2, vec![tcp(1, "x", 0)]), [Ok(first.clone())]);
    // The same after a restart of the server, and others where something else has it.
    let mut again = Bench::new(vec![grant("a", &[(1, 5), (3000, 3002)], &[])]);
    let a = again.login("a");
    assert_eq!(again.register("a", a, 1, vec![tcp(1, "x", 0)]), [Ok(first.clone())]);
    again.broken.push(first[0].rsplit(':').next().unwrap().parse().unwrap());
    let results = again.register("a", a, 2, vec![tcp(1, "w", 0), tcp(2, "x", 1)]);
    assert!(results.iter().all(|result| result.is_ok() && *result != Ok(first.clone())), "{results:?}");
    again.broken.extend([3000, 3001, 3002]);
    let results = again.register("a", a, 3, vec![tcp(1, "v", 0)]);
    assert!(results[0].is_err(), "{results:?}");
}

#[test]
fn a_port_that_can_t_be_had_is_told_and_had_later() {
    let mut bench = Bench::new(vec![grant("a", &[(1000, 2000)], &[])]);
    bench.broken.push(1500);
    let a = bench.login("a");
    assert_eq!(bench.register("a", a, 1, vec![tcp(1, "x", 1500)]), [Err(RefusalCode::System)]);
    assert!(bench.registry.has_failures());
    bench.broken.clear();
    let answers = bench.settle();
    assert!(answers[0].1.results[0].result.is_ok() && !bench.registry.has_failures());
    assert_eq!(bench.settle(), [], "and told once");
}

#[test]
fn groups_share_a_place_by_the_same_terms() {
    let mut bench = Bench::new(vec![
        grant("a", &[(1000, 2000)], &["*"]),
        grant("b", &[(1000, 2000)], &["*"]),
        grant("c", &[(5000, 5000)], &[]),
    ]);
    let grouped = |service: Service| Service { group: Some("ssh".into()), ..service };
    let (a, b, c) = (bench.login("a"), bench.login("b"), bench.login("c"));
    assert_eq!(bench.register("a", a, 1, vec![grouped(tcp(1, "x", 1500))]), [at(1500)]);
    assert_eq!(bench.register("b", b, 1, vec![tcp(1, "x", 1500)]), [Err(RefusalCode::InUse)]);
    // Any port is the group's, where that is granted.
    let results = bench.register("b", b, 2, vec![grouped(tcp(1, "x", 0)), grouped(tcp(2, "y", 1500))]);
    assert_eq!(results, [at(1500), at(1500)]);
    assert_eq!(bench.register("c", c, 1, vec![grouped(tcp(1, "x", 0))]), [at(5000)]);
    let members = ["a/x", "b/x", "b/y"].map(String::from).to_vec();
    let of_c = ("tcp:ssh@5000".to_owned(), vec!["c/x".to_owned()]);
    assert_eq!(bench.open(), [("tcp:ssh@1500".into(), members), of_c.clone()]);
    // Who is down, or away, is left out; unless all are.
    assert!(bench.registry.set_state("b", b, State { id: 2, is_up: false }));
    assert!(!bench.registry.set_state("b", b, State { id: 2, is_up: false }));
    bench.registry.lost("a", a, bench.now);
    bench.settle();
    assert_eq!(bench.open()[0].1, ["b/x"]);
    bench.registry.set_state("b", b, State { id: 1, is_up: false });
    bench.settle();
    assert_eq!(bench.open()[0].1, ["a/x", "b/x", "b/y"]);
    // Other terms are for all to agree on.
    let other = |service| Service { visitors: vec!["10.0.0.0/8".into()], ..grouped(service) };
    let results = bench.register("b", b, 3, vec![other(tcp(1, "x", 1500)), grouped(tcp(2, "y", 1500))]);
    assert_eq!(results, [Err(RefusalCode::InUse), at(1500)]);
    let a = bench.login("a");
    assert_eq!(bench.register("a", a, 1, vec![other(tcp(1, "x", 1500))]), [Err(RefusalCode::InUse)]);
    let results = bench.register("b", b, 4, vec![other(tcp(1, "x", 1500))]);
    assert_eq!((results, bench.open().len()), (vec![at(1500)], 2));
    assert_eq!(bench.open()[0].1, ["a/x", "b/x"]);
}

#[test]
fn who_takes_any_port_does_not_move_to_one_that_another_of_its_group_asks_for() {
    let mut bench = Bench::new(vec![grant("a", &[(1500, 1501)], &[])]);
    let grouped = |service: Service| Service { group: Some("ssh".into()), ..service };
    let session = bench.login("a");
    let picked = bench.register("a", session, 1, vec![grouped(tcp(1, "x", 0))]);
    let (had, other) = if picked == [at(1500)] { (1500, 1501) } else { (1501, 1500) };
    let both = vec![grouped(tcp(1, "x", 0)), grouped(tcp(2, "y", other))];
    assert_eq!(bench.register("a", session, 2, both.clone()), [at(had), at(other)]);
    assert_eq!(bench.register("a", session, 3, both), [at(had), at(other)]);
}

#[test]
fn what_is_private_needs_a_grant_and_has_no_place() {
    let may = GrantSpec { private: true, ..grant("a", &[(1, 9999)], &["*"]) };
    let mut bench = Bench::new(vec![may, grant("b", &[(1, 9999)], &["*"])]);
    let private = |id, name: &str, kind| Service { is_private: true, ..service(id, name, kind) };
    let (a, b) = (bench.login("a"), bench.login("b"));
    let results = bench.register("a", a, 1, vec![private(1, "db", Kind::Tcp), private(2, "web", Kind::Http)]);
    assert_eq!(results, [Ok(vec!["a/db".to_owned()]), Err(RefusalCode::Invalid)]);
    let results = bench.register("b", b, 1, vec![private(1, "db", Kind::Tcp)]);
    assert_eq!(results, [Err(RefusalCode::NotGranted)]);
    assert_eq!(bench.open(), []);
    assert!(
        bench.registry.may_visit("a") && !bench.registry.may_visit("b") && !bench.registry.may_visit("x")
    );
    assert_eq!(bench.registry.members().map(|member| member.name.to_string()).collect::<Vec<_>>(), ["a/db"]);
}

#[test]
fn other_grants_are_judged_anew() {
    let mut bench = Bench::new(vec![grant("a", &[(1000, 2000)], &[]), grant("b", &[(1000, 2000)], &[])]);
    let (a, b) = (bench.login("a"), bench.login("b"));
    bench.register("a", a, 1, vec![tcp(1, "x", 1500), tcp(2, "y", 1600)]);
    bench.register("b", b, 1, vec![tcp(1, "x", 1500)]);
    let less = GrantSpec { max_services: 1, ..grant("a", &[(1600, 1600)], &[]) };
    bench.registry.configure(&spec(vec![less, grant("b", &[(1000, 2000)], &[])]));
    let answers = bench.settle();
    let codes = |answer: &Registered| -> Vec<_> {
        answer.results.iter().map(|placed| placed.result.clone().err().map(|refusal| refusal.code)).collect()
    };
    assert_eq!(
        (answers[0].0, codes(&answers[0].1)),
        (a, vec![Some(RefusalCode::NotGranted), Some(RefusalCode::Limit)])
    );
    assert_eq!((answers[1].0, codes(&answers[1].1)), (b, vec![None]));
    // Who is no client any more is nobody.
    bench.registry.configure(&spec(vec![grant("b", &[(1000, 2000)], &[])]));
    bench.settle();
    assert_eq!(bench.open(), [("tcp:b/x".into(), vec!["b/x".into()])]);
    assert!(!bench.registry.register("a", a, Register { epoch: 5, services: Vec::new() }));
}

#[test]
fn no_service_asks_for_more_than_anybody_needs() {
    let mut bench = Bench::new(vec![grant("a", &[], &["*"])]);
    let a = bench.login("a");
    let hosts: Vec<_> = (0..65).map(|n| format!("h{n}.example")).collect();
    let paths: Vec<_> = (0..17).map(|n| format!("/p{n}")).collect();
    let visitors = |text: &str| Service { visitors: vec![text.into()], ..web(3, "v", &["v.example"], &[]) };
    let (limit, invalid) = (Err(RefusalCode::Limit), Err(RefusalCode::Invalid));
    for (epoch, (service, expected)) in [
        (Service { hosts, ..service(1, "h", Kind::Http) }, limit.clone()),
        (Service { paths, ..web(2, "p", &["p.example"], &[]) }, limit),
        (visitors("nonsense"), invalid.clone()),
        (visitors("10.0.0.1"), Ok(vec!["http://v.example".to_owned()])),
        (service(4, "none", Kind::Https), invalid.clone()),
        (Service { group: Some("a b".into()), ..web(5, "g", &["g.example"], &[]) }, invalid.clone()),
        (web(6, &"n".repeat(65), &["n.example"], &[]), invalid),
    ]
    .into_iter()
    .enumerate()
    {
        let name = service.name.clone();
        assert_eq!(bench.register("a", a, epoch as u64 + 1, vec![service]), [expected], "{name}");
    }
}
