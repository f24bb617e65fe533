//! Visitors: how they reach a service, and what limits them.

use wmproxy_net::connect::Fault;
use wmproxy_wire::tunnel::message::{Form, Visit};
use wmproxy_wire::units::ByteRate;

use super::*;
use crate::carrier::mux::{self, Side};
use crate::carrier::quic;
use crate::datagrams::Carry;

#[test]
fn a_visitor_is_announced_and_its_bytes_follow() {
    on_worker(async {
        let site = Site::new(spec(vec![grant("home")]));
        let mut home = site.login("home").await;
        home.offer(vec![tcp(5, "ssh", 20000)]).await;
        let waits = site.wait(&home).await;
        let visitor = site.connect("home/ssh").await.unwrap();
        // Without waiting for any answer.
        send(&visitor, b"at once").await;
        let start = waits.start().await;
        let expected = Start {
            service: 5,
            form: Form::Bytes,
            visitor: Some(([192, 0, 2, 1], 1234).into()),
            local: Some(([127, 0, 0, 1], 20000).into()),
            client: None,
        };
        assert_eq!((start, recv(&waits.stream, 7).await), (expected, b"at once".to_vec()));
        assert_eq!(site.server.status().clients[0].services[0].visitors, 1);
        talk(&waits.stream, &visitor).await;
        drop(visitor);
        assert_eq!(site.server.status().clients[0].services[0].visitors, 0);
        // A reset is a reset.
        let waits = site.wait(&home).await;
        let visitor = site.connect("home/ssh").await.unwrap();
        waits.start().await;
        visitor.reset_on_close();
        drop(visitor);
        assert!(rest(&waits.stream).await.is_err());
    });
}

#[test]
fn a_connection_goes_to_a_visitor_of_another_worker() {
    on_worker(async {
        let site = Site::new(spec(vec![grant("home")]));
        let mut home = site.login("home").await;
        home.offer(vec![tcp(1, "ssh", 20000)]).await;
        let workers = wmproxy_runtime::worker::Workers::start(1).unwrap();
        let [dead, waits] = [site.wait(&home).await, site.wait(&home).await];
        // Nobody has looked at it here, so that only the kernel knows.
        drop(dead);
        let (server, scope) = (site.server.clone(), Scope::new());
        let (tell, told) = tokio::sync::oneshot::channel();
        workers.handle().run(0, move || {
            scope.spawn(async move {
                let to = Destination { host: Host::Name("home/ssh".into()), port: 0 };
                let visitor = server.connect(&to).await.unwrap();
                send(&visitor, b"from afar").await;
                finish(&visitor).await;
                tell.send(rest(&visitor).await.unwrap()).unwrap();
            });
        });
        waits.start().await;
        assert_eq!(rest(&waits.stream).await.unwrap(), b"from afar");
        send(&waits.stream, b"to afar").await;
        finish(&waits.stream).await;
        assert_eq!(within(told).await.unwrap(), b"to afar");
        workers.end();
    });
}

#[test]
fn a_dead_connection_of_the_pool_is_passed_over() {
    on_worker(async {
        let site = Site::new(spec(vec![grant("home")]));
        let mut home = site.login("home").await;
        home.offer(vec![tcp(1, "ssh", 20000)]).await;
        let alive = site.wait(&home).await;
        let [dead, noisy] = [site.wait(&home).await, site.wait(&home).await];
        drop(dead);
        send(&noisy.stream, b"what nobody asked for").await;
        // The event queue tells when it is asked.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let visitor = site.connect("home/ssh").await.unwrap();
        alive.start().await;
        talk(&visitor, &alive.stream).await;
        assert_eq!(site.server.status().counts.pool_dead, 2);
    });
}

#[test]
fn more_connections_are_asked_for_when_visitors_wait() {
    on_worker(async {
        let site = Site::new(spec(vec![grant("home")]));
        let mut home = site.login("home").await;
        home.offer(vec![tcp(1, "ssh", 20000)]).await;
        let both = async { tokio::join!(site.connect("home/ssh"), site.connect("home/ssh")) };
        let serving = async {
            let mut needed = 0;
            let mut opened = Vec::new();
            while needed < 2 {
                let Message::Need(more) = home.caller.hear().await else { panic!("something else") };
                needed += more;
                for _ in 0..more {
                    opened.push(site.join(&home.welcome, Purpose::Wait).await);
                }
            }
            for caller in &opened {
                caller.start().await;
            }
            opened
        };
        let ((one, two), opened) = tokio::join!(both, serving);
        assert!(one.is_ok() && two.is_ok());
        assert_eq!(opened.len(), 2);
    });
}

#[test]
fn a_storm_of_visitors_without_a_client_is_bounded() {
    on_worker(async {
        let wait_timeout = Duration::from_millis(100);
        let site = Site::new(ServerSpec { wait_timeout, max_waiting: 3, ..spec(vec![grant("home")]) });
        assert_eq!(site.connect("home/ssh").await.unwrap_err().fault, Fault::HostUnreachable);
        let mut home = site.login("home").await;
        home.offer(vec![tcp(1, "ssh", 20000)]).await;
        drop(home);
        until("its loss", || site.server.status().counts.losses == 1).await;
        let storm = (0..20).map(|_| site.connect("home/ssh"));
        let mut faults: Vec<_> = futures_util::future::join_all(storm)
            .await
            .into_iter()
            .map(|result| result.unwrap_err().fault)
            .collect();
        faults.sort_by_key(|fault| *fault == Fault::TimedOut);
        assert_eq!(faults[..17], [Fault::Limited; 17]);
        assert_eq!(faults[17..], [Fault::TimedOut; 3]);
        assert_eq!(site.server.status().clients[0].waiting, 0);
        // Who has given up stands in nobody's way.
        let (mut home, connecting) = (site.login("home").await, site.connect("home/ssh"));
        let coming = async {
            home.offer(vec![tcp(1, "ssh", 20000)]).await;
            let waits = site.join(&home.welcome, Purpose::Wait).await;
            waits.start().await;
            waits
        };
        let (visitor, waits) = tokio::join!(connecting, coming);
        talk(&visitor.unwrap(), &waits.stream).await;
    });
}

#[test]
fn limits_of_a_grant_and_of_a_service_are_kept() {
    on_worker(async {
        let site = Site::new(spec(vec![GrantSpec { max_connections: 2, ..grant("home") }]));
        let mut home = site.login("home").await;
        let one = Service { max_connections: 1, ..tcp(1, "one", 20000) };
        home.offer(vec![one, tcp(2, "any", 20001)]).await;
        let _pool = [site.wait(&home).await, site.wait(&home).await, site.wait(&home).await];
        let first = site.connect("home/one").await.unwrap();
        assert_eq!(site.connect("home/one").await.unwrap_err().fault, Fault::Limited);
        let second = site.connect("home/any").await.unwrap();
        assert_eq!(site.connect("home/any").await.unwrap_err().fault, Fault::Limited);
        drop(first);
        assert!(site.connect("home/one").await.is_ok());
        drop(second);
        assert_eq!(site.server.status().counts.streams_refused, 2);
    });
}

#[test]
fn rates_of_a_grant_and_of_a_service_are_kept() {
    on_worker(async {
        let rate = ByteRate::new(std::num::NonZeroU64::new(100_000).unwrap());
        let site = Site::new(spec(vec![GrantSpec { rate_limit: Some(rate), ..grant("home") }]));
        let mut home = site.login("home").await;
        let slow = Service { rate_down: 50_000, ..tcp(2, "slow", 20001) };
        home.offer(vec![tcp(1, "ssh", 20000), slow]).await;
        for (service, up, down) in
            [("home/ssh", 20_000, 0), ("home/ssh", 0, 20_000), ("home/slow", 0, 10_000)]
        {
            let waits = site.wait(&home).await;
            let visitor = site.connect(service).await.unwrap();
            waits.start().await;
            let begun = std::time::Instant::now();
            let (from, to, len) =
                if up > 0 { (&visitor, &waits.stream, up) } else { (&waits.stream, &visitor, down) };
            let data = vec![7; len];
            let (received, ()) = tokio::join!(recv(to, len), send(from, &data));
            assert_eq!(received, data);
            // 200 ms at the rate, less what may pass at once.
            let took = begun.elapsed();
            assert!(took > Duration::from_millis(100), "{service}: {took:?}");
        }
    });
}

#[test]
fn many_visitors_share_a_connection() {
    on_worker(async {
        let site = Site::new(spec(vec![grant("home")]));
        let mut home = site.login("home").await;
        home.offer(vec![tcp(1, "ssh", 20000)]).await;
        let joined = site.join(&home.welcome, Purpose::Many).await;
        let (many, mut incoming) = mux::start(joined.stream, Side::Client, &site.scope);
        let mut open = Vec::new();
        for _ in 0..20 {
            let visitor = site.connect("home/ssh").await.unwrap();
            let stream = within(incoming.next()).await.unwrap().place();
            assert!(
                matches!(read_message(&stream, MAX).await.unwrap(), Message::Start(start) if start.service == 1)
            );
            open.push((visitor, stream));
        }
        for (visitor, stream) in &open {
            talk(visitor, stream).await;
        }
        assert!(site.server.status().clients[0].session.as_ref().unwrap().is_shared);
        // When it is gone others wait for the next.
        many.close();
        until("its end", || !site.server.status().clients[0].session.as_ref().unwrap().is_shared).await;
        let (visitor, waits) =
            tokio::join!(site.connect("home/ssh"), site.join(&home.welcome, Purpose::Wait));
        waits.start().await;
        talk(&visitor.unwrap(), &waits.stream).await;
    });
}

#[test]
fn a_session_over_quic_carries_visitors_and_visits() {
    on_worker(async {
        let site = Site::new(spec(vec![grant("home")]));
        let dir = TempDir::new();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let tls = acceptor(&dir).quic_config();
        let listener = quic::Listener::start(socket, tls, None, site.server.pending(), &site.scope).unwrap();
        let listener = Arc::new(listener);
        let _serving =
            site.scope.spawn_leashed(site.server.clone().serve_quic(listener.clone(), site.scope.clone()));
        let dial = || quic::connect(address, "localhost", site.connector.quic_config(), &site.scope);
        let greet = async |connection: &quinn::Connection| {
            let stream = quic::first_stream(connection).await.unwrap();
            let exporter = quic::export_keying_material(connection, EXPORTER_LABEL, b"").unwrap();
            Caller { stream, exporter }
        };
        let wrong = dial().await.unwrap();
        let caller = greet(&wrong).await;
        let refused = caller.login("home", &key_of("nobody")).await.unwrap_err();
        assert_eq!(refused.code, RefusalCode::Unauthenticated);
        wrong.close(0u32.into(), b"");
        let connection = dial().await.unwrap();
        let caller = greet(&connection).await;
        let welcome = caller.login("home", &key_of("home")).await.unwrap();
        let mut home = Login { caller, welcome, epoch: 0 };
        let db = Service { is_private: true, ..tcp(2, "db", 0) };
        home.offer(vec![tcp(1, "ssh", 20000), db, Service { kind: Kind::Udp, ..tcp(3, "dns", 20000) }]).await;
        let (many, mut incoming) = quic::many(connection);
        let visitor = site.connect("home/ssh").await.unwrap();
        let stream = within(incoming.next()).await.unwrap().place();
        assert!(
            matches!(read_message(&stream, MAX).await.unwrap(), Message::Start(start) if start.service == 1)
        );
        talk(&visitor, &stream).await;
        assert_eq!(site.server.status().clients[0].session.as_ref().unwrap().transport, "quic");
        // A stream that the client opens is a visit.
        let visiting = many.open().await.unwrap();
        let visit = Visit { service: "home/db".into(), form: Form::Bytes, visitor: None };
        write_message(&visiting, &Message::Visit(visit)).await.unwrap();
        let stream = within(incoming.next()).await.unwrap().place();
        let Message::Start(start) = read_message(&stream, MAX).await.unwrap() else { panic!("no start") };
        assert_eq!((start.service, start.client.as_deref()), (2, Some("home")));
        talk(&visiting, &stream).await;
        let way = site.server.datagram_way(vec!["home/dns".into()]);
        let carried = within(way.carry()).await.unwrap();
        assert!(matches!(carried.carry, Carry::Quic(_)));
        many.close();
        until("its loss", || site.server.status().counts.losses == 1).await;
        listener.close();
    });
}

#[test]
fn a_server_that_drains_lets_visits_on_a_shared_connection_run_on() {
    on_worker(async {
        let site = Site::new(spec(vec![grant("home"), grant("laptop"), grant("idle")]));
        let mut home = site.login("home").await;
        home.offer(vec![Service { is_private: true, ..tcp(2, "db", 0) }]).await;
        let waits = site.wait(&home).await;
        let (laptop, idle) = (site.login("laptop").await, site.login("idle").await);
        let shared = site.join(&laptop.welcome, Purpose::Many).await;
        let (many, _incoming) = mux::start(shared.stream, Side::Client, &site.scope);
        let visiting = many.open().await.unwrap();
        let visit = Visit { service: "home/db".into(), form: Form::Bytes, visitor: None };
        write_message(&visiting, &Message::Visit(visit)).await.unwrap();
        waits.start().await;
        site.server.drain();
        for login in [&laptop, &idle] {
            assert_eq!(login.caller.hear().await, Message::Leaving);
        }
        // A session without any streams ends at its next look, and the others had theirs in the same time.
        idle.caller.ended().await;
        let client = |name: &str| {
            site.server.status().clients.iter().any(|client| client.name == name && client.session.is_some())
        };
        until("the end of the idle one", || !client("idle")).await;
        assert!(client("laptop"));
        talk(&visiting, &waits.stream).await;
        drop(visiting);
        laptop.caller.ended().await;
    });
}

#[test]
fn datagrams_get_a_stream_of_a_member_that_is_there() {
    on_worker(async {
        let site = Site::new(spec(vec![grant("home"), grant("office")]));
        let udp = || vec![Service { kind: Kind::Udp, ..tcp(4, "dns", 0) }];
        let (mut home, mut office) = (site.login("home").await, site.login("office").await);
        home.offer(udp()).await;
        office.offer(udp()).await;
        let way = site.server.datagram_way(vec!["home/dns".into(), "office/dns".into(), "gone/dns".into()]);
        let pool = [site.wait(&home).await, site.wait(&office).await];
        let mut carried = Vec::new();
        for _ in 0..2 {
            let Carry::Stream(stream) = way.carry().await.unwrap().carry else { panic!("no stream") };
            carried.push(stream);
        }
        for waits in &pool {
            let start = waits.start().await;
            assert_eq!((start.service, start.form), (4, Form::Datagrams));
        }
        drop(home);
        until("its loss", || site.server.status().counts.losses == 1).await;
        for _ in 0..3 {
            let waits = site.wait(&office).await;
            assert!(way.carry().await.is_ok());
            waits.start().await;
        }
        assert!(site.server.datagram_way(vec!["gone/dns".into()]).carry().await.is_err());
    });
}

#[test]
fn a_private_service_is_joined_to_its_visitor() {
    on_worker(async {
        let site = Site::new(spec(vec![
            grant("home"),
            grant("friend"),
            grant("other"),
            GrantSpec { private: false, ..grant("stranger") },
        ]));
        let mut home = site.login("home").await;
        // The stranger is let in by the owner, and not by the server's grant.
        let clients = vec!["friend".into(), "stranger".into()];
        let db = Service { is_private: true, clients, ..tcp(1, "db", 0) };
        home.offer(vec![db, tcp(2, "ssh", 20000)]).await;
        assert_eq!(site.ports.open(), ["tcp:home/ssh"], "what is private is nowhere");
        let visit = async |login: &Login, service: &str, form: Form| {
            let caller = site.join(&login.welcome, Purpose::Visit).await;
            let visitor = Some(([198, 51, 100, 1], 5).into());
            caller.say(Message::Visit(Visit { service: service.into(), form, visitor })).await;
            caller
        };
        let friend = site.login("friend").await;
        let waits = site.wait(&home).await;
        let visiting = visit(&friend, "home/db", Form::Bytes).await;
        let start = waits.start().await;
        assert_eq!((start.service, start.client.as_deref()), (1, Some("friend")));
        assert_eq!(start.visitor, Some(([198, 51, 100, 1], 5).into()));
        // Both prove to each other what the server does not know; to it they are bytes.
        waits.say(Message::Dare([3; 32])).await;
        assert_eq!(visiting.hear().await, Message::Dare([3; 32]));
        talk(&visiting.stream, &waits.stream).await;
        // Whatever the reason, the answer is the same.
        let (other, stranger) = (site.login("other").await, site.login("stranger").await);
        let mut told = Vec::new();
        for (login, service, form) in [
            (&other, "home/db", Form::Bytes),
            (&stranger, "home/db", Form::Bytes),
            (&friend, "home/none", Form::Bytes),
            (&friend, "none/db", Form::Bytes),
            (&friend, "home/ssh", Form::Bytes),
            (&friend, "home/db", Form::Datagrams),
        ] {
            told.push(visit(login, service, form).await.refusal().await);
        }
        assert_eq!(told[0].code, RefusalCode::NoService);
        assert!(told.iter().all(|refusal| *refusal == told[0]));
        let counts = site.server.status().counts;
        assert_eq!((counts.visits, counts.visits_refused), (1, 6));
    });
}
