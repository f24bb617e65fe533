//! The login in docs/tunnel-protocol.md, with every byte of it. WMPROXY_UPDATE_DOCS=1 writes it there.

#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use aws_lc_rs::hmac;
use wmproxy_tunnel::auth;
use wmproxy_wire::tunnel::codec::{HEADER_LEN, LOGIN_LIMIT, decode, encode};
use wmproxy_wire::tunnel::message::{Challenge, Hello, Join, Mac, Message, Purpose, Welcome};
use wmproxy_wire::units::Secret;

const BEGIN: &str = "<!-- example: written by crates/tunnel/tests/worked_example.rs -->\n";
const END: &str = "<!-- end of example -->";

const KEY: &str = "0123456789abcdef0123456789abcdef";

/// Bytes that count upwards.
fn from<const N: usize>(first: u8) -> [u8; N] {
    std::array::from_fn(|index| first + index as u8)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A message in hex, a line for each of its fields.
fn message(out: &mut String, name: &str, message: &Message) {
    let mut bytes = Vec::new();
    encode(message, &mut bytes);
    assert_eq!(decode(&bytes, LOGIN_LIMIT).unwrap(), Some((message.clone(), bytes.len())));
    let (head, mut rest) = bytes.split_at(HEADER_LEN);
    writeln!(out, "{name}, {} bytes:\n  {} {}", bytes.len(), hex(&head[..2]), hex(&head[2..])).unwrap();
    while !rest.is_empty() {
        let length = u32::from_be_bytes(rest[2..6].try_into().unwrap()) as usize;
        let (value, behind) = rest[HEADER_LEN..].split_at(length);
        writeln!(out, "    {} {} {}", hex(&rest[..2]), hex(&rest[2..HEADER_LEN]), hex(value)).unwrap();
        rest = behind;
    }
    out.push('\n');
}

/// What a MAC is made over, a line for each part, and the MAC; made here by hand, so that it holds the code to the text.
fn mac(out: &mut String, name: &str, key: &[u8], parts: &[&[u8]]) -> Mac {
    writeln!(out, "{name}, an HMAC over:").unwrap();
    let mut over = Vec::new();
    for part in parts {
        let length = (part.len() as u32).to_be_bytes();
        writeln!(out, "    {} {}", hex(&length), hex(part)).unwrap();
        over.extend_from_slice(&[&length, *part].concat());
    }
    let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &over);
    writeln!(out, "  is {}\n", hex(mac.as_ref())).unwrap();
    mac.as_ref().try_into().unwrap()
}

fn example() -> String {
    let (exporter, joining): ([u8; 32], [u8; 32]) = (from(0x10), from(0x50));
    let key = Secret::new(KEY).unwrap();
    let hello = Hello {
        version: 1,
        capabilities: 0,
        name: "home".into(),
        nonce: from(0x80),
        agent: "example/1".into(),
    };
    let challenge = Challenge { version: 1, capabilities: 0, nonce: from(0xa0) };
    let mut out = format!("```text\nkey: {KEY}\nkeying material: {}\n\n", hex(&exporter));
    message(&mut out, "Hello", &Message::Hello(hello.clone()));
    message(&mut out, "Challenge", &Message::Challenge(challenge.clone()));
    let proof = |out: &mut String, name: &str, label: &[u8]| {
        let (one, none) = (&[0, 1][..], &[0; 8][..]);
        let parts = [label, &exporter, &hello.nonce, &challenge.nonce, b"home", one, one, none, none];
        mac(out, name, KEY.as_bytes(), &parts)
    };
    let client = proof(&mut out, "The client's MAC", b"wmproxy-tunnel client");
    assert_eq!(client, auth::client_proof(&key, &exporter, &hello, &challenge));
    message(&mut out, "Proof", &Message::Proof(client));
    let server = proof(&mut out, "The server's MAC", b"wmproxy-tunnel server");
    assert_eq!(server, auth::server_proof(&key, &exporter, &hello, &challenge));
    let welcome = Welcome {
        session: from(0xc0),
        secret: from(0xd0),
        mac: server,
        heartbeat_ms: 15_000,
        max_pool: 32,
        agent: "wmproxy/1".into(),
    };
    message(&mut out, "Welcome", &Message::Welcome(welcome.clone()));
    writeln!(out, "A further connection, to wait for a visitor.\nkeying material: {}\n", hex(&joining))
        .unwrap();
    let purpose = [Purpose::Wait as u8];
    let joined = mac(&mut out, "Its MAC", &welcome.secret, &[b"wmproxy-tunnel join", &joining, &purpose]);
    assert_eq!(joined, auth::join_proof(&welcome.secret, &joining, Purpose::Wait));
    let join = Join { session: welcome.session, purpose: Purpose::Wait, mac: joined };
    message(&mut out, "Join", &Message::Join(join));
    format!("{}\n```\n", out.trim_end())
}

#[test]
fn the_documented_login_is_the_one_that_is_spoken() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/tunnel-protocol.md");
    let text = fs::read_to_string(&path).unwrap();
    let begin = text.find(BEGIN).unwrap() + BEGIN.len();
    let end = text.find(END).unwrap();
    let example = example();
    if std::env::var_os("WMPROXY_UPDATE_DOCS").is_some() {
        fs::write(&path, format!("{}{example}{}", &text[..begin], &text[end..])).unwrap();
    } else {
        assert_eq!(
            &text[begin..end],
            example,
            "set WMPROXY_UPDATE_DOCS=1 to rewrite it, and look at the diff"
        );
    }
}
