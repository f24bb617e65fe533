//! Heads of requests: whatever comes is taken without a panic, in whatever pieces; the limits hold; what was read is
//! framed once and means the same when it is written again, also without the fields for one hop.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wmproxy_wire::head::hop_by_hop::{Strip, strip};
use wmproxy_wire::head::{Known, Method, Request, Version, authority, is_token, is_value};
use wmproxy_wire::http1::{
    HeadLimits, Length, RequestError, expects_continue, is_h2_preface, is_persistent, read_request, request_length,
    write_request,
};

const LIMITS: HeadLimits = HeadLimits { bytes: 4096, target: 1024, fields: 32, any_host: false };

fuzz_target!(|bytes: &[u8]| {
    let _ = is_h2_preface(bytes);
    let (mut request, mut other) = (Request::new(), Request::new());
    let outcome = read_request(bytes, &LIMITS, &mut request);
    // Each prefix of a short head, some of a long one: an answer that is given stays.
    let step = bytes.len() / 256 + 1;
    let early = (0..bytes.len()).step_by(step).find_map(|len| {
        read_request(&bytes[..len], &LIMITS, &mut other).transpose()
    });
    if let Some(early) = early {
        assert_eq!(early.map(Some), outcome);
    }
    match outcome {
        Ok(Some(used)) => assert!(used <= bytes.len() && used <= LIMITS.bytes),
        Ok(None) => return assert!(bytes.len() < LIMITS.bytes && request.fields.is_empty()),
        Err(error) => {
            assert!(request.fields.is_empty() && (400..506).contains(&error.status()));
            return;
        }
    }
    check(&request);
    again(&request);
});

fn check(request: &Request) {
    assert!(request.fields.len() <= LIMITS.fields && request.target().len() <= LIMITS.target);
    assert!(request.fields.iter().all(|field| is_token(field.name) && is_value(field.value)));
    assert!(is_token(request.method_name()));
    match (request.target(), request.method) {
        ([b'/', ..], Method::Connect) => panic!("CONNECT of a path"),
        ([b'/', ..], _) | (b"*", Method::Options) => {}
        (target, Method::Connect) => assert!(authority::parse(target).is_ok_and(|target| target.port.is_some())),
        (target, _) => panic!("{}", target.escape_ascii()),
    }
    match request.authority() {
        Some(text) => assert!(authority::parse(text).is_ok()),
        None => assert_eq!(request.version, Version::Http10),
    }
    let _ = (expects_continue(request), is_persistent(request.version, &request.fields));
}

fn again(request: &Request) {
    let length = request_length(request);
    let mut out = Vec::new();
    write_request(request, &mut out);
    let wide = HeadLimits { bytes: out.len(), target: 1024, fields: 33, any_host: false };
    let mut second = Request::new();
    match read_request(&out, &wide, &mut second) {
        Ok(used) => assert_eq!(used, Some(out.len())),
        Err(error) => return assert!(error == RequestError::NoHost && request.version == Version::Http10),
    }
    if request.version == second.version {
        assert_eq!(request_length(&second), length);
    }
    let mut stable = Vec::new();
    write_request(&second, &mut stable);
    assert_eq!(out, stable);

    let host = second.fields.get(Known::Host).map(<[u8]>::to_vec);
    let says_length = second.fields.get(Known::ContentLength).map(<[u8]>::to_vec);
    strip(&mut second.fields, Strip { keep_te_trailers: true, proxy_authentication: true });
    assert_eq!(second.fields.get(Known::Host), host.as_deref());
    assert_eq!(second.fields.get(Known::ContentLength), says_length.as_deref());
    assert!(!second.fields.has(Known::Connection) && !second.fields.has(Known::TransferEncoding));
    assert_ne!(request_length(&second), Ok(Length::Chunked));
}
