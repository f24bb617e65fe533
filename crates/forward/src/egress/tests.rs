use std::any::Any;

use wmproxy_net::limit::Permit;
use wmproxy_net::relay::Terms;
use wmproxy_upstream::Resolver;

use super::*;
use crate::options::{EgressRouteSpec, PrivateNets};
use wmproxy_http::forward::Guest;

mod cost;
mod opening;
mod routes;

/// Somebody with a name, or without.
#[derive(Debug)]
struct Somebody(Option<Arc<str>>);

impl Guest for Somebody {
    fn name(&self) -> Option<&Arc<str>> {
        self.0.as_ref()
    }

    fn spend(&self, _: u64) -> bool {
        true
    }

    fn terms(&self, terms: Terms, _: &Permit) -> Terms {
        terms
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn somebody() -> Arc<dyn Guest> {
    Arc::new(Somebody(None))
}

fn spec(allow: &[&str], deny: &[&str]) -> EgressSpec {
    let texts = |list: &[&str]| list.iter().map(|text| (*text).into()).collect();
    EgressSpec {
        name: "office".into(),
        private: PrivateNets::Deny,
        allow: texts(allow),
        deny: texts(deny),
        deny_ports: vec![25],
        routes: vec![],
        source: None,
    }
}

/// An egress that asks nobody for names.
fn deaf(spec: &EgressSpec) -> Arc<Egress> {
    let (finder, _) = Finder::new(Arc::new(Resolver::new(&["127.0.0.1:1".parse().unwrap()])));
    Egress::new(spec, &Chains::new(), finder, Arc::default()).unwrap()
}

fn to(text: &str) -> Destination {
    Destination::parse(text.as_bytes(), None).unwrap()
}

/// What is said about a visit before anything is resolved: none if it may go.
fn refusal(egress: &Egress, text: &str) -> Option<String> {
    let (to, guest) = (to(text), somebody());
    let visit = Visit { to: &to, kind: Kind::Connect, guest: &guest, client: None };
    egress.way(&visit).err().map(|error| {
        assert_eq!(error.fault, Fault::Denied);
        error.to_string()
    })
}

fn check(allow: &[&str], deny: &[&str], may: &[&str], may_not: &[&str]) {
    let egress = deaf(&spec(allow, deny));
    for text in may {
        assert_eq!(refusal(&egress, text), None, "{text} by {allow:?} but {deny:?}");
    }
    for text in may_not {
        assert!(refusal(&egress, text).is_some(), "{text} by {allow:?} but {deny:?}");
    }
}

#[test]
fn without_rules_the_public_internet_is_open() {
    check(
        &[],
        &[],
        &["example.com:443", "1.1.1.1:80", "[2606:4700::1111]:443", "localhost:80", "10.example:80"],
        &[
            "127.0.0.1:80",
            "0x7f.1:80",
            "2130706433:80",
            "127.0.0.1.:80",
            "[::1]:80",
            "[::ffff:10.0.0.1]:80",
            "10.0.0.1:80",
            "192.168.1.1:80",
            "169.254.169.254:80",
            "100.64.0.1:80",
            "0.0.0.0:80",
            "224.0.0.1:80",
            "255.255.255.255:80",
            "[fe80::1]:80",
            "[fd00::1]:80",
            "[64:ff9b::8.8.8.8]:80",
            "[2002:0a00:0001::]:80",
            "[2001::1]:80",
            "example.com:25",
            "1.1.1.1:25",
        ],
    );
}

#[test]
fn the_first_rule_of_allow_closes_everything_else() {
    check(
        &["10.20.0.0/16", "*.corp.example.com", ":443"],
        &["*.ads.example.com"],
        &[
            "10.20.1.2:22",
            "a.b.corp.example.com:80",
            "anything.example:443",
            "1.1.1.1:443",
            // Where it leads decides.
            "anything.example:80",
        ],
        &[
            "10.21.0.1:443",
            "1.1.1.1:80",
            "127.0.0.1:443",
            "x.ads.example.com:443",
            "X.ADS.Example.com.:443",
            "10.20.1.2:25",
        ],
    );
    // Without a rule about addresses there is nothing left to decide.
    check(
        &["*.example.com", ".example.org:443", "api-*.example.net"],
        &["bad.example.com"],
        &["www.example.com:80", "example.org:443", "a.example.org:443", "api-1.example.net:8080"],
        &[
            "example.com:80",
            "example.org:80",
            "bad.example.com:80",
            "api-.x.example.net:80",
            "1.1.1.1:80",
            "example.com.evil:80",
        ],
    );
}

#[test]
fn deny_wins_and_needs_no_allow() {
    check(
        &["*", "10.0.0.0/8"],
        &["8.8.8.0/24", "10.0.0.1", ":22", "example.com:80", "64:ff9b::/96"],
        &["8.8.4.4:80", "10.0.0.2:80", "example.com:443", "sub.example.com:80"],
        &[
            "8.8.8.8:80",
            "10.0.0.1:80",
            "1.1.1.1:22",
            "any.example:22",
            "example.com:80",
            "[64:ff9b::1.1.1.1]:80",
        ],
    );
    check(&[], &["1.1.1.1"], &["1.0.0.1:80"], &["1.1.1.1:80"]);
}

#[test]
fn wide_rules_do_not_open_what_is_special() {
    for wide in ["*", ":1-65535", "0.0.0.0/0", "126.0.0.0/7", "160.0.0.0/3"] {
        check(&[wide, "::/0"], &[], &[], &["127.0.0.1:80", "[::1]:80", "169.254.169.254:80", "10.0.0.1:80"]);
    }
    check(&["127.0.0.0/8"], &[], &["127.0.0.1:80"], &["[::1]:80", "10.0.0.1:80"]);
    // Secrets of clouds have to be named one by one.
    check(
        &["169.254.0.0/16", "fd00::/8"],
        &[],
        &["169.254.1.1:80", "[fd00::1]:80"],
        &["169.254.169.254:80", "[fd00:ec2::254]:80"],
    );
    check(&["169.254.169.254"], &[], &["169.254.169.254:80"], &["169.254.169.253:80"]);
}

#[test]
fn what_is_inside_an_address_is_judged_too() {
    check(
        &["*", "64:ff9b::/96", "2002::/16"],
        &["9.9.9.9"],
        &["[64:ff9b::8.8.8.8]:80", "[2002:808:808::1]:80"],
        &[
            "[64:ff9b::127.0.0.1]:80",
            "[64:ff9b::10.0.0.1]:80",
            "[2002:a00:1::1]:80",
            "[64:ff9b::9.9.9.9]:80",
            "[64:ff9b:1::8.8.8.8]:80",
        ],
    );
    check(
        &["*", "64:ff9b::/96", "10.0.0.0/8"],
        &[],
        &["[64:ff9b::10.0.0.1]:80"],
        &["[64:ff9b::127.0.0.1]:80"],
    );
    let private = EgressSpec { private: PrivateNets::Allow, ..spec(&[], &["10.0.0.0/8"]) };
    let egress = deaf(&private);
    assert_eq!(refusal(&egress, "[64:ff9b::127.0.0.1]:80"), None);
    assert!(refusal(&egress, "[64:ff9b::10.0.0.1]:80").is_some());
}

#[test]
fn ports_that_are_denied_have_to_be_named() {
    check(&["*"], &[], &["example.com:26"], &["example.com:25", "1.1.1.1:25"]);
    check(&["*", ":25"], &[], &["example.com:25", "1.1.1.1:25"], &[]);
    check(&["*", "mail.example.com:20-30"], &[], &["mail.example.com:25"], &["example.com:25"]);
    check(&["*", "1.1.1.1:25"], &[], &["1.1.1.1:25"], &["1.0.0.1:25"]);
}

#[test]
fn refusals_say_what_would_open_it() {
    let egress = deaf(&spec(&[], &["*.bad.example"]));
    for (text, says) in [
        (
            "127.0.0.1:8080",
            r#"127.0.0.1 is an address of this machine; [egress.office] allow = ["*", "127.0.0.1:8080"] opens it"#,
        ),
        (
            "[::1]:80",
            r#"::1 is an address of this machine; [egress.office] allow = ["*", "[::1]:80"] opens it"#,
        ),
        (
            "10.0.0.1:22",
            r#"10.0.0.1 is a private address; [egress.office] allow = ["*", "10.0.0.1:22"] opens it"#,
        ),
        ("example.com:25", r#"port 25 is in deny_ports of [egress.office]; allow = ["*", ":25"] opens it"#),
        ("a.bad.example:80", "a rule in deny of [egress.office] forbids a.bad.example:80"),
    ] {
        assert_eq!(refusal(&egress, text).as_deref(), Some(says));
    }
    // What it says is so.
    check(&["*", "127.0.0.1:8080"], &[], &["127.0.0.1:8080", "example.com:80"], &["127.0.0.1:8081"]);
    check(&["*", "[::1]:80"], &[], &["[::1]:80"], &["[::1]:81"]);
    let egress = deaf(&spec(&["*.example.com"], &[]));
    assert_eq!(
        refusal(&egress, "example.com:80").unwrap(),
        "no rule in allow of [egress.office] names example.com:80"
    );
    assert!(refusal(&egress, "x.example.com:25").unwrap().ends_with(r#"; allow = [":25"] opens it"#));
}

#[test]
fn rules_that_cannot_be_used_say_where_they_stand() {
    let build = |spec: &EgressSpec| {
        let (finder, _) = Finder::new(Arc::new(Resolver::new(&[])));
        Egress::new(spec, &Chains::new(), finder, Arc::default()).unwrap_err()
    };
    assert_eq!(build(&spec(&["*", "exa mple"], &[])).place, RulePlace::Allow(1));
    let error = build(&spec(&[], &["10.0.0.1/8"]));
    assert_eq!(error.place, RulePlace::Deny(0));
    assert!(error.to_string().starts_with("[egress.office] deny[0]: `10.0.0.1/8`: bits are set"), "{error}");
    let route = routes::route(&["*.onion", "127.0.0.1"], RouteTarget::Direct);
    let error = build(&EgressSpec { routes: vec![route], ..spec(&[], &[]) });
    assert_eq!(error.place, RulePlace::Domain { route: 0, index: 1 });
    let route = routes::route(&[], RouteTarget::Chain("tor".into()));
    let error = build(&EgressSpec { routes: vec![route], ..spec(&[], &[]) });
    assert_eq!(error.place, RulePlace::Via { route: 0 });
    assert!(error.text.contains("[chain.tor]"), "{error}");
    assert_eq!(check_rule("*.example.com:443@mon-fri"), Ok(()));
    assert!(check_rule("*.example.com:0").is_err() && check_domain("10.0.0.1").is_err());
}

#[test]
fn hours_close_and_open() {
    let egress = deaf(&spec(&["*", "10.0.0.0/8@mon/utc"], &["example.com@sat,sun/utc"]));
    // 1970-01-05 was a Monday.
    let at = |day: u64| {
        let now = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs((4 + day) * 86_400);
        Minute::of(now, &jiff::tz::TimeZone::UTC)
    };
    let guest = somebody();
    let way = |text: &str, day| {
        let to = to(text);
        let visit = Visit { to: &to, kind: Kind::Connect, guest: &guest, client: None };
        egress.way_at(&visit, at(day))
    };
    assert!(way("example.com:80", 0).is_ok() && way("example.com:80", 6).is_err());
    assert!(way("10.0.0.1:80", 0).is_ok() && way("10.0.0.1:80", 1).is_err());
    // What was opened by other rules is for nobody else.
    let key = |day| way("example.org:80", day).unwrap().key;
    assert!(key(0) != key(1) && key(1) == key(2) && key(2) != key(5) && key(5) == key(6));
}

#[test]
fn connections_are_for_those_of_the_same_rules_way_and_source() {
    let spec = spec(&[], &[]);
    let (one, two) = (deaf(&spec), deaf(&spec));
    let transparent = deaf(&EgressSpec { source: Some(Source::Client), ..spec });
    let (to, guest) = (to("example.com:80"), somebody());
    let key = |egress: &Egress, client: &str| {
        let client = Some(client.parse().unwrap());
        egress.way(&Visit { to: &to, kind: Kind::Http, guest: &guest, client }).unwrap().key
    };
    assert_eq!(key(&one, "192.0.2.1:1"), key(&one, "192.0.2.2:2"));
    assert_ne!(key(&one, "192.0.2.1:1"), key(&two, "192.0.2.1:1"));
    assert_eq!(key(&transparent, "192.0.2.1:1"), key(&transparent, "192.0.2.1:2"));
    assert_ne!(key(&transparent, "192.0.2.1:1"), key(&transparent, "192.0.2.2:1"));
}
