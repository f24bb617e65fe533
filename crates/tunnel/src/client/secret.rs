//! The secret of a private service: owner and visitor prove it to each other, through a server that does not learn it.

use std::time::Duration;

use tokio::time::timeout;
use wmproxy_net::connect::{ConnectError, Fault};
use wmproxy_net::stream::Stream;
use wmproxy_wire::tunnel::codec::LOGIN_LIMIT;
use wmproxy_wire::tunnel::message::{Answer, Message, Refusal, RefusalCode, Start};

use super::session::plain;
use crate::auth;
use crate::carrier::speech::{self, SpeechError};
use crate::options::{ServiceSpec, VisitSpec};

/// How long the other end may take to prove that it knows the secret: two ways through a server.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks a visitor for the secret, and proves it, as the owner of a service. `client` is the owner's name.
pub(super) async fn ask(
    stream: &Stream,
    client: &str,
    spec: &ServiceSpec,
    start: &Start,
) -> Result<(), Refusal> {
    let who = start.client.as_deref().map_or("somebody without a name".to_owned(), plain);
    let refusal = |code, text: String| Refusal { code, text };
    let Some(secret) = &spec.secret else {
        return Err(refusal(RefusalCode::NoService, "the service has no secret".to_owned()));
    };
    let service = format!("{client}/{}", spec.service.name);
    let asked = async {
        let nonce = auth::nonce();
        speech::write_message(stream, &Message::Dare(nonce)).await?;
        let answer = match speech::read_message(stream, LOGIN_LIMIT).await? {
            Message::Answer(answer) => answer,
            _ => return Ok(false),
        };
        if !auth::is_same(&answer.mac, &auth::visitor_proof(secret, &service, &nonce, &answer.nonce)) {
            let wrong = refusal(RefusalCode::Unauthenticated, "the secret is wrong".to_owned());
            speech::write_message(stream, &Message::Refused(wrong)).await?;
            // Or the reset of the stream may overtake it.
            let _ = std::future::poll_fn(|cx| stream.poll_shutdown_write(cx)).await;
            let _ = speech::read_message(stream, LOGIN_LIMIT).await;
            return Ok(false);
        }
        let granted = Message::Granted(auth::owner_proof(secret, &service, &nonce, &answer.nonce));
        speech::write_message(stream, &granted).await?;
        Ok::<_, SpeechError>(true)
    };
    match timeout(PATIENCE, asked).await {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => {
            tracing::warn!(service, visitor = who, "a visitor does not know the service's secret");
            Err(refusal(RefusalCode::Unauthenticated, format!("{who} does not know the secret")))
        }
        Ok(Err(error)) => {
            Err(refusal(RefusalCode::Other, format!("{who} left before it was let in: {error}")))
        }
        Err(_) => Err(refusal(RefusalCode::Other, format!("{who} did not answer in time"))),
    }
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
