//! Chunked bodies: sizes, extensions, line ends and trailers.

use super::{NEXT, Payload, SMUGGLED, chunked, either, passes, refused};

pub(super) fn payloads() -> Vec<Payload> {
    let mut all = sizes();
    all.extend(extensions());
    all.extend(ends());
    all.extend(trailers());
    all
}

/// A body with one chunk, whose size is written like this.
fn size(text: &str) -> String {
    chunked(&format!("{text}\r\nhello\r\n0\r\n\r\n"))
}

fn sizes() -> Vec<Payload> {
    let smuggled = SMUGGLED.len();
    vec![
        refused("size-empty", size("")),
        refused("size-0x", size("0x5")),
        refused("size-plus", size("+5")),
        refused("size-minus", size("-5")),
        refused("size-minus-0", chunked(&format!("-0\r\n\r\n{SMUGGLED}"))),
        refused("size-space-before", size(" 5")),
        refused("size-tab-before", size("\t5")),
        refused("size-space-inside", size("0 5")),
        refused("size-underscore", size("0_5")),
        refused("size-g", size("g")),
        refused("size-5g", size("5g")),
        refused("size-h", size("5h")),
        refused("size-nul", size("5\0")),
        refused("size-nul-before", size("\x005")),
        refused("size-vertical-tab", size("5\x0b")),
        refused("size-comma", size("5,5")),
        refused("size-dot", size("5.0")),
        refused("size-quoted", size("\"5\"")),
        refused("size-arabic-digit", size("\u{665}")),
        refused("size-high-byte", size("\u{ff15}")),
        refused("size-2^64", size("10000000000000000")),
        refused("size-2^64+5", size("10000000000000005")),
        refused("size-2^65+5", size("20000000000000005")),
        either("size-2^64-1", size("ffffffffffffffff")),
        either("size-2^64-2", size("fffffffffffffffe")),
        either("size-2^63", size("8000000000000000")),
        refused("size-32-digits", size(&"f".repeat(32))),
        either("size-wraps-32-bits", chunked(&format!("100000000\r\n\r\n{SMUGGLED}"))),
        refused("size-without-end", chunked(&"0".repeat(1 << 20))),
        either("size-zeros", size("00000005")),
        either("size-many-zeros", size(&format!("{}5", "0".repeat(500)))),
        either("size-space-after", size("5 ")),
        either("size-tab-after", size("5\t")),
        either("size-longer-than-the-data", chunked(&format!("{:x}\r\n{SMUGGLED}0\r\n\r\n", smuggled + 100))),
        passes("size-capital", chunked("A\r\n0123456789\r\n0\r\n\r\n")),
        passes("size-zeros-at-the-end", chunked(&format!("5\r\nhello\r\n000\r\n\r\n{NEXT}"))),
        passes("many-small-chunks", chunked(&format!("{}0\r\n\r\n{NEXT}", "1\r\nx\r\n".repeat(5_000)))),
    ]
}

fn extensions() -> Vec<Payload> {
    // TERM.EXT and EXT.TERM: where one parser ends an extension at a bare LF and the next does not.
    let hidden = format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len());
    vec![
        refused("ext-bare-lf", chunked(&format!("5;\nhello\r\n{hidden}"))),
        refused(
            "ext-bare-lf-2",
            chunked(&format!("2;\nxx\r\n{:x}\r\n0\r\n\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len() + 5)),
        ),
        refused("ext-lf-inside", chunked("5;a\nb\r\nhello\r\n0\r\n\r\n")),
        refused("ext-bare-cr", chunked("5;a\rb\r\nhello\r\n0\r\n\r\n")),
        refused("ext-nul", size("5;a=\0")),
        refused("ext-control", size("5;a=\x01")),
        refused("ext-quoted-crlf", chunked("5;a=\"\r\n\"\r\nhello\r\n0\r\n\r\n")),
        refused("ext-64k", size(&format!("5;{}", "a".repeat(65_536)))),
        refused("ext-1m", size(&format!("5;a={}", "b".repeat(1 << 20)))),
        refused(
            "ext-1m-in-small-chunks",
            chunked(&format!("1;{}\r\nx\r\n", "a".repeat(1_000)).repeat(1_100)),
        ),
        either("ext-empty", size("5;")),
        either("ext-name", size("5;a")),
        either("ext-value", size("5;a=b")),
        either("ext-quoted", size("5;a=\"b c\"")),
        either("ext-quoted-semicolon", size("5;a=\";\"")),
        either("ext-quote-without-end", size("5;a=\"")),
        either("ext-blanks", size("5 ; a = b")),
        either("ext-without-semicolon", size("5 a")),
        either("ext-on-the-last", chunked(&format!("5\r\nhello\r\n0;a=b\r\n\r\n{NEXT}"))),
    ]
}

fn ends() -> Vec<Payload> {
    vec![
        refused("size-ends-with-lf", chunked("5\nhello\r\n0\r\n\r\n")),
        refused("size-ends-with-cr", chunked("5\rhello\r\n0\r\n\r\n")),
        refused("size-ends-with-cr-cr-lf", chunked("5\r\r\nhello\r\n0\r\n\r\n")),
        refused("size-ends-with-cr-x", chunked("5\rxhello\r\n0\r\n\r\n")),
        refused("data-ends-with-lf", chunked("5\r\nhello\n0\r\n\r\n")),
        refused("data-ends-with-cr", chunked("5\r\nhello\r0\r\n\r\n")),
        refused("data-ends-with-nothing", chunked("5\r\nhello0\r\n\r\n")),
        // Two bytes of whatever kind were skipped by some.
        refused(
            "data-ends-with-two-others",
            chunked(&format!("5\r\nhelloXX2f\r\n0\r\n\r\n{SMUGGLED}\r\n0\r\n\r\n")),
        ),
        refused("data-spills", chunked(&format!("2\r\nhello\r\n0\r\n\r\n{SMUGGLED}"))),
        refused("data-spills-a-size", chunked(&format!("5\r\nhello2f\r\n{SMUGGLED}\r\n0\r\n\r\n"))),
        refused("last-ends-with-lf", chunked(&format!("0\n\r\n{SMUGGLED}"))),
        refused("last-ends-with-lf-lf", chunked(&format!("0\n\n{SMUGGLED}"))),
        refused("last-ends-with-crlf-lf", chunked(&format!("0\r\n\n{SMUGGLED}"))),
        refused("last-ends-with-cr-cr", chunked(&format!("0\r\r{SMUGGLED}"))),
        // What follows the last chunk is trailers, and these are none.
        refused("last-without-empty-line", chunked(&format!("0\r\n{SMUGGLED}"))),
        either("cut-off-in-a-chunk", chunked("5\r\nhel")),
        either("cut-off-in-a-size", chunked("5")),
        either("cut-off-before-the-last", chunked("5\r\nhello\r\n")),
        either("cut-off-before-the-empty-line", chunked("5\r\nhello\r\n0\r\n")),
        passes("only-the-last", chunked(&format!("0\r\n\r\n{NEXT}"))),
    ]
}

fn trailers() -> Vec<Payload> {
    let trailer = |lines: &str| chunked(&format!("5\r\nhello\r\n0\r\n{lines}\r\n\r\n{NEXT}"));
    vec![
        passes("trailer", trailer("X-Sum: 5")),
        refused("trailer-folded", trailer("X-A: b\r\n c")),
        refused("trailer-space-before-colon", trailer("X-A : b")),
        refused("trailer-bare-lf", trailer("X-A: b\nX-C: d")),
        refused("trailer-bare-cr", trailer("X-A: b\rX-C: d")),
        refused("trailer-nul", trailer("X-A: \0")),
        refused("trailer-no-colon", trailer("X-A")),
        refused("trailer-no-name", trailer(": b")),
        refused("trailer-leading-space", trailer(" X-A: b")),
        refused("trailers-without-end", chunked(&format!("0\r\n{}", "X-A: b\r\n".repeat(100_000)))),
        refused("trailer-without-end", chunked(&format!("0\r\nX-A: {}", "b".repeat(1 << 20)))),
        either("trailer-content-length", trailer("Content-Length: 100")),
        either("trailer-te", trailer("Transfer-Encoding: chunked")),
        either("trailer-host", trailer("Host: b.example")),
        either("trailer-connection", trailer("Connection: close")),
        either("trailer-upgrade", trailer("Upgrade: websocket\r\nConnection: upgrade")),
    ]
}
