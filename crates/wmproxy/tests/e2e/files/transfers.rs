//! Large files on their way: whole by every version, slow, cut off, many at once, and through the end of the proxy.

use std::time::{Duration, Instant};

use rustix::process::{Resource, Signal, getrlimit};
use wmproxy_testkit::http::Head;
use wmproxy_testkit::{Client, Conn, Pattern, Proxy, eventually, h2};

use super::{By, Tree, Web, get, request};
use crate::http::http;
use crate::{ACCESS_LOG, setup};

/// More than the buffers of both sockets hold, and no multiple of anything.
const LARGE: usize = (24 << 20) + 12_345;

fn large() -> (Tree, Vec<u8>) {
    let (tree, bytes) = (Tree::new(&[("a.txt", "alpha")]), Pattern::new(9).bytes(0, LARGE));
    tree.file("data.bin", &bytes);
    (tree, bytes)
}

fn logged(tree: &Tree, more: &str) -> Proxy {
    setup(&format!("{ACCESS_LOG}{}", http(more, &tree.route("", "")))).start()
}

/// Begins a download, and reads no more than its head.
fn begin(proxy: &Proxy) -> (Client, Head) {
    let mut client = Client::connect(&proxy.tcp("h"));
    client.read_slowly();
    client.send(request("GET", "/data.bin", ""));
    let head = client.head();
    assert_eq!(head.status(), 200);
    (client, head)
}

#[test]
fn every_byte_comes_by_every_version() {
    let (tree, bytes) = large();
    let web = Web::new(&tree, "", "");
    for by in By::ALL {
        assert!(web.get(by, "/data.bin", "").body == bytes, "{by:?}");
        for (start, end) in
            [(1, LARGE - 1), (65_535, 65_537), (7_000_001, 19_999_999), (LARGE - 70_000, LARGE - 1)]
        {
            let part = web.get(by, "/data.bin", &format!("Range: bytes={start}-{end}\r\n"));
            assert_eq!(part.status(), 206, "{by:?} {start}-{end}");
            assert!(part.body == bytes[start..=end], "{by:?} {start}-{end}");
        }
    }
    let mut client = h2::Client::connect(&web.proxy.tcp("h"));
    let paths: Vec<String> = (0..12).map(|number| ["/data.bin", "/a.txt"][number % 2].to_owned()).collect();
    for (answer, path) in client.get_all(&paths).iter().zip(&paths) {
        assert!(answer.body == if path == "/a.txt" { b"alpha" } else { &bytes[..] }, "{path}");
    }
}

#[test]
fn ranges_put_together_are_the_file() {
    let (tree, bytes) = large();
    let proxy = tree.serve("", "");
    let mut client = Client::connect(&proxy.tcp("h"));
    let (mut got, step) = (Vec::new(), 777_777);
    while got.len() < LARGE {
        // As a download goes on that was interrupted.
        let fields = format!("Range: bytes={}-{}\r\n", got.len(), got.len() + step - 1);
        client.send(request("GET", "/data.bin", &fields));
        got.extend(client.response().body);
    }
    assert!(got == bytes);
}

#[test]
fn slow_downloads_hold_no_memory_and_no_thread() {
    const DOWNLOADS: usize = 200;
    let (tree, bytes) = large();
    let proxy = tree.serve("", "");
    get(&proxy, "/data.bin", "");
    let (before, threads) = (proxy.memory_kb(), proxy.threads());
    let slow: Vec<_> = (0..DOWNLOADS).map(|_| begin(&proxy)).collect();
    // Others are served as before.
    let begun = Instant::now();
    assert_eq!(get(&proxy, "/a.txt", "").text(), "alpha");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let each = proxy.memory_kb().saturating_sub(before) as f64 / DOWNLOADS as f64;
    assert!(each < 24.0, "{each} KiB for each");
    assert!(proxy.threads() <= threads + 34, "{} threads, {threads} before", proxy.threads());
    let mut slow = slow.into_iter();
    let (mut client, head) = slow.next().unwrap();
    let mut got = Vec::new();
    client.body(head.response_framing("GET").unwrap(), |part| got.extend_from_slice(part)).unwrap();
    assert!(got == bytes);
    client.reset();
    slow.for_each(|(client, _)| client.reset());
    eventually("an end of all", || proxy.active() == 0);
}

#[test]
fn who_reads_nothing_is_cut_off() {
    let (tree, _) = large();
    let proxy = logged(&tree, "timeouts = { write = \"400ms\" }");
    let (mut client, head) = begin(&proxy);
    let line = proxy.access_log(1).remove(0);
    assert_eq!(line["status"], 200, "{line}");
    assert!(line["bytes_out"].as_u64().unwrap() < LARGE as u64, "{line}");
    assert_ne!(line["outcome"], "done", "{line}");
    let mut count = 0;
    let end = client.body(head.response_framing("GET").unwrap(), |part| count += part.len());
    assert!(end.is_err() && count < LARGE, "{count} bytes");
}

#[test]
fn the_log_tells_what_was_sent_and_why_it_was_cut() {
    let (tree, _) = large();
    let proxy = logged(&tree, "");
    get(&proxy, "/data.bin", "Range: bytes=5-14\r\n");
    get(&proxy, "/data.bin", "");
    get(&proxy, "/data.bin", "If-None-Match: *\r\n");
    let lines = proxy.access_log(3);
    let said: Vec<_> =
        lines.iter().map(|line| (line["status"].as_u64(), line["bytes_out"].as_u64())).collect();
    assert_eq!(said, [(Some(206), Some(10)), (Some(200), Some(LARGE as u64)), (Some(304), Some(0))]);
    assert!(lines.iter().all(|line| line["outcome"] == "done"), "{lines:#?}");
    let (mut client, head) = begin(&proxy);
    let file = std::fs::File::options().write(true).open(tree.path("data.bin")).unwrap();
    file.set_len(100).unwrap();
    let end = client.body(head.response_framing("GET").unwrap(), |_| {});
    assert!(end.is_err());
    let line = proxy.access_log(4).remove(3);
    assert_eq!(line["outcome"], "file_changed", "{line}");
}

#[test]
fn a_drain_lets_downloads_end() {
    let (tree, bytes) = large();
    let mut proxy = tree.serve("", "");
    let (mut client, head) = begin(&proxy);
    proxy.signal(Signal::TERM);
    let mut got = Vec::new();
    client.body(head.response_framing("GET").unwrap(), |part| got.extend_from_slice(part)).unwrap();
    assert!(got == bytes);
    assert_eq!(proxy.wait(), Some(0));
}

#[test]
fn who_reads_no_archive_keeps_others_from_no_file() {
    // So many are made at once, and so many of them for one client.
    const MOST: u64 = 64;
    const MOST_FOR_ONE: u64 = 8;
    // Each may hold so many descriptors, and all of them a quarter of those that there are.
    const DESCRIPTORS: u64 = 66;
    let limit = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let most = MOST.min(limit / 4 / DESCRIPTORS);
    let (tree, _) = large();
    let proxy = tree.serve("browse = true", "");
    let (before, threads) = (proxy.memory_kb(), proxy.threads());
    let ask = |client: u64| {
        let address = [127, 0, 0, 1 + client as u8].into();
        let mut client = Client::over(Conn::connect_from(address, &proxy.tcp("h")));
        client.read_slowly();
        client.send(request("GET", "/?archive=tar", ""));
        let status = client.head().status();
        (client, status)
    };
    let mut slow = Vec::new();
    for place in 0..most {
        let client = place / MOST_FOR_ONE;
        slow.push(ask(client));
        if place % MOST_FOR_ONE == MOST_FOR_ONE - 1 {
            assert_eq!(ask(client).1, 503, "client {client} has all of its own");
        }
    }
    assert!(slow.iter().all(|(_, status)| *status == 200));
    assert_eq!(ask(most).1, 503, "all have all");
    assert_eq!(get(&proxy, "/a.txt", "").text(), "alpha");
    let each = proxy.memory_kb().saturating_sub(before) / most;
    assert!(each < 640, "{each} KiB for each");
    let most = 16 * proxy.status()["workers"].as_u64().unwrap();
    assert!(proxy.threads() <= threads + most, "{} threads, {threads} before", proxy.threads());
    slow.into_iter().for_each(|(client, _)| client.reset());
    eventually("room for another", || ask(0).1 == 200);
}
