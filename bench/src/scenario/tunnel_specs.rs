//! The scenarios of tunnels, each with its amount of work and its bars, in the order of the report. Both ends of a tunnel
//! run on the proxies' core, and what both have spent is counted.

use super::{Bar, Carrier, Feature, Kind, Rival, Spec};

/// What they have in common.
const TUNNEL: Spec = Spec {
    slug: "",
    title: "",
    what: "",
    figure: "CPU per visitor, µs",
    unit: "visitor",
    kind: Kind::Setup,
    size: 34,
    parallel: 32,
    work: 5_000,
    quick: 500,
    warmup: 300,
    units_per_work: 1.0,
    feature: Feature::Tunnel(Carrier::Tls),
    bars: &[Bar::Times(Rival::Rathole, 1.0)],
};

const BULK: Spec = Spec {
    figure: "CPU per GB, s",
    unit: "GB",
    kind: Kind::BulkDown,
    size: 64 * 1024,
    parallel: 1,
    work: 3_000_000_000,
    quick: 300_000_000,
    warmup: 0,
    units_per_work: 1e-9,
    ..TUNNEL
};

const UDP: Spec = Spec {
    figure: "CPU per datagram, µs",
    unit: "datagram",
    kind: Kind::Udp,
    size: 1200,
    parallel: 8,
    work: 100_000,
    quick: 5_000,
    warmup: 3_000,
    units_per_work: 2.0,
    bars: &[Bar::Times(Rival::Rathole, 0.6)],
    ..TUNNEL
};

pub(super) const SPECS: [Spec; 8] = [
    Spec {
        slug: "tunnel-bulk",
        title: "Tunnel, bulk on one stream",
        what: "1 visitor fetches 3 GB (10^9 bytes) from the backend through a tunnel with TLS.",
        ..BULK
    },
    Spec {
        slug: "tunnel-bulk-32",
        title: "Tunnel, bulk on 32 streams",
        what: "32 visitors fetch 3.2 GB (10^9 bytes) in all through a tunnel with TLS.",
        parallel: 32,
        work: 3_200_000_000,
        quick: 320_000_000,
        ..BULK
    },
    Spec {
        slug: "tunnel-bulk-up",
        title: "Tunnel, bulk on one stream towards the service",
        what: "1 visitor sends 3 GB (10^9 bytes) to the backend through a tunnel with TLS.",
        kind: Kind::BulkUp,
        ..BULK
    },
    Spec {
        slug: "tunnel-small",
        title: "Tunnel, small messages",
        what: "50 visitors send 34 bytes and wait for as many, one after the other on connections that stay.",
        figure: "CPU per request, µs",
        unit: "request",
        kind: Kind::TcpSmall,
        parallel: 50,
        work: 60_000,
        quick: 6_000,
        warmup: 3_000,
        bars: &[Bar::Times(Rival::Rathole, 0.9)],
        ..TUNNEL
    },
    Spec {
        slug: "tunnel-udp",
        title: "Tunnel, datagrams over TLS",
        what: "8 visitors keep up to 20 datagrams of 1200 bytes each in flight, sent in bursts of 10 or more, to a UDP \
               echo backend; an echo is two datagrams for the tunnel.",
        ..UDP
    },
    Spec {
        slug: "tunnel-udp-quic",
        title: "Tunnel, datagrams over QUIC",
        what: "As above over QUIC, where rathole, which has none, goes over TLS.",
        feature: Feature::Tunnel(Carrier::Quic),
        ..UDP
    },
    Spec {
        slug: "tunnel-setup",
        title: "Tunnel, visitors that come and go",
        what: "32 visitors at a time connect, exchange 34 bytes each way and close. Each costs the tunnel a connection of \
               its own, with a TLS handshake.",
        ..TUNNEL
    },
    Spec {
        slug: "tunnel-idle",
        title: "Memory of an idle visitor",
        what: "2,000 visitors connect, exchange 34 bytes each way once and go idle; the growth of both ends' Pss, divided \
               by the visitors. Kernel memory of sockets is not in it.",
        figure: "Memory per visitor, KB (1024 bytes)",
        kind: Kind::Idle,
        parallel: 1,
        work: 2_000,
        quick: 200,
        warmup: 0,
        ..TUNNEL
    },
];
