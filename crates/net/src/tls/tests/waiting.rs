//! Sessions that wait in a pool: whether they are still good.

use super::*;

/// Waits until something has come to be read, or an end.
async fn told(stream: &Stream) {
    poll_fn(|cx| stream.poll_readable(cx)).await.unwrap();
}

#[test]
fn tickets_are_silence() {
    run(async {
        let (client, server) = secured().await;
        told(&client).await;
        assert!(client.is_quiet() && server.is_quiet());
        assert!(client.is_quiet(), "they were taken in");
        write(&server, b"start").await;
        told(&client).await;
        assert_eq!(read(&client, 5).await.unwrap(), b"start", "nothing of what came behind them is lost");
    });
}

#[test]
fn data_and_every_kind_of_end_are_none() {
    run(async {
        for what in ["data", "close_notify", "end", "reset", "garbage"] {
            let (client, server) = secured().await;
            assert!(server.is_quiet());
            match what {
                "data" => write(&client, b"x").await,
                "close_notify" => finish(&client).await,
                "end" => poll_fn(|cx| client.poll_shutdown_base(cx)).await.unwrap(),
                "reset" => {
                    client.reset_on_close();
                    drop(client);
                }
                _ => assert_eq!(poll_fn(|cx| client.poll_write_base(cx, &[1; 40])).await.unwrap(), 40),
            }
            told(&server).await;
            assert!(!server.is_quiet(), "{what}");
        }
    });
}

#[test]
fn one_on_its_way_to_another_worker_sees_them_too() {
    run(async {
        for what in ["data", "close_notify", "end", "reset"] {
            let (client, server) = secured().await;
            let parts = server.dismantle().unwrap();
            assert!(parts.is_quiet());
            match what {
                "data" => write(&client, b"x").await,
                "close_notify" => finish(&client).await,
                "end" => poll_fn(|cx| client.poll_shutdown_base(cx)).await.unwrap(),
                _ => {
                    client.reset_on_close();
                    drop(client);
                }
            }
            // Loopback delivers within the call.
            assert!(!parts.is_quiet(), "{what}");
        }
        let (client, server) = secured().await;
        let server = server.dismantle().unwrap().assemble().unwrap();
        assert!(server.is_quiet());
        write(&server, b"start").await;
        assert_eq!(read_exactly(&client, 5).await.unwrap(), b"start");
    });
}
