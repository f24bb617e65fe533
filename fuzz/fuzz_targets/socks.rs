//! SOCKS, both sides: whatever comes is taken without a panic, each beginning of a message asks for more, and what is one
//! means the same when it is written again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wmproxy_wire::socks::{Command, Parsed, Target, datagram, v4, v5};

/// As listeners have it.
const MAX_TEXT: usize = 255;

/// The longest message: a name and a password, or a user id and a name, with what is before and between them.
const LONGEST: usize = 8 + 2 * (MAX_TEXT + 1);

/// Reads a message, each part of it, and the same written again.
macro_rules! round {
    ($bytes:ident, $parse:expr, $write:expr) => {
        let parse = $parse;
        match parse($bytes) {
            Ok(Parsed::NeedMore(total)) => assert!(total > $bytes.len() && total <= LONGEST),
            Ok(Parsed::Done(message, used)) => {
                assert!(used <= $bytes.len() && used <= LONGEST);
                for length in 0..used {
                    let part = parse(&$bytes[..length]);
                    assert!(matches!(part, Ok(Parsed::NeedMore(total)) if total > length), "the first {length}");
                }
                let mut again = Vec::new();
                $write(&mut again, &message);
                let length = again.len();
                // Garbage behind it changes nothing.
                again.extend_from_slice(&$bytes[used..]);
                match parse(&again) {
                    Ok(Parsed::Done(read, used)) => assert!(read == message && used == length),
                    other => panic!("{other:?}"),
                }
            }
            Err(error) => drop(error.to_string()),
        }
    };
}

fuzz_target!(|bytes: &[u8]| {
    round!(bytes, |bytes| v4::parse_request(bytes, MAX_TEXT), |out: &mut Vec<u8>, request: &v4::Request<'_>| {
        v4::write_request(out, request).unwrap();
        let _ = request.target.destination();
    });
    round!(bytes, v4::parse_reply, |out: &mut Vec<u8>, reply: &v4::Reply| {
        out.extend_from_slice(&v4::reply(reply.code, reply.address.into()));
        let _ = reply.code.text();
    });
    round!(bytes, v5::parse_greeting, |out: &mut Vec<u8>, methods: &&[u8]| {
        v5::write_greeting(out, methods).unwrap();
    });
    round!(bytes, v5::parse_choice, |out: &mut Vec<u8>, method: &u8| out.extend_from_slice(&v5::choice(*method)));
    round!(bytes, v5::parse_credentials, |out: &mut Vec<u8>, credentials: &v5::Credentials<'_>| {
        v5::write_credentials(out, credentials).unwrap();
    });
    round!(bytes, v5::parse_verdict, |out: &mut Vec<u8>, yes: &bool| out.extend_from_slice(&v5::verdict(*yes)));
    round!(bytes, v5::parse_request, |out: &mut Vec<u8>, request: &v5::Request<'_>| {
        v5::write_request(out, request).unwrap();
        let _ = request.target.destination();
    });
    round!(bytes, v5::parse_reply, |out: &mut Vec<u8>, reply: &v5::Reply<'_>| {
        let _ = reply.code.text();
        match reply.bound {
            Target::Address(bound) => out.extend_from_slice(&v5::reply(reply.code, bound)),
            // Ours has none, but the form is that of a request.
            Target::Name(..) => {
                let request = v5::Request { command: Command::Other(reply.code.0), target: reply.bound };
                v5::write_request(out, &request).unwrap();
                out[1] = reply.code.0;
            }
        }
    });
    if let Ok((header, used)) = datagram::parse(bytes) {
        assert!(used <= datagram::MAX_HEADER);
        let mut again = Vec::new();
        datagram::write_header(&mut again, &header.target).unwrap();
        assert_eq!(datagram::parse(&again).unwrap(), (datagram::Header { fragment: 0, ..header }, used));
        let _ = header.target.destination();
    }
});
