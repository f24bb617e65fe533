//! Both directions against `tungstenite`, on random messages cut in random places.

use std::collections::VecDeque;
use std::io::{self, Read, Write};

use proptest::prelude::*;
use tungstenite::Message;
use tungstenite::protocol::frame::coding::CloseCode as TheirCode;
use tungstenite::protocol::{CloseFrame, Role as TheirRole, WebSocket};

use super::*;

/// A transport that was filled before, and keeps what is written.
#[derive(Default)]
struct Pipe {
    incoming: VecDeque<u8>,
    outgoing: Vec<u8>,
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.incoming.read(buffer)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            n => Ok(n),
        }
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.outgoing.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn theirs(role: Role) -> TheirRole {
    match role {
        Role::Client => TheirRole::Client,
        Role::Server => TheirRole::Server,
    }
}

fn a_message() -> impl Strategy<Value = Seen> {
    let bytes = |most| prop::collection::vec(any::<u8>(), 0..most);
    prop_oneof![
        4 => bytes(400).prop_map(|payload| Seen::Message(Kind::Binary, payload)),
        1 => (65_000..70_000usize).prop_map(|len| Seen::Message(Kind::Binary, vec![3; len])),
        2 => any::<String>().prop_map(|text| Seen::Message(Kind::Text, text.into_bytes())),
        1 => bytes(125).prop_map(Seen::Ping),
        1 => bytes(125).prop_map(Seen::Pong),
    ]
}

fn a_conversation() -> impl Strategy<Value = (bool, Vec<Seen>, Vec<usize>)> {
    (any::<bool>(), prop::collection::vec(a_message(), 0..12), prop::collection::vec(1..300usize, 0..6))
}

fn role(is_client: bool) -> Role {
    if is_client { Role::Client } else { Role::Server }
}

fn to_theirs(seen: &Seen) -> Message {
    match seen.clone() {
        Seen::Message(Kind::Binary, payload) => Message::Binary(payload.into()),
        Seen::Message(Kind::Text, payload) => Message::Text(String::from_utf8(payload).unwrap().into()),
        Seen::Ping(body) => Message::Ping(body.into()),
        Seen::Pong(body) => Message::Pong(body.into()),
        other => panic!("{other:?} is not generated"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_tungstenite_sends_is_read((is_client, messages, cuts) in a_conversation()) {
        let mut socket = WebSocket::from_raw_socket(Pipe::default(), theirs(role(is_client)), None);
        for message in &messages {
            socket.send(to_theirs(message)).unwrap();
        }
        let frame = CloseFrame { code: TheirCode::Away, reason: "bye".into() };
        socket.close(Some(frame)).unwrap();
        let _ = socket.flush();
        let mut expected = messages;
        expected.push(Seen::Close(Some(1001), "bye".into()));
        let got = decode(role(is_client), Limits::default(), &socket.get_ref().outgoing, &cuts);
        prop_assert_eq!(got, expected);
    }

    #[test]
    fn what_is_sent_tungstenite_reads((is_client, messages, cuts) in a_conversation(), key: [u8; 4]) {
        let mask = is_client.then_some(key);
        let mut bytes = Vec::new();
        let mut sizes = cuts.iter().copied().cycle();
        for message in &messages {
            match message {
                Seen::Ping(body) => control_frame(&mut bytes, OpCode::Ping, body, mask),
                Seen::Pong(body) => control_frame(&mut bytes, OpCode::Pong, body, mask),
                Seen::Message(kind, payload) => fragments(&mut bytes, *kind, payload, &mut sizes, mask),
                other => panic!("{other:?} is not generated"),
            }
        }
        close_frame(&mut bytes, CloseCode(4321), "bye", mask);
        let pipe = Pipe { incoming: bytes.into(), ..Pipe::default() };
        let mut socket = WebSocket::from_raw_socket(pipe, theirs(role(!is_client)), None);
        for message in &messages {
            prop_assert_eq!(socket.read().unwrap(), to_theirs(message));
        }
        let Message::Close(Some(frame)) = socket.read().unwrap() else { panic!("no close") };
        prop_assert_eq!((u16::from(frame.code), frame.reason.as_str()), (4321, "bye"));
    }

    #[test]
    fn no_bytes_whatsoever_do_any_harm(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        cuts in prop::collection::vec(1..20usize, 0..4),
        is_client: bool,
    ) {
        let whole = decode(role(is_client), Limits { message: 1000 }, &bytes, &[]);
        let pieces = decode(role(is_client), Limits { message: 1000 }, &bytes, &cuts);
        prop_assert_eq!(whole, pieces);
    }
}

/// A message in fragments of these sizes, with an empty ping between two of them.
fn fragments(
    out: &mut Vec<u8>,
    kind: Kind,
    payload: &[u8],
    sizes: &mut impl Iterator<Item = usize>,
    mask: Option<[u8; 4]>,
) {
    let mut opcode = if kind == Kind::Text { OpCode::Text } else { OpCode::Binary };
    let mut rest = payload;
    loop {
        let size = sizes.next().map_or(rest.len(), |size| size * 7).min(rest.len());
        let (part, after) = rest.split_at(size);
        let fin = after.is_empty();
        out.extend_from_slice(&FrameHead { fin, opcode, len: size as u64, mask }.to_bytes());
        let at = out.len();
        out.extend_from_slice(part);
        if let Some(key) = mask {
            Mask::new(key).apply(&mut out[at..]);
        }
        if fin {
            return;
        }
        (opcode, rest) = (OpCode::Continuation, after);
    }
}
