//! What others do with streams: use them on another worker, lay TLS upon them, relay them, and open a thousand.

use std::thread;

use wmproxy_net::addr::{Address, Protocol};
use wmproxy_net::record::{ListenerMetrics, Outcome, Record};
use wmproxy_net::relay::{Terms, relay};
use wmproxy_net::tls::{accept, connect};

use super::*;

#[test]
fn streams_are_opened_and_used_on_other_workers() {
    const LEN: usize = 3_000_000;
    for way in WAYS {
        run(async {
            let mut ends = Ends::new(way).await;
            let many = ends.server.0.clone();
            let opens = thread::spawn(move || {
                run(async {
                    let stream = many.open().await.unwrap();
                    let send = async {
                        write(&stream, &noise(1, LEN)).await.unwrap();
                        finish(&stream).await.unwrap();
                    };
                    tokio::join!(send, read_to_end(&stream)).1.unwrap()
                })
            });
            let unplaced = ends.client.1.next().await.unwrap();
            let (tell, done) = tokio::sync::oneshot::channel();
            let takes = thread::spawn(move || {
                run(async {
                    let stream = unplaced.place();
                    let got = read_to_end(&stream).await.unwrap();
                    write(&stream, &got).await.unwrap();
                    finish(&stream).await.unwrap();
                    let _ = tell.send(());
                });
            });
            done.await.unwrap();
            // The driver is needed until the last byte is over.
            let opened = tokio::task::spawn_blocking(move || opens.join().unwrap()).await.unwrap();
            assert!(opened == noise(1, LEN), "{way:?}");
            takes.join().unwrap();
        });
    }
}

#[test]
fn tls_lies_upon_them() {
    for way in WAYS {
        run(async {
            let mut ends = Ends::new(way).await;
            let (near, far) = ends.pair().await;
            let (acceptor, connector) = tls();
            let name = connector.name_for("tunnel.test").unwrap();
            let (accepted, connected) =
                tokio::join!(accept(&far, &acceptor), connect(&near, &connector, name));
            accepted.unwrap();
            connected.unwrap();
            let data = noise(3, 2 << 20);
            let send = async {
                write(&near, &data).await.unwrap();
                finish(&near).await.unwrap();
            };
            let ((), got) = tokio::join!(send, read_to_end(&far));
            assert!(got.unwrap() == data, "{way:?}");
            // An end that only the stream below declares is a truncation.
            drop(far);
            assert!(read(&near, 1).await.is_err(), "{way:?}");
        });
    }
}

#[test]
fn relays_pass_bytes_and_ends_and_resets() {
    let terms = || Terms::new(Duration::from_secs(10));
    let record = || {
        let address = Address::Inet("127.0.0.1:1".parse().unwrap());
        Record::open(Arc::new(ListenerMetrics::new("test".into(), Protocol::Tcp, address, 1)), None, None)
    };
    for way in WAYS {
        run(async {
            let mut ends = Ends::new(way).await;
            let (visitor, client) = sockets();
            let (peer, service) = ends.pair().await;
            let (up, down) = (noise(4, 3_000_000), noise(5, 2_000_000));
            let relaying = async {
                let mut record = record();
                let outcome = relay(&client, &peer, terms(), &mut record).await;
                drop((client, peer));
                outcome
            };
            let visit = async {
                write(&visitor, &up).await.unwrap();
                finish(&visitor).await.unwrap();
                read_to_end(&visitor).await.unwrap()
            };
            let serve = async {
                let got = read_to_end(&service).await.unwrap();
                write(&service, &down).await.unwrap();
                drop(service);
                got
            };
            let (outcome, answer, question) = tokio::join!(relaying, visit, serve);
            assert_eq!(outcome, Outcome::Done, "{way:?}");
            assert!(answer == down && question == up, "{way:?}");

            let (visitor, client) = sockets();
            let (peer, service) = ends.pair().await;
            let relaying = async {
                let mut record = record();
                let outcome = relay(&client, &peer, terms(), &mut record).await;
                drop((client, peer));
                outcome
            };
            let serve = async {
                write(&service, b"half of it").await.unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
                service.reset_on_close();
                drop(service);
            };
            let (outcome, (), got) = tokio::join!(relaying, serve, read_to_end(&visitor));
            assert_eq!(outcome, Outcome::PeerReset, "{way:?}");
            assert_eq!(got.unwrap_err().kind(), io::ErrorKind::ConnectionReset, "{way:?}");
        });
    }
}

#[test]
fn a_thousand_are_open_at_once() {
    const COUNT: usize = 1000;
    for way in WAYS {
        run(async {
            let mut ends = Ends::new(way).await;
            let mut near = Vec::with_capacity(COUNT);
            let mut far = Vec::with_capacity(COUNT);
            // None of them says anything before all are there.
            for index in 0..COUNT {
                let stream = ends.server.0.open().await.unwrap();
                write(&stream, &(index as u32).to_be_bytes()).await.unwrap();
                near.push(stream);
                far.push(ends.client.1.next().await.unwrap().place());
            }
            for (far, near) in far.iter().zip(&near).rev() {
                write(far, &read(far, 100).await.unwrap()).await.unwrap();
                assert_eq!(read(near, 100).await.unwrap().len(), 4);
            }
            drop((near, far));
            let (near, far) = ends.pair().await;
            write(&far, b"and one more").await.unwrap();
            assert_eq!(read(&near, 100).await.unwrap(), b"and one more", "{way:?}");
        });
    }
}
