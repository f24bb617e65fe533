//! What a transport promises (see `wmproxy_net::stream::Transport`), one by one.

use std::task::{Context, Waker};

use super::*;

#[test]
fn each_side_ends_by_itself() {
    for way in WAYS {
        run(async {
            let mut ends = Ends::new(way).await;
            let (near, far) = ends.pair().await;
            write(&near, b"question").await.unwrap();
            finish(&near).await.unwrap();
            assert_eq!(read_to_end(&far).await.unwrap(), b"question");
            assert_eq!(read(&far, 1).await.unwrap(), b"", "the end stays the end");
            assert!(!far.is_reset(&mut Context::from_waker(Waker::noop())));
            write(&far, b"answer").await.unwrap();
            finish(&far).await.unwrap();
            assert_eq!(read_to_end(&near).await.unwrap(), b"answer");
            let error = write(&near, b"more").await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        });
    }
}

#[test]
fn a_drop_is_an_end_behind_all_that_was_written() {
    for way in WAYS {
        run(async {
            let mut ends = Ends::new(way).await;
            let (near, far) = ends.pair().await;
            let data = noise(1, 200_000);
            write(&near, &data).await.unwrap();
            drop(near);
            assert!(read_to_end(&far).await.unwrap() == data, "{way:?}");
            // Nobody reads there any more, which the writer has to learn, were it that it waits for room.
            let error = loop {
                if let Err(error) = write(&far, &data).await {
                    break error;
                }
            };
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe, "{way:?}");
            assert!(!far.is_reset(&mut Context::from_waker(Waker::noop())), "{way:?}");
        });
    }
}

#[test]
fn a_writer_that_waits_learns_that_its_reader_has_left() {
    for way in WAYS {
        run(async {
            let mut ends = Ends::new(way).await;
            let (near, far) = ends.pair().await;
            let fill = async {
                loop {
                    if let Err(error) = write(&far, &[7; 10_000]).await {
                        return error;
                    }
                }
            };
            let leave = async {
                // As much as any window has is on its way by now, or soon will be.
                tokio::time::sleep(Duration::from_millis(100)).await;
                drop(near);
            };
            let (error, ()) = tokio::join!(fill, leave);
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe, "{way:?}");
        });
    }
}

#[test]
fn a_reset_is_no_end_for_who_reads_or_writes_or_does_neither() {
    for way in WAYS {
        run(async {
            let mut ends = Ends::new(way).await;

            let (near, far) = ends.pair().await;
            let cut = async {
                near.reset_on_close();
                drop(near);
            };
            let (read, ()) = tokio::join!(read(&far, 10), cut);
            assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset, "{way:?}");

            let (near, far) = ends.pair().await;
            let fill = async {
                loop {
                    if let Err(error) = write(&far, &[7; 10_000]).await {
                        return error;
                    }
                }
            };
            let cut = async {
                near.reset_on_close();
                tokio::time::sleep(Duration::from_millis(100)).await;
                drop(near);
            };
            let (error, ()) = tokio::join!(fill, cut);
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{way:?}");

            // What is not read yet does not hide it.
            let (near, far) = ends.pair().await;
            write(&near, b"unread").await.unwrap();
            assert!(!far.is_reset(&mut Context::from_waker(Waker::noop())));
            let cut = async {
                near.reset_on_close();
                tokio::task::yield_now().await;
                drop(near);
            };
            tokio::join!(far.failed(), cut);
            assert!(far.is_reset(&mut Context::from_waker(Waker::noop())));
        });
    }
}

#[test]
fn a_reset_behind_an_end_is_heard_by_who_still_writes() {
    for way in WAYS {
        run(async {
            let mut ends = Ends::new(way).await;
            let (near, far) = ends.pair().await;
            finish(&near).await.unwrap();
            assert_eq!(read(&far, 1).await.unwrap(), b"");
            let cut = async {
                near.reset_on_close();
                tokio::task::yield_now().await;
                drop(near);
            };
            tokio::join!(far.failed(), cut);
            let error = write(&far, b"x").await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{way:?}");
        });
    }
}

#[test]
fn a_lost_connection_is_a_reset_of_all_its_streams() {
    for way in WAYS {
        run(async {
            let mut ends = Ends::new(way).await;
            let (near, far) = ends.pair().await;
            let (_near, reading) = ends.pair().await;
            ends.client.0.close();
            tokio::join!(near.failed(), far.failed());
            assert_eq!(
                read(&reading, 1).await.unwrap_err().kind(),
                io::ErrorKind::ConnectionReset,
                "{way:?}"
            );
            assert!(write(&near, b"x").await.is_err());
            ends.client.0.closed().await;
            ends.server.0.closed().await;
            assert!(ends.client.1.next().await.is_none() && ends.server.1.next().await.is_none());
            assert!(ends.server.0.open().await.is_err());
        });
    }
}

#[test]
fn who_does_not_read_costs_a_window_and_others_go_on() {
    const WIDEST: usize = 8 << 20;
    for way in WAYS {
        run(async {
            let mut ends = Ends::new(way).await;
            let (stopped, _unread) = ends.pair().await;
            let piece = [7; 64 << 10];
            let mut taken = 0;
            // It has stopped when it takes nothing for as long as all of the others need together.
            while let Ok(written) =
                tokio::time::timeout(Duration::from_millis(300), poll_fn(|cx| stopped.poll_write(cx, &piece)))
                    .await
            {
                taken += written.unwrap();
                assert!(taken <= WIDEST, "{way:?}");
            }
            let data = noise(2, 10 << 20);
            let (near, far) = ends.pair().await;
            let send = async {
                write(&near, &data).await.unwrap();
                finish(&near).await.unwrap();
            };
            let ((), got) = tokio::join!(send, read_to_end(&far));
            assert!(got.unwrap() == data, "{way:?}");
            assert!(poll_fn(|cx| std::task::Poll::Ready(stopped.poll_write(cx, &piece))).await.is_pending());
        });
    }
}

#[test]
fn tasks_end_when_nobody_uses_the_connection() {
    run(async {
        let Ends { client, server, scope } = Ends::new(Way::Mux).await;
        assert_eq!(scope.live(), 2);
        drop((client, server));
        scope.empty().await;
    });
    run(async {
        let Ends { client, server, scope } = Ends::new(Way::Quic).await;
        drop((client, server));
        scope.empty().await;
    });
}
