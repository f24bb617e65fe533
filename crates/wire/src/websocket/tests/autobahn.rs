//! The rules behind the cases of Autobahn's test suite, as tables: what the other side sends, and what is seen of it.

use super::*;

/// A frame as a client sends it, head and all, with bits that no encoder of ours would set.
fn raw(first: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = FrameHead::binary(body.len(), Some([0x37, 0xfa, 0x21, 0x3d])).to_bytes().to_vec();
    frame[0] = first;
    let at = frame.len();
    frame.extend_from_slice(body);
    Mask::new([0x37, 0xfa, 0x21, 0x3d]).apply(&mut frame[at..]);
    frame
}

const FIN: u8 = 0x80;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

fn message(kind: Kind, payload: &[u8]) -> Seen {
    Seen::Message(kind, payload.to_vec())
}

/// In one piece, byte by byte, and in pieces of three: the same is seen.
#[track_caller]
fn check(frames: &[Vec<u8>], expected: &[Seen]) {
    let bytes = frames.concat();
    for cuts in [&[][..], &[1], &[3], &[2, 70_000]] {
        assert_eq!(decode(Role::Client, Limits::default(), &bytes, cuts), expected, "cut by {cuts:?}");
    }
}

#[test]
fn category_1_and_9_messages_of_every_length() {
    for len in [0, 1, 125, 126, 127, 128, 65_535, 65_536, 1 << 20] {
        let body = vec![b'*'; len];
        for (opcode, kind) in [(TEXT, Kind::Text), (BINARY, Kind::Binary)] {
            check(&[raw(FIN | opcode, &body)], &[message(kind, &body)]);
        }
    }
}

#[test]
fn category_2_pings_and_pongs() {
    for len in [0, 1, 124, 125] {
        check(&[raw(FIN | PING, &vec![0xfe; len])], &[Seen::Ping(vec![0xfe; len])]);
        check(&[raw(FIN | PONG, &vec![0xfe; len])], &[Seen::Pong(vec![0xfe; len])]);
    }
    let broken = [Seen::Broken(Violation::Control)];
    check(&[raw(FIN | PING, &[0; 126])], &broken);
    // Ten in one go: each is told of.
    let ten: Vec<_> = (0..10).map(|i| raw(FIN | PING, &[i])).collect();
    let seen: Vec<_> = (0..10).map(|i| Seen::Ping(vec![i])).collect();
    check(&ten, &seen);
}

#[test]
fn categories_3_and_4_reserved_bits_and_opcodes() {
    let good = raw(FIN | TEXT, b"ok");
    let ok = message(Kind::Text, b"ok");
    for bits in [0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70] {
        for opcode in [TEXT, BINARY, CLOSE, PING, PONG] {
            let frames = [good.clone(), raw(FIN | bits | opcode, b"x")];
            check(&frames, &[ok.clone(), Seen::Broken(Violation::ReservedBit)]);
        }
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        let frames = [good.clone(), raw(FIN | opcode, b"")];
        check(&frames, &[ok.clone(), Seen::Broken(Violation::ReservedOpCode)]);
    }
}

#[test]
fn category_5_fragments() {
    let broken = |violation| Seen::Broken(violation);
    // 5.1, 5.2: a control frame in fragments.
    for opcode in [PING, PONG, CLOSE] {
        check(&[raw(opcode, b"a"), raw(FIN, b"b")], &[broken(Violation::Control)]);
    }
    let whole = message(Kind::Text, b"fragment1fragment2");
    let (first, last) = (raw(TEXT, b"fragment1"), raw(FIN, b"fragment2"));
    check(&[first.clone(), last.clone()], std::slice::from_ref(&whole));
    // 5.6: a ping between them.
    let ping = raw(FIN | PING, b"between");
    check(&[first.clone(), ping, last.clone()], &[Seen::Ping(b"between".to_vec()), whole.clone()]);
    // Empty ones, the first and the last among them.
    let empty = [raw(BINARY, b""), raw(0, b""), raw(0, b"x"), raw(0, b""), raw(FIN, b"")];
    check(&empty, &[message(Kind::Binary, b"x")]);
    check(&[raw(TEXT, b""), raw(FIN, b"")], &[message(Kind::Text, b"")]);
    // 5.9 to 5.17: nothing to go on with.
    for bits in [0, FIN] {
        check(&[raw(bits, b"x")], &[broken(Violation::Order)]);
        let frames = [first.clone(), last.clone(), raw(bits, b"x")];
        check(&frames, &[whole.clone(), broken(Violation::Order)]);
    }
    // 5.18: another message within one.
    check(&[first.clone(), raw(FIN | TEXT, b"x")], &[broken(Violation::Order)]);
    check(&[first, raw(BINARY, b"x")], &[broken(Violation::Order)]);
}

#[test]
fn category_6_utf8() {
    let kappa = "κόσμε".as_bytes();
    check(&[raw(FIN | TEXT, kappa)], &[message(Kind::Text, kappa)]);
    // A character over two frames, and one for each byte.
    let frames = kappa.iter().enumerate().map(|(i, b)| raw(if i == 0 { TEXT } else { 0 }, &[*b]));
    let frames: Vec<_> = frames.chain([raw(FIN, b"")]).collect();
    check(&frames, &[message(Kind::Text, kappa)]);
    // Surrogates, beyond the last character, too long a form, an end within a character.
    for wrong in [
        &b"\xce\xba\xed\xa0\x80edited"[..],
        b"\xf4\x90\x80\x80",
        b"\xc0\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\x80",
        b"\xff",
    ] {
        check(&[raw(FIN | TEXT, wrong)], &[Seen::Broken(Violation::Utf8)]);
        check(&[raw(FIN | BINARY, wrong)], &[message(Kind::Binary, wrong)]);
        check(&[raw(TEXT, b"ok"), raw(0, wrong)], &[Seen::Broken(Violation::Utf8)]);
    }
    check(&[raw(FIN | TEXT, b"\xce")], &[Seen::Broken(Violation::Utf8)]);
    check(&[raw(TEXT, b"\xce"), raw(FIN, b"")], &[Seen::Broken(Violation::Utf8)]);
    // 6.4: wrong as soon as its bytes are there, though the message goes on.
    let mut decoder = Decoder::new(Role::Client, Limits::default());
    let mut frame = raw(TEXT, &[b"\xce\xba\xf4\x90".as_slice(), &[b'x'; 100]].concat());
    let used = decoder.decode(&mut frame[..10]).unwrap().used;
    assert_eq!(decoder.decode(&mut frame[used..10]), Err(Violation::Utf8));
}

#[test]
fn category_7_closes() {
    let body = |code: u16, reason: &[u8]| [&code.to_be_bytes()[..], reason].concat();
    check(&[raw(FIN | CLOSE, b"")], &[Seen::Close(None, String::new())]);
    check(&[raw(FIN | CLOSE, b"x")], &[Seen::Broken(Violation::CloseCode)]);
    let codes =
        [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999];
    for code in codes {
        check(&[raw(FIN | CLOSE, &body(code, b"why"))], &[Seen::Close(Some(code), "why".into())]);
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
        check(&[raw(FIN | CLOSE, &body(code, b""))], &[Seen::Broken(Violation::CloseCode)]);
    }
    let long = [b'*'; 123];
    let said = String::from_utf8(long.to_vec()).unwrap();
    check(&[raw(FIN | CLOSE, &body(1000, &long))], &[Seen::Close(Some(1000), said)]);
    check(&[raw(FIN | CLOSE, &body(1000, &[b'*'; 124]))], &[Seen::Broken(Violation::Control)]);
    check(&[raw(FIN | CLOSE, &body(1000, b"\xce\xba\xed\xa0"))], &[Seen::Broken(Violation::Utf8)]);
    // 7.1: whatever follows a close is discarded, and one within a message ends it.
    let frames = [raw(TEXT, b"begun"), raw(FIN | CLOSE, b""), raw(FIN | PING, b""), vec![0xff; 20]];
    check(&frames, &[Seen::Close(None, String::new())]);
}

#[test]
fn category_10_a_message_in_many_frames() {
    let body = vec![b'*'; 65_536];
    let last = body.chunks(1300).count() - 1;
    let frame = |(i, part): (usize, &[u8])| {
        raw(if i == last { FIN } else { 0 } | if i == 0 { TEXT } else { 0 }, part)
    };
    let frames: Vec<_> = body.chunks(1300).enumerate().map(frame).collect();
    check(&frames, &[message(Kind::Text, &body)]);
}

#[test]
fn masks_and_lengths_are_as_the_role_wants_them() {
    let seen = |from, bytes: &[u8]| decode(from, Limits::default(), bytes, &[]);
    assert_eq!(seen(Role::Client, &[0x82, 1, b'x']), [Seen::Broken(Violation::Unmasked)]);
    assert_eq!(seen(Role::Server, &[0x82, 0x81, 0, 0, 0, 0, b'x']), [Seen::Broken(Violation::Masked)]);
    assert_eq!(seen(Role::Server, &[0x82, 1, b'x']), [message(Kind::Binary, b"x")]);
    let long = |len: u64| [&[0x82, 127][..], &len.to_be_bytes()].concat();
    for bytes in [vec![0x82, 126, 0, 125], long(65_535), long(1 << 63), long(u64::MAX)] {
        assert_eq!(seen(Role::Server, &bytes), [Seen::Broken(Violation::Length)], "{bytes:x?}");
    }
    for (violation, code) in [(Violation::Length, 1002), (Violation::Utf8, 1007), (Violation::Order, 1002)] {
        assert_eq!(violation.code(), CloseCode(code));
    }
}
