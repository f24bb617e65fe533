//! What becomes of what is offered when sessions come and go.

use super::*;

#[test]
fn a_session_takes_over_without_closing_anything() {
    on_worker(async {
        let site = Site::new(spec(vec![grant("home")]));
        let mut old = site.login("home").await;
        old.offer(vec![tcp(1, "ssh", 20000)]).await;
        let old_pool = site.wait(&old).await;
        let mut new = site.login("home").await;
        // Who comes now waits for what the new one has to say, and is not led to the old one.
        let connecting = site.connect("home/ssh");
        tokio::pin!(connecting);
        let soon = Duration::from_millis(30);
        assert!(tokio::time::timeout(soon, &mut connecting).await.is_err());
        old_pool.ended().await;
        assert_eq!(site.ports.open(), ["tcp:home/ssh"]);
        new.offer(vec![tcp(7, "ssh", 20000)]).await;
        let waits = site.join(&new.welcome, Purpose::Wait).await;
        let visitor = connecting.await.unwrap();
        assert_eq!(waits.start().await.service, 7);
        talk(&visitor, &waits.stream).await;
    });
}

#[test]
fn what_a_lost_client_offered_is_kept_for_its_return() {
    on_worker(async {
        let grace = Duration::from_millis(1_500);
        let site = Site::new(ServerSpec { grace, ..spec(vec![grant("home")]) });
        let mut home = site.login("home").await;
        home.offer(vec![tcp(1, "ssh", 20000)]).await;
        drop(home);
        until("its loss", || site.server.status().counts.losses == 1).await;
        assert!(site.server.status().clients[0].session.is_none());
        let connecting = site.connect("home/ssh");
        let coming = async {
            let mut home = site.login("home").await;
            home.offer(vec![tcp(3, "ssh", 20000)]).await;
            let waits = site.wait(&home).await;
            assert_eq!(waits.start().await.service, 3);
            (home, waits)
        };
        let (visitor, (home, waits)) = tokio::join!(connecting, coming);
        talk(&visitor.unwrap(), &waits.stream).await;
        assert_eq!(site.ports.open(), ["tcp:home/ssh"]);
        drop(home);
        until("its end", || site.ports.open().is_empty()).await;
        assert!(site.connect("home/ssh").await.is_err());
    });
}

#[test]
fn who_takes_its_leave_closes_its_services_and_keeps_its_visitors() {
    on_worker(async {
        let site = Site::new(spec(vec![grant("home")]));
        let mut home = site.login("home").await;
        home.offer(vec![tcp(1, "ssh", 20000)]).await;
        let waits = site.wait(&home).await;
        let visitor = site.connect("home/ssh").await.unwrap();
        home.caller.say(Message::Leaving).await;
        until("closed services", || site.ports.open().is_empty()).await;
        assert!(site.connect("home/ssh").await.is_err());
        waits.start().await;
        talk(&visitor, &waits.stream).await;
        drop(home);
        until("the end", || site.server.status().clients.is_empty()).await;
        assert_eq!(site.server.status().counts.losses, 0);
    });
}

#[test]
fn services_change_without_touching_who_is_there() {
    on_worker(async {
        let site = Site::new(spec(vec![grant("home")]));
        let mut home = site.login("home").await;
        home.offer(vec![tcp(1, "ssh", 20000), tcp(2, "web", 20001)]).await;
        let waits = site.wait(&home).await;
        let visitor = site.connect("home/web").await.unwrap();
        home.offer(vec![tcp(1, "ssh", 20000), tcp(3, "new", 20002)]).await;
        assert_eq!(site.ports.open(), ["tcp:home/new", "tcp:home/ssh"]);
        assert_eq!(waits.start().await.service, 2);
        talk(&visitor, &waits.stream).await;
        // Health is told as it changes: the only one stays, whatever it says.
        home.caller.say(Message::State(wmproxy_wire::tunnel::message::State { id: 1, is_up: false })).await;
        until("a change", || !site.server.status().clients[0].services[0].is_up).await;
        assert_eq!(site.ports.open(), ["tcp:home/new", "tcp:home/ssh"]);
    });
}

#[test]
fn members_of_a_group_are_named_as_they_are_up() {
    on_worker(async {
        let site = Site::new(spec(vec![grant("home"), grant("office")]));
        let members = || -> Vec<String> {
            let wanted = site.ports.wanted.lock().unwrap();
            wanted.iter().flat_map(|exposure| &exposure.members).map(|name| name.to_string()).collect()
        };
        let grouped = || vec![Service { group: Some("ssh".into()), ..tcp(1, "ssh", 20000) }];
        let (mut home, mut office) = (site.login("home").await, site.login("office").await);
        home.offer(grouped()).await;
        office.offer(grouped()).await;
        assert_eq!(
            (site.ports.open(), members()),
            (vec!["tcp:ssh@20000".into()], vec!["home/ssh".into(), "office/ssh".into()])
        );
        home.caller.say(Message::State(wmproxy_wire::tunnel::message::State { id: 1, is_up: false })).await;
        until("one left", || members() == ["office/ssh"]).await;
        drop(office);
        until("all that there is", || members() == ["home/ssh", "office/ssh"]).await;
    });
}

#[test]
fn a_server_that_has_drained_leaves_nothing_behind() {
    on_worker(async {
        let site = Site::new(spec(vec![grant("home")]));
        let mut home = site.login("home").await;
        home.offer(vec![tcp(1, "ssh", 20000)]).await;
        let waits = site.wait(&home).await;
        let server = Arc::downgrade(&site.server);
        let client = Arc::downgrade(&site.server.clients.load()["home"]);
        let session = Arc::downgrade(&client.upgrade().unwrap().session().unwrap());
        site.server.drain();
        waits.ended().await;
        // Each has the other as long as the session stands.
        until("the session's end", || session.strong_count() == 0).await;
        drop(site);
        until("its own", || (server.strong_count(), client.strong_count()) == (0, 0)).await;
    });
}
