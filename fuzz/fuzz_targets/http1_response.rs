//! Heads of responses: whatever comes is taken without a panic, in whatever pieces; the limits hold; what was read is
//! framed once and means the same when it is written again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wmproxy_wire::head::{Method, Response, Version, is_token, is_value};
use wmproxy_wire::http1::{HeadLimits, Length, is_persistent, read_response, response_length, write_response};

const LIMITS: HeadLimits = HeadLimits { bytes: 4096, target: 0, fields: 32, any_host: false };

fuzz_target!(|bytes: &[u8]| {
    let (mut response, mut other) = (Response::new(), Response::new());
    let outcome = read_response(bytes, &LIMITS, &mut response);
    let step = bytes.len() / 256 + 1;
    let early = (0..bytes.len()).step_by(step).find_map(|len| {
        read_response(&bytes[..len], &LIMITS, &mut other).transpose()
    });
    if let Some(early) = early {
        assert_eq!(early.map(Some), outcome);
    }
    match outcome {
        Ok(Some(used)) => assert!(used <= bytes.len() && used <= LIMITS.bytes),
        Ok(None) => return assert!(bytes.len() < LIMITS.bytes && response.fields.is_empty()),
        Err(_) => return assert!(response.fields.is_empty()),
    }
    assert!((100..1000).contains(&response.status) && response.fields.len() <= LIMITS.fields);
    assert!(response.fields.iter().all(|field| is_token(field.name) && is_value(field.value)));
    let _ = is_persistent(response.version, &response.fields);

    let mut out = Vec::new();
    write_response(&response, &mut out);
    let wide = HeadLimits { bytes: out.len(), ..LIMITS };
    let mut second = Response::new();
    assert_eq!(read_response(&out, &wide, &mut second), Ok(Some(out.len())));
    for to in [Method::Get, Method::Head, Method::Connect] {
        let length = response_length(to, &response);
        if response.version == Version::Http11 {
            assert_eq!(response_length(to, &second), length);
        }
        let has_none = response.is_interim() || matches!(response.status, 204 | 304) || to == Method::Head;
        assert!(!has_none || matches!(length, Ok(Length::None) | Err(_)));
    }
    let mut stable = Vec::new();
    write_response(&second, &mut stable);
    assert_eq!(out, stable);
});
