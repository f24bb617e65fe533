use std::io::Read as _;
use std::task::{Context, Poll, Waker};

use wmproxy_wire::head::{Fields, Known, Method};

use super::*;
use crate::exchange::{Broken, Piece, Source};
use crate::scratch::Scratch;
use crate::testing::get;

/// Text as an API sends it: alike, but not the same over and over.
fn json(length: usize) -> Vec<u8> {
    let mut text = String::from("[");
    let mut number: u64 = 7;
    while text.len() < length {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (id, other) = (number >> 33, number % 1009);
        text += &format!(
            "{{\"id\":{id},\"name\":\"user {other}\",\"email\":\"u{other}@example.com\",\"active\":{}}},",
            id % 2 == 0
        );
    }
    text.truncate(length);
    text.into_bytes()
}

fn decode(coding: Encoding, bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    match coding {
        Encoding::Zstd => drop(zstd::Decoder::new(bytes).unwrap().read_to_end(&mut plain)),
        Encoding::Br => drop(brotli::Decompressor::new(bytes, 4096).read_to_end(&mut plain)),
        Encoding::Gzip => drop(flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain)),
    }
    plain
}

const ALL: [Encoding; 3] = [Encoding::Zstd, Encoding::Br, Encoding::Gzip];

/// A body that comes piece by piece, with a pause behind each.
struct Paused {
    pieces: Vec<Vec<u8>>,
    pauses: bool,
}

impl Source for Paused {
    fn poll_piece(
        &mut self,
        _: &mut Context<'_>,
        scratch: &mut Scratch,
        most: usize,
        _: &mut Fields,
    ) -> Poll<Result<Piece, Broken>> {
        if std::mem::take(&mut self.pauses) {
            return Poll::Pending;
        }
        let Some(piece) = self.pieces.first_mut() else { return Poll::Ready(Ok(Piece::end(scratch))) };
        let n = piece.len().min(most);
        scratch.room()[..n].copy_from_slice(&piece[..n]);
        piece.drain(..n);
        if piece.is_empty() {
            self.pieces.remove(0);
            self.pauses = true;
        }
        Poll::Ready(Ok(Piece { place: scratch.read(n), is_last: false }))
    }
}

/// What was sent after each piece.
fn arrivals(coding: Encoding, pieces: Vec<Vec<u8>>, most: usize) -> Vec<Vec<u8>> {
    let (mut source, mut seen, mut sent) = (Paused { pieces, pauses: false }, Vec::new(), Vec::new());
    let mut encoder = Encoder::new(coding, None).unwrap();
    let (mut scratch, mut cx) = (Scratch::take(), Context::from_waker(Waker::noop()));
    loop {
        match encoder.through(&mut source).poll_piece(&mut cx, &mut scratch, most, &mut Fields::new()) {
            Poll::Ready(piece) => {
                let Piece { place, is_last } = piece.unwrap();
                assert!(is_last || !place.is_empty());
                sent.extend_from_slice(scratch.at(&place));
                seen.push(sent.clone());
                if is_last {
                    return seen;
                }
            }
            Poll::Pending => {}
        }
    }
}

#[test]
fn what_goes_in_comes_out() {
    for coding in ALL {
        for length in [1, 1000, 100_000, 3_000_000] {
            let body = json(length);
            // Twice, the second time with a coder that was used before.
            for _ in 0..2 {
                let seen = arrivals(coding, vec![body.clone()], 20_000);
                assert!(decode(coding, seen.last().unwrap()) == body, "{coding:?} {length}");
            }
        }
        assert_eq!(decode(coding, &arrivals(coding, vec![], 5000)[0]), b"");
    }
}

#[test]
fn nothing_waits_for_what_comes_later() {
    let events: Vec<_> = (0..5).map(|i| format!("data: {i}\n\n").into_bytes()).collect();
    for coding in ALL {
        let sent = arrivals(coding, events.clone(), usize::MAX);
        let seen: Vec<_> = sent.iter().map(|sent| decode(coding, sent)).collect();
        for end in 1..=events.len() {
            assert!(seen.contains(&events[..end].concat()), "{coding:?} {end}");
        }
    }
}

#[test]
fn zeros_without_end_let_others_have_their_turn() {
    let mut encoder = Encoder::new(Encoding::Gzip, None).unwrap();
    let mut source = Paused { pieces: vec![vec![0; 8 << 20]], pauses: false };
    let (mut scratch, mut cx) = (Scratch::take(), Context::from_waker(Waker::noop()));
    let mut turns = 0;
    loop {
        match encoder.through(&mut source).poll_piece(&mut cx, &mut scratch, 1 << 16, &mut Fields::new()) {
            Poll::Ready(piece) if piece.as_ref().unwrap().is_last => break,
            Poll::Ready(_) => {}
            Poll::Pending => turns += 1,
        }
    }
    assert!(turns > 4, "{turns}");
}

#[test]
fn there_is_an_end_to_encoders() {
    let encoders: Vec<_> =
        std::iter::from_fn(|| Encoder::new(Encoding::Gzip, Some(2000))).take(1000).collect();
    assert_eq!(encoders.len(), 128);
    drop(encoders);
    assert!(Encoder::new(Encoding::Gzip, None).is_some());
}

fn head(status: u16, fields: &[(&str, &str)]) -> Response {
    let mut response = Response::with_status(status);
    fields.iter().for_each(|(name, value)| response.fields.push(name.as_bytes(), value.as_bytes()));
    response
}

fn choose(request: &Request, response: &mut Response) -> bool {
    let compress = Compress::new(&[Encoding::Br, Encoding::Gzip]).unwrap();
    let has_body = request.method != Method::Head;
    compress.encoder(compress.negotiate(request), request, response, has_body).is_some()
}

fn asking(accept: &str) -> Request {
    let (mut request, _) = get("/");
    request.fields.push_known(Known::AcceptEncoding, accept.as_bytes());
    request
}

#[test]
fn the_head_says_what_was_done() {
    let mut response = head(
        200,
        &[
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Length", "5000"),
            ("ETag", "\"abc\""),
            ("Accept-Ranges", "bytes"),
            ("Content-Digest", "sha-256=:x:"),
            ("Vary", "Origin"),
        ],
    );
    assert!(choose(&asking("gzip, br"), &mut response));
    let line = |field: wmproxy_wire::head::Field<'_>| [field.name, b": ", field.value].concat();
    let lines: Vec<_> = response.fields.iter().map(line).collect();
    let expected: [&[u8]; 5] = [
        b"Content-Type: text/html; charset=utf-8",
        b"ETag: W/\"abc\"",
        b"Vary: Origin",
        b"Vary: Accept-Encoding",
        b"Content-Encoding: br",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn who_takes_nothing_gets_it_plain_and_caches_know() {
    let mut response =
        head(200, &[("Content-Type", "application/json"), ("Content-Length", "5000"), ("ETag", "\"a\"")]);
    assert!(!choose(&asking("deflate"), &mut response));
    assert_eq!(response.fields.get(Known::Vary), Some(&b"Accept-Encoding"[..]));
    assert_eq!(response.fields.get(Known::ETag), Some(&b"\"a\""[..]));
    assert!(response.fields.has(Known::ContentLength));
    let mut varied = head(200, &[("Content-Type", "text/css"), ("Vary", "accept-encoding")]);
    choose(&asking("deflate"), &mut varied);
    assert_eq!(varied.fields.all(Known::Vary).count(), 1);
}

#[test]
fn what_is_not_worth_it_is_left_alone() {
    let text = ("Content-Type", "text/plain");
    for (status, fields) in [
        (200, &[("Content-Type", "image/png")][..]),
        (200, &[("Content-Type", "application/grpc")]),
        (200, &[]),
        (200, &[text, ("Content-Encoding", "gzip")]),
        (200, &[text, ("Cache-Control", "public, No-Transform")]),
        (206, &[text, ("Content-Range", "bytes 0-1/2")]),
        (204, &[text]),
        (304, &[text]),
        (101, &[text]),
        (200, &[text, ("Content-Length", "1023")]),
    ] {
        let mut response = head(status, fields);
        assert!(!choose(&asking("br"), &mut response));
        assert_eq!(response.fields.len(), fields.len(), "{status} {fields:?}");
    }
    for kind in
        ["text/event-stream", "application/ld+json", "image/svg+xml", "APPLICATION/JSON;charset=utf-8"]
    {
        assert!(choose(&asking("br"), &mut head(200, &[("Content-Type", kind)])), "{kind}");
    }
    assert!(choose(
        &asking("br"),
        &mut head(404, &[text, ("Content-Encoding", "identity"), ("Content-Length", "1024")])
    ));
}

#[test]
fn a_head_is_that_of_the_get() {
    let mut request = asking("gzip");
    request.set_method(b"HEAD");
    let mut response = head(200, &[("Content-Type", "text/plain"), ("Content-Length", "5000")]);
    assert!(!choose(&request, &mut response), "there is no body to be encoded");
    assert_eq!(response.fields.get(Known::ContentEncoding), Some(&b"gzip"[..]));
    assert!(!response.fields.has(Known::ContentLength));
}

/// Time and size of each coding: `cargo test --release -p wmproxy-http measure_coders -- --ignored --nocapture`.
#[test]
#[ignore = "measures"]
fn measure_coders() {
    for length in [2_000, 64_000, 1_000_000] {
        let body = json(length);
        for coding in ALL {
            let (began, mut size, rounds) = (std::time::Instant::now(), 0, 20_000_000 / length / 4);
            for _ in 0..rounds {
                let mut encoder = Encoder::new(coding, Some(length as u64)).unwrap();
                encoder.feed(&body, true).unwrap();
                let mut scratch = Scratch::take();
                size = 0;
                loop {
                    let piece = encoder.piece(&mut scratch, usize::MAX);
                    size += piece.place.len();
                    if piece.is_last {
                        break;
                    }
                }
            }
            let each = began.elapsed() / u32::try_from(rounds).unwrap();
            println!(
                "{coding:?} {length} bytes: {each:?} each, {:.1} % left",
                size as f64 * 100.0 / length as f64
            );
        }
    }
}
