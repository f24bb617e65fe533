use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::tlv::crc32c;
use super::*;

/// As a listener takes them.
const MAX: usize = 4096;

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn stream(source: &str, destination: &str) -> Endpoints<'static> {
    Endpoints::Inet { transport: Transport::Stream, source: addr(source), destination: addr(destination) }
}

fn header(bytes: &[u8]) -> (Header<'_>, usize) {
    match parse(bytes, MAX) {
        Ok(Parsed::Header(header, used)) => (header, used),
        other => panic!("{:?}: {other:?}", bytes.escape_ascii().to_string()),
    }
}

/// A header of version 2 with these bytes for command, family and body.
fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    [v2::SIGNATURE, &[command, family][..], &(body.len() as u16).to_be_bytes(), body].concat()
}

/// 192.0.2.1:4242 to 198.51.100.9:443.
const BLOCK4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 9, 0x10, 0x92, 0x01, 0xbb];

#[test]
fn version_1_reads_as_the_specification_shows_it() {
    let worst_case = "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff \
                      ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
    let unknown = format!("PROXY UNKNOWN{}\r\n", " ".repeat(V1_MAX - SIGNATURE_AND_END));
    for (line, expected) in [
        (
            "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
            stream("192.168.0.1:56324", "192.168.0.11:443"),
        ),
        ("PROXY TCP4 255.255.255.255 0.0.0.0 65535 0\r\n", stream("255.255.255.255:65535", "0.0.0.0:0")),
        ("PROXY TCP6 ::1 2001:db8::1 1 2\r\n", stream("[::1]:1", "[2001:db8::1]:2")),
        (
            worst_case,
            stream(
                "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
                "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
            ),
        ),
        ("PROXY UNKNOWN\r\n", Endpoints::Unknown),
        ("PROXY UNKNOWN ffff:: whatever it says 1 2 3\r\n", Endpoints::Unknown),
        (&unknown, Endpoints::Unknown),
    ] {
        let (header, used) = header(line.as_bytes());
        assert_eq!((header.version, header.endpoints, used), (Version::V1, expected, line.len()), "{line}");
        assert_eq!(header.tlvs.iter().count(), 0);
        let more = [line.as_bytes(), b"GET / HTTP/1.1\r\n\r\n"].concat();
        assert_eq!(self::header(&more).1, line.len());
    }
}

const SIGNATURE_AND_END: usize = 15;

#[test]
fn version_1_is_refused_where_the_specification_is_not_met() {
    for line in [
        "PROXY TCP4 192.168.0.1 192.168.0.11 56324\r\n",
        "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443 5\r\n",
        "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443 \r\n",
        "PROXY TCP4  192.168.0.1 192.168.0.11 56324 443\r\n",
        "PROXY TCP4 192.168.0.1 192.168.0.11 65536 443\r\n",
        "PROXY TCP4 192.168.0.1 192.168.0.11 056 443\r\n",
        "PROXY TCP4 192.168.0.1 192.168.0.11 +56 443\r\n",
        "PROXY TCP4 192.168.0.1 192.168.0.11 -1 443\r\n",
        "PROXY TCP4 192.168.0.01 192.168.0.11 1 443\r\n",
        "PROXY TCP4 192.168.1 192.168.0.11 1 443\r\n",
        "PROXY TCP4 ::1 ::1 1 443\r\n",
        "PROXY TCP6 127.0.0.1 127.0.0.1 1 443\r\n",
        "PROXY TCP6 [::1] ::1 1 443\r\n",
        "PROXY UDP4 127.0.0.1 127.0.0.1 1 443\r\n",
        "PROXY tcp4 127.0.0.1 127.0.0.1 1 443\r\n",
        "PROXY \r\n",
        "PROXY UNKNOWN\n\r\n",
        "PROXY \u{fc}\r\n",
        "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\n",
    ] {
        let error = parse(line.as_bytes(), MAX);
        assert!(matches!(error, Err(HeaderError::Malformed(_))), "{line}: {error:?}");
    }
    let endless = format!("PROXY UNKNOWN {}", "x".repeat(V1_MAX));
    assert_eq!(parse(endless.as_bytes(), MAX), Err(HeaderError::TooLong));
    let too_long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_MAX - SIGNATURE_AND_END));
    assert_eq!(parse(too_long.as_bytes(), MAX), Err(HeaderError::TooLong));
}

#[test]
fn what_begins_otherwise_is_no_header() {
    for bytes in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"PROXX",
        b"proxy tcp4",
        b"\r\n\r\nx",
        b"\0",
        b"\x16\x03\x01",
        b"PROXY\t",
    ] {
        assert_eq!(parse(bytes, MAX), Ok(Parsed::NotProxy), "{bytes:?}");
    }
    assert_prefixes_need_more(b"PROXY UNKNOWN\r\n");
    assert_prefixes_need_more(&v2(0x20, 0, &[]));
}

#[test]
fn version_2_has_every_family() {
    let block6 = [[1; 16], [2; 16]].concat().into_iter().chain([0, 1, 0, 2]).collect::<Vec<_>>();
    let mut unix = [0; 2 * UNIX_PATH];
    unix[..4].copy_from_slice(b"/a.s");
    unix[UNIX_PATH..UNIX_PATH + 2].copy_from_slice(b"/b");
    for (nibble, transport) in [(1, Transport::Stream), (2, Transport::Datagram)] {
        let ip4 = Endpoints::Inet {
            transport,
            source: addr("192.0.2.1:4242"),
            destination: addr("198.51.100.9:443"),
        };
        assert_eq!(header(&v2(0x21, 0x10 | nibble, &BLOCK4)).0.endpoints, ip4);
        let ip6 = Endpoints::Inet {
            transport,
            source: SocketAddr::new(Ipv6Addr::from([1; 16]).into(), 1),
            destination: SocketAddr::new(Ipv6Addr::from([2; 16]).into(), 2),
        };
        assert_eq!(header(&v2(0x21, 0x20 | nibble, &block6)).0.endpoints, ip6);
        match header(&v2(0x21, 0x30 | nibble, &unix)).0.endpoints {
            Endpoints::Unix { transport: own, source, destination } => {
                assert_eq!((own, source, destination), (transport, &b"/a.s"[..], &b"/b"[..]));
            }
            other => panic!("{other:?}"),
        }
    }
    let unspecified = v2(0x21, 0, &[kind::NOOP, 0, 0]);
    let (header, used) = header(&unspecified);
    assert_eq!(
        (header.command, header.endpoints, used),
        (Command::Proxy, Endpoints::Unknown, unspecified.len())
    );
    assert_eq!(header.tlvs.iter().count(), 1);
}

#[test]
fn a_local_header_says_nothing_whatever_is_in_it() {
    for (family, body) in [(0, &[][..]), (0x11, &BLOCK4), (0xff, b"anything"), (0x11, b"short")] {
        let bytes = v2(0x20, family, body);
        let (header, used) = header(&bytes);
        assert_eq!(
            (header.command, header.endpoints, used),
            (Command::Local, Endpoints::Unknown, bytes.len())
        );
        assert_eq!(header.tlvs, Tlvs::default());
    }
}

#[test]
fn version_2_is_refused_where_the_specification_is_not_met() {
    for (bytes, part) in [
        (v2(0x11, 0x11, &BLOCK4), "its version"),
        (v2(0x22, 0x11, &BLOCK4), "its command"),
        (v2(0x21, 0x13, &BLOCK4), "its transport"),
        (v2(0x21, 0x10, &BLOCK4), "its transport"),
        (v2(0x21, 0x01, &BLOCK4), "its address family"),
        (v2(0x21, 0x41, &BLOCK4), "its address family"),
        (v2(0x21, 0x11, &BLOCK4[..11]), "shorter than its addresses"),
        (v2(0x21, 0x21, &[0; 35]), "shorter than its addresses"),
        (v2(0x21, 0x31, &[0; 215]), "shorter than its addresses"),
        (v2(0x21, 0x11, &[&BLOCK4[..], &[2, 0]].concat()), "a type-length-value"),
        (v2(0x21, 0x11, &[&BLOCK4[..], &[2, 0, 2, b'a']].concat()), "a type-length-value"),
        (v2(0x21, 0x11, &[&BLOCK4[..], &[kind::CRC32C, 0, 1, 0]].concat()), "its checksum"),
    ] {
        assert_eq!(parse(&bytes, MAX), Err(HeaderError::Malformed(part)));
    }
    // As soon as it shows.
    assert_eq!(parse(&v2(0x31, 0, &[])[..13], MAX), Err(HeaderError::Malformed("its version")));
    let long = v2(0x21, 0x11, &[0; 500]);
    assert_eq!(parse(&long[..V2_HEADER], 500), Err(HeaderError::TooLong));
    assert!(parse(&long[..V2_HEADER], long.len()).is_ok());
}

#[test]
fn type_length_values_are_kept_and_read() {
    let mut tlvs = TlvList::new();
    tlvs.push(kind::AUTHORITY, b"a.example");
    tlvs.push(kind::ALPN, b"h2");
    tlvs.push(kind::UNIQUE_ID, &[0, 0xff]);
    let version = [&[kind::SSL_VERSION, 0, 7][..], b"TLSv1.3", &[kind::SSL_CN, 0, 2], b"me"].concat();
    tlvs.push(kind::SSL, &[&[7, 0, 0, 0, 0][..], &version].concat());
    tlvs.push(kind::NETNS, b"blue");
    tlvs.push(0xe0, b"own");
    let mut bytes = vec![];
    encode_v2(&mut bytes, Command::Proxy, &stream("192.0.2.1:1", "192.0.2.2:2"), &tlvs, true);
    let (header, used) = header(&bytes);
    assert_eq!(used, bytes.len());
    assert_eq!(header.tlvs.get(kind::AUTHORITY), Some(&b"a.example"[..]));
    assert_eq!(header.tlvs.get(0xe1), None);
    let ssl = Ssl::parse(header.tlvs.get(kind::SSL).unwrap()).unwrap();
    assert_eq!((ssl.client, ssl.verify, ssl.tlvs.get(kind::SSL_CN)), (7, 0, Some(&b"me"[..])));
    assert_eq!(
        header.tlvs.to_string(),
        "authority=a.example,alpn=h2,unique_id=0x00ff,ssl=7,ssl_verify=0,ssl_version=TLSv1.3,ssl_cn=me,\
         netns=blue,0xe0=0x6f776e"
    );
    assert_eq!(Tlvs::new(header.tlvs.as_bytes()), header.tlvs);
    assert_eq!(Ssl::parse(&[1, 2, 3]), None);
}

#[test]
fn a_header_that_was_changed_fails_its_checksum() {
    // RFC 3720 appendix B.4.
    assert_eq!(!crc32c(!0, &[0; 32]), 0x8a91_36aa);
    assert_eq!(!crc32c(!0, &(0..32).collect::<Vec<u8>>()), 0x46dd_794e);
    let mut tlvs = TlvList::new();
    tlvs.push(kind::AUTHORITY, b"a.example");
    let mut bytes = vec![];
    encode_v2(&mut bytes, Command::Proxy, &stream("192.0.2.1:1", "192.0.2.2:2"), &tlvs, true);
    for at in V2_HEADER..V2_HEADER + 12 {
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        assert_eq!(parse(&changed, MAX), Err(HeaderError::Checksum), "{at}");
    }
    // It may stand before others, too.
    let mut first =
        v2(0x21, 0x11, &[&BLOCK4[..], &[kind::CRC32C, 0, 4, 0, 0, 0, 0], &[kind::NOOP, 0, 1, 9]].concat());
    let sum = !crc32c(!0, &first);
    first[V2_HEADER + 15..V2_HEADER + 19].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(header(&first).0.tlvs.iter().count(), 2);
}

#[test]
fn mixed_families_are_written_as_one() {
    let (v4, mapped, v6) = (addr("192.0.2.1:1"), addr("[::ffff:192.0.2.1]:1"), addr("[2001:db8::1]:2"));
    assert_eq!(Endpoints::inet(Transport::Stream, mapped, v4), stream("192.0.2.1:1", "192.0.2.1:1"));
    let mixed = Endpoints::inet(Transport::Stream, v4, v6);
    assert_eq!(mixed, stream("[::ffff:192.0.2.1]:1", "[2001:db8::1]:2"));
    let mut line = vec![];
    encode_v1(&mut line, &mixed);
    assert_eq!(line, b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::1 1 2\r\n");
    assert_eq!(header(&line).0.endpoints, mixed);
    // A scope is of no use to anybody else.
    let scoped = SocketAddr::V6(std::net::SocketAddrV6::new(Ipv6Addr::LOCALHOST, 1, 2, 3));
    assert_eq!(Endpoints::inet(Transport::Stream, scoped, v6), stream("[::1]:1", "[2001:db8::1]:2"));
}

#[test]
fn version_1_calls_unknown_what_it_can_t_say() {
    let udp = Endpoints::inet(Transport::Datagram, addr("192.0.2.1:1"), addr("192.0.2.1:1"));
    let unix = Endpoints::Unix { transport: Transport::Stream, source: b"", destination: b"/a" };
    for endpoints in [udp, unix, Endpoints::Unknown] {
        let mut line = vec![];
        encode_v1(&mut line, &endpoints);
        assert_eq!(line, b"PROXY UNKNOWN\r\n");
    }
    let mut local = vec![];
    encode_v2(&mut local, Command::Local, &unix, &TlvList::new(), true);
    assert_eq!(local, v2(0x20, 0, &[]));
}

#[test]
fn a_list_takes_no_more_than_a_header_holds() {
    let mut tlvs = TlvList::new();
    assert!(!tlvs.push(1, &vec![0; 65_536]));
    while tlvs.push(1, &[0; 1000]) {}
    let path = [b'x'; 200];
    let unix = Endpoints::Unix { transport: Transport::Datagram, source: &path, destination: b"" };
    let mut bytes = vec![];
    encode_v2(&mut bytes, Command::Proxy, &unix, &tlvs, true);
    let parsed = parse(&bytes, usize::MAX).unwrap();
    let cut =
        Endpoints::Unix { transport: Transport::Datagram, source: &path[..UNIX_PATH], destination: b"" };
    assert!(matches!(parsed, Parsed::Header(header, used) if used == bytes.len() && header.endpoints == cut));
}

fn any_addr() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        any::<(u32, u16)>().prop_map(|(ip, port)| SocketAddr::new(Ipv4Addr::from_bits(ip).into(), port)),
        any::<(u128, u16)>().prop_map(|(ip, port)| SocketAddr::new(Ipv6Addr::from_bits(ip).into(), port)),
    ]
}

/// Paths come from `PATHS`, for a strategy can't lend.
fn any_endpoints() -> impl Strategy<Value = Endpoints<'static>> {
    let transport = || prop_oneof![Just(Transport::Stream), Just(Transport::Datagram)];
    let path = || proptest::sample::select(&PATHS[..]);
    prop_oneof![
        Just(Endpoints::Unknown),
        (transport(), any_addr(), any_addr()).prop_map(|(t, a, b)| Endpoints::inet(t, a, b)),
        (transport(), path(), path()).prop_map(|(transport, source, destination)| Endpoints::Unix {
            transport,
            source,
            destination
        }),
    ]
}

const PATHS: [&[u8]; 4] = [b"", b"/run/a.sock", b"/\xff", &[b'p'; UNIX_PATH]];

fn assert_prefixes_need_more(bytes: &[u8]) {
    for length in 0..bytes.len() {
        match parse(&bytes[..length], MAX) {
            Ok(Parsed::NeedMore(total)) => {
                assert!(length < total && total <= bytes.len(), "{length}: {total}")
            }
            other => panic!("{length}: {other:?}"),
        }
    }
}

proptest! {
    #[test]
    fn version_2_reads_back_what_was_written(
        endpoints in any_endpoints(),
        values in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..5),
        checksum: bool,
        behind in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        let mut tlvs = TlvList::new();
        let values: Vec<_> = values.into_iter().filter(|(kind, _)| *kind != kind::CRC32C).collect();
        for (kind, value) in &values {
            prop_assert!(tlvs.push(*kind, value));
        }
        let mut bytes = vec![];
        encode_v2(&mut bytes, Command::Proxy, &endpoints, &tlvs, checksum);
        assert_prefixes_need_more(&bytes);
        let length = bytes.len();
        bytes.extend_from_slice(&behind);
        let (header, used) = header(&bytes);
        prop_assert_eq!((header.command, header.endpoints, used), (Command::Proxy, endpoints, length));
        let read: Vec<_> = header.tlvs.iter().take(values.len()).map(|tlv| (tlv.kind, tlv.value.to_vec())).collect();
        prop_assert_eq!(read, values);
        let _ = header.tlvs.to_string();
    }

    #[test]
    fn version_1_reads_back_what_was_written(a in any_addr(), b in any_addr()) {
        let endpoints = Endpoints::inet(Transport::Stream, a, b);
        let mut bytes = vec![];
        encode_v1(&mut bytes, &endpoints);
        prop_assert!(bytes.len() <= V1_MAX);
        assert_prefixes_need_more(&bytes);
        let (header, used) = header(&bytes);
        prop_assert_eq!((header.endpoints, used), (endpoints, bytes.len()));
    }

    #[test]
    fn anything_is_taken_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), max in 0usize..400) {
        let _ = parse(&bytes, max);
        let _ = parse(&[v1::SIGNATURE, &bytes].concat(), max);
        for command in [0x20, 0x21] {
            let family = bytes.first().copied().unwrap_or(0);
            if let Ok(Parsed::Header(header, _)) = parse(&v2(command, family, &bytes), MAX) {
                let _ = header.tlvs.to_string();
            }
        }
    }
}
