//! PROXY headers: whatever comes is taken without a panic, and what is a header means the same when it is written again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wmproxy_wire::proxy_protocol::{Parsed, TlvList, Version, encode_v1, encode_v2, kind, parse};

/// As listeners have it.
const MAX: usize = 4096;

fuzz_target!(|bytes: &[u8]| {
    let (header, used) = match parse(bytes, MAX) {
        Ok(Parsed::NeedMore(total)) => return assert!(total > bytes.len() && total <= MAX.max(107)),
        Ok(Parsed::Header(header, used)) => (header, used),
        Ok(Parsed::NotProxy) | Err(_) => return,
    };
    assert!(used <= bytes.len() && used <= MAX);
    for length in 0..used {
        assert!(matches!(parse(&bytes[..length], MAX), Ok(Parsed::NeedMore(_))), "the first {length}");
    }
    let _ = header.tlvs.to_string();
    let mut tlvs = TlvList::new();
    for tlv in header.tlvs.iter().filter(|tlv| tlv.kind != kind::CRC32C) {
        assert!(tlvs.push(tlv.kind, tlv.value));
    }
    let mut again = Vec::new();
    match header.version {
        Version::V1 => encode_v1(&mut again, &header.endpoints),
        Version::V2 => encode_v2(&mut again, header.command, &header.endpoints, &tlvs, true),
    }
    match parse(&again, again.len().max(MAX)) {
        Ok(Parsed::Header(read, length)) => {
            assert_eq!((read.command, read.endpoints, length), (header.command, header.endpoints, again.len()));
        }
        other => panic!("{other:?}"),
    }
});
