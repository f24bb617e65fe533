//! The chunked coding.

use super::super::*;
use super::lines;
use crate::head::Fields;

const LIMITS: ChunkLimits = ChunkLimits { extension: 32, excess: 256, trailer_bytes: 128, trailer_fields: 4 };

/// What a body is: its data, its trailers, and how many bytes it was. None when it is not whole.
type Body = Option<(Vec<u8>, Vec<String>, usize)>;

/// Decodes what comes in pieces of these lengths, over and over.
pub(super) fn decode(bytes: &[u8], lens: &[usize]) -> Result<Body, ChunkError> {
    let mut chunks = Chunks::new(LIMITS);
    let (mut data, mut used) = (Vec::new(), 0);
    let mut lens = lens.iter().cycle();
    let mut rest = bytes;
    loop {
        let len = lens.next().copied().unwrap_or(rest.len()).clamp(1, rest.len().max(1)).min(rest.len());
        let (mut piece, behind) = rest.split_at(len);
        loop {
            match chunks.next(piece)? {
                Step::More => {
                    used += piece.len();
                    break;
                }
                Step::Data(at) => {
                    assert!(!at.is_empty());
                    data.extend_from_slice(&piece[at.clone()]);
                    used += at.end;
                    piece = &piece[at.end..];
                }
                Step::End(end) => {
                    assert!(chunks.is_done());
                    assert_eq!(chunks.next(b"more"), Ok(Step::End(0)));
                    return Ok(Some((data, lines(chunks.trailers()), used + end)));
                }
            }
        }
        rest = behind;
        if rest.is_empty() {
            return Ok(None);
        }
    }
}

#[test]
fn a_body_is_decoded_in_any_pieces() {
    let table: &[(&str, &str, &[&str])] = &[
        ("0\r\n\r\n", "", &[]),
        ("000\r\n\r\n", "", &[]),
        ("5\r\nhello\r\n0\r\n\r\n", "hello", &[]),
        ("A\r\n0123456789\r\n2\r\n\r\n\r\n0\r\n\r\n", "0123456789\r\n", &[]),
        ("0000000000000001\r\nx\r\n0\r\n\r\n", "x", &[]),
        ("5;a=b\r\nhello\r\n1;c;d=\"e;f\"\r\n!\r\n0;x\r\n\r\n", "hello!", &[]),
        ("5 ;a\r\nhello\r\n0\t;\r\n\r\n", "hello", &[]),
        ("1\r\nx\r\n0\r\nX-Sum: 1\r\ny:2 \r\n\r\n", "x", &["X-Sum: 1", "y: 2"]),
        (
            "0\r\nContent-Length: 5\r\nhost: a\r\nTransfer-Encoding: chunked\r\nGrpc-Status: 0\r\n\r\n",
            "",
            &["Grpc-Status: 0"],
        ),
    ];
    for (text, data, trailers) in table {
        for len in 1..=text.len() {
            let body = decode(text.as_bytes(), &[len]);
            let (read, own, used) = body.unwrap_or_else(|error| panic!("{text:?}: {error}")).unwrap();
            assert_eq!((read.as_slice(), used), (data.as_bytes(), text.len()), "{text:?} by {len}");
            assert_eq!(own, *trailers);
        }
        let followed = format!("{text}GET / HTTP/1.1\r\n");
        assert_eq!(decode(followed.as_bytes(), &[]).unwrap().unwrap().2, text.len());
        for len in 0..text.len() {
            assert_eq!(decode(&text.as_bytes()[..len], &[]), Ok(None), "the first {len} of {text:?}");
        }
    }
}

#[test]
fn a_broken_coding_is_refused_in_any_pieces() {
    use ChunkError::*;
    let table: &[(&str, ChunkError)] = &[
        ("\r\n", Size),
        (";a\r\n", Size),
        (" 5\r\nhello", Size),
        ("5 \r\nhello", Size),
        ("5\t\r\nhello", Size),
        ("5 5\r\n", Size),
        ("-1\r\n", Size),
        ("+5\r\n", Size),
        ("0x5\r\n", Size),
        ("5_0\r\n", Size),
        ("g\r\n", Size),
        ("5\nhello", Size),
        ("00000000000000005\r\n", Size),
        ("10000000000000000\r\n", Size),
        ("5\0\r\n", Size),
        ("5,\r\n", Size),
        ("5\rhello", LineEnd),
        ("5\r\rhello", LineEnd),
        ("5;a\nhello", LineEnd),
        ("5;a\r0\r\n", LineEnd),
        ("5;a\0\r\n", Extension),
        ("5;a\x7f\r\n", Extension),
        ("5\r\nhello0\r\n\r\n", LineEnd),
        ("5\r\nhello\n0\r\n\r\n", LineEnd),
        ("5\r\nhello\r0\r\n\r\n", LineEnd),
        ("5\r\nhello!\r\n", LineEnd),
        ("1\r\nx\r\n\r\n0\r\n\r\n", Size),
        ("0\r\nA\r\n\r\n", Trailer(FieldError::NoColon)),
        ("0\r\n A: b\r\n\r\n", Trailer(FieldError::Folded)),
        ("0\r\n\n", Trailer(FieldError::BareLf)),
        ("0\r\n\rA", Trailer(FieldError::BareCr)),
        ("0\r\nA: b\nC: d\r\n\r\n", Trailer(FieldError::BareLf)),
        ("0\r\nA: b\r\nA: b\r\nA: b\r\nA: b\r\nA: b\r\n\r\n", Trailer(FieldError::TooMany)),
    ];
    for (text, error) in table {
        for len in 1..=text.len() {
            assert_eq!(decode(text.as_bytes(), &[len]), Err(*error), "{text:?} by {len}");
        }
    }
    let mut chunks = Chunks::new(LIMITS);
    assert_eq!(chunks.next(b"x"), Err(Size));
    assert_eq!(chunks.next(b"5\r\n"), Err(Size), "nothing mends it");
    chunks.reset();
    assert_eq!(chunks.next(b"5\r\nab"), Ok(Step::Data(3..5)));
}

#[test]
fn what_the_coding_costs_is_limited() {
    let long = |len: usize| format!("1;{}\r\nx\r\n0\r\n\r\n", "a".repeat(len));
    assert!(decode(long(30).as_bytes(), &[]).is_ok());
    assert_eq!(decode(long(50).as_bytes(), &[]), Err(ChunkError::Excess));
    // Each of these lines is within the limit, but each byte of data costs 38.
    let many = "1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\nx\r\n".repeat(100);
    assert_eq!(decode(many.as_bytes(), &[]), Err(ChunkError::Excess));
    // Small chunks without extensions may go on for ever, and so may signatures of larger ones.
    let small = "1\r\nx\r\n".repeat(100_000) + "0\r\n\r\n";
    assert_eq!(decode(small.as_bytes(), &[]).unwrap().unwrap().0.len(), 100_000);
    let signed = "a;chunk-signature=0123456789\r\n0123456789\r\n".repeat(1000) + "0\r\n\r\n";
    assert_eq!(decode(signed.as_bytes(), &[]).unwrap().unwrap().0.len(), 10_000);

    let trailers = |len: usize| format!("0\r\nA: {}\r\n\r\n", "b".repeat(len));
    assert!(decode(trailers(121).as_bytes(), &[]).unwrap().is_some());
    for lens in [&[1][..], &[]] {
        assert_eq!(decode(trailers(122).as_bytes(), lens), Err(ChunkError::TrailersTooLong));
    }
    assert_eq!((ChunkError::TrailersTooLong.status(), ChunkError::Size.status()), (431, 400));
}

#[test]
fn data_may_pass_by_the_decoder() {
    let mut chunks = Chunks::new(LIMITS);
    assert_eq!(chunks.data_left(), 0);
    assert_eq!(chunks.next(b"10\r\nab"), Ok(Step::Data(4..6)));
    assert_eq!(chunks.data_left(), 14);
    chunks.data_passed(10);
    assert_eq!(chunks.next(b"cdef\r\n0\r\n\r\n"), Ok(Step::Data(0..4)));
    assert_eq!(chunks.next(b"\r\n0\r\n\r\n"), Ok(Step::End(7)));
    chunks.data_passed(0);
}

#[test]
fn chunks_are_written_as_they_are_read() {
    for len in [1, 9, 10, 15, 16, 255, 4096, 65_536, 0xdead_beef, usize::MAX] {
        assert_eq!(&*chunk_head(len), format!("{len:x}\r\n").as_bytes());
    }
    let mut out = Vec::new();
    for data in ["hello", "0123456789abcdefg"] {
        out.extend_from_slice(&chunk_head(data.len()));
        out.extend_from_slice(data.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    let mut trailers = Fields::new();
    trailers.push(b"X", b"y");
    let mut with_trailers = out.clone();
    write_trailers(&trailers, &mut with_trailers);
    let used = with_trailers.len();
    let body = (b"hello0123456789abcdefg".to_vec(), vec!["X: y".to_owned()], used);
    assert_eq!(decode(&with_trailers, &[3]), Ok(Some(body)));
    out.extend_from_slice(LAST_CHUNK);
    assert_eq!(decode(&out, &[]).unwrap().unwrap().2, out.len());
}
