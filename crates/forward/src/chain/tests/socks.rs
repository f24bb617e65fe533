//! What is said to proxies of SOCKS.

use super::*;

const NO_AUTH: (&[u8], &[u8]) = (&[5, 1, 0], &[5, 0]);
const REQUEST: &[u8] = b"\x05\x01\x00\x03\x06a.test\x00\x50";

#[test]
fn socks5_gets_the_name_and_what_comes_with_its_consent_is_kept() {
    let proxy = proxy(&[NO_AUTH, (REQUEST, b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x01early")]);
    passes(&single(to(HopKind::Socks5, &proxy)), &name("a.test", 80), b"early");
}

#[test]
fn socks5_is_told_who_comes_if_it_wants_to_know() {
    let reply = b"\x05\x00\x00\x03\x01x\x00\x00";
    let proxy = proxy(&[
        (&[5, 2, 2, 0], &[5, 2]),
        (b"\x01\x02me\x06secret", &[1, 0]),
        (b"\x05\x01\x00\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x50", reply),
    ]);
    let hop = with_password(to(HopKind::Socks5, &proxy), "me", "secret");
    passes(&single(hop), &"[::1]:80".parse::<SocketAddr>().unwrap().into(), b"");
}

#[test]
fn answers_of_socks5_keep_their_meaning() {
    macro_rules! code {
        ($code:literal) => {
            &[NO_AUTH, (REQUEST, &[5, $code, 0, 1, 0, 0, 0, 0, 0, 0])]
        };
    }
    let scripts: [(Script<'_>, Fault, &str); 9] = [
        (code!(1), Fault::Other, "answers: general failure"),
        (code!(2), Fault::Denied, "answers: not allowed by the rules"),
        (code!(3), Fault::NetworkUnreachable, "answers: network unreachable"),
        (code!(4), Fault::HostUnreachable, "answers: host unreachable"),
        (code!(5), Fault::Refused, "answers: connection refused"),
        (code!(6), Fault::TimedOut, "answers: TTL expired"),
        (code!(7), Fault::Unsupported, "answers: command not supported"),
        (code!(8), Fault::Unsupported, "answers: address type not supported"),
        (code!(99), Fault::Other, "answers: a code that RFC 1928 does not know"),
    ];
    for (script, expected, text) in scripts {
        assert_eq!(fault(script, HopKind::Socks5), (expected, text.to_owned()));
    }
}

#[test]
fn what_is_wrong_between_us_and_socks5_is_told() {
    let cases: [(Script<'_>, Fault, &str); 4] = [
        (
            &[(&[5, 1, 0], &[5, 0xff])],
            Fault::Unauthorized,
            "wants to know who comes, and no user is set for it",
        ),
        (&[(&[5, 1, 0], &[5, 2])], Fault::Broken, "says what is no answer: it chose method 0x02"),
        (&[(&[5, 1, 0], b"HTTP/1.1 400 Bad")], Fault::Broken, "says what is no answer: no message of this"),
        (
            &[NO_AUTH, (REQUEST, &[5, 0, 0, 9])],
            Fault::Broken,
            "says what is no answer: SOCKS knows no address",
        ),
    ];
    for (script, expected, text) in cases {
        let (fault, told) = fault(script, HopKind::Socks5);
        assert!(fault == expected && told.starts_with(text), "{fault:?} {told}");
    }
    let proxy = proxy(&[(&[5, 2, 2, 0], &[5, 2]), (b"\x01\x02me\x06secret", &[1, 1])]);
    let error =
        fails(&single(with_password(to(HopKind::Socks5, &proxy), "me", "secret")), &name("a.test", 80));
    assert_eq!(error.fault, Fault::Unauthorized);
    assert!(error.text.ends_with("does not accept the user and password"), "{error}");
}

#[test]
fn a_proxy_that_hangs_up_in_place_of_an_answer_is_of_no_use() {
    let proxy = Backend::start(|conn| {
        conn.recv(3);
        conn.send(&[5, 0]);
        conn.recv(REQUEST.len());
        Ok(0)
    });
    let error = fails(&single(to(HopKind::Socks5, &proxy)), &name("a.test", 80));
    assert_eq!(error.fault, Fault::HopDown);
    assert!(error.text.ends_with("closed the connection in place of an answer"), "{error}");
}

#[test]
fn a_proxy_that_is_given_up_is_told_so_by_a_reset() {
    let (told, heard) = std::sync::mpsc::channel();
    let proxy = Backend::start(move |conn| {
        conn.recv(3);
        conn.send(&[5, 0]);
        conn.recv(REQUEST.len());
        told.send(io::Read::read(&mut conn.socket(), &mut [0]).map_err(|error| error.kind())).unwrap();
        Ok(0)
    });
    let chain = Shop::default().chain(vec![vec![to(HopKind::Socks5, &proxy)]], SHORT);
    assert_eq!(fails(&chain, &name("a.test", 80)).fault, Fault::TimedOut);
    assert_eq!(heard.recv().unwrap(), Err(io::ErrorKind::ConnectionReset));
}

#[test]
fn answers_may_come_byte_by_byte() {
    let proxy = Backend::start(|conn| {
        conn.recv(3);
        for byte in [5, 0] {
            conn.send(&[byte]);
        }
        conn.recv(REQUEST.len());
        for byte in b"\x05\x00\x00\x03\x02ab\x00\x01z" {
            conn.send(&[*byte]);
            std::thread::sleep(Duration::from_millis(1));
        }
        echo(conn)
    });
    passes(&single(to(HopKind::Socks5, &proxy)), &name("a.test", 80), b"z");
}

#[test]
fn socks4_gets_addresses_and_4a_names() {
    const GRANTED: &[u8] = &[0, 0x5a, 0, 0, 0, 0, 0, 0];
    let four = proxy(&[(b"\x04\x01\x00\x50\x7f\x00\x00\x01me\0", GRANTED)]);
    let hop = HopSpec { credentials: Some(("me".into(), None)), ..to(HopKind::Socks4, &four) };
    passes(&single(hop), &"127.0.0.1:80".parse::<SocketAddr>().unwrap().into(), b"");
    let four_a = proxy(&[(b"\x04\x01\x00\x50\x00\x00\x00\x01\0a.test\0", b"\x00\x5a\0\0\0\0\0\0early")]);
    passes(&single(to(HopKind::Socks4a, &four_a)), &name("a.test", 80), b"early");
    let error =
        fails(&single(to(HopKind::Socks4, &four)), &"[2001:db8::1]:80".parse::<SocketAddr>().unwrap().into());
    assert_eq!(error.fault, Fault::Unsupported, "{error}");
}

#[test]
fn answers_of_socks4_keep_their_meaning() {
    const REQUEST: &[u8] = b"\x04\x01\x00\x50\x00\x00\x00\x01\0a.test\0";
    let scripts: [(Script<'_>, Fault); 4] = [
        (&[(REQUEST, &[0, 0x5b, 0, 0, 0, 0, 0, 0])], Fault::Other),
        (&[(REQUEST, &[0, 0x5c, 0, 0, 0, 0, 0, 0])], Fault::Unauthorized),
        (&[(REQUEST, &[0, 0x5d, 0, 0, 0, 0, 0, 0])], Fault::Unauthorized),
        (&[(REQUEST, &[5, 0x5a, 0, 0, 0, 0, 0, 0])], Fault::Broken),
    ];
    for (script, expected) in scripts {
        assert_eq!(fault(script, HopKind::Socks4a).0, expected);
    }
}
