//! Where clients send their datagrams.

use std::net::IpAddr;

use wmproxy_net::record::Outcome;
use wmproxy_testkit::UdpBackend;
use wmproxy_testkit::tcp::free_port;

use super::*;

/// A range of `count` ports that are free, as far as one can know.
fn free_range(count: u16) -> (u16, u16) {
    let is_free = |port| UdpSocket::bind(("127.0.0.1", port)).is_ok();
    let first = std::iter::repeat_with(free_port)
        .find(|first| *first < u16::MAX - count && (*first..*first + count).all(is_free));
    let first = first.unwrap();
    (first, first + count - 1)
}

fn set_ports(options: &mut ForwardOptions, first: u16, last: u16) {
    let text = if first == last { first.to_string() } else { format!("{first}-{last}") };
    options.udp.ports = text.parse().unwrap();
}

#[test]
fn a_listener_at_every_address_names_the_one_that_was_reached() {
    let house = House::at("0.0.0.0:0", Doorman::default(), |_| {});
    let server = UdpBackend::echo();
    for to in ["127.0.0.1", "127.0.0.3"] {
        let (control, relay) = Client::ask(house.connect_to(to), nowhere()).unwrap();
        assert_eq!(relay.ip(), to.parse::<IpAddr>().unwrap());
        let socket = UdpSocket::bind((control.local().ip(), 0)).unwrap();
        Client::with(control, socket, relay).echo(server.addr(), b"hello");
    }
}

#[test]
fn at_every_address_answers_leave_from_the_one_that_was_sent_to() {
    let house = house(|options| options.udp.bind = Some(nowhere().ip()));
    let server = UdpBackend::echo();
    let mut client = Client::new(&house);
    assert_eq!(client.relay.ip(), client.control.local().ip());
    for to in ["127.0.0.1", "127.0.0.3", "127.0.0.7"] {
        client.relay.set_ip(to.parse().unwrap());
        client.echo(server.addr(), b"hello");
    }
}

#[test]
fn an_address_that_is_advertised_is_what_clients_are_told() {
    let house = house(|options| {
        options.udp.bind = Some("127.0.0.6".parse().unwrap());
        options.udp.advertise = Some("203.0.113.7".parse().unwrap());
    });
    let server = UdpBackend::echo();
    let mut client = Client::new(&house);
    assert_eq!(client.relay.ip().to_string(), "203.0.113.7");
    client.relay.set_ip("127.0.0.6".parse().unwrap());
    client.echo(server.addr(), b"hello");
}

#[test]
fn ports_of_a_range_are_given_one_after_the_other_until_there_is_none() {
    let (first, last) = free_range(3);
    let house = house(|options| set_ports(options, first, last));
    let server = UdpBackend::echo();
    let held: Vec<Client> = (0..3).map(|_| Client::new(&house)).collect();
    for (client, port) in held.iter().zip(first..) {
        assert_eq!(client.relay.port(), port);
        client.echo(server.addr(), b"hello");
    }
    assert_eq!(Client::try_new(&house).err(), Some(1));
    drop(held);
    eventually(|| Client::try_new(&house).is_ok());
}

#[test]
fn a_port_of_a_range_that_somebody_else_has_is_left_out() {
    let (first, last) = free_range(3);
    let house = house(|options| set_ports(options, first, last));
    let _other = UdpSocket::bind(("127.0.0.1", first + 1)).unwrap();
    let held = [Client::new(&house), Client::new(&house)];
    assert_eq!(held.each_ref().map(|client| client.relay.port()), [first, last]);
    assert_eq!(Client::try_new(&house).err(), Some(1));
}

#[test]
fn a_single_port_is_everybodys() {
    let (port, _) = free_range(1);
    let house = house(|options| set_ports(options, port, port));
    let servers = [UdpBackend::echo(), UdpBackend::echo()];
    let from = |ip: &str| {
        let (control, relay) = Client::ask(house.connect_from(ip), nowhere()).unwrap();
        let socket = UdpSocket::bind((ip, 0)).unwrap();
        Client::with(control, socket, relay)
    };
    let clients = [from("127.0.0.1"), from("127.0.0.1"), from("127.0.0.2")];
    for round in 0..3u8 {
        for (client, at) in clients.iter().zip(0u8..) {
            assert_eq!(client.relay.port(), port);
            client.echo(servers[usize::from(at % 2)].addr(), &[round, at]);
        }
    }
    // Nobody waits for a first datagram, so this is nobody's.
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.send_to(&[&Where::from(servers[0].addr()).0[..], b"x"].concat(), clients[0].relay).unwrap();
    wait_dropped(&house, UdpDrop::Stranger, 1);
    let [first, second, third] = clients;
    drop(second);
    assert_eq!(house.next_record().outcome, Outcome::Done);
    first.echo(servers[0].addr(), b"still here");
    third.echo(servers[0].addr(), b"still here");
    drop((first, third));
    // The port is given back with the last of them, and can be had again.
    eventually(|| UdpSocket::bind(("127.0.0.1", port)).is_ok());
    from("127.0.0.1").echo(servers[1].addr(), b"anew");
}

#[test]
fn at_a_single_port_announced_ports_tell_clients_of_one_address_apart() {
    let (port, _) = free_range(1);
    let house = house(|options| set_ports(options, port, port));
    let server = UdpBackend::echo();
    let sockets = [0; 3].map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
    let clients = sockets.map(|socket| {
        let announced = socket.local_addr().unwrap();
        let (control, relay) = Client::ask(house.connect(), announced).unwrap();
        Client::with(control, socket, relay)
    });
    // Not in the order of the associations.
    clients.iter().rev().for_each(|client| client.echo(server.addr(), b"hello"));
    let [first, ..] = clients;
    drop(first);
    assert_eq!(house.next_record().datagrams_in, 1);
}

#[test]
fn an_idle_association_at_a_single_port_ends_as_any_other() {
    let (port, _) = free_range(1);
    let house = house(|options| {
        set_ports(options, port, port);
        idle_after(options, Duration::from_millis(200));
    });
    let client = Client::new(&house);
    client.control.expect_end();
    assert_eq!(house.record().outcome, Outcome::ClientSilent);
    eventually(|| UdpSocket::bind(("127.0.0.1", port)).is_ok());
}
