//! What a request costs in allocations: nothing, once the buffers are there.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;

use wmproxy_files::options::FilesOptions;
use wmproxy_http::options::{EndpointSpec, HttpOptions};
use wmproxy_testkit::TempDir;
use wmproxy_testkit::http::Origin;

use crate::forward::gate::Proxy;
use crate::house::{House, spec};

/// Counts what each thread allocates, and what of it is still there.
pub(crate) struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
    static HELD: Cell<i64> = const { Cell::new(0) };
}

fn count(bytes: usize) {
    // At a thread's end there is nobody to ask.
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
    hold(bytes as i64);
}

fn hold(bytes: i64) {
    let _ = HELD.try_with(|held| held.set(held.get() + bytes));
}

// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as promised to us.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        hold(-(layout.size() as i64));
        // SAFETY: as promised to us.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        hold(-(layout.size() as i64));
        // SAFETY: as promised to us.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

fn of_worker(house: &House) -> u64 {
    let (tell, answer) = channel();
    house.on_worker(move || tell.send(COUNT.get()).unwrap());
    answer.recv().unwrap()
}

/// So many bytes does the worker hold.
pub(crate) fn held_by_worker(house: &House) -> i64 {
    let (tell, answer) = channel();
    house.on_worker(move || tell.send(HELD.get()).unwrap());
    answer.recv().unwrap()
}

#[test]
fn a_request_on_connections_that_are_there_allocates_nothing() {
    let origin =
        Origin::says("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello");
    let house = House::before(&[origin.addr().inet()]);
    // A line of it is memory of the test's.
    house.log.is_off.store(true, Ordering::Relaxed);
    let mut client = house.connect();
    let mut ask = |times: usize| {
        let before = of_worker(&house);
        for _ in 0..times {
            assert_eq!(client.get("/some/path?and=query").text(), "hello");
            assert_eq!(client.post("/some/path", b"a body").text(), "hello");
        }
        of_worker(&house) - before
    };
    ask(20);
    // To ask the worker costs some.
    let (few, many) = (ask(1), ask(200));
    assert_eq!(few, many, "with 2 requests and with 400");
}

#[test]
fn a_request_to_a_forward_proxy_allocates_no_more_than_it_has_to() {
    let origin = Origin::says("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    let proxy = Proxy::with(&[("a.example:80", origin.addr().inet())]);
    proxy.house.log.is_off.store(true, Ordering::Relaxed);
    // What the tests' gate notes down would grow now and then.
    proxy.gate.asked.lock().unwrap().reserve(1000);
    let mut client = proxy.connect();
    let mut ask = |times: u64| {
        let before = of_worker(&proxy.house);
        for _ in 0..times {
            client.send("GET http://a.example/path HTTP/1.1\r\nHost: a.example\r\n\r\n");
            assert_eq!(client.response().text(), "hello");
        }
        of_worker(&proxy.house) - before
    };
    ask(20);
    let few = ask(1);
    // One of these may meet the second in which idle connections are looked over.
    let many = (0..5).map(|_| ask(101)).min().unwrap();
    // The name, and the future of an answer, which is large and would lie in each idle connection; and what the gate
    // takes, for who it is, which way, and the texts that it notes down.
    assert_eq!((many - few) / 100, 2 + 7);
}

#[test]
fn a_request_for_a_small_file_that_is_known_allocates_nothing() {
    let root = TempDir::new();
    root.write("some/file.txt", "hello");
    let site = FilesOptions::default().spec(root.path().to_owned()).unwrap();
    let house = House::with(spec(HttpOptions::default(), EndpointSpec::Files(site)), &[]);
    house.log.is_off.store(true, Ordering::Relaxed);
    let mut client = house.connect();
    // Its bytes are kept once they are at rest, and it is looked at anew each second.
    std::thread::sleep(std::time::Duration::from_millis(1200));
    let tag = client.get("/some/file.txt").head.get("etag").unwrap().to_owned();
    let mut ask = |times: usize| {
        let before = of_worker(&house);
        for _ in 0..times {
            assert_eq!(client.get("/some/file.txt").text(), "hello");
            client.send(format!("GET /some/file.txt HTTP/1.1\r\nHost: a\r\nIf-None-Match: {tag}\r\n\r\n"));
            assert_eq!(client.response().status(), 304);
        }
        of_worker(&house) - before
    };
    ask(20);
    let few = ask(1);
    // One of these may meet the second in which it is looked for.
    let many = (0..5).map(|_| ask(100)).min().unwrap();
    assert_eq!(few, many, "with 2 requests and with 200");
}
