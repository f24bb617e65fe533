//! The metrics text, read back by a small parser of the OpenMetrics form.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use wmproxy_http::traffic::ListenerTraffic;
use wmproxy_net::addr::{Address, Protocol};
use wmproxy_net::record::{ListenerMetrics, Outcome, UdpDrop};

use super::metrics::text;
use super::scratch::group;
use super::snapshot::Snapshot;

type Labels = BTreeMap<String, String>;

/// What a scraper would have understood.
#[derive(Default)]
struct Scrape {
    types: BTreeMap<String, String>,
    samples: BTreeMap<(String, Labels), f64>,
}

impl Scrape {
    /// Reads a text, and insists on what the format demands.
    fn parse(text: &str) -> Scrape {
        let body = text.strip_suffix("# EOF\n").expect("the end is marked");
        let mut scrape = Scrape::default();
        let mut helped = BTreeSet::new();
        let mut family = String::new();
        for line in body.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                family = rest.split_once(' ').expect("a help text").0.to_owned();
                assert!(helped.insert(family.clone()), "{family} is spread over the text");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert_eq!(name, family);
                scrape.types.insert(name.to_owned(), kind.to_owned());
            } else {
                scrape.sample(&family, line);
            }
        }
        scrape
    }

    fn sample(&mut self, family: &str, line: &str) {
        let (head, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = match head.split_once('{') {
            None => (head, Labels::new()),
            Some((name, labels)) => (name, parse_labels(labels.strip_suffix('}').unwrap())),
        };
        let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{line} stands under {family}"));
        let expected: &[&str] = match self.types[family].as_str() {
            "counter" => &["_total"],
            "gauge" => &[""],
            "info" => &["_info"],
            "histogram" => &["_sum", "_count", "_bucket"],
            other => panic!("unknown type {other}"),
        };
        assert!(expected.contains(&suffix), "{line}");
        let value = value.parse().unwrap();
        assert!(self.samples.insert((name.to_owned(), labels), value).is_none(), "twice: {line}");
    }

    fn get(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels: Labels = labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let key = (name.to_owned(), labels);
        *self.samples.get(&key).unwrap_or_else(|| panic!("no {key:?}"))
    }
}

fn parse_labels(mut text: &str) -> Labels {
    let mut labels = Labels::new();
    while !text.is_empty() {
        let (key, rest) = text.split_once("=\"").unwrap();
        let mut value = String::new();
        let mut chars = rest.char_indices();
        let end = loop {
            match chars.next().expect("a closing quote") {
                (at, '"') => break at,
                (_, '\\') => match chars.next().unwrap().1 {
                    'n' => value.push('\n'),
                    c @ ('"' | '\\') => value.push(c),
                    c => panic!("unknown escape {c}"),
                },
                (_, '\n') => panic!("a newline in a label"),
                (_, c) => value.push(c),
            }
        };
        assert!(labels.insert(key.to_owned(), value).is_none());
        text = rest[end + 1..].trim_start_matches(',');
    }
    labels
}

fn listener(name: &str, protocol: Protocol, address: &str) -> Arc<ListenerMetrics> {
    Arc::new(ListenerMetrics::new(name.into(), protocol, Address::Inet(address.parse().unwrap()), 2))
}

fn snapshot(listeners: Vec<Arc<ListenerMetrics>>) -> Snapshot {
    Snapshot {
        started: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        config: None,
        generation: 3,
        workers: 2,
        tasks: 5,
        panics: 0,
        draining: false,
        reloads_ok: 2,
        reloads_failed: 1,
        log_dropped: 7,
        log_failed: 0,
        listeners,
        traffic: vec![],
        groups: vec![group("web", &["10.0.0.5:80", "10.0.0.5:80"])],
        users: Vec::new(),
        logins: Default::default(),
        denials: Vec::new(),
        tunnels: Default::default(),
        certificates: [("/etc/a.pem".into(), UNIX_EPOCH + Duration::from_secs(1_800_000_000))].into(),
    }
}

#[test]
fn counters_of_listeners_process_and_peers_are_there() {
    let web = listener("we\"b\\\n", Protocol::Tcp, "127.0.0.1:80");
    let block = web.blocks.local();
    block.accepted.add(10);
    block.closed.add(4);
    block.outcomes[Outcome::ALL.iter().position(|o| *o == Outcome::Denied).unwrap()].add(3);
    block.accept_pauses.add(2);
    block.accept_resumes.add(1);
    let scrape = Scrape::parse(&text(snapshot(vec![web])));

    let labels = [("listener", "we\"b\\\n"), ("protocol", "tcp"), ("address", "127.0.0.1:80")];
    assert_eq!(scrape.get("wmproxy_connections_accepted_total", &labels), 10.0);
    assert_eq!(scrape.get("wmproxy_connections_active", &labels), 6.0);
    assert_eq!(scrape.get("wmproxy_accept_paused", &labels), 1.0);
    let with = |more: &[(&'static str, &'static str)]| [&labels[..], more].concat();
    assert_eq!(scrape.get("wmproxy_connections_refused_total", &with(&[("reason", "denied")])), 3.0);
    let closed = with(&[("outcome", "denied"), ("fault", "client")]);
    assert_eq!(scrape.get("wmproxy_connections_closed_total", &closed), 3.0);

    let peer = [("group", "web"), ("peer", "10.0.0.5:80")];
    assert_eq!(scrape.get("wmproxy_peer_in_flight", &peer), 2.0);
    let state = |word| scrape.get("wmproxy_peer_state", &[&peer[..], &[("state", word)]].concat());
    assert_eq!((state("up"), state("ejected"), state("trial"), state("down")), (0.0, 1.0, 0.0, 0.0));
    let health = |word| scrape.get("wmproxy_peer_health", &[&peer[..], &[("state", word)]].concat());
    assert_eq!((health("unknown"), health("up"), health("down")), (0.0, 1.0, 0.0));
    let checks = |word| scrape.get("wmproxy_peer_checks_total", &[&peer[..], &[("result", word)]].concat());
    assert_eq!((checks("passed"), checks("failed"), checks("skipped")), (7.0, 3.0, 0.0));
    assert_eq!(scrape.get("wmproxy_peer_check_duration_seconds", &peer), 0.0015);
    let refused = [&peer[..], &[("kind", "refused")]].concat();
    assert_eq!(scrape.get("wmproxy_peer_connect_errors_total", &refused), 4.0);
    let status = [&peer[..], &[("kind", "status")]].concat();
    assert_eq!(scrape.get("wmproxy_peer_answer_errors_total", &status), 5.0);
    let of_group = |name| scrape.get(name, &[("group", "web")]);
    assert_eq!(of_group("wmproxy_upstream_idle_connections"), 3.0);
    assert_eq!(of_group("wmproxy_upstream_connections_reused_total"), 40.0);
    assert_eq!(of_group("wmproxy_upstream_connections_opened_total"), 6.0);
    assert_eq!(of_group("wmproxy_upstream_connections_stale_total"), 1.0);

    assert_eq!(scrape.get("wmproxy_reloads_total", &[("result", "failed")]), 1.0);
    assert_eq!(scrape.get("wmproxy_log_lines_dropped_total", &[]), 7.0);
    assert_eq!(scrape.get("wmproxy_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1.0);
    assert_eq!(scrape.get("process_start_time_seconds", &[]), 1.7e9);
    assert_eq!(scrape.get("wmproxy_certificate_not_after_seconds", &[("file", "/etc/a.pem")]), 1.8e9);
    assert!(scrape.get("process_open_fds", &[]) >= 3.0);
}

#[test]
fn requests_are_counted_by_route_and_take_their_time() {
    let site = Arc::new(ListenerTraffic::new("site".into(), 2));
    let (api, none) = (site.route(&"api".into()), site.route(&"".into()));
    [200, 204, 101, 0].into_iter().for_each(|status| api.count(status));
    none.count(404);
    let block = site.blocks.local();
    block.begun.add(5);
    block.ended.add(3);
    block.durations.record(Duration::from_micros(300));
    block.durations.record(Duration::from_secs(20));
    let scrape = Scrape::parse(&text(Snapshot { traffic: vec![site], ..snapshot(vec![]) }));
    let requests = |route, status| {
        let labels = [("listener", "site"), ("route", route), ("status", status)];
        scrape.get("wmproxy_http_requests_total", &labels)
    };
    assert_eq!((requests("api", "2xx"), requests("api", "1xx"), requests("api", "none")), (2.0, 1.0, 1.0));
    assert_eq!((requests("none", "4xx"), requests("none", "2xx")), (1.0, 0.0));
    let of = |name: &str| scrape.get(&format!("wmproxy_http_request{name}"), &[("listener", "site")]);
    assert_eq!(of("s_active"), 2.0);
    assert_eq!((of("_duration_seconds_count"), of("_duration_seconds_sum")), (2.0, 20.0003));
    let bucket =
        |le| scrape.get("wmproxy_http_request_duration_seconds_bucket", &[("listener", "site"), ("le", le)]);
    assert_eq!((bucket("0.00025"), bucket("0.0005"), bucket("10.0"), bucket("+Inf")), (0.0, 1.0, 1.0, 2.0));
}

#[test]
fn listeners_of_two_generations_are_shown_as_one() {
    let old = listener("dns", Protocol::Udp, "127.0.0.1:53");
    let new = listener("dns", Protocol::Udp, "127.0.0.1:53");
    old.blocks.local().datagrams_in.add(3);
    new.blocks.local().datagrams_in.add(4);
    new.blocks.local().udp_drops[UdpDrop::ALL.len() - 1].add(1);
    let scrape = Scrape::parse(&text(snapshot(vec![old, new])));
    let labels = [("listener", "dns"), ("protocol", "udp"), ("address", "127.0.0.1:53")];
    assert_eq!(scrape.get("wmproxy_datagrams_in_total", &labels), 7.0);
    let unreachable = [&labels[..], &[("reason", "unreachable")]].concat();
    assert_eq!(scrape.get("wmproxy_udp_dropped_total", &unreachable), 1.0);
    // A stream's figures have no place here.
    assert!(!scrape.samples.keys().any(|(name, _)| name == "wmproxy_accept_errors_total"));
}

#[test]
fn batch_sizes_are_a_cumulative_histogram() {
    let dns = listener("dns", Protocol::Udp, "127.0.0.1:53");
    for size in [1, 1, 2, 3, 64, 64, 5000] {
        dns.blocks.local().udp_batch_in.record(size);
    }
    let scrape = Scrape::parse(&text(snapshot(vec![dns])));
    let name = "wmproxy_udp_batch_in_datagrams";
    let labels = [("listener", "dns"), ("protocol", "udp"), ("address", "127.0.0.1:53")];
    let mut buckets: Vec<(f64, f64)> = scrape
        .samples
        .iter()
        .filter(|((sample, _), _)| *sample == format!("{name}_bucket"))
        .map(|((_, labels), value)| (labels["le"].parse().unwrap(), *value))
        .collect();
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    assert!(buckets.is_sorted_by(|a, b| a.1 <= b.1), "{buckets:?}");
    let below = |le: f64| buckets.iter().find(|(bound, _)| *bound == le).unwrap().1;
    assert_eq!((below(1.0), below(2.0), below(4.0), below(64.0), below(512.0)), (2.0, 3.0, 4.0, 6.0, 6.0));
    assert_eq!(below(f64::INFINITY), 7.0);
    assert_eq!(scrape.get(&format!("{name}_count"), &labels), 7.0);
    assert_eq!(scrape.get(&format!("{name}_sum"), &labels), 5135.0);
}
