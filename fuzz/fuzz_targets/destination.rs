//! Destinations: whatever comes is taken without a panic, what is a name can't be read as an address by anybody, and what is
//! normal stays as it is.
#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use wmproxy_wire::destination::{Destination, Host, MAX_NAME, parse_host};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(host) = parse_host(bytes) {
        let text = match &host {
            Host::Ip(ip) => {
                assert_eq!(*ip, ip.to_canonical());
                ip.to_string()
            }
            Host::Name(name) => {
                assert!(name.len() <= MAX_NAME && name.parse::<IpAddr>().is_err());
                assert!(name.split('.').all(|label| (1..=63).contains(&label.len())));
                let last = name.rsplit('.').next().unwrap_or_default();
                assert!(!last.bytes().all(|byte| byte.is_ascii_digit()), "{name}");
                assert!(name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.')));
                name.to_string()
            }
        };
        assert_eq!(parse_host(text.as_bytes()), Ok(host));
    }
    if let Ok(to) = Destination::parse(bytes, Some(80)) {
        assert_ne!(to.port, 0);
        assert_eq!(Destination::parse(to.to_string().as_bytes(), None), Ok(to));
    }
});
