//! Request smuggling: a corpus from RFC 9110 and 9112 and from what other proxies got wrong, and its judge.
//!
//! A payload is either refused, with an answer of 4xx or 5xx and the end of the connection, or the server behind us
//! sees exactly the requests that our access log tells of: as many, with the same methods and targets. Whatever
//! happened, the next client's answer is its own. The payloads are in a file for each family; the judge runs all of
//! them before servers of different make, for each forgives something else.
//!
//! Where they come from, beside the RFCs: James Kettle's and others' classes (CL.TE, TE.CL, TE.TE, CL.0, 0.CL, TE.0,
//! TERM.EXT and EXT.TERM, Expect), pingora's CVE-2025-4366 (a body that a local answer left unread), CVE-2026-2833
//! (bytes after an upgrade), CVE-2026-2835 (HTTP/1.0 with Transfer-Encoding) and CVE-2026-2836 (one host for the cache
//! and another for the origin), tinyproxy's CVE-2026-31842 (`Chunked`), Squid's CVE-2023-46846 (lenient chunks),
//! hyper's CVE-2021-32714 (chunk sizes that overflow), CVE-2021-32715 (signed lengths) and HAProxy's CVE-2021-40346
//! and CVE-2023-25725 (names of fields).

mod chunks;
mod heads;
mod judge;
mod lengths;
mod responses;
mod servers;
mod targets;

/// What looks like a request, and by its place in the payload is none. Nobody may ever see one.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a.example\r\n\r\n";
/// A request after the first.
const NEXT: &str = "GET /next HTTP/1.1\r\nHost: a.example\r\n\r\n";

/// What may become of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It is doubtful, or plainly wrong.
    Refused,
    /// It is right.
    Passes,
    /// RFC 9112 leaves it to us. If it passes, both sides must have seen the same.
    Either,
}

/// Bytes from a client that means no good.
#[derive(Debug, Clone)]
struct Payload {
    name: &'static str,
    bytes: Vec<u8>,
    verdict: Verdict,
}

fn refused(name: &'static str, bytes: impl Into<Vec<u8>>) -> Payload {
    Payload { name, bytes: bytes.into(), verdict: Verdict::Refused }
}

fn passes(name: &'static str, bytes: impl Into<Vec<u8>>) -> Payload {
    Payload { name, bytes: bytes.into(), verdict: Verdict::Passes }
}

fn either(name: &'static str, bytes: impl Into<Vec<u8>>) -> Payload {
    Payload { name, bytes: bytes.into(), verdict: Verdict::Either }
}

/// A POST with these field lines and what follows its head.
fn post(fields: &str, rest: &str) -> String {
    format!("POST /a HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n\r\n{rest}")
}

/// A GET with these field lines.
fn get(fields: &str) -> String {
    format!("GET /a HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n\r\n")
}

/// A chunked POST whose body is this, with its framing.
fn chunked(body: &str) -> String {
    post("Transfer-Encoding: chunked", body)
}

/// All families.
fn corpus() -> Vec<Payload> {
    let all: Vec<Payload> =
        [lengths::payloads(), chunks::payloads(), heads::payloads(), targets::payloads()].concat();
    assert!(all.len() > 200, "that is not the whole corpus: {}", all.len());
    all
}

#[test]
fn no_two_payloads_have_one_name() {
    let mut names: Vec<&str> = corpus().iter().map(|payload| payload.name).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}
