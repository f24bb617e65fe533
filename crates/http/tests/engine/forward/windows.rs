//! What tunnels of one connection take of each other.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use h2::SendStream;
use wmproxy_testkit::h2::{Bytes, Client, download, upload};
use wmproxy_testkit::{Backend, PATIENCE, Pattern};

use super::gate::Proxy;
use super::h2::connect;

/// As many as fill the connection's window by far, were it not for its tunnels.
const STOPPED: usize = 20;

/// Less than a tunnel takes.
const WINDOW: usize = 256 * 1024;

async fn fill(sink: &mut SendStream<Bytes>) -> usize {
    let mut taken = 0;
    loop {
        // Less than a window is not the end of it, however slow the machine is.
        let patience = if taken > WINDOW { std::time::Duration::from_millis(200) } else { PATIENCE };
        sink.reserve_capacity(100_000);
        let room = tokio::time::timeout(patience, std::future::poll_fn(|cx| sink.poll_capacity(cx))).await;
        let Ok(Some(Ok(room))) = room else { return taken };
        sink.send_data(Bytes::from(vec![7; room]), false).unwrap();
        taken += room;
    }
}

#[test]
fn destinations_that_take_nothing_stop_no_others() {
    let echo = Backend::echo();
    let (done, wait) = mpsc::channel::<()>();
    let wait = Arc::new(std::sync::Mutex::new(wait));
    let came = Arc::new(AtomicUsize::new(0));
    let count = came.clone();
    let deaf = Backend::start(move |_conn| {
        count.fetch_add(1, Ordering::Relaxed);
        // It is over when the test is.
        let _ = wait.lock().unwrap().recv();
        Ok(0)
    });
    let proxy =
        Proxy::with(&[("deaf.example:1", deaf.addr().inet()), ("echo.example:1", echo.addr().inet())]);
    let mut client = Client::connect(&proxy.house.addr().into());
    let mut stopped = Vec::new();
    for _ in 0..STOPPED {
        let (status, mut sink, source) = connect(&mut client, "deaf.example:1");
        assert_eq!(status, 200);
        let taken = client.run(|_| async {
            let taken = fill(&mut sink).await;
            (taken, sink)
        });
        assert!(taken.0 > WINDOW, "{}", taken.0);
        stopped.push((taken.1, source));
    }
    let (status, sink, source) = connect(&mut client, "echo.example:1");
    assert_eq!(status, 200);
    let said = Pattern::new(5).bytes(0, 5_000_000);
    let body = Bytes::from(said.clone());
    let heard = client.run(|_| async move {
        let (up, down) = futures_util::join!(upload(sink, body, None), download(source));
        up.unwrap();
        down.unwrap().0
    });
    assert!(heard == said);
    drop(done);
    drop((stopped, client));
    proxy.house.assert_nothing_left();
}
