//! Heads: request lines, the ends of lines, names and values, and fields that make a promise about what follows.

use super::{NEXT, Payload, SMUGGLED, either, get, passes, post, refused};

pub(super) fn payloads() -> Vec<Payload> {
    let mut all = request_lines();
    all.extend(lines());
    all.extend(names());
    all.extend(values());
    all.extend(promises());
    all
}

/// A request with this first line.
fn line(text: &str) -> String {
    format!("{text}\r\nHost: a.example\r\n\r\n")
}

fn request_lines() -> Vec<Payload> {
    vec![
        refused("line-two-spaces", line("GET  /a HTTP/1.1")),
        refused("line-two-spaces-2", line("GET /a  HTTP/1.1")),
        refused("line-tab", line("GET\t/a HTTP/1.1")),
        refused("line-tab-2", line("GET /a\tHTTP/1.1")),
        refused("line-leading-space", line(" GET /a HTTP/1.1")),
        refused("line-vertical-tab", line("GET\x0b/a HTTP/1.1")),
        refused("line-no-version", line("GET /a")),
        refused("line-no-target", line("GET HTTP/1.1")),
        refused("line-only-a-method", line("GET")),
        refused("line-four-words", line("GET /a /b HTTP/1.1")),
        refused("line-space-in-target", line("GET /a b HTTP/1.1")),
        refused("line-version-lower", line("GET /a http/1.1")),
        refused("line-version-name", line("GET /a HTTQ/1.1")),
        refused("line-version-long", line("GET /a HTTP/1.10")),
        refused("line-version-zeros", line("GET /a HTTP/01.1")),
        refused("line-version-without-dot", line("GET /a HTTP/11")),
        refused("line-version-2", line("GET /a HTTP/2.0")),
        refused("line-version-3", line("GET /a HTTP/3")),
        refused("line-version-0.9", line("GET /a HTTP/0.9")),
        refused("line-version-minus", line("GET /a HTTP/-1.1")),
        refused("line-0.9", "GET /a\r\n"),
        refused("line-bare-lf", "GET /a HTTP/1.1\nHost: a.example\r\n\r\n"),
        refused("line-bare-cr", "GET /a HTTP/1.1\rHost: a.example\r\n\r\n"),
        refused("line-cr-in-target", line("GET /a\rb HTTP/1.1")),
        refused("line-nul-in-target", line("GET /a\0b HTTP/1.1")),
        refused("line-control-in-target", line("GET /a\x01b HTTP/1.1")),
        refused("line-del-in-target", line("GET /a\x7fb HTTP/1.1")),
        refused("line-method-bracket", line("GE[T /a HTTP/1.1")),
        refused("line-method-colon", line("GET: /a HTTP/1.1")),
        refused("line-method-nul", line("GE\0T /a HTTP/1.1")),
        refused("line-method-umlaut", line("G\u{c4}T /a HTTP/1.1")),
        refused("line-method-empty", line(" /a HTTP/1.1")),
        refused("line-method-without-end", "G".repeat(1 << 20)),
        refused("line-is-tls", "\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03"),
        refused("line-is-socks", "\x05\x01\0"),
        refused("line-is-ssh", "SSH-2.0-OpenSSH_9.2\r\n"),
        refused(
            "line-is-a-proxy-header",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET /a HTTP/1.1\r\nHost: a.example\r\n\r\n",
        ),
        refused("empty-lines-without-end", "\r\n".repeat(100_000)),
        either("line-trailing-space", line("GET /a HTTP/1.1 ")),
        either("line-version-1.2", line("GET /a HTTP/1.2")),
        either("empty-line-bare-lf", format!("\n{}", line("GET /a HTTP/1.1"))),
        either("two-empty-lines", format!("\r\n\r\n{}", line("GET /a HTTP/1.1"))),
        passes("method-of-all-token-characters", line("!#$%&'*+-.^_`|~09aZ /a HTTP/1.1")),
    ]
}

fn lines() -> Vec<Payload> {
    vec![
        refused("fold", get("X-A: b\r\n c")),
        refused("fold-tab", get("X-A: b\r\n\tc")),
        refused("fold-empty", get("X-A: b\r\n \r\nX-C: d")),
        refused("fold-first", "GET /a HTTP/1.1\r\n Host: a.example\r\n\r\n"),
        refused("fold-host", "GET /a HTTP/1.1\r\nHost:\r\n a.example\r\n\r\n"),
        refused("fold-length", post("Content-Length:\r\n 5", "hello")),
        refused("fold-in-length", post("Content-Length: 4\r\n 4", SMUGGLED)),
        refused("bare-lf", get("X-A: b\nX-C: d")),
        refused("bare-lf-at-the-end", "GET /a HTTP/1.1\r\nHost: a.example\n\r\n"),
        refused("bare-lf-lf", format!("GET /a HTTP/1.1\r\nHost: a.example\n\n{SMUGGLED}")),
        refused("only-bare-lf", "GET /a HTTP/1.1\nHost: a.example\n\n"),
        refused("crlf-then-lf", format!("GET /a HTTP/1.1\r\nHost: a.example\r\n\n{SMUGGLED}")),
        refused("bare-cr", get("X-A: b\rX-C: d")),
        refused("bare-cr-at-the-end", get("X-A: b\r\rX-C: d")),
        refused("cr-cr-lf", get("X-A: b\r\r\nX-C: d")),
        refused("cr-cr", format!("GET /a HTTP/1.1\r\nHost: a.example\r\r{SMUGGLED}")),
        refused("line-separator", get("X-A b\u{2028}X-C: d")),
        either("head-cut-off", "GET /a HTTP/1.1\r\nHost: a.example\r\n"),
    ]
}

fn names() -> Vec<Payload> {
    vec![
        refused("name-space-after", get("X-A : b")),
        refused("name-tab-after", get("X-A\t: b")),
        refused("name-space-before", get("X-Z: y\r\n X-A: b")),
        refused("name-space-inside", get("X A: b")),
        refused("name-empty", get(": b")),
        refused("name-blank", get(" : b")),
        refused("name-without-colon", get("X-A")),
        refused("name-nul", get("X\0A: b")),
        refused("name-control", get("X\x01A: b")),
        refused("name-del", get("X\x7fA: b")),
        refused("name-high", get("X\u{e9}: b")),
        refused("name-parenthesis", get("X(A): b")),
        refused("name-at", get("X@A: b")),
        refused("name-slash", get("X/A: b")),
        refused("name-quote", get("\"X-A\": b")),
        refused("name-semicolon", get("X;A: b")),
        refused("name-comma", get("X,A: b")),
        refused("name-braces", get("{X}: b")),
        refused("name-brackets", get("[X]: b")),
        refused("name-backslash", get("X\\A: b")),
        refused("name-equals", get("X=A: b")),
        // HAProxy took a name of 256 and more for one of no length.
        either("name-270", get(&format!("{}: b", "a".repeat(270)))),
        refused("name-64k", get(&format!("{}: b", "a".repeat(65_536)))),
        either("name-underscore", get("X_Forwarded_For: 1.2.3.4")),
        passes("name-of-all-token-characters", get("!#$%&'*+-.^_`|~09aZ: b")),
    ]
}

fn values() -> Vec<Payload> {
    vec![
        refused("value-nul", get("X-A: b\0c")),
        refused("value-control-1", get("X-A: b\x01c")),
        refused("value-backspace", get("X-A: b\x08c")),
        refused("value-vertical-tab", get("X-A: b\x0bc")),
        refused("value-form-feed", get("X-A: b\x0cc")),
        refused("value-escape", get("X-A: b\x1b[2Jc")),
        refused("value-del", get("X-A: b\x7fc")),
        refused("value-1m", get(&format!("X-A: {}", "b".repeat(1 << 20)))),
        refused("fields-10000", get(&vec!["X-A: b"; 10_000].join("\r\n"))),
        passes("value-empty", get("X-A:")),
        passes("value-tab", get("X-A: b\tc")),
        passes("value-high", get("X-A: \u{e9}\u{665}")),
        passes("value-colons", get("X-A:::b:")),
        passes("value-that-looks-like-a-field", get("X-A: Content-Length: 100")),
    ]
}

/// Fields that say what comes next: Expect, Upgrade, Connection.
fn promises() -> Vec<Payload> {
    let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    let length = SMUGGLED.len();
    vec![
        // The server behind answers 200: what follows is the next request, as pingora did not see.
        either("upgrade-refused-then-a-request", get(upgrade) + NEXT),
        either("upgrade-with-body", post(&format!("{upgrade}\r\nContent-Length: {length}"), SMUGGLED)),
        either(
            "upgrade-chunked",
            post(
                &format!("{upgrade}\r\nTransfer-Encoding: chunked"),
                &format!("{length:x}\r\n{SMUGGLED}\r\n0\r\n\r\n"),
            ),
        ),
        either("upgrade-without-connection", get("Upgrade: websocket") + NEXT),
        either("upgrade-of-1.0", format!("GET /a HTTP/1.0\r\nHost: a.example\r\n{upgrade}\r\n\r\n{NEXT}")),
        either(
            "upgrade-h2c",
            get(
                "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
            ) + NEXT,
        ),
        either("upgrade-list", get("Connection: Upgrade\r\nUpgrade: a, websocket, h2c") + NEXT),
        either(
            "expect-with-body",
            post(&format!("Expect: 100-continue\r\nContent-Length: {length}"), SMUGGLED),
        ),
        either(
            "expect-chunked",
            post(
                "Expect: 100-continue\r\nTransfer-Encoding: chunked",
                &format!("{length:x}\r\n{SMUGGLED}\r\n0\r\n\r\n"),
            ),
        ),
        either("expect-without-body", get("Expect: 100-continue") + NEXT),
        either("expect-0", post("Expect: 100-continue\r\nContent-Length: 0", NEXT)),
        either("expect-other", post(&format!("Expect: y\r\nContent-Length: {length}"), SMUGGLED)),
        either("expect-list", post(&format!("Expect: y 100-continue\r\nContent-Length: {length}"), SMUGGLED)),
        either(
            "expect-list-2",
            post(&format!("Expect: 100-continue, y\r\nContent-Length: {length}"), SMUGGLED),
        ),
        either(
            "expect-twice",
            post(&format!("Expect: 100-continue\r\nExpect: z\r\nContent-Length: {length}"), SMUGGLED),
        ),
        either("expect-empty", post(&format!("Expect:\r\nContent-Length: {length}"), SMUGGLED)),
        either(
            "expect-capital",
            post(&format!("EXPECT: 100-Continue\r\nContent-Length: {length}"), SMUGGLED),
        ),
        either("expect-cut-off", post("Expect: 100-continue\r\nContent-Length: 100", "")),
        either("connection-close-then-a-request", get("Connection: close") + SMUGGLED),
        either("connection-keep-alive-close", get("Connection: keep-alive, close") + SMUGGLED),
        either("connection-twice", get("Connection: keep-alive\r\nConnection: close") + SMUGGLED),
        either("proxy-connection", get("Proxy-Connection: close") + NEXT),
        either("connection-odd", get("Connection: ,, ;=\"") + NEXT),
        either(
            "te-trailers",
            post("TE: trailers\r\nConnection: TE\r\nTransfer-Encoding: chunked", &format!("0\r\n\r\n{NEXT}")),
        ),
    ]
}
