//! The scenarios of forward proxies, each with its amount of work and its bars, in the order of the report.

use super::{Bar, Door, Feature, Kind, Rival, Spec};

/// What set-ups have in common.
const SETUP: Spec = Spec {
    slug: "",
    title: "",
    what: "",
    figure: "CPU per tunnel, µs",
    unit: "tunnel",
    kind: Kind::Setup,
    size: 34,
    parallel: 32,
    work: 5_000,
    quick: 1_000,
    warmup: 300,
    units_per_work: 1.0,
    feature: Feature::Forward(Door::Connect),
    bars: &[],
};

const IDLE: Spec = Spec {
    figure: "Memory per tunnel, KB (1024 bytes)",
    kind: Kind::Idle,
    parallel: 1,
    work: 4_000,
    quick: 500,
    warmup: 0,
    bars: &[Bar::AtMost(5.0)],
    ..SETUP
};

pub(super) const SPECS: [Spec; 7] = [
    Spec {
        slug: "forward-bulk",
        title: "Forward proxy, bulk through CONNECT",
        what: "4 tunnels fetch 4 GB (10^9 bytes) in all from the backend.",
        figure: "CPU per GB, s",
        unit: "GB",
        kind: Kind::BulkDown,
        size: 64 * 1024,
        parallel: 4,
        work: 4_000_000_000,
        quick: 400_000_000,
        warmup: 0,
        units_per_work: 1e-9,
        bars: &[Bar::Times(Rival::Relay, 1.05)],
        ..SETUP
    },
    Spec {
        slug: "forward-http",
        title: "Forward proxy, plain HTTP with keep-alive",
        what: "50 connections ask one after the other for bodies of 34 bytes, in absolute form; the proxies keep their \
               connections to clients and to the backend.",
        figure: "CPU per request, µs",
        unit: "request",
        kind: Kind::HttpGet,
        parallel: 50,
        work: 100_000,
        quick: 10_000,
        warmup: 5_000,
        feature: Feature::Forward(Door::Http),
        bars: &[Bar::Times(Rival::Squid, 0.5)],
        ..SETUP
    },
    Spec {
        slug: "forward-udp",
        title: "Forward proxy, datagrams by SOCKS 5",
        what: "8 associations keep up to 20 datagrams of 1200 bytes each in flight, sent in bursts of 10 or more, to a \
               UDP echo backend; an echo is two datagrams for the proxy.",
        figure: "CPU per datagram, µs",
        unit: "datagram",
        kind: Kind::Udp,
        size: 1200,
        parallel: 8,
        work: 100_000,
        quick: 10_000,
        warmup: 3_000,
        units_per_work: 2.0,
        feature: Feature::Forward(Door::Udp),
        bars: &[Bar::Times(Rival::Dante, 0.5)],
    },
    Spec {
        slug: "forward-idle",
        title: "Memory of an idle CONNECT tunnel",
        what: "4,000 tunnels are opened, carry 34 bytes each way once and go idle; the growth of the proxy's Pss over \
               the fresh process, divided by the tunnels. Kernel memory of sockets is not in it.",
        ..IDLE
    },
    Spec {
        slug: "forward-socks-idle",
        title: "Memory of an idle SOCKS 5 tunnel",
        what: "As above by SOCKS 5.",
        feature: Feature::Forward(Door::Socks5),
        ..IDLE
    },
    Spec {
        slug: "forward-connect",
        title: "Forward proxy, CONNECT set-up",
        what: "32 clients at a time ask for a tunnel by CONNECT, exchange 34 bytes each way through it and close.",
        bars: &[Bar::Times(Rival::Tinyproxy, 0.7), Bar::Times(Rival::Squid, 0.7)],
        ..SETUP
    },
    Spec {
        slug: "forward-socks",
        title: "Forward proxy, SOCKS 5 set-up",
        what: "As above by SOCKS 5 without a password.",
        feature: Feature::Forward(Door::Socks5),
        bars: &[Bar::Times(Rival::Microsocks, 1.0), Bar::Times(Rival::Dante, 1.0)],
        ..SETUP
    },
];
