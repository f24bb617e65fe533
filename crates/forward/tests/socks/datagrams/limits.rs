//! Who may send and answer, how many there may be, and how it ends.

use std::net::UdpSocket;
use std::time::Instant;

use wmproxy_net::record::Outcome;
use wmproxy_testkit::UdpBackend;

use super::*;

const LONG: Duration = Duration::from_secs(30);

#[test]
fn only_the_client_is_heard_and_from_its_first_port_only() {
    let house = House::new();
    let server = UdpBackend::echo();
    let client = Client::new(&house);
    let hello = [&Where::from(server.addr()).0[..], b"hello"].concat();
    // Before it has sent anything: from another address.
    let stranger = UdpSocket::bind("127.0.0.2:0").unwrap();
    stranger.send_to(&hello, client.relay).unwrap();
    wait_dropped(&house, UdpDrop::Stranger, 1);
    client.echo(server.addr(), b"mine");
    // And then even from another of its own ports.
    let second = UdpSocket::bind("127.0.0.1:0").unwrap();
    second.send_to(&hello, client.relay).unwrap();
    stranger.send_to(&hello, client.relay).unwrap();
    wait_dropped(&house, UdpDrop::Stranger, 3);
    client.echo(server.addr(), b"still mine");
    assert_eq!(server.received(), 2);
}

#[test]
fn what_makes_no_sense_does_not_take_the_place() {
    let house = House::new();
    let server = UdpBackend::echo();
    let client = Client::new(&house);
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    other.send_to(b"rubbish", client.relay).unwrap();
    wait_dropped(&house, UdpDrop::Malformed, 1);
    client.echo(server.addr(), b"mine");
}

#[test]
fn a_port_that_was_announced_is_the_one() {
    let house = House::new();
    let server = UdpBackend::echo();
    for with_address in [true, false] {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut announced = socket.local_addr().unwrap();
        if !with_address {
            announced.set_ip(nowhere().ip());
        }
        let (control, relay) = Client::ask(house.connect(), announced).unwrap();
        let before = house.dropped(UdpDrop::Stranger);
        let other = UdpSocket::bind("127.0.0.1:0").unwrap();
        other.send_to(&[&Where::from(server.addr()).0[..], b"x"].concat(), relay).unwrap();
        wait_dropped(&house, UdpDrop::Stranger, before + 1);
        Client::with(control, socket, relay).echo(server.addr(), b"hello");
    }
    // Behind NAT a client announces an address that nobody sees, and its port means nothing.
    let (control, relay) = Client::ask(house.connect(), "192.168.1.5:4000".parse().unwrap()).unwrap();
    Client::with(control, UdpSocket::bind("127.0.0.1:0").unwrap(), relay).echo(server.addr(), b"hello");
}

#[test]
fn only_who_was_sent_to_may_answer() {
    let house = House::new();
    let server = UdpBackend::echo();
    let client = Client::new(&house);
    client.echo(server.addr(), b"hello");
    let outlet = server.last().1;
    let to_outlet = SocketAddr::from(([127, 0, 0, 1], outlet.port()));
    for stranger in ["127.0.0.1:0", "127.0.0.5:0"] {
        UdpSocket::bind(stranger).unwrap().send_to(b"injected", to_outlet).unwrap();
    }
    wait_dropped(&house, UdpDrop::Stranger, 2);
    server.send_to(b"unasked, but from there", outlet);
    assert_eq!(client.recv(), (server.addr(), b"unasked, but from there".to_vec()));
}

#[test]
fn rules_are_asked_for_each_destination_and_not_for_each_datagram() {
    let house = House::new();
    let server = UdpBackend::echo_at("127.0.0.9:0".parse().unwrap());
    let client = Client::new(&house);
    let port = server.addr().port();
    for _ in 0..3 {
        client.send(server.addr(), b"denied by its address");
        client.send(("denied.test", port), b"denied by its name");
    }
    wait_dropped(&house, UdpDrop::Denied, 6);
    client.send(("unresolved.test", port), b"nowhere");
    wait_dropped(&house, UdpDrop::Unresolved, 1);
    assert_eq!((house.asked().len(), server.received()), (5, 0), "{:?}", house.asked());
}

#[test]
fn an_association_ends_with_its_control_connection() {
    for is_reset in [false, true] {
        let house = House::new();
        let server = UdpBackend::echo();
        let Client { control, socket, relay } = Client::new(&house);
        let probe = Client { control: control.again().unwrap(), socket, relay };
        probe.echo(server.addr(), b"hello");
        let outlet = server.last().1;
        let Client { control: second, socket, .. } = probe;
        drop(second);
        if is_reset {
            control.reset()
        } else {
            drop(control)
        }
        let outcome = if is_reset { Outcome::ClientReset } else { Outcome::Done };
        assert_eq!(house.record().outcome, outcome);
        // Both of its sockets are gone.
        for address in [relay, SocketAddr::from(([127, 0, 0, 1], outlet.port()))] {
            let probe =
                Client { control: house.connect(), socket: socket.try_clone().unwrap(), relay: address };
            eventually(|| probe.is_deaf());
        }
    }
}

#[test]
fn silence_ends_it_and_its_control_connection() {
    let house = house(|options| idle_after(options, Duration::from_secs(2)));
    let server = UdpBackend::echo();
    let client = Client::new(&house);
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(2500) {
        client.echo(server.addr(), b"hello");
        std::thread::sleep(Duration::from_millis(20));
    }
    client.control.expect_end();
    let record = house.record();
    assert_eq!(record.outcome, Outcome::IdleTimeout);
    assert!(record.duration > Duration::from_secs(4), "{:?}", record.duration);
    assert!(client.is_deaf());
}

#[test]
fn strangers_and_denied_datagrams_keep_nothing_alive() {
    let house = house(|options| idle_after(options, Duration::from_millis(200)));
    let client = Client::new(&house);
    let stranger = UdpSocket::bind("127.0.0.2:0").unwrap();
    while house.is_busy() {
        let _ = stranger.send_to(b"x", client.relay);
        client.send(("denied.test", 53), b"x");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(house.record().outcome, Outcome::ClientSilent);
}

#[test]
fn a_client_may_have_so_many_and_all_of_them_so_many() {
    let house = house(|options| {
        options.udp.max_per_client = 2;
        options.udp.max_associations = 3;
        idle_after(options, LONG);
    });
    let held = [Client::new(&house), Client::new(&house)];
    assert_eq!(Client::try_new(&house).err(), Some(2));
    let elsewhere = || Client::ask(house.connect_from("127.0.0.4"), nowhere());
    let third = elsewhere().unwrap();
    assert_eq!(elsewhere().err(), Some(2));
    drop(third);
    eventually(|| elsewhere().is_ok());
    drop(held);
    eventually(|| Client::try_new(&house).is_ok());
}

#[test]
fn who_talks_on_the_control_connection_is_ignored_and_then_sent_away() {
    let house = House::new();
    let server = UdpBackend::echo();
    let client = Client::new(&house);
    client.control.send(b"what is this for?");
    client.echo(server.addr(), b"hello");
    client.control.send(&[0; 8192]);
    client.control.expect_closed();
    assert_eq!(house.record().outcome, Outcome::BadSocks);
}

#[test]
fn it_can_be_off() {
    let house = house(|options| options.udp.enabled = false);
    assert_eq!(Client::try_new(&house).err(), Some(7));
}

#[test]
fn when_the_listener_goes_an_association_ends_at_its_first_silence() {
    let house = house(|options| idle_after(options, LONG));
    let server = UdpBackend::echo();
    let client = Client::new(&house);
    client.echo(server.addr(), b"hello");
    house.retire();
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(1500) {
        client.echo(server.addr(), b"still here");
        std::thread::sleep(Duration::from_millis(50));
    }
    client.control.expect_end();
    assert!(house.record().duration < Duration::from_secs(10));
}
