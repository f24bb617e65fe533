//! How the connections that tunnels share begin and end.

use super::*;

#[test]
fn a_connection_that_takes_no_more_keeps_what_it_has() {
    run(async || {
        let (hop, proxy) = (hop(), Proxy::new(echo));
        let first = open(&hop, &proxy).await;
        proxy.farewell.set(true);
        tokio::time::sleep(SOON).await;
        proxy.farewell.set(false);
        let second = open(&hop, &proxy).await;
        assert_eq!(proxy.made.get(), 2);
        for stream in [&first, &second] {
            write(stream, b"still").await;
            assert_eq!(read(stream).await.unwrap(), b"still");
        }
    });
}

#[test]
fn a_connection_that_broke_fails_its_tunnels_and_is_made_anew() {
    run(async || {
        let (hop, proxy) = (hop(), Proxy::new(echo));
        let first = open(&hop, &proxy).await;
        proxy.breaks.set(true);
        timeout(Duration::from_secs(5), first.failed()).await.unwrap();
        assert!(read(&first).await.is_err());
        proxy.breaks.set(false);
        let second = open(&hop, &proxy).await;
        write(&second, b"again").await;
        assert_eq!(read(&second).await.unwrap(), b"again");
        assert_eq!(proxy.made.get(), 2);
        // One that breaks just when it is asked for a tunnel is nobody's trouble either.
        let stale = Proxy::new({
            let first = Cell::new(true);
            move |asked: Asked| {
                let breaks = asked.proxy.made.get() == 1 && asked.before == 1 && first.take();
                async move {
                    if breaks {
                        asked.proxy.breaks.set(true);
                        while asked.proxy.open.get() > 0 {
                            tokio::task::yield_now().await;
                        }
                        asked.proxy.breaks.set(false);
                    } else {
                        echo(asked).await;
                    }
                }
            }
        });
        let hop = Hop::new(Duration::from_secs(60));
        drop(open(&hop, &stale).await);
        drop(open(&hop, &stale).await);
        assert_eq!((stale.made.get(), stale.seen.borrow().len()), (2, 3));
    });
}

#[test]
fn a_proxy_without_http2_is_left_to_others() {
    run(async || {
        let proxy = Proxy::new(echo);
        proxy.alpn.set(b"http/1.1");
        let hop = hop();
        for _ in 0..3 {
            let opened = hop.open(0, &to(), None, || proxy.connect()).await;
            assert!(matches!(opened, Ok(Tunnel::Http1(_))), "{opened:?}");
        }
        // Once it does, it is shared again.
        proxy.alpn.set(b"h2");
        for _ in 0..3 {
            drop(open(&hop, &proxy).await);
        }
        assert_eq!(proxy.made.get(), 5);
    });
}

#[test]
fn who_gives_up_is_not_waited_for() {
    run(async || {
        let proxy = Proxy::new(async |asked: Asked| {
            let (_head, _asked) = (asked.head.clone(), asked);
            std::future::pending().await
        });
        let hop = hop();
        assert!(timeout(SOON, hop.open(0, &to(), None, || proxy.connect())).await.is_err());
        let never = || std::future::pending::<Result<(Stream, TlsInfo), ConnectError>>();
        let other = Hop::new(Duration::from_secs(60));
        assert!(timeout(SOON, other.open(0, &to(), None, never)).await.is_err());
        let failing = || async { Err(ConnectError::new(Fault::Tls, "no")) };
        assert_eq!(other.open(0, &to(), None, failing).await.unwrap_err().fault, Fault::Tls);
        let echoing = Proxy::new(echo);
        drop(open(&other, &echoing).await);
    });
}

#[test]
fn a_connection_without_tunnels_is_closed_after_a_while() {
    run(async || {
        let (hop, proxy) = (Hop::new(Duration::from_millis(30)), Proxy::new(echo));
        let stream = open(&hop, &proxy).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(proxy.open.get(), 1);
        drop(stream);
        let closed = async {
            while proxy.open.get() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(5), closed).await.unwrap();
    });
}

#[test]
fn what_nobody_takes_does_not_hold_a_connection_for_ever() {
    run(async || {
        let proxy = Proxy::new(async |asked: Asked| {
            let _ends = asked.accept();
            std::future::pending().await
        });
        let hop = Hop::new(Duration::from_millis(30));
        let stream = open(&hop, &proxy).await;
        // More than the proxy takes lies in the connection when the tunnel is closed, its end behind it.
        fill(&stream).await;
        drop(stream);
        let closed = async {
            while proxy.open.get() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(5), closed).await.unwrap();
    });
}

#[test]
fn who_gives_up_all_the_time_wears_out_connections_of_their_own() {
    run(async || {
        let (hop, proxy) = (hop(), Proxy::new(echo));
        let steady = open(&hop, &proxy).await;
        for _ in 0..600 {
            let stream = open(&hop, &proxy).await;
            stream.reset_on_close();
        }
        assert_eq!(proxy.made.get(), 2);
        for _ in 0..600 {
            let stream = open(&hop, &proxy).await;
            finish(&stream).await;
            assert_eq!(read_all(&stream).await, b"");
        }
        assert_eq!(proxy.made.get(), 2, "those that end well count for nothing");
        write(&steady, b"still").await;
        assert_eq!(read(&steady).await.unwrap(), b"still");
    });
}

#[test]
fn a_connection_that_leads_to_nobody_is_given_up() {
    run(async || {
        // Long enough for a busy machine.
        let silence = Duration::from_millis(500);
        let (hop, proxy) = (Hop { silence, ..hop() }, Proxy::new(echo));
        let first = open(&hop, &proxy).await;
        proxy.deaf.set(1);
        let second = timeout(Duration::from_secs(5), open(&hop, &proxy)).await.unwrap();
        write(&second, b"here").await;
        assert_eq!(read(&second).await.unwrap(), b"here");
        let third = open(&hop, &proxy).await;
        assert_eq!(proxy.made.get(), 2, "nobody is sent there again");
        drop((first, third));
        // A new one that is no better says so, for another proxy to be tried.
        proxy.deaf.set(usize::MAX);
        let nobody = Hop { silence, ..Hop::new(Duration::from_secs(60)) };
        let failed = nobody.open(0, &to(), None, || proxy.connect()).await.unwrap_err();
        assert_eq!(failed.fault, Fault::HopDown, "{failed}");
    });
}

#[test]
fn a_proxy_that_is_there_may_take_its_time() {
    run(async || {
        // Long enough for a busy machine.
        let silence = Duration::from_millis(600);
        let proxy = Proxy::new(move |asked: Asked| async move {
            tokio::time::sleep(silence * 3).await;
            echo(asked).await;
        });
        let hop = Hop { silence, ..hop() };
        let one = open(&hop, &proxy);
        let (one, other) = tokio::join!(one, open(&hop, &proxy));
        assert_eq!((proxy.made.get(), proxy.seen.borrow().len()), (1, 2));
        drop((one, other));
    });
}
