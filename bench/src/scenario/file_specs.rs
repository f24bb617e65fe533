//! The scenarios of files, each with its amount of work and its bars, in the order of the report.

use super::{Bar, Feature, Front, Kind, Rival, Spec};

const KIB: usize = 1024;
const KIB_64: usize = 64 * KIB;
const MEGABYTES_10: usize = 10_000_000;

/// What most of them have in common.
const BASE: Spec = Spec {
    slug: "",
    title: "",
    what: "",
    figure: "CPU per request, µs",
    unit: "request",
    kind: Kind::FileGet,
    size: KIB,
    parallel: 50,
    work: 150_000,
    quick: 10_000,
    warmup: 5_000,
    units_per_work: 1.0,
    feature: Feature::Files(Front::Clear),
    bars: &[],
};

const OVER_TLS: Spec = Spec { kind: Kind::FileTls, feature: Feature::Files(Front::Tls), ..BASE };

pub(super) const SPECS: [Spec; 8] = [
    Spec {
        slug: "file-1k",
        title: "Files of 1 KiB",
        what: "50 connections that stay make GET requests one after the other for 100 files of 1 KiB.",
        bars: &[Bar::Times(Rival::Nginx, 0.9)],
        ..BASE
    },
    Spec {
        slug: "file-64k",
        title: "Files of 64 KiB",
        what: "16 connections that stay make GET requests one after the other for 100 files of 64 KiB.",
        size: KIB_64,
        parallel: 16,
        work: 40_000,
        quick: 3_000,
        warmup: 500,
        bars: &[Bar::Times(Rival::Nginx, 1.0)],
        ..BASE
    },
    Spec {
        slug: "file-10m",
        title: "Files of 10 MB",
        what: "4 connections that stay make GET requests one after the other for 4 files of 10 MB (10^7 bytes).",
        size: MEGABYTES_10,
        parallel: 4,
        work: 400,
        quick: 40,
        warmup: 8,
        bars: &[Bar::Times(Rival::Nginx, 1.0)],
        ..BASE
    },
    Spec {
        slug: "file-tls-1k",
        title: "Files of 1 KiB over TLS",
        what: "As in the clear, over TLS 1.3.",
        work: 100_000,
        bars: &[Bar::Times(Rival::Nginx, 1.0)],
        ..OVER_TLS
    },
    Spec {
        slug: "file-tls-64k",
        title: "Files of 64 KiB over TLS",
        what: "As in the clear, over TLS 1.3.",
        size: KIB_64,
        parallel: 16,
        work: 30_000,
        quick: 2_000,
        warmup: 500,
        bars: &[Bar::Times(Rival::Nginx, 1.0)],
        ..OVER_TLS
    },
    Spec {
        slug: "file-304",
        title: "Files that the client has",
        what: "As for files of 1 KiB, and each request has the file's ETag in If-None-Match, as the server itself told \
               it before. The answer is 304.",
        kind: Kind::FileUnchanged,
        bars: &[Bar::Times(Rival::Nginx, 0.8)],
        ..BASE
    },
    Spec {
        slug: "file-listing",
        title: "Listing of 100,000 entries",
        what: "A client asks for the page that lists a directory of 100,000 files, on a connection of its own each \
               time and one after the other. The time runs from the request to the first byte of the page itself, \
               behind its head; each page must name every file. A page may open before the directory is read: \
               **first entry** tells when the first file has come. Caddy stops at 10,000.",
        figure: "First byte, ms",
        unit: "listing",
        kind: Kind::FileListing,
        size: 100_000,
        parallel: 1,
        work: 7,
        quick: 1,
        warmup: 1,
        bars: &[Bar::Times(Rival::Nginx, 0.2)],
        ..BASE
    },
    Spec {
        slug: "file-distinct",
        title: "Memory after 1,000,000 files",
        what: "16 connections make GET requests for files of up to 1 KiB, all of them different. By the first 20,000 \
               the caches are full; the figure is how much the server's Pss grows while the other 980,000 are served.",
        figure: "Growth of memory, MB (1024² bytes)",
        unit: "file",
        kind: Kind::FileDistinct,
        parallel: 16,
        work: 980_000,
        quick: 20_000,
        warmup: 20_000,
        bars: &[Bar::AtMost(1.0)],
        ..BASE
    },
];
