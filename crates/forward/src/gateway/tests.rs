use std::sync::Arc;

use tokio::task::JoinSet;
use wmproxy_http::forward::{Kind, Unknown};
use wmproxy_net::limit::{Direction, Gate};
use wmproxy_net::relay::Terms;
use wmproxy_wire::destination::Destination;

use super::*;
use crate::options::{QuotaPeriod, UserSpec};
use crate::users::testing::{conn, egress, listener, noon, quota, rate, user, user_with};

/// A listener of these users, with the accounts that it has.
fn house(users: Vec<UserSpec>) -> (Arc<ForwardGateway>, Arc<Accounts>) {
    let accounts = Accounts::open(None);
    (gateway(&listener(users), &accounts), accounts)
}

fn gateway(spec: &ForwardSpec, accounts: &Arc<Accounts>) -> Arc<ForwardGateway> {
    let egresses = ["default", "office"].map(|name| (Arc::from(name), egress(name)));
    let gateway = ForwardGateway::new(spec, &egresses.into(), accounts).unwrap();
    accounts.apply(&spec.users, noon());
    gateway
}

fn basic(name: &str, password: &str) -> String {
    use base64::Engine as _;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}")))
}

/// How the name is in logs, of who says this name and password from an address.
async fn say(
    gateway: &ForwardGateway,
    from: &str,
    name: &str,
    password: &str,
) -> Result<Option<String>, Unknown> {
    let guest = gateway.admit_password(&conn(from, None), name.as_bytes(), password.as_bytes()).await;
    guest.map(|guest| guest.name().map(|name| name.to_string()))
}

fn name(guest: &Arc<dyn Guest>) -> Option<&str> {
    guest.name().map(|name| &**name)
}

fn inner(guest: &Arc<dyn Guest>) -> &ForwardGuest {
    guest.as_any().downcast_ref().unwrap()
}

const WRONG: Unknown = Unknown::Unauthenticated;
const HERE: &str = "192.0.2.1";

#[tokio::test]
async fn a_right_password_is_compared_once_over_either_protocol() {
    let (gateway, accounts) = house(vec![user_with("alice", "sec:ret"), user_with("bob", "b")]);
    let conn = conn(HERE, None);
    let right = basic("alice", "sec:ret");
    for _ in 0..3 {
        assert_eq!(name(&gateway.admit(&conn, Some(right.as_bytes())).await.unwrap()), Some("alice"));
        assert_eq!(say(&gateway, HERE, "alice", "sec:ret").await, Ok(Some("alice".to_owned())));
    }
    assert_eq!(accounts.login_counts().compared, 1);
    assert_eq!(say(&gateway, HERE, "bob", "sec:ret").await, Err(WRONG));
    assert_eq!(say(&gateway, HERE, "bob", "b").await, Ok(Some("bob".to_owned())));
    assert_eq!((accounts.login_counts().compared, accounts.login_counts().wrong), (3, 1));
    assert_eq!(gateway.admit(&conn, None).await.unwrap_err(), WRONG);
    assert!(gateway.needs_password(&conn));
}

#[tokio::test]
async fn names_that_nobody_has_cost_what_wrong_passwords_cost() {
    let without = user("carol");
    let (gateway, accounts) = house(vec![user_with("alice", "a"), without]);
    for (n, name) in ["alice", "mallory", "carol", "", "al\0ice", "\u{e9}"].into_iter().enumerate() {
        assert_eq!(say(&gateway, &format!("192.0.2.{n}"), name, "wrong").await, Err(WRONG));
        assert_eq!(accounts.login_counts().compared, n as u64 + 1, "{name:?}");
    }
    // The password of whose hash it is compared with is no password of theirs.
    for name in ["mallory", "carol"] {
        assert_eq!(say(&gateway, HERE, name, "a").await, Err(WRONG));
        assert_eq!(say(&gateway, HERE, name, "a").await, Err(WRONG), "nor is it remembered as right");
    }
    assert_eq!(accounts.login_counts().right, 0, "or it could be guessed at by such names for nothing");
}

#[tokio::test]
async fn what_can_be_no_name_and_password_is_refused_without_work() {
    let (gateway, accounts) = house(vec![user_with("alice", "a")]);
    let conn = conn(HERE, None);
    let long = basic("alice", &"x".repeat(600));
    for value in ["", "Basic", "Basic !!!", "Bearer abc", "Basic YWxpY2U=", "Digest a=b", &long] {
        assert_eq!(gateway.admit(&conn, Some(value.as_bytes())).await.unwrap_err(), WRONG, "{value}");
    }
    assert_eq!(say(&gateway, HERE, &"x".repeat(255), &"x".repeat(257)).await, Err(WRONG));
    assert_eq!(gateway.admit_password(&conn, b"\xff\xfe", b"a").await.unwrap_err(), WRONG);
    assert_eq!(accounts.login_counts().compared, 1, "bytes that are no text may be a name as well as any");
}

#[tokio::test]
async fn one_that_says_it_many_times_at_once_is_compared_once() {
    let (gateway, accounts) = house(vec![user_with("alice", "a")]);
    for (password, right) in [("a", 50), ("wrong", 0)] {
        let mut all = JoinSet::new();
        for _ in 0..50 {
            let gateway = gateway.clone();
            all.spawn(async move { say(&gateway, HERE, "alice", password).await.is_ok() });
        }
        let got = all.join_all().await.into_iter().filter(|is_right| *is_right).count();
        assert_eq!(got, right);
    }
    let counts = accounts.login_counts();
    assert_eq!((counts.compared, counts.right, counts.wrong, counts.delayed), (2, 1, 50, 0));
}

#[tokio::test]
async fn who_guesses_is_stopped_before_the_work_and_others_are_not() {
    let (gateway, accounts) = house(vec![user_with("alice", "a"), user_with("bob", "b")]);
    let from = "2001:db8:0:1::1";
    assert!(say(&gateway, from, "alice", "a").await.is_ok());
    for n in 0..10 {
        assert_eq!(say(&gateway, from, "alice", &n.to_string()).await, Err(WRONG));
    }
    let compared = accounts.login_counts().compared;
    for n in 0..20 {
        let neighbour = format!("2001:db8:0:1:{n:x}::7");
        let Err(Unknown::Later(wait)) = say(&gateway, &neighbour, "alice", "x").await else {
            panic!("not slowed")
        };
        assert!(!wait.is_zero());
    }
    assert_eq!(say(&gateway, from, "alice", "a").await, Ok(Some("alice".to_owned())), "was right before");
    assert!(matches!(say(&gateway, from, "bob", "b").await, Err(Unknown::Later(_))), "was not yet");
    assert_eq!((accounts.login_counts().compared, accounts.login_counts().delayed), (compared, 21));
    assert!(say(&gateway, "2001:db8:0:2::1", "bob", "b").await.is_ok(), "another network");
    // It outlives a reload.
    let again = gateway_of(&accounts);
    assert!(matches!(say(&again, from, "alice", "y").await, Err(Unknown::Later(_))));
    assert!(say(&again, from, "alice", "a").await.is_err(), "another hash is another password");
}

fn gateway_of(accounts: &Arc<Accounts>) -> Arc<ForwardGateway> {
    gateway(&listener(vec![user_with("alice", "a")]), accounts)
}

#[tokio::test]
async fn a_certificate_names_its_user() {
    let users = vec![user_with("alice", "a"), user("bob")];
    let accounts = Accounts::open(None);
    let by_certificate = gateway(&ForwardSpec { by_certificate: true, ..listener(users.clone()) }, &accounts);
    let of = |identity| conn(HERE, identity);
    for user in ["alice", "bob"] {
        assert!(!by_certificate.needs_password(&of(Some(user))));
        let conn = of(Some(user));
        let guest = by_certificate.admit(&conn, None).await.unwrap();
        assert_eq!(name(&guest), Some(user));
    }
    for nobody in [Some("mallory"), Some("Alice"), Some(""), None] {
        assert!(by_certificate.needs_password(&of(nobody)));
        assert_eq!(by_certificate.admit_nobody(&of(nobody)).unwrap_err(), WRONG);
    }
    let conn_of_bob = of(Some("bob"));
    let said = basic("alice", "a");
    let guest = by_certificate.admit(&conn_of_bob, Some(said.as_bytes())).await.unwrap();
    assert_eq!(name(&guest), Some("alice"), "who says a password is meant by it");
    let wrong = basic("alice", "b");
    assert_eq!(by_certificate.admit(&conn_of_bob, Some(wrong.as_bytes())).await.unwrap_err(), WRONG);
    let needs_both = gateway(&listener(users), &accounts);
    assert_eq!(needs_both.admit_nobody(&of(Some("alice"))).unwrap_err(), WRONG);
}

#[tokio::test]
async fn without_users_a_certificate_is_a_name_and_an_open_listener_needs_none() {
    let accounts = Accounts::open(None);
    let certified = gateway(&ForwardSpec { by_certificate: true, ..listener(Vec::new()) }, &accounts);
    assert_eq!(name(&certified.admit_nobody(&conn(HERE, Some("laptop"))).unwrap()), Some("laptop"));
    assert_eq!(certified.admit_nobody(&conn(HERE, None)).unwrap_err(), WRONG);
    let open = gateway(&listener(Vec::new()), &accounts);
    assert!(!open.needs_password(&conn(HERE, None)));
    for said in [None, Some(basic("x", "y")), Some("garbage".to_owned())] {
        let conn = conn(HERE, None);
        let guest = open.admit(&conn, said.as_ref().map(|said| said.as_bytes())).await.unwrap();
        assert!(name(&guest).is_none() && guest.spend(1 << 40));
        assert!(inner(&guest).associate().unwrap().is_none());
    }
    assert_eq!((say(&open, HERE, "x", "y").await, accounts.login_counts().compared), (Ok(None), 0));
}

#[tokio::test]
async fn a_guest_takes_a_place_until_it_is_dropped() {
    let alice = UserSpec { max_connections: 2, max_associations: 1, ..user_with("alice", "a") };
    let (gateway, accounts) = house(vec![alice]);
    let enter = || async { gateway.admit_password(&conn(HERE, None), b"alice", b"a").await };
    let (first, second) = (enter().await.unwrap(), enter().await.unwrap());
    assert!(matches!(enter().await, Err(Unknown::Limited(text)) if text.contains("connections")));
    let association = inner(&first).associate().unwrap();
    assert!(association.is_some() && inner(&second).associate().is_err());
    let status = accounts.status();
    assert_eq!((status[0].connections, status[0].associations), (2, 1));
    drop((first, association));
    assert!(enter().await.is_ok() && inner(&second).associate().is_ok());
    drop(second);
    assert_eq!((accounts.status()[0].connections, accounts.status()[0].associations), (0, 0));
}

#[tokio::test]
async fn a_quota_that_is_used_up_refuses_visits_and_guests() {
    let alice = UserSpec { quota: quota(1000, QuotaPeriod::Month), ..user_with("alice", "a") };
    let (gateway, _) = house(vec![alice]);
    let enter = || async { gateway.admit_password(&conn(HERE, None), b"alice", b"a").await };
    let guest = enter().await.unwrap();
    let to = Destination::from(std::net::SocketAddr::from(([8, 8, 8, 8], 443)));
    let visit = Visit { to: &to, kind: Kind::Connect, guest: &guest, client: None };
    assert!(gateway.way(&visit).is_ok() && guest.spend(999));
    assert!(!guest.spend(1));
    let error = gateway.way(&visit).unwrap_err();
    assert!(error.fault == Fault::Limited && error.text.contains("month"), "{error}");
    assert!(matches!(enter().await, Err(Unknown::Limited(text)) if text.contains("month")));
}

#[tokio::test]
async fn who_the_config_loses_gets_nowhere() {
    let (gateway, accounts) = house(vec![user_with("alice", "a")]);
    let guest = gateway.admit_password(&conn(HERE, None), b"alice", b"a").await.unwrap();
    accounts.apply([], noon());
    let to = Destination::from(std::net::SocketAddr::from(([8, 8, 8, 8], 443)));
    let visit = Visit { to: &to, kind: Kind::Connect, guest: &guest, client: None };
    assert_eq!(gateway.way(&visit).unwrap_err().fault, Fault::Denied);
    assert_eq!(
        say(&gateway, HERE, "alice", "a").await,
        Err(WRONG),
        "though the password is known to be right"
    );
    assert!(guest.spend(1), "its tunnels go on");
}

#[test]
fn a_user_s_terms_are_those_of_the_listener_and_its_own() {
    let alice = UserSpec { rate_limit: rate(1000), quota: quota(1000, QuotaPeriod::Day), ..user("alice") };
    let accounts = Accounts::open(None);
    let gateway = gateway(&ForwardSpec { by_certificate: true, ..listener(vec![alice]) }, &accounts);
    let gate = Gate::new(0, 0);
    let permit = gate.try_enter().unwrap();
    let terms = || Terms::new(Duration::from_secs(1));
    let guest = gateway.admit_nobody(&conn(HERE, Some("alice"))).unwrap();
    let limited = guest.terms(terms(), &permit);
    assert!(limited.up.is_some() && limited.down.is_some());
    assert_eq!(limited.budget.unwrap().left(), 1000);
    let anybody: Arc<dyn Guest> = Arc::new(ForwardGuest::anybody(None, &egress("default")));
    let free = anybody.terms(terms(), &permit);
    assert!(free.up.is_none() && free.down.is_none() && free.budget.is_none());
    let account = inner(&guest).account().unwrap();
    assert!(account.gate().meter(Direction::Up).is_limited());
}

#[test]
fn each_user_has_its_rules_and_a_mistake_is_named_without_a_secret() {
    let accounts = Accounts::open(None);
    let bob = UserSpec { egress: Some("office".into()), ..user("bob") };
    let spec = ForwardSpec { by_certificate: true, ..listener(vec![user("alice"), bob.clone()]) };
    let gateway = gateway(&spec, &accounts);
    let rules =
        |user| inner(&gateway.admit_nobody(&conn(HERE, Some(user))).unwrap()).egress().name().to_string();
    assert_eq!((rules("alice"), rules("bob")), ("default".to_owned(), "office".to_owned()));
    let plain = UserSpec { password: Some("hunter2".parse().unwrap()), ..user("carol") };
    let other = UserSpec { egress: Some("moon".into()), ..user("dave") };
    for (users, expected) in [
        (vec![plain], "the password of `carol`"),
        (vec![other], "no egress `moon`"),
        (vec![bob.clone(), bob], "two users `bob`"),
    ] {
        let egresses =
            Egresses::from([("default".into(), egress("default")), ("office".into(), egress("office"))]);
        let error = ForwardGateway::new(&listener(users), &egresses, &accounts).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains("hunter2"), "{error}");
    }
}

#[tokio::test]
async fn no_secret_is_printed() {
    let alice = user_with("alice", "hunter2");
    let hash = alice.password.as_ref().unwrap().expose().to_owned();
    let (gateway, accounts) = house(vec![alice.clone()]);
    let guest = gateway.admit_password(&conn(HERE, None), b"alice", b"hunter2").await.unwrap();
    let status = serde_json::to_string(&accounts.status()).unwrap();
    for text in
        [format!("{gateway:?}"), format!("{accounts:?}"), format!("{guest:?}"), format!("{alice:?}"), status]
    {
        assert!(!text.contains("hunter2") && !text.contains(&hash[8..]), "{text}");
    }
}
