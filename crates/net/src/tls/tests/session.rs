//! What passes through a session once its handshake is done.

use super::*;

#[test]
fn what_is_written_is_read_and_each_side_ends_by_itself() {
    let authority = Authority::new();
    run(async {
        let acceptor =
            acceptor(AcceptorSpec { alpn: vec!["h2".into(), "x".into()], ..authority.accepts(&["a.test"]) });
        let connector = connector(ConnectorSpec { alpn: vec!["x".into()], ..authority.connects() });
        let (client, server, accepted, connected) = shake(&acceptor, &connector, "A.test").await;
        let accepted = accepted.unwrap();
        assert_eq!(accepted.sni.as_deref(), Some("a.test"));
        assert_eq!(accepted.alpn.as_deref(), Some(&b"x"[..]));
        assert_eq!(accepted.version, "TLSv1.3");
        assert_eq!(accepted.client, None);
        assert_eq!(connected.unwrap().alpn.as_deref(), Some(&b"x"[..]));
        assert!(!client.can_splice() && !server.can_splice());
        write(&client, b"question").await;
        finish(&client).await;
        assert_eq!(read(&server, 100).await.unwrap(), b"question");
        assert_eq!(read(&server, 100).await.unwrap(), b"", "the end that was declared");
        write(&server, b"answer").await;
        finish(&server).await;
        assert_eq!(read(&client, 100).await.unwrap(), b"answer");
        assert_eq!(read(&client, 100).await.unwrap(), b"");
    });
}

#[test]
fn megabytes_pass_both_ways_at_once_through_any_buffer() {
    let authority = Authority::new();
    run(async {
        let (acceptor, connector) =
            (acceptor(authority.accepts(&["a.test"])), connector(authority.connects()));
        for room in [7, 1000, 16 * 1024, 64 * 1024, 200_000] {
            let (client, server, accepted, _) = shake(&acceptor, &connector, "a.test").await;
            accepted.unwrap();
            let data = noise(if room < 100 { 50_000 } else { 8_000_000 });
            let pass = async |from: &Stream, to: &Stream| {
                let send = async {
                    write(from, &data).await;
                    finish(from).await;
                };
                let receive = async {
                    let mut got = vec![];
                    loop {
                        match read(to, room).await.unwrap() {
                            part if part.is_empty() => return got,
                            part => got.extend(part),
                        }
                    }
                };
                let ((), got) = tokio::join!(send, receive);
                assert!(got == data, "room for {room}");
            };
            tokio::join!(pass(&client, &server), pass(&server, &client));
        }
    });
}

#[test]
fn an_idle_session_holds_no_buffer() {
    let authority = Authority::new();
    run(async {
        let (acceptor, connector) =
            (acceptor(authority.accepts(&["a.test"])), connector(authority.connects()));
        let (client, server) = pair();
        let unbuffered = UnbufferedServerConnection::new(acceptor.config()).unwrap();
        let mut session = Session::server(unbuffered, vec![], None);
        let name = connector.name_for("a.test").unwrap();
        let mut sni = None;
        let (shaken, _) =
            tokio::join!(session.handshake(&server, &mut sni), connect(&client, &connector, name));
        shaken.unwrap();
        assert_eq!(session.buffered(), 0, "after the handshake");
        write(&client, &noise(1_000_000)[..200_000]).await;
        let mut buffer = vec![0; 64 * 1024];
        let mut got = 0;
        while got < 200_000 {
            got += poll_fn(|cx| session.poll_read(cx, &server, &mut buffer)).await.unwrap();
        }
        assert_eq!(session.buffered(), 0, "after bulk");
    });
}

#[test]
fn a_reader_that_stops_stops_the_writer() {
    run(async {
        let (client, server) = secured().await;
        let data = noise(64 * 1024);
        let mut taken = 0_usize;
        poll_fn(|cx| {
            loop {
                match server.poll_write(cx, &data) {
                    std::task::Poll::Ready(n) => taken += n.unwrap(),
                    std::task::Poll::Pending => return std::task::Poll::Ready(()),
                }
                assert!(taken < 64 << 20, "nobody reads this");
            }
        })
        .await;
        // What is pending goes on with the same data and is whole.
        let whole: Vec<u8> = data.iter().copied().cycle().take(taken + data.len()).collect();
        let (_, got) = tokio::join!(write(&server, &data), read_exactly(&client, whole.len()));
        assert!(got.unwrap() == whole);
    });
}

#[test]
fn an_end_without_close_notify_is_a_truncation() {
    run(async {
        let (client, server) = secured().await;
        write(&client, b"half of it").await;
        poll_fn(|cx| client.poll_shutdown_base(cx)).await.unwrap();
        assert_eq!(read(&server, 100).await.unwrap(), b"half of it");
        let error = read(&server, 100).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(is_failure(&error), "{error}");
    });
}

#[test]
fn a_record_that_was_tampered_with_ends_the_session_with_an_alert() {
    run(async {
        let (client, server) = secured().await;
        let forged = [&[23, 3, 3, 0, 40][..], &[7; 40]].concat();
        poll_fn(|cx| client.poll_write_base(cx, &forged)).await.unwrap();
        let error = read(&server, 100).await.unwrap_err();
        assert!(is_failure(&error), "{error}");
        assert!(poll_fn(|cx| server.poll_write(cx, b"x")).await.is_err());
        let told = read(&client, 100).await.unwrap_err();
        assert!(told.to_string().contains("BadRecordMac"), "{told}");
    });
}

#[test]
fn unread_bytes_belong_to_the_handshake() {
    let authority = Authority::new();
    run(async {
        let (acceptor, connector) =
            (acceptor(authority.accepts(&["a.test"])), connector(authority.connects()));
        let (client, server) = pair();
        let taking = async {
            let hello = read(&server, 4096).await.unwrap();
            // A part of it, as of a preface that reads on.
            server.unread(hello[..5].to_vec());
            let _ = read(&server, 2).await.unwrap();
            server.unread(hello[..2].to_vec());
            let start = server.take_unread();
            assert_eq!(start, hello[..5]);
            server.unread(hello);
            accept(&server, &acceptor).await.unwrap();
        };
        let name = connector.name_for("a.test").unwrap();
        tokio::join!(taking, async { connect(&client, &connector, name).await.unwrap() });
        write(&client, b"hello").await;
        let opened = read(&server, 2).await.unwrap();
        server.unread(opened);
        assert_eq!(read_exactly(&server, 5).await.unwrap(), b"hello", "what was opened can be unread, too");
    });
}

#[test]
fn what_was_right_is_read_before_a_failure_behind_it() {
    run(async {
        let (client, server) = secured().await;
        write(&client, b"right").await;
        let forged = [&[23, 3, 3, 0, 40][..], &[7; 40]].concat();
        poll_fn(|cx| client.poll_write_base(cx, &forged)).await.unwrap();
        // Both have come by now: loopback delivers within the call.
        assert_eq!(read(&server, 100).await.unwrap(), b"right");
        let error = read(&server, 100).await.unwrap_err();
        assert!(is_failure(&error), "{error}");
        assert!(read(&server, 100).await.is_err(), "and so it stays");
    });
}

#[test]
fn a_fin_that_is_held_back_comes_with_the_end_of_the_stream() {
    run(async {
        let (client, server) = secured().await;
        client.end_within_tls();
        write(&client, b"question").await;
        poll_fn(|cx| client.poll_shutdown_write(cx)).await.unwrap();
        assert_eq!(read(&server, 100).await.unwrap(), b"question");
        assert_eq!(read(&server, 100).await.unwrap(), b"", "it is an end");
        write(&server, b"answer").await;
        assert_eq!(read(&client, 100).await.unwrap(), b"answer");
        // All is said and heard, so that a FIN would be here, too.
        let mut byte = [0];
        let fin = poll_fn(|cx| std::task::Poll::Ready(server.poll_read_base(cx, &mut byte))).await;
        assert!(fin.is_pending(), "no FIN yet");
        poll_fn(|cx| server.poll_shutdown_write(cx)).await.unwrap();
        assert_eq!(read(&client, 100).await.unwrap(), b"");
        drop(client);
        let fin = poll_fn(|cx| server.poll_read_base(cx, &mut byte)).await;
        assert!(matches!(fin, Ok(0)), "{fin:?}");
    });
}
