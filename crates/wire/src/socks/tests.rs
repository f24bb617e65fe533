use proptest::prelude::*;

use std::net::SocketAddrV4;

use super::*;

const MAX_TEXT: usize = 255;

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Every part of a message asks for more than it has, and what lies behind one is left alone.
fn whole<'a, T: PartialEq + fmt::Debug>(
    bytes: &'a [u8],
    parse: impl Fn(&'a [u8]) -> Result<Parsed<T>, SocksError>,
) -> T {
    for length in 0..bytes.len() {
        match parse(&bytes[..length]) {
            Ok(Parsed::NeedMore(total)) => {
                assert!(total > length && total <= bytes.len(), "{length}: {total}")
            }
            other => panic!("{other:?} of the first {length} of {bytes:?}"),
        }
    }
    match parse(bytes) {
        Ok(Parsed::Done(message, used)) => {
            assert_eq!(used, bytes.len());
            message
        }
        other => panic!("{other:?} of {bytes:?}"),
    }
}

#[test]
fn socks5_as_rfc_1928_has_it() {
    assert_eq!(whole(&[5, 2, 0, 2], v5::parse_greeting), &[v5::method::NONE, v5::method::PASSWORD]);
    assert_eq!(
        whole(&[5, 0], v5::parse_greeting),
        &[] as &[u8],
        "no method at all is for the caller to refuse"
    );
    assert_eq!(whole(&[5, 2], v5::parse_choice), v5::method::PASSWORD);
    assert_eq!(v5::choice(v5::method::UNACCEPTABLE), [5, 0xff]);
    let v4 = [5, 1, 0, 1, 192, 0, 2, 7, 0x01, 0xbb];
    let expected = v5::Request { command: Command::Connect, target: Target::Address(addr("192.0.2.7:443")) };
    assert_eq!(whole(&v4, v5::parse_request), expected);
    let name = b"\x05\x02\x00\x03\x0bexample.com\x00\x50";
    let expected = v5::Request { command: Command::Bind, target: Target::Name(b"example.com", 80) };
    assert_eq!(whole(name, v5::parse_request), expected);
    let v6 = [&[5, 3, 0, 4][..], &[0; 15], &[1, 0xff, 0xff]].concat();
    let expected = v5::Request { command: Command::Associate, target: Target::Address(addr("[::1]:65535")) };
    assert_eq!(whole(&v6, v5::parse_request), expected);
    let reply = [5, 5, 0, 1, 0, 0, 0, 0, 0, 0];
    let expected = v5::Reply { code: v5::Code::REFUSED, bound: Target::Address(addr("0.0.0.0:0")) };
    assert_eq!(whole(&reply, v5::parse_reply), expected);
    assert_eq!(v5::reply(v5::Code::REFUSED, addr("0.0.0.0:0"))[..], reply);
    assert_eq!(
        v5::reply(v5::Code::SUCCEEDED, addr("[::1]:65535"))[..],
        [&[5, 0, 0, 4][..], &v6[4..]].concat()
    );
}

#[test]
fn passwords_as_rfc_1929_has_them() {
    let credentials = whole(b"\x01\x05alice\x06secret", v5::parse_credentials);
    assert_eq!((credentials.name, credentials.password), (&b"alice"[..], &b"secret"[..]));
    assert!(!format!("{credentials:?}").contains("secret") && !format!("{credentials:?}").contains("115"));
    let empty = whole(&[1, 0, 0], v5::parse_credentials);
    assert_eq!((empty.name, empty.password), (&b""[..], &b""[..]));
    let longest = [&[1, 255][..], &[b'n'; 255], &[255], &[b'p'; 255]].concat();
    let credentials = whole(&longest, v5::parse_credentials);
    assert_eq!((credentials.name.len(), credentials.password.len()), (255, 255));
    assert!(whole(&v5::verdict(true), v5::parse_verdict));
    assert!(!whole(&v5::verdict(false), v5::parse_verdict));
    assert!(!whole(&[1, 7], v5::parse_verdict), "any other code is a no");
}

#[test]
fn socks4_as_its_authors_have_it() {
    let request = b"\x04\x01\x00\x50\xc0\x00\x02\x07fred\x00";
    let parse = |bytes| v4::parse_request(bytes, MAX_TEXT);
    let parsed = whole(request, parse);
    assert_eq!(parsed.command, Command::Connect);
    assert_eq!((parsed.target, parsed.user_id), (Target::Address(addr("192.0.2.7:80")), &b"fred"[..]));
    // 4a: an address of 0.0.0.x, where x is not 0.
    let parsed = whole(b"\x04\x02\x01\xbb\x00\x00\x00\x01\x00example.com\x00", parse);
    assert_eq!(parsed.command, Command::Bind);
    assert_eq!((parsed.target, parsed.user_id), (Target::Name(b"example.com", 443), &b""[..]));
    let parsed = whole(b"\x04\x02\x01\xbb\x00\x00\x00\x00\x00", parse);
    assert_eq!(parsed.target, Target::Address(addr("0.0.0.0:443")), "no name follows");
    let parsed = whole(b"\x04\x01\x01\xbb\x00\x00\x00\xff\x00\x00", parse);
    assert_eq!(parsed.target, Target::Name(b"", 443));
    let reply = v4::reply(v4::Code::GRANTED, addr("192.0.2.7:80"));
    assert_eq!(reply, [0, 90, 0, 80, 192, 0, 2, 7]);
    let parsed = whole(&reply, v4::parse_reply);
    assert_eq!((parsed.code, parsed.address), (v4::Code::GRANTED, "192.0.2.7:80".parse().unwrap()));
    assert_eq!(v4::reply(v4::Code::REJECTED, addr("[2001:db8::1]:80")), [0, 91, 0, 80, 0, 0, 0, 0]);
    assert_eq!(v4::reply(v4::Code::GRANTED, addr("[::ffff:192.0.2.7]:80")), [0, 90, 0, 80, 192, 0, 2, 7]);
}

#[test]
fn texts_of_socks4_end_somewhere() {
    let request = |user: usize, name: usize| {
        [b"\x04\x01\x00\x50\x00\x00\x00\x01", &vec![b'u'; user][..], b"\0", &vec![b'n'; name], b"\0"].concat()
    };
    let longest = request(MAX_TEXT, MAX_TEXT);
    assert_eq!(whole(&longest, |bytes| v4::parse_request(bytes, MAX_TEXT)).user_id.len(), MAX_TEXT);
    for (user, name) in [(MAX_TEXT + 1, 1), (1, MAX_TEXT + 1)] {
        let long = request(user, name);
        assert_eq!(v4::parse_request(&long, MAX_TEXT), Err(SocksError::TooLong));
        // It is known before the end has come.
        let cut = long.len() - if name > MAX_TEXT { 1 } else { name + 2 };
        assert_eq!(v4::parse_request(&long[..cut], MAX_TEXT), Err(SocksError::TooLong));
    }
    // Without an end as much is taken as may be, and no more.
    let endless = [&request(0, 0)[..8], &[b'u'; 4096]].concat();
    assert_eq!(v4::parse_request(&endless[..8 + MAX_TEXT], MAX_TEXT), Ok(Parsed::NeedMore(9 + MAX_TEXT)));
    assert_eq!(v4::parse_request(&endless, MAX_TEXT), Err(SocksError::TooLong));
}

#[test]
fn what_is_no_socks_is_refused_with_its_first_wrong_byte() {
    assert_eq!(v5::parse_greeting(&[4]), Err(SocksError::Version(4)));
    assert_eq!(v5::parse_greeting(b"GET / HTTP/1.1\r\n"), Err(SocksError::Version(b'G')));
    assert_eq!(v5::parse_choice(b"HTTP/1.1 400"), Err(SocksError::Version(b'H')));
    assert_eq!(v5::parse_credentials(&[5, 1]), Err(SocksError::Version(5)));
    assert_eq!(v5::parse_verdict(&[5, 0]), Err(SocksError::Version(5)));
    assert_eq!(v5::parse_request(&[1, 1, 0, 1]), Err(SocksError::Version(1)));
    assert_eq!(v5::parse_request(&[5, 1, 0, 2]), Err(SocksError::AddressType(2)));
    assert_eq!(v5::parse_reply(&[5, 0, 0, 0]), Err(SocksError::AddressType(0)));
    assert_eq!(v4::parse_request(&[5], MAX_TEXT), Err(SocksError::Version(5)));
    assert_eq!(v4::parse_reply(&[4, 90]), Err(SocksError::Version(4)), "a reply begins with 0");
    assert_eq!(Command::from_byte(0x7f), Command::Other(0x7f));
}

#[test]
fn datagrams_as_rfc_1928_has_them() {
    let datagram = b"\x00\x00\x00\x01\x7f\x00\x00\x01\x00\x35data";
    let (header, used) = datagram::parse(datagram).unwrap();
    assert_eq!(header, datagram::Header { fragment: 0, target: Target::Address(addr("127.0.0.1:53")) });
    assert_eq!(&datagram[used..], b"data");
    assert_eq!(datagram::header(addr("127.0.0.1:53"))[..], datagram[..used]);
    let (header, used) = datagram::parse(b"\x00\x00\x83\x03\x01n\x00\x35").unwrap();
    assert_eq!((header.fragment, header.target, used), (0x83, Target::Name(b"n", 53), 8));
    for length in 0..used {
        assert_eq!(datagram::parse(&b"\x00\x00\x83\x03\x01n\x00\x35"[..length]), Err(SocksError::CutOff));
    }
    assert_eq!(datagram::parse(&[0, 0, 0, 9, 0, 0]), Err(SocksError::AddressType(9)));
    let mut longest = Vec::new();
    datagram::write_header(&mut longest, &Target::Name(&[b'n'; 255], 1)).unwrap();
    assert_eq!(longest.len(), datagram::MAX_HEADER);
}

#[test]
fn names_that_are_addresses_become_them() {
    let of = |name: &'static [u8]| Target::Name(name, 80).destination();
    let address = |text: &str| Ok(Destination::from(addr(text)));
    assert_eq!(of(b"192.0.2.7"), address("192.0.2.7:80"));
    assert_eq!(of(b"0x7f.1"), address("127.0.0.1:80"));
    assert_eq!(of(b"::1"), address("[::1]:80"));
    assert_eq!(of(b"[::1]"), address("[::1]:80"));
    assert_eq!(of(b"EXAMPLE.com."), Ok(Destination { host: Host::Name("example.com".into()), port: 80 }));
    for none in [&b""[..], b".", b"a b", b"a\0b", b"a/b", &[b'n'; 255]] {
        assert!(Target::Name(none, 80).destination().is_err(), "{none:?}");
    }
    assert_eq!(Target::Address(addr("[::1]:1")).destination(), address("[::1]:1"));
    let name = Destination { host: Host::Name("example.com".into()), port: 80 };
    assert_eq!(Target::from(&name), Target::Name(b"example.com", 80));
    assert_eq!(Target::from(&Destination::from(addr("[::1]:1"))), Target::Address(addr("[::1]:1")));
}

#[test]
fn what_can_t_be_said_is_not_begun() {
    let mut out = b"kept".to_vec();
    let long = [b'n'; 256];
    let name = Target::Name(&long, 80);
    let connect = |target| v5::Request { command: Command::Connect, target };
    assert_eq!(v5::write_request(&mut out, &connect(name)), Err(SocksError::TooLong));
    assert_eq!(v5::write_greeting(&mut out, &long), Err(SocksError::TooLong));
    for credentials in
        [v5::Credentials { name: &long, password: b"p" }, v5::Credentials { name: b"n", password: &long }]
    {
        assert_eq!(v5::write_credentials(&mut out, &credentials), Err(SocksError::TooLong));
    }
    assert_eq!(datagram::write_header(&mut out, &name), Err(SocksError::TooLong));
    let v4_of = |target, user_id| v4::Request { command: Command::Connect, target, user_id };
    let v6 = v4_of(Target::Address(addr("[2001:db8::1]:80")), b"");
    assert_eq!(v4::write_request(&mut out, &v6), Err(SocksError::NoIpv6));
    for nul in [v4_of(Target::Name(b"a\0b", 80), b""), v4_of(Target::Name(b"a", 80), b"\0")] {
        assert_eq!(v4::write_request(&mut out, &nul), Err(SocksError::Nul));
    }
    // It would be read as a name.
    let nobody = v4_of(Target::Address(addr("0.0.0.9:80")), b"");
    assert_eq!(v4::write_request(&mut out, &nobody), Err(SocksError::NoAddress));
    assert_eq!(out, b"kept");
}

fn any_address() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        any::<(Ipv4Addr, u16)>().prop_map(SocketAddr::from),
        any::<(Ipv6Addr, u16)>().prop_map(SocketAddr::from),
    ]
}

fn any_text() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..=255)
}

/// An address, or a name if there is one.
fn target(address: SocketAddr, name: &Option<Vec<u8>>) -> Target<'_> {
    name.as_ref().map_or(Target::Address(address), |name| Target::Name(name, address.port()))
}

proptest! {
    #[test]
    fn socks5_is_read_as_it_was_written(
        command in any::<u8>().prop_map(Command::from_byte),
        address in any_address(),
        name in proptest::option::of(any_text()),
        password in any_text(),
        code in any::<u8>().prop_map(v5::Code),
    ) {
        let target = target(address, &name);
        let request = v5::Request { command, target };
        let mut bytes = Vec::new();
        v5::write_request(&mut bytes, &request).unwrap();
        prop_assert_eq!(whole(&bytes, v5::parse_request), request);

        bytes.clear();
        v5::write_greeting(&mut bytes, &password).unwrap();
        prop_assert_eq!(whole(&bytes, v5::parse_greeting), &password[..]);

        bytes.clear();
        let credentials = v5::Credentials { name: name.as_deref().unwrap_or_default(), password: &password };
        v5::write_credentials(&mut bytes, &credentials).unwrap();
        prop_assert_eq!(whole(&bytes, v5::parse_credentials), credentials);

        let bound = Target::Address(address);
        let reply = v5::reply(code, address);
        prop_assert_eq!(whole(&reply, v5::parse_reply), v5::Reply { code, bound });

        bytes.clear();
        datagram::write_header(&mut bytes, &target).unwrap();
        let header = datagram::Header { fragment: 0, target };
        let length = bytes.len();
        bytes.extend_from_slice(&password);
        prop_assert_eq!(datagram::parse(&bytes), Ok((header, length)));
        if name.is_none() {
            prop_assert_eq!(&datagram::header(address)[..], &bytes[..length]);
        }
    }

    #[test]
    fn socks4_is_read_as_it_was_written(
        command in any::<u8>().prop_map(Command::from_byte),
        address in any::<(Ipv4Addr, u16)>(),
        name in proptest::option::of(any_text()),
        user_id in any_text(),
        code in any::<u8>().prop_map(v4::Code),
    ) {
        let request = v4::Request { command, target: target(address.into(), &name), user_id: &user_id };
        let mut bytes = Vec::new();
        if v4::write_request(&mut bytes, &request).is_ok() {
            prop_assert_eq!(whole(&bytes, |bytes| v4::parse_request(bytes, MAX_TEXT)), request);
        } else {
            prop_assert!(bytes.is_empty());
        }
        let reply = v4::reply(code, address.into());
        let expected = v4::Reply { code, address: SocketAddrV4::new(address.0, address.1) };
        prop_assert_eq!(whole(&reply, v4::parse_reply), expected);
    }

    #[test]
    fn whatever_comes_is_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = v4::parse_request(&bytes, MAX_TEXT);
        let _ = v4::parse_reply(&bytes);
        let _ = v5::parse_greeting(&bytes);
        let _ = v5::parse_choice(&bytes);
        let _ = v5::parse_credentials(&bytes);
        let _ = v5::parse_verdict(&bytes);
        let _ = v5::parse_request(&bytes);
        let _ = v5::parse_reply(&bytes);
        let _ = datagram::parse(&bytes);
    }
}
