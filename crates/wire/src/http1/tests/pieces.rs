//! Whatever comes, in whatever pieces: the same is read, and what was read is written and read again.

use proptest::prelude::*;

use super::super::*;
use super::{LIMITS, chunks::decode, lines, written};
use crate::head::{Request, Response};

/// What the first bytes come to, from nothing up to all of them.
fn in_pieces<T, E>(
    bytes: &[u8],
    mut read: impl FnMut(&[u8]) -> Result<Option<T>, E>,
) -> Result<Option<T>, E> {
    (0..=bytes.len()).find_map(|len| read(&bytes[..len]).transpose()).transpose()
}

fn requests() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        Just("GET / HTTP/1.1\r\n"),
        Just("POST /a?b HTTP/1.0\r\n"),
        Just("GET http://a/b HTTP/1.1\r\n"),
        Just("CONNECT a:80 HTTP/1.1\r\n"),
        Just("OPTIONS * HTTP/1.1\r\n"),
        Just("\r\nX a HTTP/2.0\r\n"),
        Just("GET /\u{e9} HTTP/1.1"),
    ];
    let field = prop_oneof![
        Just("Host: a\r\n"),
        Just("host: b:80\r\n"),
        Just("Content-Length: 5\r\n"),
        Just("Transfer-Encoding: chunked\r\n"),
        Just("A:b\r\n"),
        Just("Expect: 100-continue\r\n"),
        Just(" fold\r\n"),
        Just("c : d\r\n"),
        Just("e: f\n"),
        Just("g: \t h\ti \r\n"),
        Just("\r"),
        Just("\0"),
    ];
    (
        line,
        proptest::collection::vec(field, 0..5),
        proptest::collection::vec(any::<u8>(), 0..4),
        any::<bool>(),
    )
        .prop_map(|(line, fields, noise, is_clean)| {
            let mut text = line.as_bytes().to_vec();
            text.extend(fields.concat().bytes());
            if !is_clean {
                text.extend(&noise);
            }
            text.extend(b"\r\n");
            text.extend(&noise);
            text
        })
}

proptest! {
    #[test]
    fn a_request_is_the_same_in_any_pieces(text in requests()) {
        let mut whole = Request::new();
        let mut grown = Request::new();
        let at_once = read_request(&text, &LIMITS, &mut whole);
        let slowly = in_pieces(&text, |bytes| read_request(bytes, &LIMITS, &mut grown));
        prop_assert_eq!(at_once, slowly);
        prop_assert_eq!(written(&whole), written(&grown));
    }

    #[test]
    fn what_is_written_is_read_as_the_same(text in requests()) {
        let mut first = Request::new();
        if let Ok(Some(used)) = read_request(&text, &LIMITS, &mut first) {
            prop_assert!(used <= text.len());
            let mut out = Vec::new();
            write_request(&first, &mut out);
            let mut again = Request::new();
            let wide = HeadLimits { bytes: out.len(), target: 64, fields: 9, any_host: false };
            let read = read_request(&out, &wide, &mut again);
            // A request of 1.0 may have no Host, and one of 1.1 may not.
            if read == Err(RequestError::NoHost) {
                prop_assert!(first.authority().is_none());
                return Ok(());
            }
            prop_assert_eq!(read, Ok(Some(out.len())));
            prop_assert_eq!(written(&again), out.escape_ascii().to_string());
            if first.version == again.version {
                prop_assert_eq!(request_length(&first), request_length(&again));
            }
        }
    }

    #[test]
    fn a_response_is_the_same_in_any_pieces(
        line in "HTTP/1\\.[01] [12345][0-9]{1,2}( [ a-z\t]{0,8})?", fields in "([A-Za-z: ]{1,6}: ?[a-z \t]{0,4}(\r\n|\n)){0,3}",
        noise in proptest::collection::vec(any::<u8>(), 0..3),
    ) {
        let text = [line.as_bytes(), b"\r\n", fields.as_bytes(), b"\r\n", &noise].concat();
        let (mut whole, mut grown) = (Response::new(), Response::new());
        let at_once = read_response(&text, &LIMITS, &mut whole);
        prop_assert_eq!(at_once, in_pieces(&text, |bytes| read_response(bytes, &LIMITS, &mut grown)));
        prop_assert_eq!(lines(&whole.fields), lines(&grown.fields));
        if let Ok(Some(_)) = at_once {
            let mut out = Vec::new();
            write_response(&whole, &mut out);
            prop_assert_eq!(read_response(&out, &LIMITS, &mut grown), Ok(Some(out.len())));
            prop_assert_eq!(lines(&whole.fields), lines(&grown.fields));
        }
    }

    #[test]
    fn chunks_are_the_same_in_any_pieces(
        text in "([0-9a-c]{1,2}(;[a-z=]{0,4})?\r\n[a-z\r\n]{0,12}(\r\n)?){0,4}0\r\n(A: b\r\n){0,2}\r\n",
        lens in proptest::collection::vec(1usize..9, 1..8),
    ) {
        prop_assert_eq!(decode(text.as_bytes(), &[]), decode(text.as_bytes(), &lens));
    }

    #[test]
    fn a_body_in_any_chunks_is_decoded(
        body in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..8),
        lens in proptest::collection::vec(1usize..50, 1..8),
    ) {
        let mut out = Vec::new();
        for part in &body {
            out.extend_from_slice(&chunk_head(part.len()));
            out.extend_from_slice(part);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(LAST_CHUNK);
        prop_assert_eq!(decode(&out, &lens), Ok(Some((body.concat(), Vec::new(), out.len()))));
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = read_request(&bytes, &LIMITS, &mut Request::new());
        let _ = read_response(&bytes, &LIMITS, &mut Response::new());
        let _ = decode(&bytes, &[]);
    }
}
