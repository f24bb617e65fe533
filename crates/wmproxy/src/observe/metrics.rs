//! The metrics text for Prometheus, in the OpenMetrics form.
//!
//! Nothing is registered while the process works: a scrape reads the counters where they are. Label values are
//! names of the config, addresses of its listeners and peers, and words of our own; never what a client sent.

mod peers;
mod requests;
mod tunnels;
mod users;

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use wmproxy_http::files_open;
use wmproxy_http::forward::idle_connections;
use wmproxy_net::addr::Protocol;
use wmproxy_net::record::{AcceptErrorKind, ListenerBlock, ListenerMetrics, Outcome, UdpDrop};
use wmproxy_net::relay::pipes_open;
use wmproxy_runtime::counter::{Counter, Log2Histogram};

use super::process::ProcessStats;
use super::snapshot::Snapshot;
pub(crate) use peers::{answer_errors, connect_errors, state_word};
use peers::{encode_connections, encode_health, encode_peers};
use requests::encode_requests;
use tunnels::encode_tunnels;
pub(crate) use tunnels::events;
use users::encode_users;

/// What `GET /metrics` answers as its content type.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Those outcomes that turn a client away before anything was done for it.
const REFUSALS: [Outcome; 8] = [
    Outcome::Denied,
    Outcome::ClientLimit,
    Outcome::RateLimited,
    Outcome::PrefaceTimeout,
    Outcome::BadProxyHeader,
    Outcome::NotTls,
    Outcome::BadClientHello,
    Outcome::NoRoute,
];

/// The text of a scrape.
pub(crate) fn text(snapshot: Snapshot) -> String {
    let process = ProcessStats::read()
        .inspect_err(|error| tracing::debug!(%error, "the process's own figures can't be read"))
        .ok();
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape { snapshot, process }));
    let mut out = String::new();
    // A string takes everything, so encoding fails only on what the collector itself refuses, and it refuses nothing.
    let _ = encode(&mut out, &registry);
    out
}

#[derive(Debug)]
struct Scrape {
    snapshot: Snapshot,
    process: Option<ProcessStats>,
}

type Labels<'a> = Vec<(&'static str, &'a str)>;

/// Listeners under one name and address: a reload that changed one leaves the old one to its clients.
struct Merged<'a> {
    labels: Labels<'a>,
    protocol: Protocol,
    all: Vec<&'a ListenerMetrics>,
}

impl Merged<'_> {
    fn sum(&self, field: impl Fn(&ListenerBlock) -> &Counter) -> u64 {
        self.all.iter().map(|listener| listener.blocks.sum(&field)).fold(0, u64::wrapping_add)
    }

    fn with<'a>(&'a self, key: &'static str, word: &'a str) -> Labels<'a> {
        let mut labels = self.labels.clone();
        labels.push((key, word));
        labels
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let out = &mut encoder;
        self.snapshot.encode(out)?;
        let texts: Vec<_> = self
            .snapshot
            .listeners
            .iter()
            .map(|l| (l.name.to_string(), l.protocol.to_string(), l.address.to_string()))
            .collect();
        let listeners = merge(&self.snapshot, &texts);
        encode_listeners(out, &listeners)?;
        encode_endings(out, &listeners)?;
        encode_datagrams(out, &listeners)?;
        encode_requests(out, &self.snapshot.traffic)?;
        encode_peers(out, &self.snapshot)?;
        encode_connections(out, &self.snapshot)?;
        encode_health(out, &self.snapshot)?;
        encode_users(out, &self.snapshot)?;
        encode_tunnels(out, &self.snapshot)?;
        encode_certificates(out, &self.snapshot)?;
        self.process.as_ref().map_or(Ok(()), |process| encode_process(out, process, self.snapshot.started))
    }
}

fn merge<'a>(snapshot: &'a Snapshot, texts: &'a [(String, String, String)]) -> Vec<Merged<'a>> {
    let mut merged: BTreeMap<&(String, String, String), Merged<'a>> = BTreeMap::new();
    for (listener, key) in snapshot.listeners.iter().zip(texts) {
        let (name, protocol, address) = key;
        let fresh = || Merged {
            labels: vec![("listener", name), ("protocol", protocol), ("address", address)],
            protocol: listener.protocol,
            all: Vec::new(),
        };
        merged.entry(key).or_insert_with(fresh).all.push(listener);
    }
    merged.into_values().collect()
}

/// Writes one metric: its head, then whatever `samples` adds.
fn family(
    out: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    kind: MetricType,
    samples: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
) -> fmt::Result {
    samples(&mut out.encode_descriptor(name, help, None, kind)?)
}

fn count(metric: &mut MetricEncoder<'_>, labels: &impl EncodeLabelSet, value: u64) -> fmt::Result {
    metric.encode_family(labels)?.encode_counter::<NoLabelSet, u64, f64>(&value, None)
}

fn gauge(metric: &mut MetricEncoder<'_>, labels: &impl EncodeLabelSet, value: u64) -> fmt::Result {
    metric.encode_family(labels)?.encode_gauge(&value)
}

impl Snapshot {
    fn encode(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let build = [("version", env!("CARGO_PKG_VERSION"))];
        family(out, ("wmproxy_build", "The program that runs"), MetricType::Info, |m| m.encode_info(&build))?;
        let gauges = [
            ("wmproxy_config_generation", "Number of the configuration in force", self.generation),
            ("wmproxy_workers", "Threads that carry traffic", self.workers as u64),
            ("wmproxy_tasks", "Connections and other tasks that are alive", self.tasks),
            ("wmproxy_files_open", "Files that are held open for requests to come", files_open() as u64),
            (
                "wmproxy_forward_idle_connections",
                "Connections of the forward proxy that are kept for requests to come",
                idle_connections() as u64,
            ),
            ("wmproxy_splice_pipes", "Pipes that bulk passes through, in use or kept for it", pipes_open()),
            ("wmproxy_draining", "1 while the process accepts no more", self.draining.into()),
        ];
        for (name, help, value) in gauges {
            family(out, (name, help), MetricType::Gauge, |m| m.encode_gauge(&value))?;
        }
        let counters = [
            ("wmproxy_panics", "Tasks that ended by a defect of the program", self.panics),
            ("wmproxy_log_lines_dropped", "Log lines dropped because their queue was full", self.log_dropped),
            ("wmproxy_log_write_errors", "Writes to logs that failed", self.log_failed),
        ];
        for (name, help, value) in counters {
            family(out, (name, help), MetricType::Counter, |m| {
                m.encode_counter::<NoLabelSet, u64, f64>(&value, None)
            })?;
        }
        family(out, ("wmproxy_reloads", "Reloads by result"), MetricType::Counter, |m| {
            count(m, &[("result", "ok")], self.reloads_ok)?;
            count(m, &[("result", "failed")], self.reloads_failed)
        })
    }
}

fn encode_listeners(out: &mut DescriptorEncoder<'_>, listeners: &[Merged<'_>]) -> fmt::Result {
    type Field = fn(&ListenerBlock) -> &Counter;
    let counters: [(&str, &str, Field); 4] = [
        ("wmproxy_connections_accepted", "Connections accepted and UDP flows begun", |b| &b.accepted),
        ("wmproxy_bytes_in", "Bytes from clients", |b| &b.bytes_in),
        ("wmproxy_bytes_out", "Bytes to clients", |b| &b.bytes_out),
        ("wmproxy_bytes_spliced", "Bytes of either direction that were not copied", |b| &b.bytes_spliced),
    ];
    for (name, help, field) in counters {
        family(out, (name, help), MetricType::Counter, |m| {
            listeners.iter().try_for_each(|l| count(m, &l.labels, l.sum(field)))
        })?;
    }
    family(
        out,
        ("wmproxy_connections_active", "Connections and UDP flows that are open"),
        MetricType::Gauge,
        |m| {
            let active = |l: &Merged<'_>| l.all.iter().map(|listener| listener.active()).sum();
            listeners.iter().try_for_each(|l| gauge(m, &l.labels, active(l)))
        },
    )?;
    let streams = || listeners.iter().filter(|l| l.protocol == Protocol::Tcp);
    family(out, ("wmproxy_accept_errors", "Failures of accept by kind"), MetricType::Counter, |m| {
        streams().try_for_each(|l| {
            AcceptErrorKind::ALL.iter().enumerate().try_for_each(|(i, kind)| {
                count(m, &l.with("kind", kind.as_str()), l.sum(|b| &b.accept_errors[i]))
            })
        })
    })?;
    family(
        out,
        ("wmproxy_accept_paused", "Workers that wait for descriptors or memory before they accept again"),
        MetricType::Gauge,
        |m| {
            streams().try_for_each(|l| {
                let resumed = l.sum(|b| &b.accept_resumes);
                gauge(m, &l.labels, l.sum(|b| &b.accept_pauses).saturating_sub(resumed))
            })
        },
    )
}

fn encode_endings(out: &mut DescriptorEncoder<'_>, listeners: &[Merged<'_>]) -> fmt::Result {
    let outcome = |l: &Merged<'_>, outcome: Outcome| {
        let index = Outcome::ALL.iter().position(|known| *known == outcome);
        index.map_or(0, |i| l.sum(|b| &b.outcomes[i]))
    };
    family(
        out,
        (
            "wmproxy_connections_closed",
            "Connections and UDP flows that ended, by outcome and whose doing it is",
        ),
        MetricType::Counter,
        |m| {
            listeners.iter().try_for_each(|l| {
                Outcome::ALL.iter().try_for_each(|o| {
                    let mut labels = l.with("outcome", o.as_str());
                    labels.push(("fault", o.fault().as_str()));
                    count(m, &labels, outcome(l, *o))
                })
            })
        },
    )?;
    family(
        out,
        ("wmproxy_connections_refused", "TCP connections turned away, by reason; of UDP, datagrams are"),
        MetricType::Counter,
        |m| {
            listeners.iter().try_for_each(|l| {
                REFUSALS.iter().try_for_each(|o| count(m, &l.with("reason", o.as_str()), outcome(l, *o)))
            })
        },
    )
}

fn encode_datagrams(out: &mut DescriptorEncoder<'_>, listeners: &[Merged<'_>]) -> fmt::Result {
    let udp: Vec<_> = listeners.iter().filter(|l| l.all.iter().any(|one| one.has_datagrams())).collect();
    family(out, ("wmproxy_datagrams_in", "Datagrams from clients"), MetricType::Counter, |m| {
        udp.iter().try_for_each(|l| count(m, &l.labels, l.sum(|b| &b.datagrams_in)))
    })?;
    family(out, ("wmproxy_datagrams_out", "Datagrams to clients"), MetricType::Counter, |m| {
        udp.iter().try_for_each(|l| count(m, &l.labels, l.sum(|b| &b.datagrams_out)))
    })?;
    family(
        out,
        ("wmproxy_udp_dropped", "Datagrams that were not passed on, by reason"),
        MetricType::Counter,
        |m| {
            udp.iter().try_for_each(|l| {
                UdpDrop::ALL.iter().enumerate().try_for_each(|(i, reason)| {
                    count(m, &l.with("reason", reason.as_str()), l.sum(|b| &b.udp_drops[i]))
                })
            })
        },
    )?;
    type Field = fn(&ListenerBlock) -> &Log2Histogram;
    let batches: [(&str, &str, Field); 4] = [
        ("wmproxy_udp_batch_in_datagrams", "Datagrams in one receive from clients", |b| &b.udp_batch_in),
        ("wmproxy_udp_batch_out_datagrams", "Datagrams in one send to a client", |b| &b.udp_batch_out),
        ("wmproxy_udp_batch_to_peer_datagrams", "Datagrams in one send to a peer", |b| &b.udp_batch_to_peer),
        ("wmproxy_udp_batch_from_peer_datagrams", "Datagrams in one receive from a peer", |b| {
            &b.udp_batch_from_peer
        }),
    ];
    for (name, help, field) in batches {
        family(out, (name, help), MetricType::Histogram, |m| {
            udp.iter().try_for_each(|l| histogram(m, l, field))
        })?;
    }
    Ok(())
}

fn histogram(
    metric: &mut MetricEncoder<'_>,
    listener: &Merged<'_>,
    field: fn(&ListenerBlock) -> &Log2Histogram,
) -> fmt::Result {
    let bound = |i| Log2Histogram::bound(i).map_or(f64::INFINITY, |bound| bound as f64);
    let buckets: Vec<(f64, u64)> =
        (0..Log2Histogram::BUCKETS).map(|i| (bound(i), listener.sum(|b| field(b).bucket(i)))).collect();
    // The count is the sum of what was read, so that it fits the buckets while others go on counting.
    let all = buckets.iter().map(|(_, n)| n).sum();
    let sum = listener.sum(|b| field(b).total()) as f64;
    metric.encode_family(&listener.labels)?.encode_histogram::<NoLabelSet>(sum, all, &buckets, None)
}

fn encode_certificates(out: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> fmt::Result {
    family(
        out,
        ("wmproxy_certificate_not_after_seconds", "When a listener's certificate ends, as a Unix time"),
        MetricType::Gauge,
        |m| {
            snapshot.certificates.iter().try_for_each(|(file, ends)| {
                let ends = ends.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
                gauge(m, &[("file", file.display().to_string())], ends.as_secs())
            })
        },
    )
}

fn encode_process(
    out: &mut DescriptorEncoder<'_>,
    process: &ProcessStats,
    started: SystemTime,
) -> fmt::Result {
    let gauges = [
        ("process_open_fds", "Descriptors in use", Some(process.open_fds)),
        ("process_max_fds", "How many descriptors there may be", process.max_fds),
        ("process_resident_memory_bytes", "Memory in use", Some(process.resident_bytes)),
        ("process_virtual_memory_bytes", "Address space in use", Some(process.virtual_bytes)),
        ("process_threads", "Threads", Some(process.threads)),
    ];
    for (name, help, value) in gauges {
        if let Some(value) = value {
            family(out, (name, help), MetricType::Gauge, |m| m.encode_gauge(&value))?;
        }
    }
    family(out, ("process_cpu_seconds", "User and kernel time used"), MetricType::Counter, |m| {
        m.encode_counter::<NoLabelSet, f64, f64>(&process.cpu.as_secs_f64(), None)
    })?;
    let since = started.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    family(out, ("process_start_time_seconds", "When the process started"), MetricType::Gauge, |m| {
        m.encode_gauge(&since.as_secs_f64())
    })
}
