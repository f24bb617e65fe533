//! Client and server together.

use wmproxy_net::connect::Fault;
use wmproxy_testkit::Backend;
use wmproxy_testkit::tcp::free_port;

use super::site::{Site, visit};
use super::*;

/// Every way in which streams are carried.
pub(super) fn carried(addr: SocketAddr) -> [ClientSpec; 3] {
    let tcp = spec(&[addr]);
    let mux = ClientSpec { mux: true, ..tcp.clone() };
    let quic = ClientSpec { transport: TransportKind::Quic, ..tcp.clone() };
    [tcp, mux, quic]
}

pub(super) fn home(spec: ClientSpec, offers: Vec<Offer>) -> Near {
    let near = Near::new(spec);
    near.client.configure(offers);
    near
}

pub(super) async fn placed(near: &Near) {
    near.until("its places", |session| !session.services.is_empty()).await;
}

pub(super) fn at_port(mut offer: Offer, port: u16) -> Offer {
    offer.spec.service.port = port;
    offer
}

#[tokio::test]
async fn visitors_reach_services_however_they_are_carried() {
    let echo = Backend::echo();
    for spec in carried(([127, 0, 0, 1], 0).into()) {
        let site = Site::start();
        let spec = ClientSpec { servers: super::spec(&[site.addr]).servers, ..spec };
        let how = format!("{:?} {}", spec.transport, spec.mux);
        let near = home(spec, vec![at_port(offer("ssh", echo.addr().inet()), 20022)]);
        placed(&near).await;
        assert_eq!(near.client.status().sessions[0].services[0].refusal, None, "{how}");
        // The first may come before any connection waits.
        for round in 0..20 {
            let question = vec![b'x'; 1 + 40_000 * round % 100_000];
            let answer = site.ask("home/ssh", &question).await;
            assert!(answer.is_ok_and(|answer| answer == question), "{how}, round {round}");
        }
        near.until("the last end", |_| near.client.status().services[0].visitors == 0).await;
    }
}

#[tokio::test]
async fn a_storm_of_visitors_is_served_however_small_the_pool() {
    let echo = Backend::echo();
    for spec in carried(([127, 0, 0, 1], 0).into()) {
        let site = Site::start();
        let spec = ClientSpec { servers: super::spec(&[site.addr]).servers, ..spec };
        let near = home(spec, vec![at_port(offer("ssh", echo.addr().inet()), 20022)]);
        placed(&near).await;
        let all = (0..200).map(|_| site.ask("home/ssh", b"hello"));
        for answer in futures_util::future::join_all(all).await {
            assert_eq!(answer.unwrap(), b"hello");
        }
        near.until("all ends", |_| near.client.status().services[0].visitors == 0).await;
        assert_eq!(near.client.status().services[0].visitors_total, 200);
        near.until("a small pool", |session| session.pool <= 64).await;
    }
}

#[tokio::test]
async fn a_reset_at_the_far_end_is_one_here() {
    let resets = Backend::resets();
    for spec in carried(([127, 0, 0, 1], 0).into()) {
        let site = Site::start();
        let spec = ClientSpec { servers: super::spec(&[site.addr]).servers, ..spec };
        let near = home(spec, vec![at_port(offer("ssh", resets.addr().inet()), 20022)]);
        placed(&near).await;
        assert!(site.ask("home/ssh", b"").await.is_err());
    }
}

#[tokio::test]
async fn a_client_that_came_first_has_its_session_soon_after_the_server_is_there() {
    let echo = Backend::echo();
    let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let near = home(
        ClientSpec { max_backoff: Duration::from_secs(3600), ..spec(&[addr]) },
        vec![at_port(offer("ssh", echo.addr().inet()), 20022)],
    );
    near.until_state(SessionState::Waiting).await;
    let site = Site::start_at(addr);
    let began = std::time::Instant::now();
    placed(&near).await;
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert_eq!(site.ask("home/ssh", b"hello").await.unwrap(), b"hello");
}

#[tokio::test]
async fn either_end_may_be_killed_and_comes_back() {
    let echo = Backend::echo();
    for spec in carried(([127, 0, 0, 1], 0).into()) {
        let mut site = Site::start();
        let addr = site.addr;
        let servers = super::spec(&[addr]).servers;
        let spec = ClientSpec { servers, heartbeat: Duration::from_millis(200), ..spec };
        let how = format!("{:?} {}", spec.transport, spec.mux);
        let offers = || vec![at_port(offer("ssh", echo.addr().inet()), 20022)];
        let mut near = home(spec.clone(), offers());
        for round in 0..4 {
            placed(&near).await;
            let answer = site.ask("home/ssh", b"hello").await;
            assert_eq!(answer.unwrap(), b"hello", "{how}, round {round}");
            // A socket of QUIC lives on with what its sessions still hold, as it would not if the process were gone.
            if round % 2 == 0 && spec.transport == TransportKind::Tcp {
                drop(site);
                near.until("the loss", |session| session.services.is_empty()).await;
                site = Site::start_at(addr);
            } else {
                drop(near);
                // The server may not know yet that the old session is dead: the new one takes it over.
                near = home(spec.clone(), offers());
            }
        }
    }
}

#[tokio::test]
async fn a_session_is_had_with_each_server() {
    let echo = Backend::echo();
    let sites = [Site::start(), Site::start()];
    let near = home(
        spec(&sites.each_ref().map(|site| site.addr)),
        vec![at_port(offer("ssh", echo.addr().inet()), 20022)],
    );
    for site in &sites {
        site.until("its services", |status| status.clients.iter().any(|client| !client.services.is_empty()))
            .await;
        assert_eq!(site.ask("home/ssh", b"hello").await.unwrap(), b"hello");
    }
    let [one, other] = sites;
    drop(one);
    assert_eq!(other.ask("home/ssh", b"hello").await.unwrap(), b"hello");
    assert_eq!(near.client.status().services[0].visitors_total, 3);
}

#[tokio::test]
async fn a_reload_changes_what_is_offered_and_nothing_else() {
    let echo = Backend::echo();
    let site = Site::start();
    let near = home(spec(&[site.addr]), vec![at_port(offer("ssh", echo.addr().inet()), 20022)]);
    placed(&near).await;
    let stays = site.run(async |server| {
        let stream = visit(&server, "home/ssh").await.unwrap();
        send(&stream, b"I am ").await;
        // It is served, and not on its way.
        assert_eq!(recv(&stream, 5).await, b"I am ");
        Parked(stream)
    });
    let stays = stays.await;
    near.client.configure(vec![at_port(offer("web", echo.addr().inet()), 20080)]);
    near.until("its places", |session| session.services.iter().any(|service| service.name == "web")).await;
    assert_eq!(site.ask("home/web", b"hello").await.unwrap(), b"hello");
    let refused = site.run(async |server| visit(&server, "home/ssh").await.map(drop)).await;
    assert_eq!(refused.unwrap_err().fault, Fault::HostUnreachable);
    let answer = site.run(async move |_| {
        send(&stays.0, b"still here").await;
        finish(&stays.0).await;
        recv_all(&stays.0).await.unwrap()
    });
    assert_eq!(answer.await, b"still here");
}

/// A stream that lies between two closures of its worker.
struct Parked(Stream);

#[tokio::test]
async fn private_services_are_reached_with_their_secret_only() {
    let echo = Backend::echo();
    for spec in carried(([127, 0, 0, 1], 0).into()) {
        let site = Site::start();
        let spec = ClientSpec { servers: super::spec(&[site.addr]).servers, ..spec };
        let how = format!("{:?} {}", spec.transport, spec.mux);
        let owner = home(spec.clone(), vec![private("db", echo.addr().inet(), "between us")]);
        placed(&owner).await;
        let visitor = Near::new(ClientSpec { name: "office".into(), ..spec });
        let nowhere = Destination::from(SocketAddr::from(([0, 0, 0, 0], 1)));
        let come = async |service: &str, known: &str| {
            let visit = VisitSpec { service: service.into(), secret: secret(known) };
            let visits = visitor.client.visit(visit);
            within("a visit", visits.connect_alone(&nowhere)).await
        };
        let stream = come("home/db", "between us").await.unwrap();
        send(&stream, b"select").await;
        finish(&stream).await;
        assert_eq!(within("an answer", recv_all(&stream)).await.unwrap(), b"select", "{how}");
        let wrong = come("home/db", "a guess").await.unwrap_err();
        assert_eq!(wrong.fault, Fault::Unauthorized, "{how}: {wrong}");
        let none = come("home/other", "between us").await.unwrap_err();
        assert_eq!(none.fault, Fault::HostUnreachable, "{how}: {none}");
        assert_eq!(echo.active(), 0);
    }
}

#[tokio::test]
async fn a_visit_goes_through_the_server_where_the_owner_is() {
    let echo = Backend::echo();
    let sites = [Site::start(), Site::start()];
    let owner = home(spec(&[sites[1].addr]), vec![private("db", echo.addr().inet(), "between us")]);
    placed(&owner).await;
    let both = spec(&sites.each_ref().map(|site| site.addr));
    let visitor = Near::new(ClientSpec { name: "office".into(), ..both });
    let visits = visitor.client.visit(VisitSpec { service: "home/db".into(), secret: secret("between us") });
    let is_open = |session: &SessionStatus| session.state == SessionState::Open;
    visitor.until("both sessions", |_| visitor.client.status().sessions.iter().all(is_open)).await;
    let stream =
        within("a visit", visits.connect_alone(&Destination::from(SocketAddr::from(([0, 0, 0, 0], 1)))))
            .await;
    let stream = stream.unwrap();
    send(&stream, b"select").await;
    assert_eq!(within("an answer", recv(&stream, 6)).await, b"select");
}

#[tokio::test]
async fn a_second_client_of_a_name_takes_the_session_over() {
    let echo = Backend::echo();
    let site = Site::start();
    let offers = || vec![at_port(offer("ssh", echo.addr().inet()), 20022)];
    let calm = ClientSpec { max_backoff: Duration::from_secs(3600), ..spec(&[site.addr]) };
    let one = home(calm.clone(), offers());
    placed(&one).await;
    let two = home(calm, offers());
    placed(&two).await;
    one.until_state(SessionState::Waiting).await;
    let session = &one.client.status().sessions[0];
    assert!(session.error.as_ref().is_some_and(|error| error.contains("taken over")), "{session:?}");
    // They do not end each other's sessions by turns.
    assert!(session.retry_ms > Some(1_000_000), "{session:?}");
    assert_eq!(site.ask("home/ssh", b"hello").await.unwrap(), b"hello");
}

#[tokio::test]
async fn who_leaves_is_missed_by_nobody() {
    let echo = Backend::echo();
    for spec in carried(([127, 0, 0, 1], 0).into()) {
        let site = Site::start();
        let spec = ClientSpec { servers: super::spec(&[site.addr]).servers, ..spec };
        let near = home(spec, vec![at_port(offer("ssh", echo.addr().inet()), 20022)]);
        placed(&near).await;
        let stays = site.run(async |server| Parked(visit(&server, "home/ssh").await.unwrap())).await;
        near.client.leave();
        near.until_state(SessionState::Leaving).await;
        let answer = site.run(async move |_| {
            send(&stays.0, b"still here").await;
            finish(&stays.0).await;
            recv_all(&stays.0).await.unwrap()
        });
        assert_eq!(answer.await, b"still here");
        near.until_state(SessionState::Ended).await;
        within("the last task", near.scope.empty()).await;
    }
}
