//! Visitors that guess at a private service's secret, and streams that begin and do not go on.

use wmproxy_testkit::Backend;
use wmproxy_wire::tunnel::message::{Answer, Message, RefusalCode, Start};

use super::far::{Far, FarSession, hear, say, start};
use super::*;
use crate::auth;

/// An owner of a private service, and connections on which visitors come.
struct Owner {
    far: Far,
    session: FarSession,
    near: Near,
    _echo: Backend,
}

/// What became of a visitor.
#[derive(Debug, PartialEq)]
enum Came {
    In,
    Refused(RefusalCode),
}

impl Owner {
    async fn new() -> Owner {
        let echo = Backend::echo();
        let far = Far::start().await;
        let near = Near::new(spec(&[far.addr()]));
        near.client.configure(vec![private("db", echo.addr().inet(), "between us")]);
        let session = far.login().await;
        session.register().await;
        Owner { far, session, near, _echo: echo }
    }

    async fn start(&self, client: &str) -> Stream {
        let stream = self.far.joined(&self.session).await;
        say(&stream, Message::Start(Start { client: Some(client.to_owned()), ..start(1) })).await;
        stream
    }

    async fn come(&self, client: &str, known: &str) -> Came {
        let stream = self.start(client).await;
        match hear(&stream).await {
            Message::Dare(dare) => answer(&stream, &dare, known).await,
            Message::Refused(refusal) => Came::Refused(refusal.code),
            other => panic!("{other:?}"),
        }
    }

    /// How many connections ended so.
    fn ends(&self, outcome: Outcome) -> u64 {
        let metrics = &self.near.client.offers.load().list[0].offer.metrics;
        metrics.blocks.sum(|block| &block.outcomes[outcome as usize])
    }
}

async fn answer(stream: &Stream, dare: &[u8; 32], known: &str) -> Came {
    let nonce = auth::nonce();
    let mac = auth::visitor_proof(&secret(known), "home/db", dare, &nonce);
    say(stream, Message::Answer(Answer { mac, nonce })).await;
    match hear(stream).await {
        Message::Granted(_) => Came::In,
        Message::Refused(refusal) => Came::Refused(refusal.code),
        other => panic!("{other:?}"),
    }
}

const WRONG: Came = Came::Refused(RefusalCode::Unauthenticated);
const LATER: Came = Came::Refused(RefusalCode::Limit);

#[tokio::test]
async fn who_guesses_has_to_wait_and_others_have_not() {
    let owner = Owner::new().await;
    for guess in ["1", "2", "3", "4", "5"] {
        assert_eq!(owner.come("mallory", guess).await, WRONG);
    }
    for _ in 0..3 {
        assert_eq!(owner.come("mallory", "6").await, LATER, "it is not even asked");
    }
    assert_eq!(owner.come("mallory", "between us").await, LATER, "nor would a right one be heard");
    assert_eq!(owner.come("office", "between us").await, Came::In);
    let (wrong, later) = (owner.ends(Outcome::Unauthenticated), owner.ends(Outcome::RateLimited));
    assert_eq!((wrong, later), (5, 4));
    // Once it has waited it may answer again.
    tokio::time::sleep(Duration::from_millis(1010)).await;
    assert_eq!(owner.come("mallory", "between us").await, Came::In);
}

#[tokio::test]
async fn guesses_all_at_once_are_not_more_than_one_after_another() {
    let owner = Owner::new().await;
    let mut asked = Vec::new();
    for _ in 0..20 {
        let stream = owner.start("mallory").await;
        let Message::Dare(dare) = hear(&stream).await else { panic!("no dare") };
        asked.push((stream, dare));
    }
    let mut came = Vec::new();
    for (at, (stream, dare)) in asked.iter().enumerate() {
        came.push(answer(stream, dare, &at.to_string()).await);
    }
    let compared = came.iter().filter(|came| **came == WRONG).count();
    assert_eq!((compared, came.iter().filter(|came| **came == LATER).count()), (5, 15));
}

#[tokio::test]
async fn the_rest_of_half_a_start_does_not_have_for_ever() {
    let far = Far::start().await;
    let near =
        Near::new(ClientSpec { pool: 1, connect_timeout: Duration::from_millis(500), ..spec(&[far.addr()]) });
    near.client.configure(vec![]);
    let session = far.login().await;
    session.register().await;
    let waits = far.joined(&session).await;
    // It waits for longer than that for a visitor,
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(near.client.status().sessions[0].pool, 1);
    // but not so for one that has begun to come.
    send(&waits, &[0, 13, 0]).await;
    let _ = within("the end", recv_all(&waits)).await;
    far.joined(&session).await;
}

#[tokio::test]
async fn who_is_turned_away_and_stays_is_reset() {
    let owner = Owner::new().await;
    let stream = owner.start("mallory").await;
    let Message::Dare(dare) = hear(&stream).await else { panic!("no dare") };
    assert_eq!(answer(&stream, &dare, "a guess").await, WRONG);
    // An end alone would leave the server with a stream that is open the other way, and with nobody who closes it.
    assert!(within("a reset", recv_all(&stream)).await.is_err());
}
