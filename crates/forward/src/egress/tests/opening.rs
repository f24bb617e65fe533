use std::net::TcpListener;

use wmproxy_testkit::NameServer;

use super::*;

/// Runs a test beside a name server and lookups.
pub(super) fn with_names<F: Future<Output = ()>>(test: impl FnOnce(Arc<NameServer>, Arc<Finder>) -> F) {
    let names = Arc::new(NameServer::start());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (finder, lookups) = Finder::new(Arc::new(Resolver::new(&[names.address()])));
        tokio::select! {
            () = lookups => unreachable!("the finder is still there"),
            () = test(Arc::clone(&names), finder) => {}
        }
    });
}

pub(super) async fn open(egress: &Egress, text: &str) -> Result<Opened, ConnectError> {
    let (to, guest) = (to(text), somebody());
    let visit = Visit { to: &to, kind: Kind::Connect, guest: &guest, client: None };
    let way = egress.way(&visit)?;
    egress.open(visit, &way, &PeerSocket::default(), Duration::from_secs(10)).await
}

async fn resolved(egress: &Egress, text: &str) -> Result<Vec<String>, String> {
    let (to, guest) = (to(text), somebody());
    let found = egress.resolve(&Visit { to: &to, kind: Kind::Udp, guest: &guest, client: None }).await;
    found.map(|found| found.iter().map(SocketAddr::to_string).collect()).map_err(|error| error.to_string())
}

#[test]
fn every_address_of_a_name_is_judged() {
    with_names(|names, finder| async move {
        let egress = |allow: &[&str], deny: &[&str]| {
            Egress::new(&spec(allow, deny), &Chains::new(), Arc::clone(&finder), Arc::default()).unwrap()
        };
        names.set("public.test", &["1.1.1.1", "2606:4700::1111"], 60);
        names.set("mixed.test", &["1.1.1.1", "10.0.0.1"], 60);
        names.set("families.test", &["1.1.1.1", "::1"], 60);
        names.set("mapped.test", &["::ffff:127.0.0.1"], 60);
        names.set("metadata.test", &["169.254.169.254"], 60);
        names.set("lan.test", &["192.168.1.1"], 60);
        let open = egress(&[], &[]);
        assert_eq!(resolved(&open, "public.test:80").await.unwrap(), ["[2606:4700::1111]:80", "1.1.1.1:80"]);
        for name in ["mixed", "families", "mapped", "metadata", "lan"] {
            let error = resolved(&open, &format!("{name}.test:80")).await.unwrap_err();
            // Nothing of what names have inside gets out.
            assert_eq!(
                error,
                format!("{name}.test:80 leads to an address that [egress.office] does not allow")
            );
        }
        assert!(resolved(&open, "localhost:80").await.is_err());
        assert!(resolved(&open, "none.test:80").await.unwrap_err().contains("no addresses"));

        // A rule about a name opens the private network behind it, and nothing else.
        let named = egress(&["*.test"], &[]);
        assert_eq!(resolved(&named, "lan.test:80").await.unwrap(), ["192.168.1.1:80"]);
        assert!(resolved(&named, "mixed.test:80").await.is_ok());
        for name in ["families", "mapped", "metadata"] {
            assert!(resolved(&named, &format!("{name}.test:80")).await.is_err(), "{name}");
        }
        // A rule about addresses decides for names, too.
        let networks = egress(&["192.168.0.0/16", "1.1.1.1:443"], &[]);
        assert!(resolved(&networks, "lan.test:80").await.is_ok());
        assert!(resolved(&networks, "public.test:443").await.is_err(), "its other address is not named");
        assert!(resolved(&networks, "mixed.test:443").await.is_err());
        let denied = egress(&[], &["1.1.1.0/24"]);
        assert!(resolved(&denied, "public.test:80").await.is_err());
    });
}

#[test]
fn what_was_judged_is_connected_to() {
    with_names(|names, finder| async move {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let egress = Egress::new(&spec(&["127.0.0.1"], &[]), &Chains::new(), finder, Arc::default()).unwrap();
        // A name that says something else each time it is asked.
        names.set("rebind.test", &["127.0.0.1"], 60);
        let opened = open(&egress, &format!("Rebind.TEST.:{port}")).await.unwrap();
        assert_eq!(opened.address, Some(listener.local_addr().unwrap()));
        names.set("rebind.test", &["127.0.0.2"], 60);
        assert_eq!(names.asked("rebind.test"), 2, "for A and for AAAA, once each");
        let opened = open(&egress, &format!("127.1:{port}")).await.unwrap();
        assert_eq!(opened.address, Some(listener.local_addr().unwrap()));

        names.set("other.test", &["127.0.0.2"], 60);
        let error = open(&egress, &format!("other.test:{port}")).await.unwrap_err();
        assert_eq!(error.fault, Fault::Denied);
        drop(listener);
        let error = open(&egress, &format!("127.0.0.1:{port}")).await.unwrap_err();
        assert_eq!(error.fault, Fault::Refused);
    });
}

#[test]
fn our_own_listeners_are_nowhere_to_go() {
    with_names(|names, finder| async move {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let there = listener.local_addr().unwrap();
        let own = Arc::new(OwnListeners::new());
        own.replace([(Protocol::Tcp, there)]);
        names.set("self.test", &["127.0.0.1"], 60);
        let egress = |spec: EgressSpec| {
            Egress::new(&spec, &Chains::new(), Arc::clone(&finder), Arc::clone(&own)).unwrap()
        };
        let all = egress(EgressSpec { private: PrivateNets::Allow, ..spec(&[], &[]) });
        let error = open(&all, &there.to_string()).await.unwrap_err();
        let says = format!(
            "{there} is where this proxy itself listens; [egress.office] allow = [\"*\", \"{there}\"] opens it"
        );
        assert_eq!((error.fault, error.to_string()), (Fault::Denied, says));
        for text in ["0.0.0.0", "[::ffff:127.0.0.1]", "0x7f000001", "self.test", "localhost"] {
            let error = open(&all, &format!("{text}:{}", there.port())).await.unwrap_err();
            assert_eq!(error.fault, Fault::Denied, "{text}");
        }
        // Other kinds of listeners are others, and whoever names it means it.
        let (to, guest) = (Destination::from(there), somebody());
        let visit = Visit { to: &to, kind: Kind::Udp, guest: &guest, client: None };
        assert!(all.permits(there, &visit).is_ok());
        assert!(all.permits(there, &Visit { kind: Kind::Connect, ..visit }).is_err());
        let near = egress(spec(&["127.0.0.1"], &[]));
        assert!(open(&near, &there.to_string()).await.is_err());
        let named = egress(spec(&[&there.to_string()], &[]));
        assert_eq!(open(&named, &there.to_string()).await.unwrap().address, Some(there));
        assert_eq!(open(&named, &format!("self.test:{}", there.port())).await.unwrap().address, Some(there));
        // As soon as it listens no more, it may be gone to.
        own.replace([]);
        assert!(open(&all, &there.to_string()).await.is_ok());
    });
}

#[test]
fn what_takes_too_long_ends() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        // Nobody does the lookups.
        let (finder, _lookups) = Finder::new(Arc::new(Resolver::new(&["127.0.0.1:1".parse().unwrap()])));
        let egress = Egress::new(&spec(&[], &[]), &Chains::new(), finder, Arc::default()).unwrap();
        let (to, guest) = (to("slow.test:80"), somebody());
        let visit = Visit { to: &to, kind: Kind::Connect, guest: &guest, client: None };
        let way = egress.way(&visit).unwrap();
        let opened = egress.open(visit, &way, &PeerSocket::default(), Duration::from_millis(5)).await;
        assert_eq!(opened.unwrap_err().fault, Fault::TimedOut);
    });
}
