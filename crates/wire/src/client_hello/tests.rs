use proptest::prelude::*;

use super::*;

/// Far above what any client sends.
const LIMIT: usize = 16 * 1024;

fn vector8(data: &[u8]) -> Vec<u8> {
    [&[data.len() as u8], data].concat()
}

fn vector16(data: &[u8]) -> Vec<u8> {
    [&(data.len() as u16).to_be_bytes(), data].concat()
}

fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vector16(data)].concat()
}

fn sni(host: &[u8]) -> Vec<u8> {
    extension(SERVER_NAME, &vector16(&[&[0][..], &vector16(host)].concat()))
}

fn alpn(protocols: &[&[u8]]) -> Vec<u8> {
    let list: Vec<u8> = protocols.iter().flat_map(|name| vector8(name)).collect();
    extension(ALPN, &vector16(&list))
}

fn message(extensions: &[u8]) -> Vec<u8> {
    let head =
        [&[3, 3][..], &[7; RANDOM], &vector8(&[9; 32]), &vector16(&[0x13, 1]), &vector8(&[0])].concat();
    let body = [head, vector16(extensions)].concat();
    [&[CLIENT_HELLO], &(body.len() as u32).to_be_bytes()[1..], &body].concat()
}

/// The message in records of at most `size` bytes each.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(|part| [&[HANDSHAKE, 3, 1][..], &vector16(part)].concat()).collect()
}

fn complete(bytes: &[u8]) -> ClientHello {
    match parse_records(bytes, LIMIT).unwrap() {
        Parsed::Complete(hello, used) => {
            assert_eq!(used, bytes.len());
            hello
        }
        other => panic!("{other:?}"),
    }
}

fn name_of(host: &[u8]) -> Result<Option<Box<str>>, HelloError> {
    parse_records(&records(&message(&sni(host)), MAX_FRAGMENT), LIMIT).map(|parsed| match parsed {
        Parsed::Complete(hello, _) => hello.server_name,
        other => panic!("{other:?}"),
    })
}

#[test]
fn a_hello_names_host_and_protocols() {
    let padding = extension(21, &[0; 100]);
    let extensions = [&padding[..], &sni(b"WWW.Example.com"), &alpn(&[b"h2", b"http/1.1"])].concat();
    let hello = complete(&records(&message(&extensions), MAX_FRAGMENT));
    assert_eq!(hello.server_name.as_deref(), Some("www.example.com"));
    assert_eq!(hello.alpn.iter().collect::<Vec<_>>(), [&b"h2"[..], b"http/1.1"]);
    assert!(!hello.alpn.is_empty());
}

#[test]
fn a_hello_without_extensions_names_nothing() {
    assert_eq!(complete(&records(&message(&[]), MAX_FRAGMENT)), ClientHello::default());
    // An old client's ends before them.
    let mut message = message(&[]);
    message.truncate(message.len() - 2);
    message[3] -= 2;
    let hello = complete(&records(&message, MAX_FRAGMENT));
    assert!(hello.server_name.is_none() && hello.alpn.is_empty() && hello.alpn.iter().next().is_none());
}

#[test]
fn names_are_held_to_the_rules_for_hosts() {
    let long = "a.".repeat(126) + "a";
    for (host, expected) in [
        ("a.example.com", Some("a.example.com")),
        ("A.EXAMPLE.COM.", Some("a.example.com")),
        ("localhost", Some("localhost")),
        ("my_service.local", Some("my_service.local")),
        ("xn--bcher-kva.example", Some("xn--bcher-kva.example")),
        ("192.0.2.1", None),
        ("2001:db8::1", None),
        (&long, Some(long.as_str())),
    ] {
        assert_eq!(name_of(host.as_bytes()), Ok(expected.map(Into::into)), "{host}");
    }
    let too_long = "a.".repeat(126) + "aa";
    let label = "a".repeat(64);
    for host in [
        "",
        ".",
        "a..b",
        ".a",
        "-a.b",
        "a-.b",
        "a b",
        "a/b",
        "a\0b",
        "*.b",
        "b\u{fc}cher.de",
        &too_long,
        &label,
    ] {
        assert_eq!(name_of(host.as_bytes()), Err(HelloError::Malformed("its server name")), "{host:?}");
    }
    assert_eq!(host_name(b"A.b."), Some("a.b".into()));
    assert_eq!((host_name(b"192.0.2.1"), host_name(b"")), (None, None));
    assert_eq!(name_of(&[0xff]), Err(HelloError::Malformed("its server name")));
}

#[test]
fn what_is_no_tls_is_told_by_its_first_bytes() {
    for bytes in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"SSH-2.0",
        b"\x16\x02",
        b"\x80\x2e\x01",
        b"\x16\x03\x01\0\0",
        b"\x15\x03",
    ] {
        assert_eq!(parse_records(bytes, LIMIT), Ok(Parsed::NotTls), "{bytes:?}");
    }
    // Longer than a record may be.
    assert_eq!(parse_records(b"\x16\x03\x01\x40\x01", LIMIT), Ok(Parsed::NotTls));
}

#[test]
fn what_breaks_the_rules_is_refused_as_early_as_it_shows() {
    let whole = records(&message(&sni(b"a.b")), MAX_FRAGMENT);
    let other = |at: usize, byte: u8| {
        let mut bytes = whole.clone();
        bytes[at] = byte;
        parse_records(&bytes, LIMIT).unwrap_err()
    };
    let body = RECORD_HEADER + MESSAGE_HEADER;
    assert_eq!(other(RECORD_HEADER, 2), HelloError::Malformed("another handshake message"));
    assert_eq!(other(body + 34, 33), HelloError::Malformed("its session id"));
    assert_eq!(other(body + 34 + 33 + 1, 3), HelloError::Malformed("its cipher suites"));
    let twice = [sni(b"a"), sni(b"b")].concat();
    let error = |extensions: &[u8]| parse_handshake(&message(extensions), LIMIT).unwrap_err();
    assert_eq!(error(&twice), HelloError::Malformed("two server names"));
    assert_eq!(error(&[alpn(&[b"a"]), alpn(&[b"a"])].concat()), HelloError::Malformed("two protocol lists"));
    assert_eq!(error(&alpn(&[b""])), HelloError::Malformed("its protocol list"));
    assert_eq!(error(&alpn(&[])), HelloError::Malformed("its protocol list"));
    assert_eq!(error(&[0, 0, 0]), HelloError::Malformed("an extension"));
    let names = [&[0][..], &vector16(b"a"), &[0], &vector16(b"b")].concat();
    assert_eq!(error(&extension(SERVER_NAME, &vector16(&names))), HelloError::Malformed("its server name"));
    let mut trailing = message(&[]);
    trailing.push(0);
    trailing[3] += 1;
    assert_eq!(parse_handshake(&trailing, LIMIT), Err(HelloError::Malformed("the length of its extensions")));
    // A record of another kind in between.
    let mut split = records(&message(&[]), 20);
    split[25] = 21;
    assert_eq!(parse_records(&split[..26], LIMIT), Err(HelloError::Malformed("a record of another type")));
}

#[test]
fn a_name_of_another_type_is_none() {
    let list = vector16(&[&[9][..], &vector16(b"x")].concat());
    let Ok(Parsed::Complete(hello, _)) = parse_handshake(&message(&extension(SERVER_NAME, &list)), LIMIT)
    else {
        panic!("not complete")
    };
    assert_eq!(hello.server_name, None);
}

#[test]
fn the_limit_holds_before_the_bytes_are_there() {
    let big = message(&extension(21, &[0; 20_000]));
    assert_eq!(parse_handshake(&big[..4], LIMIT), Err(HelloError::TooLarge));
    assert_eq!(parse_records(&records(&big, 1000)[..9], LIMIT), Err(HelloError::TooLarge));
    assert!(matches!(parse_handshake(&big, 32 * 1024), Ok(Parsed::Complete(..))));
    // Records of one byte each are no way around it.
    let small = records(&message(&extension(21, &[0; 4_000])), 1);
    assert_eq!(parse_records(&small[..LIMIT], LIMIT), Err(HelloError::TooLarge));
    let exact = records(&message(&[]), MAX_FRAGMENT);
    assert!(matches!(parse_records(&exact, exact.len()), Ok(Parsed::Complete(..))));
    assert_eq!(parse_records(&exact, exact.len() - 1), Err(HelloError::TooLarge));
}

#[test]
fn what_follows_is_left_alone() {
    let mut bytes = records(&message(&sni(b"a.b")), 64);
    let end = bytes.len();
    // Early data begins with a record of another type.
    bytes.extend_from_slice(&[20, 3, 3, 0, 1, 1]);
    let Ok(Parsed::Complete(hello, used)) = parse_records(&bytes, LIMIT) else { panic!("not complete") };
    assert_eq!((hello.server_name.as_deref(), used), (Some("a.b"), end));
}

#[test]
fn every_prefix_needs_more_and_never_more_than_there_is() {
    let message = message(&[sni(b"a.example.com"), alpn(&[b"h2"])].concat());
    for size in [1, 2, 3, 7, 64, MAX_FRAGMENT] {
        let bytes = records(&message, size);
        for length in 0..bytes.len() {
            match parse_records(&bytes[..length], LIMIT) {
                Ok(Parsed::NeedMore(total)) => {
                    assert!(length < total && total <= bytes.len(), "{length} of {size}")
                }
                other => panic!("{length} of {size}: {other:?}"),
            }
        }
        assert_eq!(complete(&bytes).server_name.as_deref(), Some("a.example.com"));
    }
    for length in 0..message.len() {
        assert!(matches!(parse_handshake(&message[..length], LIMIT), Ok(Parsed::NeedMore(_))));
    }
}

proptest! {
    #[test]
    fn anything_is_taken_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), limit in 0usize..300) {
        let _ = parse_records(&bytes, limit);
        let _ = parse_handshake(&bytes, limit);
        let framed = records(&[&[CLIENT_HELLO, 0, 0, bytes.len() as u8][..], &bytes].concat(), 50);
        let _ = parse_records(&framed, LIMIT);
    }

    #[test]
    fn a_changed_byte_does_no_harm(at in 0usize..200, byte: u8) {
        let mut bytes = records(&message(&[sni(b"a.example.com"), alpn(&[b"h2", b"x"])].concat()), 60);
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(Parsed::Complete(hello, used)) = parse_records(&bytes, LIMIT) {
            prop_assert!(used <= bytes.len());
            prop_assert!(hello.server_name.is_none_or(|name| name.bytes().all(|b| b.is_ascii_graphic())));
        }
    }
}
