use super::*;
use crate::health::options::Statuses;

fn spec(body: Option<&str>) -> HttpSpec {
    HttpSpec {
        method: "GET".into(),
        path: "/".into(),
        host: None,
        statuses: Statuses::default(),
        body: body.map(str::to_owned),
    }
}

/// What becomes of an answer that comes in pieces of `size` and then ends.
fn judged(body: Option<&str>, answer: &[u8], size: usize) -> Result<(), HttpError> {
    let spec = spec(body);
    let mut response = Response::new(&spec);
    for piece in answer.chunks(size) {
        if response.take(piece)? {
            return Ok(());
        }
    }
    response.end()
}

/// The same in one piece, and checked to be no other in pieces of whatever size.
fn verdict(body: Option<&str>, answer: &str) -> Result<(), HttpError> {
    let whole = judged(body, answer.as_bytes(), answer.len().max(1));
    for size in 1..answer.len().min(200) {
        let pieces = judged(body, answer.as_bytes(), size);
        // How much of a head or a body is quoted depends on how much there is; the kind of problem does not.
        let kind = std::mem::discriminant::<HttpError>;
        assert_eq!(pieces.as_ref().err().map(kind), whole.as_ref().err().map(kind), "{size}: {answer:?}");
    }
    whole
}

fn error(body: Option<&str>, answer: &str) -> String {
    verdict(body, answer).unwrap_err().to_string()
}

#[test]
fn the_status_decides_alone_when_no_body_is_expected() {
    verdict(None, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").unwrap();
    verdict(None, "HTTP/1.0 302 Found\r\n\r\n").unwrap();
    verdict(None, "HTTP/1.1 204\r\n\r\n").unwrap();
    assert_eq!(
        error(None, "HTTP/1.1 503 Service Unavailable\r\n\r\n"),
        "the status is 503, and 200-399 was expected"
    );
    // Even where nobody could tell how long the body is.
    verdict(None, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
}

#[test]
fn interim_answers_are_passed_over() {
    verdict(
        None,
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    )
    .unwrap();
    let switching = error(None, "HTTP/1.1 101 Switching Protocols\r\n\r\n");
    assert_eq!(switching, "the status is 101, and 200-399 was expected");
    assert_eq!(error(None, "HTTP/1.1 100 Continue\r\n\r\n"), "closed in the middle of the answer");
}

#[test]
fn a_body_is_found_however_it_is_framed() {
    let found = |answer: &str| verdict(Some("all is well"), answer).unwrap();
    found("HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\nyes all is well");
    found("HTTP/1.1 200 OK\r\nContent-Length: 11\r\nContent-Length: 11\r\n\r\nall is well");
    found("HTTP/1.1 200 OK\r\n\r\nso: all is well!");
    found(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n4\r\nall \r\nA;x=y\r\nis wellooo\r\n0\r\n\r\n",
    );
    found("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n00a \r\nll is well\r\n");
}

#[test]
fn a_body_that_lacks_it_is_quoted() {
    let missing = |answer: &str| error(Some("well"), answer);
    let quoted = "the body does not have what was expected, but \"ill\"";
    assert_eq!(missing("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nillwell"), quoted);
    assert_eq!(missing("HTTP/1.1 200 OK\r\n\r\nill"), quoted);
    assert_eq!(missing("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nill\r\n0\r\n\r\n"), quoted);
    for head in
        ["HTTP/1.1 204 No Content\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", "HTTP/1.1 304 x\r\n"]
    {
        assert_eq!(missing(&format!("{head}\r\n")), "the body is empty", "{head}");
    }
    assert_eq!(
        missing("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        "the body is empty"
    );
    assert_eq!(missing("HTTP/1.1 200 OK\r\n\r\n"), "the body is empty");
}

#[test]
fn an_answer_that_is_cut_off_is_none() {
    assert_eq!(error(None, ""), "closed without an answer");
    let cut = "closed in the middle of the answer";
    assert_eq!(error(None, "HTTP/1.1 200 OK\r\nConte"), cut);
    assert_eq!(error(Some("x"), "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab"), cut);
    assert_eq!(error(Some("x"), "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab"), cut);
    assert_eq!(error(Some("x"), "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"), cut);
}

#[test]
fn what_two_could_read_as_two_things_is_refused() {
    let refused = |fields: &str| error(Some("x"), &format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\nx"));
    for fields in [
        "Content-Length: 1\r\nTransfer-Encoding: chunked",
        "Content-Length: 1\r\nContent-Length: 2",
        "Content-Length: 1, 1",
        "Content-Length: +1",
        "Content-Length: ",
        "Content-Length: 99999999999999999999",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    ] {
        let error = refused(fields);
        assert!(error.starts_with("the answer's length is not clear: "), "{fields}: {error}");
    }
    let old = error(Some("x"), "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
    assert_eq!(old, "the answer's length is not clear: Transfer-Encoding in HTTP/1.0");
    for chunks in ["x\r\n", "-1\r\n", "1\nx", "\r\n", "10000000000000000\r\n", "1\r\nab\r\n"] {
        let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
        let error = error(Some("~"), &answer);
        assert!(error.starts_with("the answer's length is not clear: "), "{chunks:?}: {error}");
    }
}

#[test]
fn what_is_not_http_is_quoted() {
    assert_eq!(
        error(None, "SSH-2.0-OpenSSH_9.2\r\n"),
        "the answer is not HTTP/1.1, but \"SSH-2.0-OpenSSH_9.2\\r\\n\""
    );
    assert!(error(None, "HTTP/2 200\r\n\r\n").starts_with("the answer is not HTTP/1.1"));
    assert!(error(None, "HTTP/1.1 200 OK\r\nbad field\r\n\r\n").starts_with("the answer is not HTTP/1.1"));
}

#[test]
fn nothing_may_be_endless() {
    let long = |answer: String, size| judged(Some("~"), answer.as_bytes(), size).unwrap_err();
    for size in [1000, 4096, 100_000] {
        let field = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(HEAD_LIMIT));
        assert_eq!(long(field, size), HttpError::HeadTooLong);
        let fields = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(FIELD_LIMIT + 1));
        assert_eq!(long(fields, size), HttpError::HeadTooLong);
        let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(HEAD_LIMIT / 25 + 1);
        assert_eq!(long(interim, size), HttpError::HeadTooLong);
        let body = format!("HTTP/1.1 200 OK\r\n\r\n{}", "y".repeat(BODY_LIMIT));
        assert_eq!(long(body, size), HttpError::BodyTooLong);
        let line = format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;{}",
            "y".repeat(CHUNK_LINE_LIMIT)
        );
        assert!(matches!(long(line, size), HttpError::Framing(_)));
    }
    // What fits to the byte is not too long.
    let field = "y".repeat(HEAD_LIMIT - "HTTP/1.1 200 OK\r\nx: \r\n\r\n".len());
    judged(None, format!("HTTP/1.1 200 OK\r\nx: {field}\r\n\r\n").as_bytes(), 4096).unwrap();
    let body = "y".repeat(BODY_LIMIT - 1);
    judged(Some("y~"), format!("HTTP/1.1 200 OK\r\n\r\n{body}~").as_bytes(), 4096).unwrap();
}

#[test]
fn no_bytes_make_it_panic() {
    let mut state = 7;
    let seeds: [&[u8]; 3] = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nsome bytes..",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n3;x\r\nfgh\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\n\r\nbody",
    ];
    for round in 0..20_000 {
        let mut bytes = seeds[round % seeds.len()].to_vec();
        for _ in 0..=crate::random::split_mix(&mut state) % 4 {
            let at = usize::try_from(crate::random::split_mix(&mut state)).unwrap() % bytes.len();
            bytes[at] = u8::try_from(crate::random::split_mix(&mut state) % 256).unwrap();
        }
        let size = 1 + usize::try_from(crate::random::split_mix(&mut state) % 9).unwrap();
        let _ = judged(Some("~~"), &bytes, size);
    }
}
