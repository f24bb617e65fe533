use std::net::TcpListener;
use std::net::{Ipv4Addr, SocketAddr};

use wmproxy_net::addr::TargetSpec;
use wmproxy_net::connect::{Connect, Connecting, ConnectingAlone};

use super::*;
use crate::{GroupSpec, Registry};

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// A port that refuses: bound, so that nobody else gets it, but not listened on.
fn refusing() -> (socket2::Socket, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, addr)
}

/// An address whose accept queue is full, so that connecting to it hangs.
fn hanging() -> (socket2::Socket, Vec<socket2::Socket>, SocketAddr) {
    let (socket, addr) = refusing();
    socket.listen(0).unwrap();
    let mut queued = vec![];
    for _ in 0..4 {
        let client = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        client.set_nonblocking(true).unwrap();
        let _ = client.connect(&addr.into());
        queued.push(client);
    }
    (socket, queued, addr)
}

fn group(addresses: &[SocketAddr], change: impl FnOnce(&mut GroupSpec)) -> Arc<Group> {
    let targets = addresses.iter().map(|addr| addr.to_string().parse().unwrap()).collect();
    let mut spec = GroupSpec::inline("g", targets);
    change(&mut spec);
    Registry::new().build(spec)
}

async fn dial_it(group: &Group) -> Result<Dialed, DialError> {
    dial(group, &LeaseKey::default(), &PeerSocket::default()).await
}

#[tokio::test]
async fn a_peer_that_listens_is_connected_to() {
    let (_listener, addr) = listener();
    let group = group(&[addr], |_| {});
    let dialed = dial_it(&group).await.unwrap();
    assert_eq!(dialed.lease.address(), &addr.into());
    assert_eq!((dialed.lease.in_flight(), dialed.lease.leases()), (1, 1));
    assert!(dialed.lease.connect_time().is_some());
    let peer = Arc::clone(dialed.lease.peer());
    drop(dialed);
    assert_eq!(peer.in_flight(), 0);
}

#[tokio::test]
async fn the_next_peer_is_tried_and_the_failed_one_ejected() {
    let ((_socket, dead), (_listener, alive)) = (refusing(), listener());
    let group = group(&[dead, alive], |_| {});
    for _ in 0..4 {
        assert_eq!(dial_it(&group).await.unwrap().lease.address(), &alive.into());
    }
    let peers = group.peers();
    assert_eq!(peers[0].failures(FailKind::Refused), 1, "ejected after the first");
    assert_eq!((peers[0].ejections(), peers[1].ejections()), (1, 0));
}

#[tokio::test]
async fn retries_end_and_the_last_failure_is_told() {
    let (sockets, addresses): (Vec<_>, Vec<_>) = (0..3).map(|_| refusing()).unzip();
    for (retries, tried) in [(0, 1), (1, 2), (9, 3)] {
        let group = group(&addresses, |spec| spec.retries = retries);
        let error = dial_it(&group).await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::ConnectFailed);
        assert_eq!(error.peer().unwrap().address(), &addresses[tried - 1].into());
        let failed = group.peers().iter().map(|p| p.failures(FailKind::Refused)).sum::<u64>();
        assert_eq!(failed, tried as u64);
        assert!(error.to_string().starts_with("can't connect to 127.0.0.1:"), "{error}");
    }
    drop(sockets);
}

#[tokio::test]
async fn a_peer_that_comes_back_is_found_at_once_when_it_is_the_only_one() {
    let (socket, addr) = refusing();
    let group = group(&[addr], |_| {});
    assert_eq!(dial_it(&group).await.unwrap_err().outcome(), Outcome::ConnectFailed);
    assert_eq!(group.snapshot(clock::now().0).peers[0].state, crate::status::PeerState::Ejected);
    socket.listen(1).unwrap();
    dial_it(&group).await.unwrap();
    assert_eq!(group.snapshot(clock::now().0).peers[0].state, crate::status::PeerState::Up);
}

#[tokio::test]
async fn a_peer_that_does_not_answer_times_out() {
    let (_socket, _queued, addr) = hanging();
    let group = group(&[addr], |spec| spec.connect_timeout = Duration::from_millis(30));
    let error = dial_it(&group).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::ConnectTimeout);
    assert_eq!(group.peers()[0].failures(FailKind::Timeout), 1);
}

#[tokio::test]
async fn a_client_that_leaves_meanwhile_blames_nobody() {
    let (_socket, _queued, addr) = hanging();
    let group = group(&[addr], |_| {});
    let gone = tokio::time::timeout(Duration::from_millis(20), dial_it(&group)).await;
    assert!(gone.is_err());
    let peer = &group.peers()[0];
    assert_eq!((peer.in_flight(), peer.ejections(), peer.leases()), (0, 0, 1));
}

#[tokio::test]
async fn a_group_without_peers_says_why() {
    let group = Registry::new().build(GroupSpec::inline("g", vec!["app.internal:80".parse().unwrap()]));
    let error = dial_it(&group).await.unwrap_err();
    assert_eq!((error.outcome(), error.peer().is_none()), (Outcome::NoPeer, true));
    assert_eq!(error.to_string(), "g: no name of the group could be resolved yet");
}

#[tokio::test]
async fn a_unix_socket_that_is_gone_is_a_refusal() {
    let target = "unix:/nonexistent/wmproxy.sock".parse().unwrap();
    let group = Registry::new().build(GroupSpec::inline("g", vec![target]));
    assert_eq!(dial_it(&group).await.unwrap_err().outcome(), Outcome::ConnectFailed);
    assert_eq!(group.peers()[0].failures(FailKind::Refused), 1);
}

/// A way out that notes for whom it was asked, and leads nowhere.
#[derive(Debug, Default)]
struct Asked(std::sync::Mutex<Vec<Visitor>>);

impl Connect for Asked {
    fn connect<'a>(&'a self, to: &'a Destination) -> Connecting<'a> {
        self.connect_for(to, &Visitor::NOBODY)
    }

    fn connect_alone<'a>(&'a self, _: &'a Destination) -> ConnectingAlone<'a> {
        Box::pin(async { Err(ConnectError::new(Fault::Other, "nowhere")) })
    }

    fn connect_for<'a>(&'a self, to: &'a Destination, visitor: &'a Visitor) -> Connecting<'a> {
        self.0.lock().unwrap().push(*visitor);
        self.connect_alone(to)
    }
}

#[tokio::test]
async fn a_way_out_is_told_who_comes_unless_others_may_come_after() {
    let asked = Arc::new(Asked::default());
    let member = TargetSpec::Address(Address::Name("home/ssh".into(), 0));
    let mut spec = GroupSpec::inline("g", vec![member]);
    spec.via = Some("the tunnel".into());
    let group = Registry::new().build_through(spec, [None, None], Some(asked.clone()));
    let [client, local] = ["192.0.2.1:4000", "198.51.100.1:22"].map(|text| text.parse().unwrap());
    let visitor = Visitor { client: Some(client), local: Some(local) };
    let caller = Caller { stream: None, introduction: None, visitor: &visitor };
    dial_for(&group, &LeaseKey::default(), &PeerSocket::default(), caller).await.unwrap_err();
    let mut lease = group.lease(&LeaseKey::default(), &[], clock::now().0).unwrap();
    group.connect(&mut lease, group.attempt()).await.unwrap_err();
    assert_eq!(*asked.0.lock().unwrap(), [visitor, Visitor::NOBODY]);
}

#[test]
fn the_future_stays_small() {
    let (group, key, options) = (group(&[], |_| {}), LeaseKey::default(), PeerSocket::default());
    // Boxed by who dials, and gone when the connection is made; but thousands may dial at a time. Of these bytes some 150 are
    // the choice between connecting at once and through a chain.
    let size = size_of_val(&dial(&group, &key, &options));
    assert!(size <= 1200, "{size} bytes");
}
