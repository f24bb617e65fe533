//! What is read out of single fields and targets: hosts, paths, queries, who was before us, cookies, dates. Whatever comes is
//! taken without a panic, and a normal form is its own normal form.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use libfuzzer_sys::fuzz_target;
use wmproxy_wire::head::{
    Fields, authority, cookie, date, forwarded, is_value, normalise_query, parse_date, path, query_param,
};

/// What `write` makes of what it has made is the same.
fn is_stable(bytes: &[u8], write: impl Fn(&[u8], &mut Vec<u8>) -> bool) {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    if write(bytes, &mut first) {
        assert!(write(&first, &mut second), "{}", first.escape_ascii());
        assert_eq!(first, second);
    }
}

fuzz_target!(|bytes: &[u8]| {
    is_stable(bytes, |text, out| authority::parse(text).map(|authority| authority.write(80, out)).is_ok());
    is_stable(bytes, |text, out| {
        let is_fine = path::normalise(text, out).is_ok();
        assert!(!is_fine || out.starts_with(b"/") || out == b"*");
        is_fine && !out.windows(4).any(|part| part == b"/../")
    });
    let mut query = Vec::new();
    normalise_query(bytes, &mut query);
    assert!(query.len() <= bytes.len());
    let name = bytes.split(|&byte| byte == b'=').next().unwrap_or_default();
    let _ = query_param(bytes, name);
    if let Some(at) = parse_date(bytes, 1_800_000_000) {
        assert_eq!(parse_date(&date(at), 0), Some(at));
    }
    let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let mut fields = Fields::new();
    // A codec lets only valid values as far as this.
    for line in bytes.split(|&byte| byte == b'\n').filter(|line| is_value(line)) {
        fields.push(b"Forwarded", line);
        fields.push(b"X-Forwarded-For", line);
        fields.push(b"Cookie", line);
        assert!(forwarded::elements(line).count() <= line.len() + 1);
    }
    for is_trusted in [true, false] {
        let client = forwarded::client_by_forwarded(&fields, peer, |_| is_trusted);
        assert!(is_trusted || client == peer);
        let client = forwarded::client_by_x_forwarded_for(&fields, peer, |_| is_trusted);
        assert!(is_trusted || client == peer);
    }
    let _ = cookie(&fields, name);
});
