use std::fs::File;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::time::timeout;

use super::*;

fn message(kind: u16, body: &[u8]) -> Vec<u8> {
    let length = 16 + body.len() as u32;
    let mut message = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], body].concat();
    message.resize(message.len().next_multiple_of(4), 0);
    message
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = 4 + value.len() as u16;
    [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat()
}

fn of_address(kind: u16, flags: u8, link: u32, last: u8, lifetime: u8) -> Vec<u8> {
    let address = attribute(libc::IFA_ADDRESS, &[192, 0, 2, last]);
    let lifetime = attribute(libc::IFA_CACHEINFO, &[lifetime; 16]);
    let fixed = [&[libc::AF_INET as u8, 24, flags, 0][..], &link.to_ne_bytes()].concat();
    message(kind, &[fixed, lifetime, address].concat())
}

fn of_link(kind: u16, link: u32, flags: u32) -> Vec<u8> {
    message(kind, &[&[0; 4][..], &link.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 4]].concat())
}

fn of_route(kind: u8, flags: u32) -> Vec<u8> {
    message(
        libc::RTM_NEWROUTE,
        &[&[libc::AF_INET as u8, 0, 0, 0, 254, 3, 0, kind][..], &flags.to_ne_bytes()].concat(),
    )
}

#[test]
fn addresses_of_others_are_not_ours() {
    for ours in ["127.0.0.1:80", "127.9.8.7:0", "0.0.0.0:1"] {
        assert!(is_ours(ours.parse().unwrap()), "{ours}");
    }
    for others in ["192.0.2.1:80", "[2001:db8::1]:80"] {
        assert!(!is_ours(others.parse().unwrap()), "{others}");
    }
}

#[test]
fn what_is_told_again_is_no_change() {
    let mut known = Known::default();
    let mut tell = |message: Vec<u8>| known.take(&message);
    let (new, gone) = (libc::RTM_NEWADDR, libc::RTM_DELADDR);
    assert!(tell(of_address(new, 0x40, 2, 1, 10)));
    assert!(tell(of_address(new, 0, 2, 1, 10)), "it is no longer tentative");
    assert!(!tell(of_address(new, 0, 2, 1, 99)), "it may be used for longer");
    assert!(tell(of_address(new, 0, 2, 2, 99)), "another one");
    assert!(tell(of_address(gone, 0, 2, 1, 10)));
    assert!(tell(of_address(new, 0, 2, 1, 10)));
    let (up, running) = (libc::IFF_UP as u32, libc::IFF_RUNNING as u32);
    assert!(tell(of_link(libc::RTM_NEWLINK, 2, up)));
    assert!(tell(of_link(libc::RTM_NEWLINK, 2, up | running)), "the cable is in");
    assert!(!tell(of_link(libc::RTM_NEWLINK, 2, up | running | libc::IFF_PROMISC as u32)));
    assert!(tell(of_link(libc::RTM_DELLINK, 2, 0)));
    assert!(tell(of_address(new, 0, 2, 2, 99)), "its addresses went with it");
    assert!(tell(of_route(libc::RTN_UNICAST, 0)));
    assert!(!tell(of_route(libc::RTN_UNICAST, libc::RTM_F_CLONED)));
    assert!(!tell(of_route(libc::RTN_LOCAL, 0)));
    // Several in one datagram.
    assert!(!tell([of_route(libc::RTN_LOCAL, 0), of_address(new, 0, 2, 2, 99)].concat()));
    assert!(tell([of_route(libc::RTN_LOCAL, 0), of_route(libc::RTN_UNICAST, 0)].concat()));
}

#[test]
fn nonsense_is_a_change_at_worst_and_ends() {
    let mut known = Known::default();
    let whole = [of_address(libc::RTM_NEWADDR, 0, 2, 1, 1), of_link(libc::RTM_NEWLINK, 2, 1)].concat();
    for length in 0..whole.len() {
        known.take(&whole[..length]);
    }
    for byte in 0..=255 {
        for at in 0..whole.len() {
            let mut broken = whole.clone();
            broken[at] = byte;
            known.take(&broken);
        }
    }
    assert!(known.take(&message(libc::RTM_NEWADDR, &[])));
    for link in 0..2 * KNOWN as u32 {
        known.take(&of_link(libc::RTM_NEWLINK, link, 1));
    }
    assert!(known.0.len() <= KNOWN);
}

/// A network namespace with nothing but a loopback that is down, as long as this lives.
struct Namespace(Child);

impl Namespace {
    /// None where this process may not make one.
    fn new() -> Option<Namespace> {
        // It is there when the child says something.
        let mut child = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo && exec sleep 60"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let said = io::Read::read(&mut child.stdout.take()?, &mut [0; 1]).ok()?;
        let namespace = Namespace(child);
        (said == 1).then_some(namespace)
    }

    /// Moves the calling thread into it.
    fn enter(&self) -> io::Result<()> {
        let file = File::open(format!("/proc/{}/ns/net", self.0.id()))?;
        Ok(move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(done.success(), "ip {arguments}");
}

#[test]
fn links_addresses_and_routes_are_told_once_each() {
    // Other tests may run on this thread, and are to have the network.
    std::thread::spawn(watch_a_network).join().unwrap();
}

fn watch_a_network() {
    let Some(namespace) = Namespace::new().filter(|namespace| namespace.enter().is_ok()) else {
        eprintln!("this process may make no network namespace: nothing was tested");
        return;
    };
    let soon = Duration::from_secs(10);
    let runtime = tokio::runtime::LocalRuntime::new().unwrap();
    runtime.block_on(async {
        let mut changes = NetworkChanges::open().unwrap();
        for change in [
            "link set lo up",
            "address add 192.0.2.1/24 dev lo",
            "route add 198.51.100.0/24 dev lo",
            "address del 192.0.2.1/24 dev lo",
            "link set lo down",
        ] {
            ip(change);
            // Given up in the middle, it is told all the same.
            let _ = timeout(Duration::from_millis(10), changes.changed()).await;
            timeout(soon, changes.changed()).await.expect(change);
            let more = timeout(Duration::from_millis(50), changes.changed()).await;
            assert!(more.is_err(), "nothing has changed since {change}");
        }
    });
    drop(namespace);
}
