//! Hosts and targets: two names for one place, or a place that is none.

use super::{NEXT, Payload, SMUGGLED, either, passes, refused};

pub(super) fn payloads() -> Vec<Payload> {
    let mut all = hosts();
    all.extend(targets());
    all.extend(methods());
    all
}

/// A request with these lines in the place of Host.
fn host(lines: &str) -> String {
    format!("GET /any-host HTTP/1.1\r\n{lines}\r\n\r\n")
}

/// A GET of this target.
fn target(text: &str) -> String {
    format!("GET {text} HTTP/1.1\r\nHost: a.example\r\n\r\n")
}

fn hosts() -> Vec<Payload> {
    vec![
        refused("host-missing", "GET /any-host HTTP/1.1\r\nX-A: b\r\n\r\n"),
        refused("host-twice", host("Host: a.example\r\nHost: a.example")),
        refused("host-twice-differ", host("Host: a.example\r\nHost: b.example")),
        refused("host-twice-far-apart", host("Host: a.example\r\nX-A: b\r\nhost: b.example")),
        refused("host-list", host("Host: a.example, b.example")),
        refused("host-userinfo", host("Host: b.example@a.example")),
        refused("host-userinfo-password", host("Host: u:p@a.example")),
        refused("host-path", host("Host: a.example/b")),
        refused("host-query", host("Host: a.example?b")),
        refused("host-fragment", host("Host: a.example#b")),
        refused("host-backslash", host("Host: a.example\\b")),
        refused("host-space", host("Host: a.example b")),
        refused("host-tab", host("Host: a.example\tb")),
        refused("host-scheme", host("Host: http://a.example")),
        refused("host-nul", host("Host: a.example\0")),
        refused("host-control", host("Host: a\x01.example")),
        refused("host-quote", host("Host: \"a.example\"")),
        refused("host-angle", host("Host: <a.example>")),
        refused("host-port-letters", host("Host: a.example:b")),
        refused("host-port-minus", host("Host: a.example:-1")),
        refused("host-port-large", host("Host: a.example:65536")),
        refused("host-port-two", host("Host: a.example:80:80")),
        refused("host-bracket-open", host("Host: [::1")),
        refused("host-bracket-close", host("Host: ::1]")),
        refused("host-bracket-after", host("Host: [::1]a")),
        refused("host-bracket-name", host("Host: [a.example]")),
        refused("host-space-before-colon", host("Host : a.example")),
        refused("host-leading-space", host(" Host: a.example")),
        refused("host-1.0-twice", "GET /any-host HTTP/1.0\r\nHost: a.example\r\nHost: b.example\r\n\r\n"),
        either("host-empty", host("Host:")),
        either("host-colon", host("Host: a.example:")),
        either("host-percent", host("Host: a%2eexample")),
        either("host-high", host("Host: \u{e4}.example")),
        either("host-dot", host("Host: a.example.")),
        either("host-two-dots", host("Host: a..example")),
        either("host-only-port", host("Host: :80")),
        either("host-underscore", host("Host: a_b.example")),
        either("host-zone", host("Host: [fe80::1%25eth0]")),
        either("host-long", host(&format!("Host: {}.example", "a".repeat(10_000)))),
        passes("host-port", host("Host: a.example:8080")),
        passes("host-v4", host("Host: 127.0.0.1:80")),
        passes("host-v6", host("Host: [::1]:80")),
        passes("host-capital", host("HOST: A.EXAMPLE")),
    ]
}

fn targets() -> Vec<Payload> {
    vec![
        refused("absolute-mismatch", target("http://b.example/a")),
        refused("absolute-mismatch-port", target("http://a.example:81/a")),
        refused("absolute-userinfo", target("http://u@a.example/a")),
        refused("absolute-userinfo-trick", target("http://a.example@b.example/a")),
        refused("absolute-no-host", target("http:///a")),
        refused("absolute-nothing", target("http://")),
        refused("absolute-ftp", target("ftp://a.example/a")),
        refused("absolute-file", target("file:///etc/passwd")),
        refused("absolute-javascript", target("javascript:alert(1)")),
        refused("absolute-without-slashes", target("http:/a")),
        refused("absolute-backslash", target("http:\\\\a.example/a")),
        refused("absolute-bad-port", target("http://a.example:b/a")),
        refused("absolute-host-missing", "GET http://a.example/a HTTP/1.1\r\nX-A: b\r\n\r\n"),
        refused("absolute-fragment", target("http://a.example/a#b")),
        refused("fragment", target("/a#b")),
        refused("fragment-only", target("#b")),
        refused("relative", target("a")),
        refused("relative-dots", target("../a")),
        refused("query-only", target("?a")),
        refused("authority", target("a.example:80")),
        refused("star-get", target("*")),
        refused("star-path", target("*/a")),
        refused("backslash-first", target("\\a")),
        refused("long", target(&format!("/{}", "a".repeat(1 << 20)))),
        either("absolute-https", target("https://a.example/a")),
        either("absolute-capital-scheme", target("HTTP://a.example/a")),
        either("absolute-default-port", target("http://a.example:80/a")),
        either("dots-above-the-root", target("/../../a")),
        either("dots-above-the-root-encoded", target("/%2e%2e/%2e%2e/a")),
        either("percent-nul", target("/a%00b")),
        either("percent-crlf", target("/a%0d%0aX-B:%20c")),
        either("percent-broken", target("/a%zz")),
        either("percent-cut", target("/a%2")),
        either("percent-overlong", target("/%c0%ae%c0%ae/a")),
        either("percent-u", target("/%u002e")),
        either("backslash", target("/a\\..\\b")),
        either("quote", target("/a\"b")),
        either("angle", target("/<script>")),
        either("braces", target("/{client_ip}")),
        either("high", target("/\u{e4}")),
        either("semicolon", target("/a;/../b")),
        passes("two-slashes", target("//b.example/a")),
        passes("url-in-the-path", target("/http://b.example/a")),
        passes("question-marks", target("/a??b?c")),
        passes("absolute-in-the-query", target("/?u=http://b.example/#".trim_end_matches('#'))),
    ]
}

fn methods() -> Vec<Payload> {
    let length = SMUGGLED.len();
    vec![
        refused("connect-here", "CONNECT a.example:80 HTTP/1.1\r\nHost: a.example:80\r\n\r\n"),
        refused(
            "connect-then-a-request",
            format!("CONNECT a.example:80 HTTP/1.1\r\nHost: a.example:80\r\n\r\n{SMUGGLED}"),
        ),
        refused(
            "connect-with-body",
            format!(
                "CONNECT a.example:80 HTTP/1.1\r\nHost: a.example:80\r\nContent-Length: {length}\r\n\r\n{SMUGGLED}"
            ),
        ),
        refused("connect-path", "CONNECT /a HTTP/1.1\r\nHost: a.example\r\n\r\n"),
        either("options-star", format!("OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n{NEXT}")),
        either(
            "options-star-with-body",
            format!("OPTIONS * HTTP/1.1\r\nHost: a.example\r\nContent-Length: {length}\r\n\r\n{SMUGGLED}"),
        ),
        either(
            "trace-with-body",
            format!("TRACE /a HTTP/1.1\r\nHost: a.example\r\nContent-Length: {length}\r\n\r\n{SMUGGLED}"),
        ),
        either(
            "delete-with-body",
            format!("DELETE /a HTTP/1.1\r\nHost: a.example\r\nContent-Length: {length}\r\n\r\n{SMUGGLED}"),
        ),
        refused("preface-of-h2-in-1.1", "PRI * HTTP/2.0\r\nHost: a.example\r\n\r\nXX\r\n\r\n"),
    ]
}
