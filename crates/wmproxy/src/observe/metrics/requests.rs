//! The metrics of HTTP requests, by listener and by route.

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use wmproxy_http::traffic::{Durations, ListenerTraffic, StatusClass, TrafficBlock};
use wmproxy_runtime::counter::Counter;

use super::{count, family, gauge};

/// The label of requests that have no route.
const UNROUTED: &str = "none";

pub(super) fn encode_requests(
    out: &mut DescriptorEncoder<'_>,
    listeners: &[Arc<ListenerTraffic>],
) -> fmt::Result {
    family(
        out,
        ("wmproxy_http_requests", "HTTP requests by route and by the hundreds of the status"),
        MetricType::Counter,
        |m| {
            for listener in listeners {
                for route in listener.routes() {
                    let name = if route.name.is_empty() { UNROUTED } else { &route.name };
                    for class in StatusClass::ALL {
                        let labels =
                            [("listener", &*listener.name), ("route", name), ("status", class.as_str())];
                        count(m, &labels, route.total(class))?;
                    }
                }
            }
            Ok(())
        },
    )?;
    let sum = |l: &ListenerTraffic, field: fn(&TrafficBlock) -> &Counter| l.blocks.sum(field);
    family(
        out,
        ("wmproxy_http_requests_active", "HTTP requests under way, upgraded connections among them"),
        MetricType::Gauge,
        |m| {
            listeners.iter().try_for_each(|l| {
                let ended = sum(l, |b| &b.ended);
                gauge(m, &[("listener", &*l.name)], sum(l, |b| &b.begun).saturating_sub(ended))
            })
        },
    )?;
    family(
        out,
        (
            "wmproxy_http_request_duration_seconds",
            "From a request's first byte to the last of its response, where that came whole",
        ),
        MetricType::Histogram,
        |m| {
            listeners.iter().try_for_each(|l| {
                let seconds = |micros: u64| micros as f64 / 1e6;
                let bound =
                    |i: usize| Durations::BOUNDS.get(i).map_or(f64::INFINITY, |bound| seconds(*bound));
                let bucket = |i: usize| (bound(i), l.blocks.sum(|b| b.durations.bucket(i)));
                let buckets: Vec<(f64, u64)> = (0..=Durations::BOUNDS.len()).map(bucket).collect();
                // The count is the sum of what was read, so that it fits the buckets while others go on counting.
                let all = buckets.iter().map(|(_, n)| n).sum();
                let total = seconds(sum(l, |b| b.durations.micros()));
                m.encode_family(&[("listener", &*l.name)])?
                    .encode_histogram::<NoLabelSet>(total, all, &buckets, None)
            })
        },
    )
}
