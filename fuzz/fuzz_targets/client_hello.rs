//! ClientHellos in TLS records and bare: whatever comes is taken without a panic, the limit holds, and how the bytes are
//! cut into records makes no difference.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wmproxy_wire::client_hello::{HelloError, Parsed, parse_handshake, parse_records};

const LIMIT: usize = 4096;

fuzz_target!(|bytes: &[u8]| {
    let (hello, used) = match parse_records(bytes, LIMIT) {
        Ok(Parsed::NeedMore(total)) => return assert!(total > bytes.len() && total <= LIMIT),
        Ok(Parsed::Complete(hello, used)) => (hello, used),
        Ok(Parsed::NotTls) | Err(_) => {
            let _ = parse_handshake(bytes, LIMIT);
            return;
        }
    };
    assert!(used <= bytes.len() && used <= LIMIT);
    assert!(hello.alpn.iter().all(|protocol| !protocol.is_empty()));
    if let Some(name) = &hello.server_name {
        assert!(!name.is_empty() && name.len() <= 253 && name.bytes().all(|b| b.is_ascii_graphic()));
    }
    for length in 0..used {
        assert!(matches!(parse_records(&bytes[..length], LIMIT), Ok(Parsed::NeedMore(_))), "the first {length}");
    }
    // The same message, bare and in records of seven bytes.
    let mut message = Vec::new();
    let mut rest = &bytes[..used];
    while let Some((header, tail)) = rest.split_first_chunk::<5>() {
        let length = usize::from(u16::from_be_bytes([header[3], header[4]])).min(tail.len());
        message.extend_from_slice(&tail[..length]);
        rest = &tail[length..];
    }
    assert_eq!(parse_handshake(&message, LIMIT), Ok(Parsed::Complete(hello.clone(), message.len())));
    let cut: Vec<u8> = message.chunks(7).flat_map(|part| [&[22, 3, 3, 0, part.len() as u8][..], part].concat()).collect();
    match parse_records(&cut, LIMIT) {
        Ok(Parsed::Complete(again, length)) => assert_eq!((again, length), (hello, cut.len())),
        Err(HelloError::TooLarge) => assert!(cut.len() > LIMIT),
        other => panic!("{other:?}"),
    }
});
