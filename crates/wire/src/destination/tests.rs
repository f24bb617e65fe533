use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

fn ip(text: &str) -> Host {
    Host::Ip(text.parse().unwrap())
}

fn name(text: &str) -> Host {
    Host::Name(text.into())
}

/// Spellings by which filters of other proxies were passed, and what resolvers make of them.
#[test]
fn every_spelling_of_an_address_is_that_address() {
    for (text, address) in [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("127.0.1", "127.0.0.1"),
        ("127.257", "127.0.1.1"),
        ("2130706433", "127.0.0.1"),
        ("017700000001", "127.0.0.1"),
        ("00000000000000000017700000001", "127.0.0.1"),
        ("0x7f000001", "127.0.0.1"),
        ("0X7F.1", "127.0.0.1"),
        ("0x7f.0.0.0x1", "127.0.0.1"),
        ("0177.0.0.01", "127.0.0.1"),
        ("0177.0x0.0.1", "127.0.0.1"),
        ("0", "0.0.0.0"),
        ("00", "0.0.0.0"),
        ("0x0", "0.0.0.0"),
        ("4294967295", "255.255.255.255"),
        ("255.16777215", "255.255.255.255"),
        ("169.254.43518", "169.254.169.254"),
        ("0xA9FEA9FE", "169.254.169.254"),
        ("0251.0376.0251.0376", "169.254.169.254"),
        ("[::1]", "::1"),
        ("::1", "::1"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("[::]", "::"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("[::FFFF:7f00:1]", "127.0.0.1"),
        ("[0:0:0:0:0:ffff:a9fe:a9fe]", "169.254.169.254"),
        ("[64:ff9b::7f00:1]", "64:ff9b::127.0.0.1"),
        // Digits and dots of other scripts.
        ("１２７．０．０．１", "127.0.0.1"),
        ("127。0。0。1", "127.0.0.1"),
        ("①②⑦.⓪.⓪.①", "127.0.0.1"),
        ("𝟎x7f.1", "127.0.0.1"),
        ("1２7.0.0.1。", "127.0.0.1"),
        ("12\u{ad}7.0.0.1", "127.0.0.1"),
    ] {
        assert_eq!(parse_host(text.as_bytes()), Ok(ip(address)), "{text}");
    }
}

#[test]
fn names_come_in_one_spelling() {
    for (text, normal) in [
        ("example.com", "example.com"),
        ("EXAMPLE.Com.", "example.com"),
        ("localhost", "localhost"),
        ("LocalHost.", "localhost"),
        ("a_b.-c-.example", "a_b.-c-.example"),
        ("r3---sn-x.example", "r3---sn-x.example"),
        ("0x7f.1.example", "0x7f.1.example"),
        ("0xg", "0xg"),
        ("1e1", "1e1"),
        ("127.0.0.1.nip.io", "127.0.0.1.nip.io"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example。", "xn--bcher-kva.example"),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
        // Non-transitional: these letters stay what they are.
        ("faß.example", "xn--fa-hia.example"),
        ("βόλος.example", "xn--nxasmm1c.example"),
        ("ＥＸＡＭＰＬＥ．ｃｏｍ", "example.com"),
        ("ⓔⓧⓐⓜⓟⓛⓔ.com", "example.com"),
        ("exa\u{ad}mple.com", "example.com"),
        ("K.example", "k.example"),
        ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
    ] {
        assert_eq!(parse_host(text.as_bytes()), Ok(name(normal)), "{text}");
    }
}

#[test]
fn what_is_no_host_is_refused() {
    use BadHost as B;
    for (text, bad) in [
        ("", B::Empty),
        (".", B::Label),
        ("..", B::Label),
        (".example.com", B::Label),
        ("example..com", B::Label),
        ("example.com..", B::Label),
        ("\u{ad}.com", B::Label),
        ("127.0.0.1..", B::Label),
        ("127..1", B::Label),
        ("example.com%00", B::Character),
        ("%31%32%37.0.0.1", B::Character),
        ("example.com\0", B::Character),
        ("127.0.0.1\0.example.com", B::Character),
        ("example.com\r\nx: y", B::Ipv6),
        ("example.com\n", B::Character),
        (" example.com", B::Character),
        ("127.0.0.1 ", B::Character),
        ("127.0.0.1\t", B::Character),
        ("user@example.com", B::Character),
        ("example.com/", B::Character),
        ("example.com\\", B::Character),
        ("example.com#", B::Character),
        ("example.com?", B::Character),
        ("+127.0.0.1", B::Character),
        ("127.0.0.+1", B::Character),
        ("*.example.com", B::Character),
        ("exa mple。com", B::Character),
        ("exam℀ple.com", B::International),
        ("exam％ple.com", B::International),
        ("xn--", B::International),
        ("xn--a", B::International),
        ("xn--example-.com", B::International),
        ("a\u{202e}b.com", B::International),
        ("256.0.0.1", B::Ipv4),
        ("1.2.3.256", B::Ipv4),
        ("1.2.65536", B::Ipv4),
        ("1.16777216", B::Ipv4),
        ("4294967296", B::Ipv4),
        ("0x100000000", B::Ipv4),
        ("99999999999999999999999", B::Ipv4),
        ("1.2.3.4.5", B::Ipv4),
        ("08.0.0.1", B::Ipv4),
        ("127.0.0.09", B::Ipv4),
        ("0x.0.0.1", B::Ipv4),
        ("127.0.0.0x", B::Ipv4),
        ("0x7g.1", B::Ipv4),
        ("example.123", B::Ipv4),
        ("example.0x1f", B::Ipv4),
        ("example.1.", B::Ipv4),
        ("[]", B::Ipv6),
        ("[", B::Ipv6),
        ("[::1", B::Ipv6),
        ("[[::1]]", B::Ipv6),
        ("[::1].", B::Ipv6),
        ("[127.0.0.1]", B::Ipv6),
        ("[example.com]", B::Ipv6),
        ("[fe80::1%25eth0]", B::Ipv6),
        ("fe80::1%eth0", B::Ipv6),
        ("[::ffff:0x7f.1]", B::Ipv6),
        ("[::1]:80", B::Ipv6),
        ("example.com:80", B::Ipv6),
        ("1::2::3", B::Ipv6),
    ] {
        let read = parse_host(text.as_bytes());
        // Which of two sieves catches it is theirs to know.
        let bad_by_script = !text.is_ascii() && bad == B::Character && read == Err(B::International);
        assert!(read == Err(bad) || bad_by_script, "{text:?}: {read:?}");
    }
    assert_eq!(parse_host(b"ex\xffample.com"), Err(B::International));
}

#[test]
fn lengths_are_bounded() {
    let label = "a".repeat(63);
    let longest = [&label[..], &label, &label, &label[..61]].join(".");
    assert_eq!(longest.len(), MAX_NAME);
    assert_eq!(parse_host(longest.as_bytes()), Ok(name(&longest)));
    assert_eq!(parse_host(format!("{longest}.").as_bytes()), Ok(name(&longest)));
    assert_eq!(parse_host(format!("{longest}b").as_bytes()), Err(BadHost::TooLong));
    assert_eq!(parse_host(format!("{label}a.example").as_bytes()), Err(BadHost::Label));
    assert_eq!(parse_host(&[b'a'; 100_000]), Err(BadHost::TooLong));
    assert_eq!(parse_host("ü".repeat(507).as_bytes()), Err(BadHost::TooLong));
    assert!(parse_host("ü".repeat(300).as_bytes()).is_err());
    // 63 letters as they are sent, more as they are written.
    let many = "ü".repeat(50);
    let Ok(Host::Name(name)) = parse_host(format!("{many}.example").as_bytes()) else { panic!("{many}") };
    assert!(name.starts_with("xn--") && name.len() <= 63 + 8, "{name}");
}

#[test]
fn destinations_read() {
    let read = |text: &str, default| Destination::parse(text.as_bytes(), default);
    let to = |host, port| Ok(Destination { host, port });
    assert_eq!(read("Example.com:443", None), to(name("example.com"), 443));
    assert_eq!(read("example.com", Some(80)), to(name("example.com"), 80));
    assert_eq!(read("example.com:", Some(80)), to(name("example.com"), 80));
    assert_eq!(read("example.com.:8080", Some(80)), to(name("example.com"), 8080));
    assert_eq!(read("[::1]:0080", None), to(ip("::1"), 80));
    assert_eq!(read("[::ffff:10.0.0.1]", Some(80)), to(ip("10.0.0.1"), 80));
    assert_eq!(read("0x7f.1:65535", None), to(ip("127.0.0.1"), 65535));
    for (text, bad) in [
        ("example.com", BadDestination::NoPort),
        ("example.com:", BadDestination::BadPort),
        ("example.com:0", BadDestination::BadPort),
        ("example.com:65536", BadDestination::BadPort),
        ("example.com:+80", BadDestination::BadPort),
        ("example.com: 80", BadDestination::BadPort),
        ("example.com:80x", BadDestination::BadPort),
        ("example.com:http", BadDestination::BadPort),
        ("", BadDestination::NoPort),
        (":80", BadDestination::Host(BadHost::Empty)),
        ("::1", BadDestination::Host(BadHost::Ipv6)),
        ("::1:80", BadDestination::Host(BadHost::Ipv6)),
        ("[::1", BadDestination::Host(BadHost::Ipv6)),
        ("[::1]80", BadDestination::Host(BadHost::Ipv6)),
        ("[::1]:80:90", BadDestination::Host(BadHost::Ipv6)),
        ("a:b:80", BadDestination::Host(BadHost::Ipv6)),
        ("user@example.com:80", BadDestination::Host(BadHost::Character)),
        ("user:pass@example.com:80", BadDestination::Host(BadHost::Ipv6)),
    ] {
        assert_eq!(read(text, None), Err(bad), "{text:?}");
    }
    assert_eq!(read("example.com:0", Some(80)), Err(BadDestination::BadPort));
}

#[test]
fn what_is_printed_reads_the_same() {
    for text in ["example.com:443", "127.0.0.1:80", "[2001:db8::1]:53"] {
        assert_eq!(Destination::parse(text.as_bytes(), None).unwrap().to_string(), text);
    }
    let mapped: SocketAddr = "[::ffff:127.0.0.1]:80".parse().unwrap();
    assert_eq!(Destination::from(mapped).to_string(), "127.0.0.1:80");
}

/// What the C library does with the numbers of a text (`inet_aton` of glibc, with strtoul and base 0), written down anew: by
/// parts, without a look at what our own reading does.
fn inet_aton(text: &str) -> Option<Ipv4Addr> {
    let parts: Vec<u64> = text
        .split('.')
        .map(|part| match part.as_bytes() {
            [b'0', b'x' | b'X', hex @ ..] if !hex.is_empty() => u64::from_str_radix(&part[2..], 16).ok(),
            [b'0', _, ..] => u64::from_str_radix(part, 8).ok(),
            [b'0'..=b'9', ..] => part.parse().ok(),
            _ => None,
        })
        .collect::<Option<_>>()?;
    let (last, before) = parts.split_last()?;
    if before.len() > 3
        || before.iter().any(|part| *part > 255)
        || *last >= 256u64.pow(4 - before.len() as u32)
    {
        return None;
    }
    let high = before.iter().enumerate().map(|(index, part)| part << (24 - 8 * index)).sum::<u64>();
    u32::try_from(high + last).ok().map(Ipv4Addr::from_bits)
}

fn hostlike() -> impl Strategy<Value = String> {
    prop_oneof![
        "[0-9xXa-f.]{1,20}",
        "(0x)?[0-9a-f]{1,9}(\\.(0x|0)?[0-9a-f]{1,3}){0,4}\\.?",
        "[a-zA-Z0-9_.-]{1,40}",
        "[a-z0-9.:\\[\\]%]{1,30}",
        "[a-zA-Zßüσς１２．。\u{ad}0-9.-]{1,16}",
        "(xn--)?[a-z0-9-]{1,12}\\.[a-z]{2,3}",
        any::<String>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn a_name_is_never_read_as_an_address(text in hostlike()) {
        match parse_host(text.as_bytes()) {
            Ok(Host::Name(name)) => {
                prop_assert_eq!(inet_aton(&name), None);
                prop_assert!(name.parse::<IpAddr>().is_err());
                prop_assert!(name.len() <= MAX_NAME);
                prop_assert!(name.split('.').all(|label| (1..=63).contains(&label.len())));
                prop_assert!(name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.')));
            }
            Ok(Host::Ip(ip)) => {
                prop_assert_eq!(ip, ip.to_canonical());
                if text.is_ascii() && let Some(read) = inet_aton(text.strip_suffix('.').unwrap_or(&text)) {
                    prop_assert_eq!(ip, IpAddr::V4(read));
                }
            }
            // What others would read as an address, we do too.
            Err(_) => prop_assert_eq!(inet_aton(&text), None),
        }
    }

    #[test]
    fn what_is_normal_stays_as_it_is(text in hostlike()) {
        if let Ok(host) = parse_host(text.as_bytes()) {
            let again = match &host {
                Host::Ip(ip) => ip.to_string(),
                Host::Name(name) => name.to_string(),
            };
            prop_assert_eq!(parse_host(again.as_bytes()), Ok(host.clone()));
            prop_assert_eq!(parse_host(format!("{again}.").as_bytes()).ok(), matches!(&host, Host::Name(_)|Host::Ip(IpAddr::V4(_))).then_some(host));
        }
    }

    /// Plain names skip UTS 46: it must have had nothing to say about them.
    #[test]
    fn the_short_way_is_the_long_one(text in "[a-zA-Z0-9_.-]{1,60}") {
        use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
        if let Ok(Host::Name(name)) = parse_host(text.as_bytes()) {
            let long = Uts46::new().to_ascii(text.as_bytes(), AsciiDenyList::URL, Hyphens::Allow, DnsLength::Ignore);
            let long = long.unwrap().into_owned();
            prop_assert_eq!(&*name, long.strip_suffix('.').unwrap_or(&long));
        }
    }

    #[test]
    fn bytes_of_any_kind_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse_host(&bytes);
        let _ = Destination::parse(&bytes, Some(80));
    }
}
