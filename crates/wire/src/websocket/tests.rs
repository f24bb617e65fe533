use super::*;

mod autobahn;
mod interop;

/// What a test compares: the events of a connection, with the payload of each message joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    Message(Kind, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
    Broken(Violation),
}

/// Decodes `bytes` cut at the lengths of `cuts`, again and again; no cuts is all in one.
pub(super) fn decode(from: Role, limits: Limits, bytes: &[u8], cuts: &[usize]) -> Vec<Seen> {
    let mut decoder = Decoder::new(from, limits);
    let mut seen = Vec::new();
    let mut message: Option<(Kind, Vec<u8>)> = None;
    let mut bytes = bytes.to_vec();
    let mut rest = &mut bytes[..];
    let mut cuts = cuts.iter().copied().cycle();
    while !rest.is_empty() {
        let cut = cuts.next().unwrap_or(usize::MAX).clamp(1, rest.len());
        let (mut piece, after) = rest.split_at_mut(cut);
        loop {
            let Step { used, event } = match decoder.decode(piece) {
                Ok(step) => step,
                Err(violation) => {
                    seen.push(Seen::Broken(violation));
                    return seen;
                }
            };
            match event {
                Event::NeedMore => {
                    assert_eq!(used, piece.len(), "all is used before more is asked for");
                    break;
                }
                Event::Frame { kind, .. } => assert_eq!(message.get_or_insert((kind, vec![])).0, kind),
                Event::Payload(payload) => message.as_mut().unwrap().1.extend_from_slice(payload),
                Event::MessageEnd => {
                    let (kind, payload) = message.take().unwrap();
                    seen.push(Seen::Message(kind, payload));
                }
                Event::Ping(body) => seen.push(Seen::Ping(body.to_vec())),
                Event::Pong(body) => seen.push(Seen::Pong(body.to_vec())),
                Event::Close(close) => {
                    seen.push(Seen::Close(close.code.map(|code| code.0), close.reason.to_owned()));
                }
            }
            piece = &mut piece[used..];
        }
        rest = after;
    }
    seen
}

#[test]
fn payload_comes_out_before_its_frame_is_whole() {
    let mut decoder = Decoder::new(Role::Server, Limits::default());
    let head = FrameHead { fin: true, opcode: OpCode::Binary, len: 1 << 40, mask: None };
    let mut bytes = head.to_bytes().to_vec();
    bytes.extend_from_slice(b"the first of a terabyte");
    let step = decoder.decode(&mut bytes).unwrap();
    assert_eq!(step.event, Event::Frame { kind: Kind::Binary, len: 1 << 40, fin: true });
    let used = step.used;
    let step = decoder.decode(&mut bytes[used..]).unwrap();
    assert_eq!(step.event, Event::Payload(&mut b"the first of a terabyte".to_vec()));
    assert!(decoder.is_within());
}

#[test]
fn a_limit_counts_all_frames_of_a_message_and_each_message_anew() {
    let frame = |opcode, fin, len: usize| {
        let mut bytes = FrameHead { fin, opcode, len: len as u64, mask: None }.to_bytes().to_vec();
        bytes.resize(bytes.len() + len, b'x');
        bytes
    };
    let limits = Limits { message: 10 };
    let fits = [frame(OpCode::Text, false, 6), frame(OpCode::Continuation, true, 4)].concat();
    let twice = fits.repeat(2);
    assert_eq!(decode(Role::Server, limits, &twice, &[]), vec![Seen::Message(Kind::Text, vec![b'x'; 10]); 2]);
    let over = [frame(OpCode::Text, false, 6), frame(OpCode::Continuation, true, 5)].concat();
    let seen = decode(Role::Server, limits, &over, &[]);
    assert_eq!(seen, [Seen::Broken(Violation::TooLong)]);
    assert_eq!(Violation::TooLong.code(), CloseCode(1009));
}

#[test]
fn a_decoder_that_failed_stays_failed_and_one_that_is_closed_discards() {
    let mut decoder = Decoder::new(Role::Server, Limits::default());
    for mut bytes in [vec![0xff], vec![0x82, 0]] {
        assert_eq!(decoder.decode(&mut bytes), Err(Violation::ReservedBit));
    }
    let mut decoder = Decoder::new(Role::Server, Limits::default());
    let mut close = [0x88, 0];
    assert_eq!(decoder.decode(&mut close).unwrap().event, Event::Close(Close { code: None, reason: "" }));
    let mut more = [0xff; 30];
    assert_eq!(decoder.decode(&mut more).unwrap(), Step { used: 30, event: Event::NeedMore });
    assert!(!decoder.is_within());
}

#[test]
fn a_control_frame_of_our_own_is_never_too_long() {
    let mut out = Vec::new();
    close_frame(&mut out, CloseCode::NORMAL, &"ä".repeat(100), Some([1, 2, 3, 4]));
    let seen = decode(Role::Client, Limits::default(), &out, &[]);
    assert_eq!(seen, [Seen::Close(Some(1000), "ä".repeat(61))]);
    let mut out = Vec::new();
    control_frame(&mut out, OpCode::Ping, &[7; 200], None);
    assert_eq!(decode(Role::Server, Limits::default(), &out, &[]), [Seen::Ping(vec![7; 125])]);
}
