//! Clients that leave in the middle of a response that pauses: who works for them hears of it at once.

use wmproxy_testkit::h2::{Kind, Raw};
use wmproxy_testkit::{Client, Gate, Origin};

use super::site;
use crate::start;

/// An origin whose answer begins and never ends, and a gate that opens when its connection is ended.
fn pausing() -> (Origin, Gate) {
    let gone = Gate::new();
    let went = gone.clone();
    let origin = Origin::start(move |call| {
        call.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")?;
        call.wait_end()?;
        went.open();
        call.close();
        Ok(())
    });
    (origin, gone)
}

#[test]
fn a_reset_ends_a_response_that_pauses() {
    let (origin, gone) = pausing();
    let proxy = start(&site(origin.addr()));
    let mut client = Client::connect(&proxy.tcp("h"));
    client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    client.recv(1);
    client.reset();
    gone.wait();
}

/// The stream counts no longer against the client's limit, so it may cost nothing any more.
#[test]
fn a_stream_that_is_reset_ends_a_response_that_pauses() {
    let (origin, gone) = pausing();
    let proxy = start(&site(origin.addr()));
    let mut raw = Raw::connect(&proxy.tcp("h"));
    raw.get(1, "/");
    assert_eq!(raw.status(1), 200);
    raw.send(Kind::RST_STREAM, 0, 1, &8_u32.to_be_bytes());
    gone.wait();
}
