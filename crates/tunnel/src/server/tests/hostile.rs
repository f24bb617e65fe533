//! Bad input: each ends by itself, and nobody else notices.

use super::*;

/// That a client which behaves is served as ever.
async fn others_carry_on(site: &Site, login: &Login) {
    let waits = site.wait(login).await;
    let visitor = site.connect("home/ssh").await.unwrap();
    assert_eq!(waits.start().await.service, 1);
    talk(&visitor, &waits.stream).await;
}

#[test]
fn junk_ends_its_own_connection() {
    on_worker(async {
        let site = Site::new(spec(vec![grant("home"), grant("bad")]));
        let mut home = site.login("home").await;
        home.offer(vec![tcp(1, "ssh", 20000)]).await;
        let huge = [0, 1, 0xff, 0xff, 0xff, 0xf0, 0, 0];
        let junk: [&[u8]; 4] = [b"GET / HTTP/1.1\r\n\r\n", &[0; 64], &[0xff; 64], &huge];
        for (n, bytes) in junk.into_iter().enumerate() {
            let caller = site.dial().await;
            send(&caller.stream, bytes).await;
            finish(&caller.stream).await;
            caller.ended().await;
            let broken = n as u64 + 1;
            until("a count", || site.server.status().counts.broken == broken).await;
        }
        // What has its place elsewhere, before a login and in a session.
        let caller = site.dial().await;
        caller.say(Message::Ping(1)).await;
        caller.ended().await;
        for message in [Message::Need(1), Message::Proof([0; 32]), Message::Dare([0; 32])] {
            let mut bad = site.login("bad").await;
            bad.offer(vec![tcp(1, "x", 20050)]).await;
            bad.caller.say(message).await;
            bad.caller.ended().await;
        }
        let mut bad = site.login("bad").await;
        bad.offer(vec![tcp(1, "x", 20050)]).await;
        send(&bad.caller.stream, &huge).await;
        bad.caller.ended().await;
        others_carry_on(&site, &home).await;
    });
}

#[test]
fn who_proves_nothing_is_let_go_in_time_and_counted() {
    on_worker(async {
        let site = Site::new(ServerSpec {
            login_timeout: Duration::from_millis(800),
            max_pending_per_address: 3,
            ..spec(vec![grant("home")])
        });
        let mut home = site.login("home").await;
        home.offer(vec![tcp(1, "ssh", 20000)]).await;
        // No TLS, no word, half a word, no proof.
        let plain =
            stream::connect(&Address::Inet(site.address), &PeerSocket::default(), None).await.unwrap();
        let silent = site.dial().await;
        let half = site.dial().await;
        send(&half.stream, &[0, 1, 0]).await;
        until("three", || site.server.status().pending == 3).await;
        // There is no room for more of one address, and who is let go makes room.
        let fourth =
            stream::connect(&Address::Inet(site.address), &PeerSocket::default(), None).await.unwrap();
        assert!(rest(&fourth).await.is_ok_and(|bytes| bytes.is_empty()));
        assert_eq!(site.server.status().counts.pending_refused, 1);
        assert!(rest(&plain).await.is_ok_and(|bytes| bytes.is_empty()));
        silent.ended().await;
        half.ended().await;
        let unproven = site.dial().await;
        unproven.challenge("home").await;
        unproven.ended().await;
        until("all are gone", || site.server.status().pending == 0).await;
        assert_eq!(site.server.status().counts.logins_late, 4);
        others_carry_on(&site, &home).await;
    });
}

#[test]
fn strangers_take_no_place_from_clients_whose_sessions_stand() {
    on_worker(async {
        let site = Site::new(ServerSpec { max_pending: 2, ..spec(vec![grant("home")]) });
        let mut home = site.login("home").await;
        home.offer(vec![tcp(1, "ssh", 20000)]).await;
        let stranger = |last: u8| {
            wmproxy_testkit::Conn::connect_from(
                [127, 0, 0, last].into(),
                &wmproxy_testkit::Addr::Inet(site.address),
            )
        };
        let strangers = [stranger(2), stranger(3)];
        until("they have all places", || site.server.status().pending == 2).await;
        let late = stranger(4);
        until("there is none for another", || site.server.status().counts.pending_refused == 1).await;
        // From where a session stands there still is.
        let further = site.dial().await;
        further.challenge("home").await;
        assert_eq!(site.server.status().pending, 3);
        drop((strangers, late, further));
        until("all are gone", || site.server.status().pending == 0).await;
        drop(home);
        let here = Some(([127, 0, 0, 1], 1).into());
        until("the session is over", || !site.server.known.has(here)).await;
    });
}

#[test]
fn who_claims_what_others_have_is_refused() {
    on_worker(async {
        let both = |name: &str| GrantSpec { hosts: vec!["*.example.com".into()], ..grant(name) };
        let site = Site::new(spec(vec![both("home"), both("thief")]));
        let mut home = site.login("home").await;
        let web = Service { kind: Kind::Http, hosts: vec!["a.example.com".into()], ..tcp(2, "web", 0) };
        home.offer(vec![tcp(1, "ssh", 20000), web.clone()]).await;
        let mut thief = site.login("thief").await;
        let registered = thief.register(vec![tcp(1, "ssh", 20000), web]).await;
        for placed in &registered.results {
            let refusal = placed.result.clone().unwrap_err();
            assert_eq!(refusal.code, RefusalCode::InUse);
            assert!(refusal.text.ends_with("is in use by another client"), "{}", refusal.text);
        }
        assert_eq!(site.ports.open(), ["http:home/web", "tcp:home/ssh"]);
        others_carry_on(&site, &home).await;
        // Once it is free it is had without a further word.
        home.caller.say(Message::Leaving).await;
        let registered = thief.registered().await;
        assert!(registered.results.iter().all(|placed| placed.result.is_ok()));
    });
}

#[test]
fn a_client_that_never_reads_is_lost() {
    on_worker(async {
        let site = Site::new(ServerSpec {
            heartbeat: Duration::from_millis(50),
            grace: Duration::from_millis(50),
            ..spec(vec![grant("home")])
        });
        let mut home = site.login("home").await;
        home.offer(vec![tcp(1, "ssh", 20000)]).await;
        // It is asked, and says nothing.
        assert!(matches!(home.caller.hear().await, Message::Ping(1)));
        until("its loss", || site.server.status().counts.losses == 1).await;
        until("its end", || site.ports.open().is_empty() && site.server.status().clients.is_empty()).await;
    });
}

#[test]
fn a_pool_holds_no_more_than_it_may() {
    on_worker(async {
        let site = Site::new(spec(vec![grant("home")]));
        let mut home = site.login("home").await;
        home.offer(vec![tcp(1, "ssh", 20000)]).await;
        let mut pool = Vec::new();
        for _ in 0..4 {
            pool.push(site.wait(&home).await);
        }
        let fifth = site.join(&home.welcome, Purpose::Wait).await;
        assert_eq!(fifth.refusal().await.code, RefusalCode::Limit);
        // Those that died make room for others.
        pool.clear();
        let waits = site.wait(&home).await;
        let visitor = site.connect("home/ssh").await.unwrap();
        waits.start().await;
        talk(&visitor, &waits.stream).await;
    });
}

#[test]
fn what_is_shown_of_services_is_bounded_and_harmless() {
    on_worker(async {
        let site = Site::new(spec(vec![GrantSpec { max_services: 3, ..grant("home") }]));
        let mut home = site.login("home").await;
        let strange = tcp(1, "x\u{1b}[2J\n", 20001);
        let many = (2..500).map(|id| tcp(id, &format!("s{id}"), 20000));
        let registered = home.register(std::iter::once(strange).chain(many).collect()).await;
        // The client is told of each.
        assert_eq!(registered.results.len(), 499);
        assert!(registered.results.iter().all(|placed| placed.result.is_ok() == (placed.id == 2)));
        let status = site.server.status();
        let shown: Vec<_> = status.clients[0].services.iter().map(|service| &*service.name).collect();
        assert_eq!(shown, ["s2", "s3"]);
    });
}

#[test]
fn who_registers_without_end_has_to_rest() {
    on_worker(async {
        let site = Site::new(spec(vec![grant("home"), grant("bad")]));
        let mut home = site.login("home").await;
        home.offer(vec![tcp(1, "ssh", 20000)]).await;
        let mut bad = site.login("bad").await;
        let many: Vec<_> = (0..2000).map(|id| tcp(id, &format!("s{id}"), 1)).collect();
        bad.register(many.clone()).await;
        let begun = std::time::Instant::now();
        bad.register(many).await;
        assert!(begun.elapsed() >= Duration::from_millis(150), "{:?}", begun.elapsed());
        others_carry_on(&site, &home).await;
        // It is heard again.
        bad.offer(vec![tcp(1, "x", 20050)]).await;
    });
}
