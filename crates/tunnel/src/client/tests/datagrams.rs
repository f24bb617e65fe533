//! Datagrams of visitors, through the real server.

use wmproxy_net::udp::UdpSocket;
use wmproxy_testkit::{UdpBackend, UdpClient};

use super::real::{at_port, carried, home, placed};
use super::site::{Site, lead};
use super::*;

/// Sockets towards a backend, of flows that may be silent for so long.
struct To(SocketAddr, Duration);

impl DatagramEnd for To {
    fn open(&self, _: Option<SocketAddr>) -> io::Result<UdpSocket> {
        UdpSocket::connect(self.0, &PeerSocket::default(), None)
    }

    fn header(&self, _: Option<SocketAddr>, _: Option<SocketAddr>) -> Option<Vec<u8>> {
        None
    }

    fn idle_timeout(&self) -> Duration {
        self.1
    }

    fn max_flows(&self) -> u32 {
        100
    }
}

fn datagrams(offer: Offer, backend: SocketAddr) -> Offer {
    datagrams_for(offer, backend, PATIENCE)
}

fn datagrams_for(offer: Offer, backend: SocketAddr, idle: Duration) -> Offer {
    let mut offer = Offer { end: End::Datagrams { end: Arc::new(To(backend, idle)), log: None }, ..offer };
    offer.spec.service.kind = Kind::Udp;
    offer
}

/// Has visitors of a listener say things of many sizes, and hear them again.
async fn talk(listener: SocketAddr, visitors: usize) -> Vec<UdpClient> {
    tokio::task::spawn_blocking(move || {
        let clients: Vec<_> = (0..visitors).map(|_| UdpClient::connect(listener)).collect();
        for (at, client) in clients.iter().enumerate() {
            for size in [1, 500, 1400, 9_000, 60_000] {
                client.echo(&vec![at as u8; size]);
            }
        }
        clients
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn datagrams_of_every_size_pass_however_they_are_carried_and_flows_outlive_a_reload() {
    let echo = UdpBackend::echo();
    for spec in carried(([127, 0, 0, 1], 0).into()) {
        let site = Site::start();
        let spec = ClientSpec { servers: super::spec(&[site.addr]).servers, ..spec };
        let dns = || at_port(datagrams(offer("dns", echo.addr()), echo.addr()), 20053);
        let near = home(spec, vec![dns()]);
        placed(&near).await;
        let listener = site.datagrams("home/dns").await;
        let clients = talk(listener, 3).await;
        assert_eq!(near.client.status().services[0].visitors, 3);
        // The same service, as a reload makes it anew, with another beside it.
        let counted = near.client.offers.load().list[0].offer.metrics.clone();
        near.client.configure(vec![
            Offer { metrics: counted, ..dns() },
            at_port(datagrams(offer("other", echo.addr()), echo.addr()), 20054),
        ]);
        near.until("both places", |session| session.services.len() == 2).await;
        tokio::task::spawn_blocking(move || clients.iter().for_each(|client| client.echo(b"still here")))
            .await
            .unwrap();
        assert_eq!(near.client.status().services[0].visitors_total, 3, "flows began anew");
    }
}

#[tokio::test]
async fn new_flows_live_by_what_a_reload_says_and_old_ones_as_before() {
    let echo = UdpBackend::echo();
    for spec in carried(([127, 0, 0, 1], 0).into()) {
        let site = Site::start();
        let spec = ClientSpec { servers: super::spec(&[site.addr]).servers, ..spec };
        let dns = |idle| at_port(datagrams_for(offer("dns", echo.addr()), echo.addr(), idle), 20053);
        let near = home(spec, vec![dns(PATIENCE)]);
        placed(&near).await;
        let listener = site.datagrams("home/dns").await;
        let _old = talk(listener, 1).await;
        let metrics = near.client.offers.load().list[0].offer.metrics.clone();
        near.client.configure(vec![Offer { metrics: metrics.clone(), ..dns(Duration::from_millis(20)) }]);
        let _new = talk(listener, 2).await;
        within("the end of both new flows", async {
            while metrics.active() > 1 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        assert_eq!(metrics.active(), 1);
    }
}

#[tokio::test]
async fn datagrams_reach_a_private_service_with_its_secret() {
    let echo = UdpBackend::echo();
    for spec in carried(([127, 0, 0, 1], 0).into()) {
        let site = Site::start();
        let spec = ClientSpec { servers: super::spec(&[site.addr]).servers, ..spec };
        let hidden = datagrams(private("dns", echo.addr(), "between us"), echo.addr());
        let owner = home(spec.clone(), vec![hidden]);
        placed(&owner).await;
        let visitor = Near::new(ClientSpec { name: "office".into(), ..spec });
        let visit = VisitSpec { service: "home/dns".into(), secret: secret("between us") };
        let way = visitor.client.visit_datagrams(visit);
        let listener = site.run(async move |_| lead(way)).await;
        talk(listener, 2).await;
        assert_eq!(owner.client.status().services[0].visitors_total, 2);
    }
}

#[tokio::test]
async fn a_server_leads_nobody_to_a_private_service_without_its_secret() {
    let echo = UdpBackend::echo();
    let site = Site::start();
    let spec = ClientSpec { transport: TransportKind::Quic, ..spec(&[site.addr]) };
    let owner = home(spec, vec![datagrams(private("dns", echo.addr(), "between us"), echo.addr())]);
    placed(&owner).await;
    // As if it were public.
    let listener = site.datagrams("home/dns").await;
    let client = UdpClient::connect(listener);
    client.send(b"let me in");
    let session = owner.client.links[0].session.borrow().clone().unwrap();
    let came = session.datagrams.get().unwrap();
    within("a datagram for nobody", async {
        while came.strays() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    assert_eq!(owner.client.status().services[0].visitors_total, 0);
}
