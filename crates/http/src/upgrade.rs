//! Connections that become something other than HTTP, such as a WebSocket (RFC 9110 section 7.8).

use wmproxy_net::record::Outcome;
use wmproxy_net::relay::{Terms, relay};
use wmproxy_net::stream::Stream;
use wmproxy_wire::head::{Fields, Known, Version};
use wmproxy_wire::http1::Length;

use crate::endpoint::onward;
use crate::exchange::{Answer, End, Exchange, Front};
use crate::reply::Failure;

/// What the client wants its connection to become, if anything that can be passed on. Not with a body, behind which it could not
/// be told where the new protocol begins, and not HTTP/2: its requests would go past every route and filter.
pub(crate) fn wanted(ex: &Exchange<'_, '_>) -> Option<Box<[u8]>> {
    let fields = &ex.request.fields;
    let is_asked = ex.request.version == Version::Http11
        && ex.body == Length::None
        && fields.list(Known::Connection).any(|option| option.eq_ignore_ascii_case(b"upgrade"));
    let protocol = fields.get(Known::Upgrade).filter(|_| is_asked)?;
    let is_http = |name: &[u8]| {
        let name = name.trim_ascii();
        name.eq_ignore_ascii_case(b"h2c") || name.to_ascii_lowercase().starts_with(b"http")
    };
    (!protocol.split(|&byte| byte == b',').any(is_http)).then(|| protocol.into())
}

/// Whether the peer chose what the client had asked for.
fn is_granted(fields: &Fields, wanted: &[u8]) -> bool {
    let mut chosen = fields.list(Known::Upgrade);
    let Some(first) = chosen.next() else { return false };
    let is_wanted = |name: &[u8]| name.trim_ascii().eq_ignore_ascii_case(first);
    chosen.next().is_none() && wanted.split(|&byte| byte == b',').any(is_wanted)
}

/// Tells the client that its connection is what it wanted from now on, and relays it to its end. What either side has sent
/// ahead goes first.
pub(crate) async fn run(
    ex: &mut Exchange<'_, '_>,
    peer: &Stream,
    answer: Answer,
    wanted: &[u8],
) -> Result<End, Failure> {
    if !is_granted(&ex.response.fields, wanted) {
        return Err(Failure::Status(502));
    }
    let chosen = ex.response.fields.get(Known::Upgrade).map(<[u8]>::to_vec).unwrap_or_default();
    onward::strip(&mut ex.response.fields);
    ex.response.fields.push_known(Known::Connection, b"Upgrade");
    ex.response.fields.push_known(Known::Upgrade, &chosen);
    ex.has_begun = true;
    ex.facts.status = 101;
    ex.is_persistent = false;
    peer.unread(answer.scratch.at(&answer.place).to_vec());
    drop(answer);
    if ex.send_interim().await.is_err() {
        return Ok(End::Cut(Outcome::ClientReset));
    }
    let Front::H1(client, wire) = &mut ex.front else { return Err(Failure::Status(501)) };
    client.unread(wire.take_ahead());
    let spec = ex.service.spec();
    let terms = Terms { splice: spec.splice, ..Terms::new(spec.timeouts.upgrade.get()) };
    let before = ex.record.borrow().bytes();
    let mut record = ex.record.borrow_mut();
    let outcome = relay(client, peer, terms, &mut record).await;
    let after = record.bytes();
    ex.facts.bytes_in += after.0 - before.0;
    ex.facts.bytes_out += after.1 - before.1;
    Ok(End::Upgraded(outcome))
}
