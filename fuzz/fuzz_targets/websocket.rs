//! WebSocket frames and the heads of their handshake. The first byte says which of them follow, and how they are cut: in
//! whatever pieces the bytes come, the same is seen, nothing panics, and what was seen is seen again when it is written
//! anew.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wmproxy_wire::websocket::handshake::{
    Ask, HeadLimits, Parsed, Refusal, Rejected, parse_request, parse_response, refusal_head,
};
use wmproxy_wire::websocket::{
    CloseCode, Decoder, Event, FrameHead, Kind, Limits, Mask, OpCode, Role, Step, Violation, close_frame,
    control_frame,
};

const LIMITS: Limits = Limits { message: 1 << 16 };
const HEADS: HeadLimits = HeadLimits { bytes: 2048, fields: 16 };
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Message(Kind, Vec<u8>),
    Control(OpCode, Vec<u8>),
    Close(Option<u16>, String),
    Broken(Violation),
}

fuzz_target!(|data: &[u8]| {
    let Some((&how, bytes)) = data.split_first() else { return };
    match how >> 6 {
        0 => frames(bytes, Role::Client, how),
        1 => frames(bytes, Role::Server, how),
        2 => request(bytes),
        _ => response(bytes),
    }
});

fn frames(bytes: &[u8], from: Role, how: u8) {
    let whole = decode(from, bytes, usize::MAX);
    let piece = usize::from(how & 0x3f) + 1;
    assert_eq!(whole, decode(from, bytes, piece), "in pieces of {piece}");
    let again = encode(&whole, from);
    let before_violation = whole.iter().take_while(|seen| !matches!(seen, Seen::Broken(_)));
    assert!(decode(from, &again, usize::MAX).iter().eq(before_violation));
}

fn decode(from: Role, bytes: &[u8], piece: usize) -> Vec<Seen> {
    let mut decoder = Decoder::new(from, LIMITS);
    let (mut seen, mut message) = (Vec::new(), None);
    let mut bytes = bytes.to_vec();
    for mut rest in bytes.chunks_mut(piece) {
        loop {
            let Step { used, event } = match decoder.decode(rest) {
                Ok(step) => step,
                Err(violation) => {
                    assert_eq!(decoder.decode(&mut [0]), Err(violation), "a failure is for good");
                    seen.push(Seen::Broken(violation));
                    return seen;
                }
            };
            match event {
                Event::NeedMore => {
                    assert_eq!(used, rest.len());
                    break;
                }
                Event::Frame { kind, .. } => assert_eq!(message.get_or_insert((kind, vec![])).0, kind),
                Event::Payload(payload) => {
                    assert!(!payload.is_empty());
                    message.as_mut().expect("payload is of a message").1.extend_from_slice(payload);
                }
                Event::MessageEnd => {
                    let (kind, payload) = message.take().expect("an end is of a message");
                    assert!(kind == Kind::Binary || std::str::from_utf8(&payload).is_ok());
                    seen.push(Seen::Message(kind, payload));
                }
                Event::Ping(body) => seen.push(Seen::Control(OpCode::Ping, body.to_vec())),
                Event::Pong(body) => seen.push(Seen::Control(OpCode::Pong, body.to_vec())),
                Event::Close(close) => {
                    assert!(close.code.is_none_or(CloseCode::is_sendable));
                    seen.push(Seen::Close(close.code.map(|code| code.0), close.reason.to_owned()));
                }
            }
            rest = &mut rest[used..];
        }
    }
    seen
}

fn encode(seen: &[Seen], from: Role) -> Vec<u8> {
    let mask = (from == Role::Client).then_some([1, 2, 3, 4]);
    let mut out = Vec::new();
    for seen in seen {
        match seen {
            Seen::Message(kind, payload) => {
                let opcode = if *kind == Kind::Text { OpCode::Text } else { OpCode::Binary };
                out.extend_from_slice(
                    &FrameHead { fin: true, opcode, len: payload.len() as u64, mask }.to_bytes(),
                );
                let at = out.len();
                out.extend_from_slice(payload);
                if let Some(key) = mask {
                    Mask::new(key).apply(&mut out[at..]);
                }
            }
            Seen::Control(opcode, body) => control_frame(&mut out, *opcode, body, mask),
            Seen::Close(Some(code), reason) => close_frame(&mut out, CloseCode(*code), reason, mask),
            Seen::Close(None, _) => control_frame(&mut out, OpCode::Close, &[], mask),
            Seen::Broken(_) => {}
        }
    }
    out
}

fn request(bytes: &[u8]) {
    match parse_request(bytes, HEADS) {
        Ok(Parsed::NeedMore) => assert!(bytes.len() < HEADS.bytes),
        Ok(Parsed::Head { head, len }) => {
            assert!(len <= bytes.len() && len <= HEADS.bytes);
            assert!(head.path.starts_with('/') && !head.host.is_empty() && head.key.len() == KEY.len());
            for length in 0..len {
                // Whatever is known early is that it can't be granted, and this can.
                assert_eq!(
                    parse_request(&bytes[..length], HEADS),
                    Ok(Parsed::NeedMore),
                    "the first {length}"
                );
            }
        }
        Err(refusal) => {
            let answer = refusal_head(refusal);
            assert!(answer.starts_with(b"HTTP/1.1 4"), "{refusal}");
            assert!(refusal != Refusal::TooLarge || bytes.len() >= HEADS.fields);
        }
    }
}

fn response(bytes: &[u8]) {
    let protocols = ["binary".to_owned()];
    let ask = Ask { host: "a", path: "/", key: KEY, protocols: &protocols };
    match parse_response(bytes, &ask, HEADS) {
        Ok(Parsed::NeedMore) => assert!(bytes.len() < HEADS.bytes),
        Ok(Parsed::Head { head, len }) => {
            assert!(len <= bytes.len() && head.protocol.is_none_or(|protocol| protocol == "binary"));
        }
        Err(Rejected::Status(status)) => assert_ne!(status, 101),
        Err(_) => {}
    }
}
