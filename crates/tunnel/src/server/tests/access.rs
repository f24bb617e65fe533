//! Who gets in, and who does not.

use super::*;

#[test]
fn a_client_logs_in_and_offers_services() {
    on_worker(async {
        let site = Site::new(spec(vec![grant("home")]));
        let mut home = site.login("home").await;
        assert_eq!((home.welcome.max_pool, home.welcome.heartbeat_ms), (4, PATIENCE.as_millis() as u32));
        let registered = home.register(vec![tcp(1, "ssh", 20000), tcp(2, "far", 19999)]).await;
        assert_eq!(registered.results[0].result, Ok(vec!["tcp://127.0.0.1:20000".to_owned()]));
        let refused = registered.results[1].result.clone().unwrap_err();
        assert_eq!(refused.code, RefusalCode::NotGranted);
        assert_eq!(site.ports.open(), ["tcp:home/ssh"]);
        home.caller.say(Message::Ping(7)).await;
        assert_eq!(home.caller.hear().await, Message::Pong(7));
        let status = site.server.status();
        let client = &status.clients[0];
        assert_eq!(
            (client.name.as_str(), client.session.as_ref().unwrap().agent.as_str()),
            ("home", "by hand")
        );
        assert_eq!(client.services[0].places, ["tcp://127.0.0.1:20000"]);
        assert!(client.services[1].refusal.as_ref().unwrap().contains("19999"));
        assert_eq!((status.counts.logins, status.counts.services_refused, status.pending), (1, 1, 0));
        assert_eq!(client.services[0].exposure.as_deref(), Some("tcp:home/ssh"));
    });
}

#[test]
fn an_unknown_client_and_a_wrong_key_are_told_the_same() {
    on_worker(async {
        let site = Site::new(spec(vec![grant("home")]));
        let mut told = Vec::new();
        for (name, key) in
            [("home", "the wrong key"), ("nobody", "the wrong key"), ("", "x"), ("HOME", "the key of home")]
        {
            let caller = site.dial().await;
            told.push(caller.login(name, &Secret::new(key).unwrap()).await.unwrap_err());
            assert!(matches!(within(read_message(&caller.stream, MAX)).await, Err(SpeechError::Ended)));
        }
        assert_eq!(told[0].code, RefusalCode::Unauthenticated);
        assert!(told.iter().all(|refusal| *refusal == told[0]));
        // Nor does the key that stands in for those of unknown names open anything.
        let refused = site.dial().await.login("nobody", auth::dummy_key()).await.unwrap_err();
        assert_eq!(refused, told[0]);
        let status = site.server.status();
        assert_eq!((status.counts.logins, status.counts.logins_refused), (0, 5));
        assert!(status.clients.is_empty());
    });
}

#[test]
fn what_was_proven_once_proves_nothing_again() {
    on_worker(async {
        let site = Site::new(spec(vec![grant("home")]));
        let first = site.dial().await;
        let (hello, challenge) = first.challenge("home").await;
        let proof = auth::client_proof(&key_of("home"), &first.exporter, &hello, &challenge);
        first.say(Message::Proof(proof)).await;
        let Message::Welcome(welcome) = first.hear().await else { panic!("no welcome") };
        // The same words on another connection.
        let second = site.dial().await;
        second.say(Message::Hello(hello)).await;
        let Message::Challenge(other) = second.hear().await else { panic!("no challenge") };
        assert_ne!(other.nonce, challenge.nonce);
        second.say(Message::Proof(proof)).await;
        assert_eq!(second.refusal().await.code, RefusalCode::Unauthenticated);
        // What lets one connection join does not let another.
        let waits = site.join(&welcome, Purpose::Wait).await;
        let mac = auth::join_proof(&welcome.secret, &waits.exporter, Purpose::Wait);
        let wrong = [
            Join { session: welcome.session, purpose: Purpose::Wait, mac },
            Join { session: [9; 16], purpose: Purpose::Wait, mac },
            Join { session: welcome.session, purpose: Purpose::Wait, mac: [0; 32] },
        ];
        let mut told = Vec::new();
        for join in wrong {
            let third = site.dial().await;
            third.say(Message::Join(join)).await;
            told.push(third.refusal().await);
        }
        // Nor for another purpose.
        let fourth = site.dial().await;
        let mac = auth::join_proof(&welcome.secret, &fourth.exporter, Purpose::Wait);
        fourth.say(Message::Join(Join { session: welcome.session, purpose: Purpose::Many, mac })).await;
        told.push(fourth.refusal().await);
        assert!(told.iter().all(|refusal| refusal.code == RefusalCode::NoSession && *refusal == told[0]));
        assert_eq!(site.server.status().counts.joins_refused, 4);
    });
}

#[test]
fn a_session_that_is_over_takes_nobody() {
    on_worker(async {
        let site = Site::new(spec(vec![grant("home")]));
        let old = site.login("home").await;
        let new = site.login("home").await;
        assert_eq!(old.caller.refusal().await.code, RefusalCode::InUse);
        old.caller.ended().await;
        assert_eq!(site.join(&old.welcome, Purpose::Wait).await.refusal().await.code, RefusalCode::NoSession);
        site.wait(&new).await;
        let counts = site.server.status().counts;
        assert_eq!((counts.logins, counts.takeovers, counts.losses), (2, 1, 0));
    });
}

#[test]
fn a_reload_ends_sessions_whose_key_is_another_and_judges_the_rest() {
    on_worker(async {
        let site = Site::new(spec(vec![grant("home"), grant("office"), grant("gone")]));
        let (mut home, mut office, gone) =
            (site.login("home").await, site.login("office").await, site.login("gone").await);
        home.offer(vec![tcp(1, "ssh", 20000)]).await;
        office.offer(vec![tcp(1, "ssh", 20001)]).await;
        let changed = GrantSpec { key: Secret::new("another").unwrap(), ..grant("home") };
        let less = GrantSpec { ports: Vec::new(), ..grant("office") };
        site.server.configure(spec(vec![changed, less]));
        for ended in [home.caller, gone.caller] {
            assert_eq!(ended.refusal().await.code, RefusalCode::Unauthenticated);
            ended.ended().await;
        }
        let registered = office.registered().await;
        assert_eq!(registered.results[0].result.clone().unwrap_err().code, RefusalCode::NotGranted);
        let refused = site.dial().await.login("home", &key_of("home")).await.unwrap_err();
        assert_eq!(refused.code, RefusalCode::Unauthenticated);
        assert_eq!(site.dial().await.login("gone", &key_of("gone")).await.unwrap_err(), refused);
        assert!(site.dial().await.login("home", &Secret::new("another").unwrap()).await.is_ok());
    });
}

#[test]
fn a_key_that_is_gone_ends_a_session_that_is_about_to_leave() {
    on_worker(async {
        let site = Site::new(spec(vec![grant("home")]));
        let mut home = site.login("home").await;
        home.offer(vec![tcp(1, "ssh", 20000)]).await;
        home.caller.say(Message::Leaving).await;
        until("its leave", || site.server.status().clients.is_empty()).await;
        site.server.configure(spec(Vec::new()));
        assert_eq!(home.caller.refusal().await.code, RefusalCode::Unauthenticated);
        home.caller.ended().await;
    });
}

#[test]
fn a_server_that_drains_lets_nobody_in_and_sees_sessions_off() {
    on_worker(async {
        let site = Site::new(spec(vec![grant("home"), grant("office")]));
        let mut home = site.login("home").await;
        home.offer(vec![tcp(1, "ssh", 20000)]).await;
        let waits = site.wait(&home).await;
        let visitor = site.connect("home/ssh").await.unwrap();
        site.server.drain();
        assert_eq!(home.caller.hear().await, Message::Leaving);
        let refused = site.dial().await.login("office", &key_of("office")).await.unwrap_err();
        assert_eq!(refused.code, RefusalCode::Leaving);
        // Who is there stays.
        waits.start().await;
        talk(&visitor, &waits.stream).await;
        assert!(site.server.status().clients[0].session.is_some());
        drop(visitor);
        home.caller.ended().await;
    });
}

#[test]
fn who_logs_in_while_the_key_changes_has_to_have_the_new_one() {
    let server = TunnelServer::new(spec(vec![grant("home")]));
    let client = server.clients.load()["home"].clone();
    // As if the proof had been judged before the reload, and the session began after it.
    assert!(server.begin(&client, &key_of("office"), |_| panic!("a session by an old key")).is_none());
}
