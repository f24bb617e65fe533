//! Who is believed, and when it is tried again.

use std::sync::atomic::Ordering;

use tokio::time::Instant;
use wmproxy_wire::tunnel::message::{Refusal, RefusalCode};

use super::far::{Far, FarSession, hear, say};
use super::*;
use wmproxy_wire::tunnel::message::Message;

#[tokio::test]
async fn a_session_stands_when_both_have_proven_the_key() {
    let far = Far::start().await;
    let near = Near::new(spec(&[far.addr()]));
    near.client.configure(vec![offer("ssh", ([127, 0, 0, 1], 1).into())]);
    let session = far.login().await;
    assert_eq!(session.hello.name, "home");
    near.until_state(SessionState::Open).await;
    let register = session.register().await;
    assert_eq!(register.services.len(), 1);
    near.until("its place", |status| !status.services.is_empty()).await;
    assert!(is_told(&near));
    let status = near.client.status();
    assert_eq!(status.sessions[0].services[0].places, ["tcp://far:1"]);
    // A ping goes at once.
    let pong = async {
        while near.client.status().sessions[0].round_trip_ms.is_none() {
            let _ = tokio::time::timeout(Duration::from_millis(1), session.hear()).await;
        }
    };
    within("a round trip", pong).await;
}

/// Whether the server's fingerprint was told, for people to pin.
fn is_told(near: &Near) -> bool {
    near.client.links[0].identity.0.load(Ordering::Relaxed)
}

#[tokio::test]
async fn a_server_without_the_key_gets_no_session() {
    // As who stands in between with TLS of their own, and guesses.
    let far = Far::start().await.with_key("a guess");
    let near = Near::new(spec(&[far.addr()]));
    near.client.configure(vec![offer("ssh", ([127, 0, 0, 1], 1).into())]);
    let session = far.login().await;
    session.until_closed().await;
    near.until_state(SessionState::Waiting).await;
    let error = near.client.status().sessions[0].error.clone().unwrap();
    assert!(error.contains("somebody stands in between"), "{error}");
    assert!(!is_told(&near), "who has proven nothing must not be offered to be pinned");
}

#[tokio::test]
async fn a_proof_that_was_passed_on_is_worth_nothing() {
    // In between: TLS of its own to the client and to the server, and every message as it is.
    let (between, server) = (Far::start().await, Far::start().await);
    let near = Near::new(spec(&[between.addr()]));
    let outer = between.accept().await;
    let inner = {
        let socket = tokio::net::TcpStream::connect(server.addr()).await.unwrap();
        let stream = Stream::new(socket.into_std().unwrap().into(), true).unwrap();
        let accept = async { server.accept().await };
        let connect = near.client.tls.secure(&stream, "server", "localhost");
        let (arrived, info) = tokio::join!(accept, connect);
        info.unwrap();
        (stream, arrived)
    };
    let (to_server, at_server) = inner;
    say(&to_server, hear(&outer.stream).await).await;
    let Message::Hello(hello) = hear(&at_server.stream).await else { panic!("no hello") };
    let challenge =
        wmproxy_wire::tunnel::message::Challenge { version: 1, capabilities: 0, nonce: crate::auth::nonce() };
    say(&at_server.stream, Message::Challenge(challenge.clone())).await;
    say(&outer.stream, hear(&to_server).await).await;
    say(&to_server, hear(&outer.stream).await).await;
    let Message::Proof(proof) = hear(&at_server.stream).await else { panic!("no proof") };
    let expected = crate::auth::client_proof(&secret("the key"), &at_server.exporter, &hello, &challenge);
    assert!(!crate::auth::is_same(&proof, &expected), "the server would take it");
}

#[tokio::test]
async fn who_steps_in_between_after_the_login_is_told_nothing() {
    let mut far = Far::start().await;
    let near = Near::new(spec(&[far.addr()]));
    near.client.configure(vec![offer("ssh", ([127, 0, 0, 1], 1).into())]);
    let session = far.login().await;
    far.change_identity();
    // Nor may that send visitors: it has not proven the key, and a connection that waits would take them from anybody.
    let again = loop {
        let arrived = far.accept().await;
        match peek(&arrived.stream).await {
            Ok(Message::Hello(_)) => break far.login_on(arrived, |_| {}).await,
            Ok(other) => panic!("said to a stranger: {other:?}"),
            Err(_) => {}
        }
    };
    // The server itself may have another certificate now: by a login it is believed again.
    far.joined(&again).await;
    near.until("another session", |status| status.reconnects == 1).await;
    drop(session);
}

async fn refuse(far: &Far, code: RefusalCode) -> Instant {
    let arrived = far.accept().await;
    let Message::Hello(_) = hear(&arrived.stream).await else { panic!("no hello") };
    say(&arrived.stream, Message::Refused(Refusal { code, text: "no".to_owned() })).await;
    Instant::now()
}

#[tokio::test]
async fn a_refused_login_is_tried_again_at_once_only_where_that_may_help() {
    let far = Far::start().await;
    let near = Near::new(ClientSpec { max_backoff: Duration::from_secs(2), ..spec(&[far.addr()]) });
    let refused = refuse(&far, RefusalCode::Limit).await;
    let again = refuse(&far, RefusalCode::Unauthenticated).await;
    assert!(again - refused < Duration::from_millis(1_600));
    near.until_state(SessionState::Waiting).await;
    let session = far.login().await;
    assert!(again.elapsed() >= Duration::from_secs(2));
    near.until_state(SessionState::Open).await;
    drop::<FarSession>(session);
}

#[tokio::test]
async fn a_change_of_the_network_ends_every_pause() {
    let far = Far::start().await;
    let near = Near::new(ClientSpec { max_backoff: Duration::from_secs(3600), ..spec(&[far.addr()]) });
    refuse(&far, RefusalCode::Unauthenticated).await;
    near.until("a pause", |session| session.retry_ms.is_some()).await;
    bump(&near.client.network);
    let session = far.login().await;
    near.until_state(SessionState::Open).await;
    drop(session);
}

#[tokio::test]
async fn a_server_that_falls_silent_is_given_up() {
    let far = Far::start().await;
    let near =
        Near::new(ClientSpec { pool: 0, heartbeat: Duration::from_millis(200), ..spec(&[far.addr()]) });
    let session = far.login().await;
    near.until_state(SessionState::Open).await;
    let lost = Instant::now();
    let _again = far.login().await;
    assert!(lost.elapsed() >= Duration::from_millis(500));
    near.until("another session", |session| session.reconnects == 1).await;
    drop(session);
}

#[tokio::test]
async fn a_lost_session_is_made_anew_and_registers_the_same() {
    let far = Far::start().await;
    let near = Near::new(spec(&[far.addr()]));
    near.client.configure(vec![offer("ssh", ([127, 0, 0, 1], 1).into())]);
    let first = far.login().await;
    let registered = first.register().await;
    drop(first);
    let lost = Instant::now();
    // Connections for visitors may be on the way, too.
    let second = loop {
        let arrived = far.accept().await;
        if let Ok(Message::Hello(_)) = peek(&arrived.stream).await {
            break far.login_on(arrived, |_| {}).await;
        }
    };
    assert!(lost.elapsed() < Duration::from_secs(5));
    assert_eq!(second.register().await, registered);
}

#[tokio::test]
async fn a_server_that_dies_again_and_again_is_soon_found_each_time() {
    let far = Far::start().await;
    let near =
        Near::new(ClientSpec { pool: 0, max_backoff: Duration::from_secs(3600), ..spec(&[far.addr()]) });
    let mut session = far.login().await;
    for _ in 0..6 {
        near.until_state(SessionState::Open).await;
        drop(session);
        let lost = Instant::now();
        session = far.login().await;
        assert!(lost.elapsed() < Duration::from_millis(1500), "{:?}", lost.elapsed());
    }
}

#[tokio::test]
async fn an_attempt_that_is_not_answered_is_soon_repeated() {
    let far = Far::start().await;
    let began = Instant::now();
    let near = Near::new(ClientSpec { pool: 0, ..spec(&[far.addr()]) });
    // As of a network that swallows what comes before it is up.
    let unanswered = far.accept_without_tls().await;
    let session = far.login().await;
    near.until_state(SessionState::Open).await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    drop((unanswered, session));
}

/// The next message, which stays.
async fn peek(stream: &Stream) -> Result<Message, crate::carrier::speech::SpeechError> {
    let message = crate::carrier::speech::read_message(stream, 4096).await?;
    let mut bytes = Vec::new();
    wmproxy_wire::tunnel::codec::encode(&message, &mut bytes);
    stream.unread(bytes);
    Ok(message)
}
