//! What a head costs. `cargo test --release -p wmproxy-wire http1::tests::speed -- --ignored --nocapture` prints it.

use std::hint::black_box;
use std::time::Instant;

use super::super::*;
use crate::head::{Request, Response};

/// As a browser asks for a page.
const BROWSER: &[u8] = b"GET /wiki/Main_Page?useskin=vector HTTP/1.1\r\n\
    Host: en.wikipedia.org\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
    Accept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Referer: https://www.wikipedia.org/\r\n\
    Connection: keep-alive\r\n\
    Cookie: GeoIP=DE:BE:Berlin:52.52:13.41:v4; enwikimwuser-sessionId=0d4f1e8a9b7c6d5e4f3a; WMF-Last-Access=22-Nov-2026\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    Sec-Fetch-Dest: document\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-Site: cross-site\r\n\
    Priority: u=0, i\r\n\
    \r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Server: nginx\r\n\
    Date: Sun, 22 Nov 2026 22:30:00 GMT\r\n\
    Content-Type: text/html; charset=utf-8\r\n\
    Content-Length: 34\r\n\
    Connection: keep-alive\r\n\
    \r\n";

const LIMITS: HeadLimits = HeadLimits { bytes: 32 * 1024, target: 8 * 1024, fields: 100, any_host: false };

fn measure(what: &str, mut once: impl FnMut()) {
    const ROUNDS: u32 = 200_000;
    let best = (0..5).map(|_| {
        let start = Instant::now();
        (0..ROUNDS).for_each(|_| once());
        start.elapsed() / ROUNDS
    });
    println!("{what}: {:?}", best.min().unwrap_or_default());
}

#[test]
#[ignore = "a measurement"]
fn of_heads() {
    let mut request = Request::new();
    let mut out = Vec::new();
    println!("a request of {} bytes, a response of {}", BROWSER.len(), RESPONSE.len());
    measure("read_request", || {
        assert_eq!(read_request(black_box(BROWSER), &LIMITS, &mut request), Ok(Some(BROWSER.len())));
    });
    measure("request_length", || {
        assert_eq!(request_length(black_box(&request)), Ok(Length::None));
    });
    measure("write_request", || {
        out.clear();
        write_request(black_box(&request), &mut out);
    });
    let mut fields = [httparse::EMPTY_HEADER; 32];
    measure("httparse", || {
        let mut theirs = httparse::Request::new(&mut fields);
        assert!(theirs.parse(black_box(BROWSER)).is_ok());
        fields = [httparse::EMPTY_HEADER; 32];
    });
    let mut response = Response::new();
    measure("read_response", || {
        assert_eq!(read_response(black_box(RESPONSE), &LIMITS, &mut response), Ok(Some(RESPONSE.len())));
    });
    let mut chunks = Chunks::new(ChunkLimits::with(&LIMITS));
    let body = [&b"1000\r\n"[..], &[b'x'; 4096], b"\r\n0\r\n\r\n"].concat();
    measure("a body of one chunk", || {
        chunks.reset();
        let Ok(Step::Data(at)) = chunks.next(black_box(&body)) else { panic!("data") };
        assert!(matches!(chunks.next(&body[at.end..]), Ok(Step::End(_))));
    });
}
