//! Visitors: how they come, how they are served, and how they end.

use wmproxy_net::connect::Fault;
use wmproxy_testkit::{Backend, Conn as Plain};
use wmproxy_wire::tunnel::message::{Answer, Message, Placed, Purpose, RefusalCode, Registered, Start};

use super::far::{Far, FarSession, hear, say, start};
use super::*;

/// A client with one service in front of an echo, its session, and the connections that wait.
async fn open(far: &Far, near: &Near, pool: usize) -> (FarSession, Vec<Stream>) {
    let session = far.login().await;
    session.register().await;
    let mut waiting = Vec::new();
    for _ in 0..pool {
        waiting.push(far.joined(&session).await);
    }
    near.until("a full pool", |status| status.pool as usize == pool).await;
    (session, waiting)
}

#[tokio::test]
async fn a_visitors_bytes_follow_at_once_and_both_ends_pass_on() {
    let echo = Backend::echo();
    let far = Far::start().await;
    let near = Near::new(spec(&[far.addr()]));
    near.client.configure(vec![offer("ssh", echo.addr().inet())]);
    let (session, mut waiting) = open(&far, &near, 2).await;
    let visitor = waiting.pop().unwrap();
    let mut bytes = Vec::new();
    wmproxy_wire::tunnel::codec::encode(&Message::Start(start(1)), &mut bytes);
    bytes.extend_from_slice(b"hello");
    send(&visitor, &bytes).await;
    assert_eq!(within("an echo", recv(&visitor, 5)).await, b"hello");
    // The place is taken at once by another.
    far.joined(&session).await;
    assert_eq!(near.client.status().services[0].visitors, 1);
    send(&visitor, b"bye").await;
    finish(&visitor).await;
    assert_eq!(within("the end", recv_all(&visitor)).await.unwrap(), b"bye");
    near.until("its end", |_| near.client.status().services[0].visitors == 0).await;
    let service = &near.client.status().services[0];
    assert_eq!((service.visitors_total, service.bytes_in, service.bytes_out), (1, 8, 8));
}

#[tokio::test]
async fn a_reset_passes_both_ways() {
    let resets = Backend::resets();
    let echo = Backend::echo();
    let far = Far::start().await;
    let near = Near::new(spec(&[far.addr()]));
    near.client.configure(vec![offer("resets", resets.addr().inet()), offer("echo", echo.addr().inet())]);
    let (_session, mut waiting) = open(&far, &near, 2).await;
    let visitor = waiting.pop().unwrap();
    say(&visitor, Message::Start(start(1))).await;
    assert!(within("a reset", recv_all(&visitor)).await.is_err());
    let visitor = waiting.pop().unwrap();
    say(&visitor, Message::Start(start(2))).await;
    send(&visitor, b"x").await;
    within("an echo", recv(&visitor, 1)).await;
    visitor.reset_on_close();
    drop(visitor);
    assert!(tokio::task::spawn_blocking(move || echo.next_end()).await.unwrap().error.is_some());
}

#[tokio::test]
async fn what_fails_here_is_reset_there_and_told() {
    let far = Far::start().await;
    let near = Near::new(spec(&[far.addr()]));
    let nobody = wmproxy_testkit::tcp::free_port();
    near.client.configure(vec![offer("ssh", ([127, 0, 0, 1], nobody).into())]);
    let (session, mut waiting) = open(&far, &near, 2).await;
    for (service, code) in [(1, RefusalCode::Unavailable), (99, RefusalCode::NoService)] {
        let visitor = waiting.pop().unwrap();
        say(&visitor, Message::Start(start(service))).await;
        assert!(within("a reset", recv_all(&visitor)).await.is_err());
        let Message::Failed(failed) = session.hear().await else { panic!("no failure") };
        assert_eq!((failed.service, failed.refusal.code), (service, code));
    }
}

#[tokio::test]
async fn more_connections_come_when_they_are_needed_and_no_more_than_that_stay() {
    let echo = Backend::echo();
    let far = Far::start().await;
    let near = Near::new(spec(&[far.addr()]));
    near.client.configure(vec![offer("ssh", echo.addr().inet())]);
    let (session, mut waiting) = open(&far, &near, 2).await;
    session.say(Message::Need(6)).await;
    for _ in 0..6 {
        waiting.push(far.joined(&session).await);
    }
    near.until("eight", |status| status.pool == 8).await;
    for visitor in waiting.drain(2..) {
        say(&visitor, Message::Start(start(1))).await;
    }
    near.until("two", |status| status.pool == 2).await;
    let none = tokio::time::timeout(Duration::from_millis(50), far.joined(&session)).await;
    assert!(none.is_err(), "a pool that was large enough has grown");
}

#[tokio::test]
async fn a_waiting_connection_that_breaks_is_replaced() {
    let far = Far::start().await;
    let near = Near::new(spec(&[far.addr()]));
    near.client.configure(vec![]);
    let (session, waiting) = open(&far, &near, 2).await;
    drop(waiting);
    far.joined(&session).await;
    far.joined(&session).await;
}

#[tokio::test]
async fn a_reload_keeps_visitors_and_numbers_and_shuts_out_what_is_gone() {
    let echo = Backend::echo();
    let far = Far::start().await;
    let near = Near::new(ClientSpec { pool: 4, ..spec(&[far.addr()]) });
    let both = || vec![offer("ssh", echo.addr().inet()), offer("web", echo.addr().inet())];
    near.client.configure(both());
    let (session, mut waiting) = open(&far, &near, 4).await;
    let stays = waiting.pop().unwrap();
    say(&stays, Message::Start(start(1))).await;
    send(&stays, b"a").await;
    within("an echo", recv(&stays, 1)).await;

    near.client.configure(vec![offer("web", echo.addr().inet()), offer("new", echo.addr().inet())]);
    let register = session.register().await;
    assert_eq!(register.epoch, 2);
    let ids: Vec<_> = register.services.iter().map(|service| (service.name.as_str(), service.id)).collect();
    assert_eq!(ids, [("web", 2), ("new", 3)]);
    let gone = waiting.pop().unwrap();
    say(&gone, Message::Start(start(1))).await;
    assert!(within("a reset", recv_all(&gone)).await.is_err());
    send(&stays, b"b").await;
    assert_eq!(within("an echo", recv(&stays, 1)).await, b"b");
    // What comes back is another one.
    near.client.configure(both());
    let Message::Failed(_) = session.hear().await else { panic!("no failure") };
    let again = session.register().await;
    assert_eq!(again.services.iter().map(|service| service.id).collect::<Vec<_>>(), [4, 2]);
}

#[tokio::test]
async fn health_is_told_as_it_changes() {
    let far = Far::start().await;
    let near = Near::new(ClientSpec { pool: 0, ..spec(&[far.addr()]) });
    let (health, is_up) = watch::channel(false);
    let checked = Offer { is_up: Some(is_up), ..offer("ssh", ([127, 0, 0, 1], 1).into()) };
    near.client.configure(vec![offer("web", ([127, 0, 0, 1], 1).into()), checked]);
    let session = far.login().await;
    let register = session.register().await;
    assert_eq!(register.services.iter().map(|service| service.is_up).collect::<Vec<_>>(), [true, false]);
    for now in [true, false, true] {
        health.send(now).unwrap();
        let Message::State(state) = session.hear().await else { panic!("no state") };
        assert_eq!((state.id, state.is_up), (2, now));
        assert_eq!(near.client.status().services[1].is_up, now);
    }
}

#[tokio::test]
async fn who_leaves_says_so_and_waits_for_visitors() {
    let echo = Backend::echo();
    let far = Far::start().await;
    let near = Near::new(spec(&[far.addr()]));
    near.client.configure(vec![offer("ssh", echo.addr().inet())]);
    let (session, mut waiting) = open(&far, &near, 2).await;
    let stays = waiting.pop().unwrap();
    say(&stays, Message::Start(start(1))).await;
    send(&stays, b"a").await;
    within("an echo", recv(&stays, 1)).await;
    near.client.leave();
    assert_eq!(session.hear().await, Message::Leaving);
    // Somebody who was on the way.
    let late = waiting.pop().unwrap();
    say(&late, Message::Start(start(1))).await;
    send(&late, b"b").await;
    assert_eq!(within("an echo", recv(&late, 1)).await, b"b");
    near.until_state(SessionState::Leaving).await;
    drop((late, stays));
    session.until_closed().await;
    near.until_state(SessionState::Ended).await;
    within("the last task", near.scope.empty()).await;
}

#[tokio::test]
async fn a_server_that_is_about_to_go_is_left_for_the_next_at_once() {
    let echo = Backend::echo();
    let far = Far::start().await;
    let near = Near::new(spec(&[far.addr()]));
    near.client.configure(vec![offer("ssh", echo.addr().inet())]);
    let (session, mut waiting) = open(&far, &near, 2).await;
    let stays = waiting.pop().unwrap();
    say(&stays, Message::Start(start(1))).await;
    send(&stays, b"a").await;
    within("an echo", recv(&stays, 1)).await;
    // What replaces the connection that was taken.
    far.joined(&session).await;
    session.say(Message::Leaving).await;
    let next = far.login().await;
    next.register().await;
    near.until_state(SessionState::Open).await;
    send(&stays, b"b").await;
    assert_eq!(within("an echo", recv(&stays, 1)).await, b"b");
    drop(session);
    send(&stays, b"c").await;
    assert_eq!(within("an echo", recv(&stays, 1)).await, b"c");
}

#[tokio::test]
async fn an_owner_lets_nobody_in_without_the_secret() {
    let echo = Backend::echo();
    let far = Far::start().await;
    let near = Near::new(ClientSpec { pool: 3, ..spec(&[far.addr()]) });
    near.client.configure(vec![private("db", echo.addr().inet(), "between us")]);
    let (session, mut waiting) = open(&far, &near, 3).await;
    let come = async |visitor: &Stream, known: &str| {
        say(visitor, Message::Start(Start { client: Some("office".to_owned()), ..start(1) })).await;
        let Message::Dare(owner) = hear(visitor).await else { panic!("no dare") };
        let nonce = crate::auth::nonce();
        let mac = crate::auth::visitor_proof(&secret(known), "home/db", &owner, &nonce);
        say(visitor, Message::Answer(Answer { mac, nonce })).await;
        (owner, nonce)
    };
    let wrong = waiting.pop().unwrap();
    come(&wrong, "a guess").await;
    let Message::Refused(refusal) = hear(&wrong).await else { panic!("it was let in") };
    assert_eq!(refusal.code, RefusalCode::Unauthenticated);
    drop(wrong);
    let Message::Failed(failed) = session.hear().await else { panic!("no failure") };
    assert_eq!(failed.refusal.code, RefusalCode::Unauthenticated);

    let right = waiting.pop().unwrap();
    let (owner, nonce) = come(&right, "between us").await;
    let Message::Granted(proof) = hear(&right).await else { panic!("it was not let in") };
    let expected = crate::auth::owner_proof(&secret("between us"), "home/db", &owner, &nonce);
    assert!(crate::auth::is_same(&proof, &expected));
    send(&right, b"select").await;
    assert_eq!(within("an echo", recv(&right, 6)).await, b"select");
    // Bytes in place of an answer reach nobody.
    let rude = waiting.pop().unwrap();
    say(&rude, Message::Start(Start { client: Some("office".to_owned()), ..start(1) })).await;
    hear(&rude).await;
    send(&rude, b"GET / HTTP/1.1\r\n\r\n").await;
    assert!(within("a reset", recv_all(&rude)).await.is_err());
    assert_eq!(echo.accepted(), 1);
}

#[tokio::test]
async fn a_visitor_tells_an_owner_from_who_pretends_to_be_one() {
    let far = Far::start().await;
    let near = Near::new(ClientSpec { pool: 0, ..spec(&[far.addr()]) });
    let session = far.login().await;
    let visit = VisitSpec { service: "office/db".into(), secret: secret("between us") };
    let visits = near.client.visit(visit);
    let nowhere = Destination::from(SocketAddr::from(([0, 0, 0, 0], 1)));
    for (owner_knows, fault) in [("between us", None), ("a guess", Some(Fault::Unauthorized))] {
        let owner = async {
            let stream = far.joined_for(&session, Purpose::Visit).await;
            let Message::Visit(visit) = hear(&stream).await else { panic!("no visit") };
            assert_eq!(visit.service, "office/db");
            let nonce = crate::auth::nonce();
            say(&stream, Message::Dare(nonce)).await;
            let Message::Answer(answer) = hear(&stream).await else { panic!("no answer") };
            let known = secret(owner_knows);
            let proof = crate::auth::owner_proof(&known, "office/db", &nonce, &answer.nonce);
            say(&stream, Message::Granted(proof)).await;
            stream
        };
        let (owner, visitor) = tokio::join!(owner, within("a visit", visits.connect(&nowhere)));
        match (visitor, fault) {
            (Ok(visitor), None) => {
                send(&visitor, b"select").await;
                assert_eq!(within("bytes", recv(&owner, 6)).await, b"select");
            }
            (visitor, fault) => assert_eq!(visitor.err().map(|error| error.fault), fault),
        }
    }
}

#[tokio::test]
async fn a_visitor_who_does_not_read_is_waited_for() {
    let source = Backend::source(1, 64 << 20);
    let echo = Backend::echo();
    let far = Far::start().await;
    let near = Near::new(spec(&[far.addr()]));
    near.client.configure(vec![offer("source", source.addr().inet()), offer("echo", echo.addr().inet())]);
    let (_session, mut waiting) = open(&far, &near, 2).await;
    let stuck = waiting.pop().unwrap();
    say(&stuck, Message::Start(start(1))).await;
    let brisk = waiting.pop().unwrap();
    say(&brisk, Message::Start(start(2))).await;
    for _ in 0..100 {
        send(&brisk, b"ping").await;
        assert_eq!(within("an echo", recv(&brisk, 4)).await, b"ping");
    }
    let passed = near.client.status().services[0].bytes_out;
    assert!(passed < 32 << 20, "{passed} bytes that nobody reads");
    let _ = Plain::try_connect(source.addr());
}

#[tokio::test]
async fn what_a_server_says_of_places_is_shown_once_and_plain() {
    let far = Far::start().await;
    let near = Near::new(ClientSpec { pool: 0, ..spec(&[far.addr()]) });
    near.client.configure(vec![offer("ssh", ([127, 0, 0, 1], 1).into())]);
    let session = far.login().await;
    let Message::Register(register) = session.hear().await else { panic!("no registration") };
    let id = register.services[0].id;
    let places = |text: &str, count| Ok(vec![text.to_owned(); count]);
    let placed = |id, result| Placed { id, result };
    let results = vec![
        placed(id, places("\u{1b}[2Jtcp://far:1\u{202e}\r\n", 1000)),
        placed(id, places("tcp://again:1", 1)),
        placed(99, places("tcp://nobody:1", 1)),
    ];
    session.say(Message::Registered(Registered { epoch: register.epoch, results })).await;
    near.until("its places", |status| !status.services.is_empty()).await;
    let services = near.client.status().sessions[0].services.clone();
    assert_eq!((services.len(), services[0].places.len()), (1, 64));
    assert_eq!(services[0].places[0], " [2Jtcp://far:1   ");
}
