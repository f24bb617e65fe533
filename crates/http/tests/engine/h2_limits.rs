//! What HTTP/2 allows, and how whoever goes beyond it ends.

use wmproxy_http::options::{EndpointSpec, HttpOptions};
use wmproxy_net::record::Outcome;
use wmproxy_testkit::h2::{Client, Frame, Kind, Raw, request, request_fields};
use wmproxy_testkit::http::{Origin, Reply};
use wmproxy_testkit::{Backend, Gate};

use crate::house::{House, eventually, reverse, spec};

/// RFC 9113 section 7.
const INTERNAL_ERROR: u32 = 2;
const REFUSED_STREAM: u32 = 7;

fn house(options: &str, origin: &Origin) -> House {
    House::with(spec(toml::from_str(options).unwrap(), reverse()), &[origin.addr().inet()])
}

fn raw(house: &House) -> Raw {
    Raw::connect(&house.addr().into())
}

impl House {
    /// How its connections ended, once so many have.
    fn outcomes(&self, count: usize) -> Vec<Outcome> {
        eventually(|| self.log.outcomes.lock().unwrap().len() >= count);
        self.log.outcomes.lock().unwrap().clone()
    }
}

/// A peer that speaks HTTP/2: it does with the requests of all its connections what `answer` says, by their number.
fn peer(answer: impl Fn(&mut Raw, usize, u32) + Send + Sync + 'static) -> Backend {
    let requests = std::sync::atomic::AtomicUsize::new(0);
    Backend::start(move |conn| {
        conn.recv(24);
        let mut raw = Raw::over(conn.again()?);
        raw.send(Kind::SETTINGS, 0, 0, &[]);
        while let Ok(Some(frame)) = raw.frame() {
            if frame.kind == Kind::HEADERS {
                let number = requests.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                answer(&mut raw, number, frame.stream);
            }
        }
        Ok(0)
    })
}

/// A head that says 200 and ends its stream.
fn fine(raw: &mut Raw, stream: u32) {
    raw.send(Kind::HEADERS, Frame::END_HEADERS | Frame::END_STREAM, stream, &[0x88]);
}

fn before_peer(peer: &Backend) -> House {
    let mut endpoint = reverse();
    if let EndpointSpec::Reverse(to) = &mut endpoint {
        to.h2 = true;
    }
    House::with(spec(HttpOptions::default(), endpoint), &[peer.addr().inet()])
}

#[test]
fn what_a_peer_refused_unread_is_asked_again() {
    let refuses = peer(|raw, number, stream| match number {
        0 => raw.send(Kind::RST_STREAM, 0, stream, &REFUSED_STREAM.to_be_bytes()),
        _ => fine(raw, stream),
    });
    let leaves = peer(|raw, number, stream| match number {
        // Of no stream it says that it may have been acted on.
        0 => raw.send(Kind::GOAWAY, 0, 0, &[0; 8]),
        _ => fine(raw, stream),
    });
    for peer in [&refuses, &leaves] {
        let house = before_peer(peer);
        let mut client = Client::connect(&house.addr().into());
        assert_eq!(client.ask(request("POST", "/"), b"", None).status, 200);
    }
    assert_eq!((refuses.accepted(), leaves.accepted()), (1, 2));
}

#[test]
fn what_a_peer_may_have_acted_on_is_not_asked_again() {
    let peer = peer(|raw, _, stream| raw.send(Kind::RST_STREAM, 0, stream, &INTERNAL_ERROR.to_be_bytes()));
    let house = before_peer(&peer);
    let mut client = Client::connect(&house.addr().into());
    assert_eq!(client.ask(request("POST", "/"), b"", None).status, 502);
    assert_eq!(peer.accepted(), 1);
}

#[test]
fn a_response_that_a_peer_resets_is_no_whole_one() {
    let peer = peer(|raw, _, stream| {
        raw.send(Kind::HEADERS, Frame::END_HEADERS, stream, &[0x88]);
        raw.send(Kind::DATA, 0, stream, b"half");
        raw.send(Kind::RST_STREAM, 0, stream, &INTERNAL_ERROR.to_be_bytes());
    });
    let house = before_peer(&peer);
    let mut client = Client::connect(&house.addr().into());
    assert!(client.try_ask(request("GET", "/"), b"", None).is_err());
    let mut plain = house.connect();
    plain.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = plain.try_response_to("GET");
    assert!(answer.is_err(), "{answer:?}");
    drop((client, plain));
    house.assert_nothing_left();
}

#[test]
fn a_stream_too_many_is_refused() {
    let gate = Gate::new();
    let wait = gate.clone();
    let origin = Origin::start(move |call| {
        wait.wait();
        call.reply(&Reply::new(200, "late"))
    });
    let house = house("limits = { h2_streams = 2 }", &origin);
    let mut raw = raw(&house);
    [1, 3, 5].into_iter().for_each(|stream| raw.get(stream, "/"));
    let refused = raw.wait(|frame| frame.kind == Kind::RST_STREAM);
    assert_eq!((refused.stream, refused.code()), (5, REFUSED_STREAM));
    // Each of the two has a connection of its own to the origin, and none waits for the other.
    origin.wait_requests(2);
    gate.open();
    assert_eq!(raw.status(1), 200);
    assert_eq!(origin.requests().len(), 2);
}

#[test]
fn who_takes_nothing_is_cut_off() {
    let origin = Origin::start(|call| call.reply(&Reply::new(200, vec![7; 1 << 20])));
    let house = house("timeouts = { write = \"50ms\" }", &origin);
    let mut raw = raw(&house);
    raw.get(1, "/");
    let cut = raw.wait(|frame| frame.kind == Kind::RST_STREAM);
    assert_eq!((cut.stream, cut.code()), (1, INTERNAL_ERROR));
    // The connection is as good as before.
    raw.ping();
    assert!(house.lines(1)[0].starts_with("GET / 200 0/"));
}

#[test]
fn who_asks_nothing_is_sent_home() {
    let origin = Origin::says("HTTP/1.1 204 No Content\r\n\r\n");
    let house = house("timeouts = { keepalive = \"50ms\" }", &origin);
    let mut raw = raw(&house);
    raw.get(1, "/");
    assert_eq!(raw.status(1), 204);
    assert_eq!(raw.end(), Some(0));
    assert_eq!(house.outcomes(1), [Outcome::IdleTimeout]);
    house.assert_nothing_left();
}

#[test]
fn a_flood_is_an_outcome() {
    type Flood = fn(&mut Raw);
    let floods: [Flood; 5] = [
        |raw| (0..5_000).for_each(|_| raw.send(Kind::PING, 0, 0, &[0; 8])),
        |raw| (0..5_000).for_each(|_| raw.send(Kind::SETTINGS, 0, 0, &[])),
        |raw| {
            (0..5_000).for_each(|number| {
                raw.get(number * 2 + 1, "/");
                raw.send(Kind::RST_STREAM, 0, number * 2 + 1, &8_u32.to_be_bytes());
            });
        },
        |raw| {
            raw.head(1, &request_fields("POST", "/"), false);
            (0..5_000).for_each(|_| raw.send(Kind::DATA, 0, 1, &[]));
        },
        |raw| {
            raw.send(Kind::HEADERS, Frame::END_STREAM, 1, &[]);
            (0..5_000).for_each(|_| raw.send(Kind::CONTINUATION, 0, 1, &[]));
        },
    ];
    for (number, flood) in floods.into_iter().enumerate() {
        let origin = Origin::says("HTTP/1.1 204 No Content\r\n\r\n");
        let house = house("", &origin);
        let mut raw = raw(&house);
        flood(&mut raw);
        assert_eq!(house.outcomes(1), [Outcome::Flood], "{number}");
        house.assert_nothing_left();
    }
}
