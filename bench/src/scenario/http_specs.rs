//! The scenarios of HTTP, each with its amount of work and its bars, in the order of the report.

use super::{Bar, Feature, Front, Kind, Rival, Spec};

const KIB_64: usize = 64 * 1024;
const MEGABYTES_10: usize = 10_000_000;

/// What most of them have in common.
const BASE: Spec = Spec {
    slug: "",
    title: "",
    what: "",
    figure: "CPU per request, µs",
    unit: "request",
    kind: Kind::HttpGet,
    size: 34,
    parallel: 50,
    work: 150_000,
    quick: 10_000,
    warmup: 5_000,
    units_per_work: 1.0,
    feature: Feature::Http(Front::Clear),
    bars: &[],
};

const IDLE: Spec = Spec {
    figure: "Memory per connection, KB (1024 bytes)",
    unit: "connection",
    kind: Kind::HttpIdle,
    parallel: 1,
    work: 4_000,
    quick: 500,
    warmup: 0,
    ..BASE
};

pub(super) const SPECS: [Spec; 10] = [
    Spec {
        slug: "http-small",
        title: "HTTP/1.1 keep-alive, 34-byte bodies",
        what: "50 connections make GET requests one after the other, each for 34 bytes. As a relay of layer 4, wmproxy \
               passes the same bytes on without a look, and adds nothing to them.",
        bars: &[Bar::Times(Rival::Better, 0.75), Bar::Times(Rival::Relay, 1.25)],
        ..BASE
    },
    Spec {
        slug: "http-64k",
        title: "HTTP/1.1 keep-alive, 64 KiB bodies",
        what: "16 connections make GET requests one after the other, each for 64 KiB.",
        size: KIB_64,
        parallel: 16,
        work: 40_000,
        quick: 3_000,
        warmup: 500,
        bars: &[Bar::Times(Rival::Better, 0.8)],
        ..BASE
    },
    Spec {
        slug: "http-10m",
        title: "HTTP/1.1 keep-alive, 10 MB bodies",
        what: "4 connections make GET requests one after the other, each for 10 MB (10^7 bytes). HAProxy may splice, \
               and nginx writes no temporary files.",
        kind: Kind::HttpLong,
        size: MEGABYTES_10,
        parallel: 4,
        work: 400,
        quick: 40,
        warmup: 8,
        bars: &[Bar::Times(Rival::Better, 0.5)],
        ..BASE
    },
    Spec {
        slug: "http-post",
        title: "HTTP/1.1 keep-alive, 1 KiB uploads",
        what: "50 connections make POST requests one after the other, each with 1 KiB, and get 34 bytes.",
        kind: Kind::HttpPost,
        bars: &[Bar::Times(Rival::Nginx, 1.0)],
        ..BASE
    },
    Spec {
        slug: "http-connect",
        title: "HTTP/1.1, a connection for each request",
        what: "32 clients at a time connect, make a GET request for 34 bytes with `Connection: close`, and wait for \
               the end. The proxies may keep their connections to the backend.",
        kind: Kind::HttpConnect,
        parallel: 32,
        work: 20_000,
        quick: 2_000,
        warmup: 500,
        bars: &[Bar::Times(Rival::Nginx, 1.0)],
        ..BASE
    },
    Spec {
        slug: "http-tls",
        title: "HTTP/1.1 keep-alive over TLS, 34-byte bodies",
        what: "50 connections of TLS 1.3, which the proxy ends, make GET requests one after the other, each for 34 \
               bytes.",
        kind: Kind::HttpTls,
        work: 100_000,
        feature: Feature::Http(Front::Tls),
        bars: &[Bar::Times(Rival::Better, 0.85)],
        ..BASE
    },
    Spec {
        slug: "http-h2",
        title: "HTTP/2 over TLS, 34-byte bodies",
        what: "10 connections of TLS 1.3 keep 10 streams each busy with GET requests for 34 bytes, which reach the \
               backend as HTTP/1.1.",
        kind: Kind::HttpH2,
        parallel: 10,
        work: 100_000,
        feature: Feature::Http(Front::H2),
        bars: &[Bar::Times(Rival::Nginx, 0.8)],
        ..BASE
    },
    Spec {
        slug: "http-half",
        title: "Time of a request at half load",
        what: "GET requests for 34 bytes begin at even intervals, whatever is still under way, on 50 connections. \
               There are half as many a second as the slowest of the proxies brings through when each connection \
               waits for its answers. Time counts from when a request was due.",
        figure: "p99, µs",
        kind: Kind::HttpPaced,
        work: 100_000,
        bars: &[Bar::Times(Rival::Better, 1.0)],
        ..BASE
    },
    Spec {
        slug: "http-idle",
        title: "Memory of an idle HTTP/1.1 connection",
        what: "4,000 connections are opened, make a GET request for 34 bytes and go idle; the growth of the proxy's \
               Pss over the fresh process, divided by the connections. Kernel memory of sockets is not in it.",
        bars: &[Bar::AtMost(6.0)],
        ..IDLE
    },
    Spec {
        slug: "http-tls-idle",
        title: "Memory of an idle HTTP/1.1 connection over TLS",
        what: "As above, with 1,000 connections of TLS 1.3 that the proxy ends.",
        kind: Kind::HttpTlsIdle,
        work: 1_000,
        quick: 250,
        feature: Feature::Http(Front::Tls),
        bars: &[Bar::AtMost(16.0)],
        ..IDLE
    },
];
