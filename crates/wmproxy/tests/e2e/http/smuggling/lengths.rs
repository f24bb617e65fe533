//! Two lengths for one body: Content-Length and Transfer-Encoding, each twice, each misspelt.

use super::{NEXT, Payload, SMUGGLED, either, get, passes, post, refused};

const BOTH: &str = "Content-Length: 6\r\nTransfer-Encoding: chunked";

pub(super) fn payloads() -> Vec<Payload> {
    let mut all = both();
    all.extend(content_lengths());
    all.extend(codings());
    all.extend(legal());
    all
}

/// CL.TE, TE.CL and their relatives.
fn both() -> Vec<Payload> {
    let smuggled = |rest: &str| format!("{rest}{SMUGGLED}");
    let old = |fields: &str, rest: &str| {
        format!("POST /a HTTP/1.0\r\nHost: a.example\r\nConnection: keep-alive\r\n{fields}\r\n\r\n{rest}")
    };
    vec![
        refused("cl-te", post(BOTH, &smuggled("0\r\n\r\n"))),
        refused(
            "te-cl",
            post("Transfer-Encoding: chunked\r\nContent-Length: 3", &smuggled("1\r\nx\r\n0\r\n\r\n")),
        ),
        refused("te-cl-exact", post("Transfer-Encoding: chunked\r\nContent-Length: 5", "0\r\n\r\n")),
        refused("cl-0-te", post("Content-Length: 0\r\nTransfer-Encoding: chunked", &smuggled("0\r\n\r\n"))),
        refused(
            "cl-te-far-apart",
            post("Content-Length: 6\r\nX-A: b\r\nX-C: d\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
        ),
        refused("cl-te-identity", post("Content-Length: 5\r\nTransfer-Encoding: identity", "hello")),
        refused("cl-te-empty", post("Content-Length: 5\r\nTransfer-Encoding:", "hello")),
        refused("cl-te-get", get(BOTH) + "0\r\n\r\n"),
        refused("te-on-1.0", old("Transfer-Encoding: chunked", &smuggled("0\r\n\r\n"))),
        refused("te-on-1.0-cl", old("Content-Length: 5\r\nTransfer-Encoding: chunked", "0\r\n\r\n")),
        refused("te-on-1.0-identity", old("Transfer-Encoding: identity", SMUGGLED)),
        refused("te-on-1.0-get", "GET /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        // A body up to the end of the connection is no request's.
        either("1.0-post-without-length", old("X-A: b", NEXT)),
    ]
}

fn content_lengths() -> Vec<Payload> {
    let length = |value: &str| post(&format!("Content-Length: {value}"), "hello");
    vec![
        refused("cl-differ", post("Content-Length: 5\r\nContent-Length: 6", "hello!")),
        refused("cl-differ-0", post("Content-Length: 0\r\nContent-Length: 44", SMUGGLED)),
        refused("cl-differ-case", post("Content-Length: 5\r\ncontent-length: 0", "hello")),
        refused("cl-list-differ", length("5, 6")),
        refused("cl-three", post("Content-Length: 5\r\nContent-Length: 5\r\nContent-Length: 4", "hello")),
        either("cl-same-twice", post("Content-Length: 5\r\nContent-Length: 5", "hello")),
        either("cl-list-same", length("5, 5")),
        refused("cl-plus", length("+5")),
        refused("cl-minus", length("-5")),
        refused("cl-minus-0", post("Content-Length: -0", SMUGGLED)),
        refused("cl-hex", length("0x5")),
        refused("cl-octal-like", length("0o5")),
        refused("cl-exponent", length("5e0")),
        refused("cl-fraction", length("5.0")),
        refused("cl-underscore", length("0_5")),
        refused("cl-space-inside", length("5 5")),
        refused("cl-comma", length("5,")),
        refused("cl-comma-first", length(",5")),
        refused("cl-semicolon", length("5;a=b")),
        refused("cl-letters", length("five")),
        refused("cl-quoted", length("\"5\"")),
        refused("cl-empty", length("")),
        refused("cl-blank", length("   ")),
        refused("cl-vertical-tab", length("\x0b5")),
        refused("cl-form-feed", length("5\x0c")),
        refused("cl-no-break-space", length("\u{a0}5")),
        refused("cl-arabic-digit", length("\u{665}")),
        refused("cl-nul", length("5\0")),
        refused("cl-2^64+5", length("18446744073709551621")),
        refused("cl-2^65", length("36893488147419103237")),
        refused("cl-99-digits", length(&"9".repeat(99))),
        refused("cl-name-nul", post("Content-Length\0: 5", "hello")),
        refused("cl-name-space", post("Content-Length : 5", "hello")),
        refused("cl-name-tab", post("Content-Length\t: 5", "hello")),
        refused("cl-name-inner-space", post("Content- Length: 5", "hello")),
        either("cl-zeros", length("0000000000000000000000005")),
        // A length with another name is none: what follows is another request, on both sides.
        either("cl-underscored-name", post(&format!("Content_Length: {}", NEXT.len()), NEXT)),
        either("cl-longer-name", post(&format!("X-Content-Length: {}", NEXT.len()), NEXT)),
    ]
}

/// TE.TE: one of two parsers does not see the coding.
fn codings() -> Vec<Payload> {
    let coding = |value: &str| post(&format!("Transfer-Encoding: {value}"), "0\r\n\r\n");
    let with_length = |line: &str| {
        post(&format!("Content-Length: {}\r\n{line}", SMUGGLED.len() + 5), &format!("0\r\n\r\n{SMUGGLED}"))
    };
    vec![
        refused("te-xchunked", coding("xchunked")),
        refused("te-chunkedx", coding("chunkedx")),
        refused("te-chunk", coding("chunk")),
        refused("te-identity", coding("identity")),
        refused("te-gzip", coding("gzip")),
        refused("te-gzip-chunked", coding("gzip, chunked")),
        refused("te-chunked-gzip", coding("chunked, gzip")),
        refused("te-chunked-identity", coding("chunked, identity")),
        refused("te-identity-chunked", coding("identity, chunked")),
        refused("te-chunked-twice", coding("chunked, chunked")),
        refused(
            "te-two-fields",
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
        ),
        refused(
            "te-two-fields-differ",
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: cow", "0\r\n\r\n"),
        ),
        refused(
            "te-two-fields-identity",
            post("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
        ),
        refused("te-parameter", coding("chunked;q=1")),
        refused("te-quoted", coding("\"chunked\"")),
        refused("te-quoted-single", coding("'chunked'")),
        refused("te-comma-first", coding(", chunked")),
        refused("te-comma-last", coding("chunked,")),
        refused("te-empty", post("Transfer-Encoding:", SMUGGLED)),
        refused("te-vertical-tab", coding("\x0bchunked")),
        refused("te-form-feed", coding("chunked\x0c")),
        refused("te-backspace", coding("\x08chunked")),
        refused("te-nul", coding("chunked\0")),
        refused("te-no-break-space", coding("\u{a0}chunked")),
        refused("te-long-s", coding("chun\u{212a}ed")),
        refused("te-space-before-colon", with_length("Transfer-Encoding : chunked")),
        refused("te-tab-before-colon", with_length("Transfer-Encoding\t: chunked")),
        refused("te-name-nul", with_length("Transfer-Encoding\0: chunked")),
        refused("te-leading-space", with_length(" Transfer-Encoding: chunked")),
        refused("te-after-cr", with_length("X-A: b\rTransfer-Encoding: chunked")),
        refused("te-after-lf", with_length("X-A: b\nTransfer-Encoding: chunked")),
        refused("te-folded", with_length("Transfer-Encoding:\r\n chunked")),
        refused("te-folded-tab", with_length("Transfer-Encoding:\r\n\tchunked")),
        refused("te-folded-above", with_length("X-A: b\r\n Transfer-Encoding: chunked")),
        refused("te-no-colon", with_length("Transfer-Encoding chunked")),
        refused("te-equals", with_length("Transfer-Encoding= chunked")),
        refused("te-soft-hyphen", with_length("Transfer\u{ad}Encoding: chunked")),
        // tinyproxy took this for no coding and its origin for one.
        either("te-capital", coding("Chunked")),
        either("te-capitals", post("TRANSFER-ENCODING: CHUNKED", &format!("0\r\n\r\n{NEXT}"))),
        either("te-trailing-tab", coding("chunked\t ")),
        // As headers of other names they mean nothing; the length counts, or it is refused.
        either("te-underscored-name", with_length("Transfer_Encoding: chunked")),
        either("te-plural", with_length("Transfer-Encodings: chunked")),
        either("te-x", with_length("X-Transfer-Encoding: chunked")),
        either("te-as-te", with_length("TE: chunked")),
    ]
}

fn legal() -> Vec<Payload> {
    let body = SMUGGLED.len();
    vec![
        passes("cl-body-that-looks-like-a-request", post(&format!("Content-Length: {body}"), SMUGGLED)),
        passes(
            "chunk-that-looks-like-a-request",
            super::chunked(&format!("{body:x}\r\n{SMUGGLED}\r\n0\r\n\r\n")),
        ),
        passes("cl-0-then-a-request", post("Content-Length: 0", NEXT)),
        passes("get-with-body", get(&format!("Content-Length: {body}")) + SMUGGLED),
        passes("no-length-then-a-request", post("X-A: b", NEXT)),
        passes("tabs-around-a-length", post("Content-Length:\t 5 \t", "hello")),
        passes(
            "options-chunked",
            format!(
                "OPTIONS /a HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{NEXT}"
            ),
        ),
        passes(
            "head-with-body",
            format!("HEAD /a HTTP/1.1\r\nHost: a.example\r\nContent-Length: {body}\r\n\r\n{SMUGGLED}"),
        ),
        // A body that a local answer does not need is no request either.
        either(
            "local-answer-cl",
            format!("POST /local HTTP/1.1\r\nHost: a.example\r\nContent-Length: {body}\r\n\r\n{SMUGGLED}"),
        ),
        either(
            "local-answer-chunked",
            format!(
                "POST /local HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n{body:x}\r\n{SMUGGLED}\r\n0\r\n\r\n"
            ),
        ),
        either(
            "no-route-cl",
            format!("POST /none HTTP/1.1\r\nHost: none.example\r\nContent-Length: {body}\r\n\r\n{SMUGGLED}"),
        ),
        either("get-with-a-body-that-never-comes", get("Content-Length: 100")),
        either("post-cut-off", post("Content-Length: 100", SMUGGLED)),
        either(
            "connection-names-content-length",
            post(&format!("Connection: Content-Length\r\nContent-Length: {body}"), SMUGGLED),
        ),
        either(
            "connection-names-te",
            post("Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked", &format!("0\r\n\r\n{NEXT}")),
        ),
        either("connection-names-host", get("Connection: Host")),
    ]
}
