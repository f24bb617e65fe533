//! Attacks that need many requests, or others at work meanwhile.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use wmproxy_testkit::Client;

use super::{SECRET, Tree, ask_at};
use crate::http::http;
use crate::setup;

/// Swaps two paths for each other until told to stop.
fn swap(stop: &AtomicBool, one: &Path, other: &Path) {
    while !stop.load(Ordering::Relaxed) {
        renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
    }
}

/// Asks 2,000 times for files of a folder, and for one file, while links that lead out take their places.
fn race(options: &str) {
    const FILES: usize = 500;
    let tree = Tree::new(&[("one.txt", "own")]);
    for number in 0..FILES {
        let name = format!("{number}.txt");
        tree.file(format!("spot/{name}"), "own");
        std::fs::write(tree.secret().join(name), SECRET).unwrap();
    }
    tree.link("spot-link", "../secret");
    tree.link("one-link", "../secret/file.txt");
    let proxy = tree.serve(options, "");
    let addr = proxy.tcp("h");
    let stop = AtomicBool::new(false);
    let mut seen = [0, 0];
    std::thread::scope(|scope| {
        scope.spawn(|| swap(&stop, &tree.path("spot"), &tree.path("spot-link")));
        scope.spawn(|| swap(&stop, &tree.path("one.txt"), &tree.path("one-link")));
        // Whatever is wrong, the threads are to end.
        let asked = std::panic::catch_unwind(|| {
            let (mut client, mut seen) = (Client::connect(&addr), [0, 0]);
            for number in 0..2_000 {
                let spot = format!("/spot/{}.txt", number % FILES);
                let answer = client.get(if number % 4 == 0 { "/one.txt" } else { &spot });
                match (answer.status(), &answer.body[..]) {
                    (200, b"own") => seen[0] += 1,
                    (404, body) => {
                        assert!(!String::from_utf8_lossy(body).contains(SECRET));
                        seen[1] += 1;
                    }
                    other => panic!("{other:?}"),
                }
            }
            seen
        });
        stop.store(true, Ordering::Relaxed);
        seen = asked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    assert!(seen[0] > 0 && seen[1] > 0, "both were there: {seen:?}");
    drop(proxy);
}

#[test]
fn what_is_swapped_for_a_link_during_requests_never_leads_out() {
    race("");
    race("follow_symlinks = true");
}

#[test]
fn ten_thousand_ranges_are_no_work() {
    let tree = Tree::new(&[]);
    let bytes = vec![b'x'; 1 << 20];
    tree.file("data.bin", &bytes);
    let route = tree.route("", "");
    let proxy = setup(&http("limits = { header_bytes = \"256k\" }", &route)).start();
    let addr = proxy.tcp("h");
    let list =
        |range: &dyn Fn(usize) -> String, count: usize| (0..count).map(range).collect::<Vec<_>>().join(",");
    for (what, range) in [
        ("the same", list(&|_| "0-".to_owned(), 10_000)),
        ("single bytes", list(&|number| format!("{}-{}", number * 2, number * 2), 10_000)),
        ("from all to nothing", list(&|number| format!("{number}-1048575"), 10_000)),
        ("backwards", list(&|number| format!("{}-{}", 100_000 - number * 2, 100_000 - number * 2), 10_000)),
        ("not there", list(&|_| "9999999-".to_owned(), 10_000)),
        ("suffixes", list(&|number| format!("-{}", number + 1), 10_000)),
        ("near the end of numbers", list(&|_| "18446744073709551615-18446744073709551615".to_owned(), 4_000)),
    ] {
        let begun = Instant::now();
        let answer = ask_at(&addr, "GET", "/data.bin", &format!("Range: bytes={range}\r\n"));
        // Never more than the file.
        assert!(answer.body.len() <= bytes.len(), "{what}: {} bytes", answer.body.len());
        assert!(matches!(answer.status(), 200 | 206 | 416), "{what}: {}", answer.status());
        assert!(begun.elapsed() < Duration::from_secs(5), "{what}: {:?}", begun.elapsed());
    }
    // Some few are what they are.
    let answer = ask_at(&addr, "GET", "/data.bin", "Range: bytes=0-0,2-2\r\n");
    assert_eq!(answer.status(), 206);
}
