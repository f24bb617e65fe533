//! The secret of a private service: owner and visitor prove it to each other, through a server that does not learn it.

use std::time::Duration;

use tokio::time::timeout;
use wmproxy_net::connect::{ConnectError, Fault};
use wmproxy_net::record::Outcome;
use wmproxy_net::stream::Stream;
use wmproxy_wire::tunnel::codec::LOGIN_LIMIT;
use wmproxy_wire::tunnel::message::{Answer, Message, Refusal, RefusalCode, Start};
use wmproxy_wire::units::Secret;

use super::guesses::{Guesses, Judged};
use super::session::plain;
use crate::auth;
use crate::carrier::speech::{self, SpeechError};
use crate::options::{ServiceSpec, VisitSpec};

/// How long the other end may take to prove that it knows the secret: two ways through a server.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a visitor may take to hear that it is not let in.
const LAST_WORD: Duration = Duration::from_secs(3);

/// Why a visitor is not let in.
pub(super) struct Stranger {
    /// What both logs have.
    pub(super) refusal: Refusal,
    /// What its record has.
    pub(super) outcome: Outcome,
}

/// Asks a visitor for the secret, and proves it, as the owner of a service. `client` is the owner's name.
pub(super) async fn ask(
    stream: &Stream,
    client: &str,
    spec: &ServiceSpec,
    start: &Start,
    guesses: &Guesses,
) -> Result<(), Stranger> {
    let who = start.client.as_deref().map_or("somebody without a name".to_owned(), plain);
    let service = format!("{client}/{}", spec.service.name);
    let stranger = |code, text: String, outcome| Stranger { refusal: Refusal { code, text }, outcome };
    let Some(secret) = &spec.secret else {
        let text = "the service has no secret".to_owned();
        return Err(stranger(RefusalCode::NoService, text, Outcome::Unauthenticated));
    };
    match timeout(PATIENCE, question(stream, secret, &service, start, guesses)).await {
        Ok(Ok(Some(Judged::Right))) => Ok(()),
        Ok(Ok(Some(Judged::Later(wait)))) => {
            let text = format!("{who} was wrong too often, and has to wait for {wait:?}");
            Err(stranger(RefusalCode::Limit, text, Outcome::RateLimited))
        }
        Ok(Ok(Some(Judged::Wrong) | None)) => {
            let text = format!("{who} does not know the secret");
            Err(stranger(RefusalCode::Unauthenticated, text, Outcome::Unauthenticated))
        }
        Ok(Err(error)) => {
            let text = format!("{who} left before it was let in: {error}");
            Err(stranger(RefusalCode::Other, text, Outcome::ClientLeft))
        }
        Err(_) => {
            let text = format!("{who} did not answer in time");
            Err(stranger(RefusalCode::Other, text, Outcome::PrefaceTimeout))
        }
    }
}

/// What the visitor's answer is; none if it says something else.
async fn question(
    stream: &Stream,
    secret: &Secret,
    service: &str,
    start: &Start,
    guesses: &Guesses,
) -> Result<Option<Judged>, SpeechError> {
    let client = start.client.as_deref();
    if let Some(wait) = guesses.wait(client, service) {
        turn_away(stream, RefusalCode::Limit, later(wait)).await?;
        return Ok(Some(Judged::Later(wait)));
    }
    let nonce = auth::nonce();
    speech::write_message(stream, &Message::Dare(nonce)).await?;
    let Message::Answer(answer) = speech::read_message(stream, LOGIN_LIMIT).await? else { return Ok(None) };
    let expected = auth::visitor_proof(secret, service, &nonce, &answer.nonce);
    let judged = guesses.judge(client, service, nonce, || auth::is_same(&answer.mac, &expected));
    match judged {
        Judged::Right => {
            let proof = auth::owner_proof(secret, service, &nonce, &answer.nonce);
            speech::write_message(stream, &Message::Granted(proof)).await?;
        }
        Judged::Wrong => {
            turn_away(stream, RefusalCode::Unauthenticated, "the secret is wrong".to_owned()).await?;
        }
        Judged::Later(wait) => turn_away(stream, RefusalCode::Limit, later(wait)).await?,
    }
    Ok(Some(judged))
}

fn later(wait: Duration) -> String {
    format!("too many wrong secrets: try again in {} s", wait.as_millis().div_ceil(1000))
}

/// Has a visitor know why it is not let in.
async fn turn_away(stream: &Stream, code: RefusalCode, text: String) -> Result<(), SpeechError> {
    speech::write_message(stream, &Message::Refused(Refusal { code, text })).await?;
    // The visitor closes when it has heard that, and the reset of the stream is not to overtake it. Without an end of this
    // direction: behind one the server would not see the reset, and wait for a visitor that stays.
    let _ = timeout(LAST_WORD, speech::read_message(stream, LOGIN_LIMIT)).await;
    Ok(())
}

/// Proves to a service's owner that the secret is known, and has it prove the same.
pub(super) async fn tell(stream: &Stream, spec: &VisitSpec) -> Result<(), ConnectError> {
    let late = |_| ConnectError::new(Fault::TimedOut, format!("{} did not answer in time", spec.service));
    timeout(PATIENCE, tell_at_last(stream, spec)).await.map_err(late)?
}

async fn tell_at_last(stream: &Stream, spec: &VisitSpec) -> Result<(), ConnectError> {
    let owner = match hear(stream).await? {
        Message::Dare(nonce) => nonce,
        other => return Err(unexpected(other)),
    };
    let nonce = auth::nonce();
    let mac = auth::visitor_proof(&spec.secret, &spec.service, &owner, &nonce);
    speech::write_message(stream, &Message::Answer(Answer { mac, nonce })).await?;
    let proof = match hear(stream).await? {
        Message::Granted(proof) => proof,
        other => return Err(unexpected(other)),
    };
    if auth::is_same(&proof, &auth::owner_proof(&spec.secret, &spec.service, &owner, &nonce)) {
        return Ok(());
    }
    let text = format!("who answers for {} does not know its secret", spec.service);
    Err(ConnectError::new(Fault::Unauthorized, text))
}

async fn hear(stream: &Stream) -> Result<Message, ConnectError> {
    speech::read_message(stream, LOGIN_LIMIT).await.map_err(|error| match error {
        SpeechError::Ended => ConnectError::new(Fault::Reset, "the other end has left"),
        SpeechError::Io(error) => error.into(),
        SpeechError::Codec(error) => ConnectError::new(Fault::Broken, error.to_string()),
    })
}

/// What it means when something else is said than what comes next.
fn unexpected(message: Message) -> ConnectError {
    let Message::Refused(refusal) = message else {
        return ConnectError::new(Fault::Broken, "the other end broke the protocol");
    };
    let fault = match refusal.code {
        RefusalCode::Unauthenticated => Fault::Unauthorized,
        RefusalCode::Limit => Fault::Limited,
        RefusalCode::NotGranted => Fault::Denied,
        RefusalCode::NoSession => Fault::HopDown,
        _ => Fault::HostUnreachable,
    };
    ConnectError::new(fault, plain(&refusal.text))
}
