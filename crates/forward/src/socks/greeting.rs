//! Who a client is, and what it wants.

use std::sync::Arc;

use wmproxy_http::facts::ConnFacts;
use wmproxy_http::forward::{Guest, Unknown};
use wmproxy_net::record::{Outcome, Record};
use wmproxy_wire::socks::v5::method;
use wmproxy_wire::socks::{v4, v5};

use super::reply::{Version, outcome_of};
use super::talk::Talk;
use super::{Asked, Refused};
use crate::service::ForwardService;

/// The longest user id of SOCKS 4, and the longest name of 4a: as much as SOCKS 5 can say.
const MAX_TEXT: usize = 255;

/// Hears the handshake up to the request.
pub(super) async fn hear(
    talk: &mut Talk<'_>,
    service: &ForwardService,
    version: Version,
    record: &mut Record,
    facts: &ConnFacts,
) -> Result<Asked, Refused> {
    match version {
        Version::V4 => hear_v4(talk, service, record, facts).await,
        Version::V5 => hear_v5(talk, service, record, facts).await,
    }
}

async fn hear_v4(
    talk: &mut Talk<'_>,
    service: &ForwardService,
    record: &mut Record,
    facts: &ConnFacts,
) -> Result<Asked, Refused> {
    let parse = |bytes: &[u8]| {
        let request = v4::parse_request(bytes, MAX_TEXT)?;
        Ok(request.map(|request| {
            let user_id = (!request.user_id.is_empty()).then(|| lossy(request.user_id));
            (request.command, request.target.destination(), user_id)
        }))
    };
    let (command, to, user_id) = talk.hear(parse).await?;
    // There is no password: a certificate proves who it is, or nobody has to.
    let guest = service.gateway().admit_nobody(facts)?;
    record.forwarded_mut().user = guest.name().cloned().or(user_id);
    Ok(Asked { command, to, guest })
}

/// As a log can have it.
fn lossy(text: &[u8]) -> Arc<str> {
    String::from_utf8_lossy(text).into()
}

async fn hear_v5(
    talk: &mut Talk<'_>,
    service: &ForwardService,
    record: &mut Record,
    facts: &ConnFacts,
) -> Result<Asked, Refused> {
    let needs_password = service.gateway().needs_password(facts);
    let wanted = if needs_password { method::PASSWORD } else { method::NONE };
    let offers = |bytes: &[u8]| Ok(v5::parse_greeting(bytes)?.map(|methods| methods.contains(&wanted)));
    if !talk.hear(offers).await? {
        talk.say().extend_from_slice(&v5::choice(method::UNACCEPTABLE));
        return Err(Refused::Parted(Outcome::Unauthenticated));
    }
    talk.say().extend_from_slice(&v5::choice(wanted));
    let admitted = if needs_password {
        prove(talk, service, facts).await?
    } else {
        service.gateway().admit_nobody(facts)
    };
    if let Ok(guest) = &admitted {
        record.forwarded_mut().user = guest.name().cloned();
    }
    let parse = |bytes: &[u8]| {
        let request = v5::parse_request(bytes)?;
        Ok(request.map(|request| (request.command, request.target.destination())))
    };
    let (command, to) = talk.hear(parse).await?;
    // Who is known, and may not come now, is told so in reply to the request: the password was right.
    Ok(Asked { command, to, guest: admitted? })
}

/// Has a client prove who it is by a password.
async fn prove(
    talk: &mut Talk<'_>,
    service: &ForwardService,
    facts: &ConnFacts,
) -> Result<Result<Arc<dyn Guest>, Unknown>, Refused> {
    let parse = |bytes: &[u8]| {
        let credentials = v5::parse_credentials(bytes)?;
        Ok(credentials.map(|said| (said.name.to_vec(), said.password.to_vec())))
    };
    let (name, password) = talk.hear(parse).await?;
    let patience = service.patience();
    let admitted = service.gateway().admit_password(facts, &name, &password).await;
    if let Err(unknown @ (Unknown::Unauthenticated | Unknown::Later(_))) = admitted {
        if let Unknown::Later(wait) = unknown {
            // It can't be told to come later, so that it waits here, as long as it may take for anything else.
            tokio::time::sleep(wait.min(patience)).await;
        }
        talk.say().extend_from_slice(&v5::verdict(false));
        return Err(Refused::Parted(outcome_of(unknown)));
    }
    talk.say().extend_from_slice(&v5::verdict(true));
    // The time that comparing took is not the client's.
    talk.extend(patience);
    Ok(admitted)
}
