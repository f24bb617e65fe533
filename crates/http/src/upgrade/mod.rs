//! Connections that become something other than HTTP, such as a WebSocket: by an upgrade in HTTP/1 (RFC 9110 section 7.8),
//! by an extended CONNECT in HTTP/2 (RFC 8441), and from either to the other.
//!
//! Inside, both are a GET that wants a protocol, so that routes and filters need not know which of them it was. What only
//! one of them has is put in when it is known what the peer speaks: the key of a WebSocket's handshake, above all.

pub(crate) mod tunnel;

use wmproxy_net::record::Outcome;
use wmproxy_net::relay::{Terms, relay};
use wmproxy_net::stream::Stream;
use wmproxy_runtime::entropy;
use wmproxy_wire::head::{Fields, Known, Request, Version};
use wmproxy_wire::http1::Length;
use wmproxy_wire::websocket::handshake::{ACCEPT_LEN, accept_key, key_text};

use crate::endpoint::onward;
use crate::exchange::{Answer, End, Exchange, Front, Line};
use crate::reply::Failure;

/// The protocol whose handshake has a key (RFC 6455).
const WEBSOCKET: &[u8] = b"websocket";

/// What a client wants its connection, or its stream, to become.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// By its name. In HTTP/1 there may be several, by commas, of which the peer chooses.
    protocols: Box<[u8]>,
    /// For a WebSocket, what proves that the other end understood: the client's, or ours where it speaks HTTP/2.
    key: Option<String>,
}

/// What the client wants its connection to become, if anything that can be passed on. Not with a body, behind which it could
/// not be told where the new protocol begins, and not HTTP/2: its requests would go past every route and filter.
pub(crate) fn wanted(ex: &mut Exchange<'_, '_>) -> Option<Wanted> {
    if let Some(protocol) = ex.request.protocol() {
        let key = is(protocol, WEBSOCKET).then(own_key);
        return Some(Wanted { protocols: protocol.into(), key });
    }
    let fields = &ex.request.fields;
    let is_asked = ex.request.version == Version::Http11
        && ex.body == Length::None
        && fields.list(Known::Connection).any(|option| is(option, b"upgrade"));
    let protocols = fields.get(Known::Upgrade).filter(|_| is_asked)?;
    let is_http = |name: &[u8]| is(name, b"h2c") || name.to_ascii_lowercase().starts_with(b"http");
    if split(protocols).any(is_http) {
        return None;
    }
    let key = fields.get(Known::SecWebSocketKey).and_then(|key| String::from_utf8(key.to_vec()).ok());
    let wanted = Wanted { protocols: protocols.into(), key };
    ex.request.set_protocol(wanted.first());
    Some(wanted)
}

impl Wanted {
    /// As the field Upgrade says it.
    pub(crate) fn protocols(&self) -> &[u8] {
        &self.protocols
    }

    fn first(&self) -> &[u8] {
        split(&self.protocols).next().unwrap_or_default()
    }

    /// Makes the request one that a peer understands on this line. In HTTP/2 a WebSocket has no key: the stream is proof
    /// enough (RFC 8441 section 5).
    ///
    /// # Errors
    /// The client's part of it is missing.
    pub(crate) fn fit(&self, request: &mut Request, line: &Line) -> Result<(), Failure> {
        match (line, &self.key) {
            (Line::H1(_), None) => {}
            (Line::H1(_), Some(key)) => request.fields.set(Known::SecWebSocketKey, key.as_bytes()),
            (Line::H2(_), None) if is(self.first(), WEBSOCKET) => return Err(Failure::Status(400)),
            (Line::H2(_), _) => {
                request.fields.remove(Known::SecWebSocketKey);
            }
        }
        Ok(())
    }

    /// Whether the response that is there grants it. False is an ordinary response, to be passed on.
    ///
    /// # Errors
    /// It is neither: a 502.
    pub(crate) fn is_granted(&self, ex: &Exchange<'_, '_>, line: &Line) -> Result<bool, Failure> {
        let (status, fields) = (ex.response.status, &ex.response.fields);
        let is_success = (200..300).contains(&status);
        let is_h2_client = matches!(ex.front, Front::H2(_));
        match line {
            Line::H1(_) if status == 101 => {
                let is_proven = || {
                    let proof = self.key.as_deref().map(accept_key);
                    proof.is_none_or(|proof| fields.get(Known::SecWebSocketAccept) == Some(&proof))
                };
                // A client of HTTP/1 sees for itself.
                let is_good = self.chosen(fields).is_some() && (!is_h2_client || is_proven());
                if is_good { Ok(true) } else { Err(Failure::Status(502)) }
            }
            // What is a refusal here would be a grant there.
            Line::H1(_) if is_success && is_h2_client => Err(Failure::Status(502)),
            Line::H1(_) => Ok(false),
            Line::H2(_) if status == 101 => Err(Failure::Status(502)),
            Line::H2(_) => Ok(is_success),
        }
    }

    /// What the peer chose of it.
    fn chosen<'f>(&self, fields: &'f Fields) -> Option<&'f [u8]> {
        let mut chosen = fields.list(Known::Upgrade);
        let first = chosen.next()?;
        (chosen.next().is_none() && split(&self.protocols).any(|name| is(name, first))).then_some(first)
    }

    fn proof(&self) -> Option<[u8; ACCEPT_LEN]> {
        self.key.as_deref().filter(|_| is(self.first(), WEBSOCKET)).map(accept_key)
    }
}

/// Tells the client that its connection is what it wanted from now on, and passes on what it and the peer say to its end. What
/// either side has sent ahead goes first.
pub(crate) async fn run(
    ex: &mut Exchange<'_, '_>,
    line: &mut Line,
    answer: Answer,
    wanted: &Wanted,
) -> Result<End, Failure> {
    grant(ex, line, wanted);
    if let (Front::H1(..), Line::H1(peer)) = (&ex.front, &*line) {
        peer.unread(answer.scratch.at(&answer.place).to_vec());
    } else {
        line.back(ex.back).keep(answer.scratch.at(&answer.place));
    }
    drop(answer);
    if matches!(ex.front, Front::H1(..))
        && let Err(cut) = ex.send_interim().await
    {
        return Ok(End::Cut(cut.outcome()));
    }
    let outcome = match line {
        Line::H1(peer) if ex.front.stream().is_some() => pass_all(ex, peer).await,
        line => tunnel::run(ex, line).await,
    };
    Ok(End::Upgraded(outcome))
}

/// Makes the peer's response the one that a client understands.
fn grant(ex: &mut Exchange<'_, '_>, line: &Line, wanted: &Wanted) {
    let fields = &mut ex.response.fields;
    let chosen = wanted.chosen(fields).unwrap_or(wanted.first()).to_vec();
    onward::strip(fields);
    // Of a body there is none, whatever it says.
    fields.remove(Known::ContentLength);
    match ex.front {
        Front::H1(..) => {
            if let (Line::H2(_), Some(proof)) = (line, wanted.proof()) {
                fields.set(Known::SecWebSocketAccept, &proof);
            }
            fields.push_known(Known::Connection, b"Upgrade");
            fields.push_known(Known::Upgrade, &chosen);
            ex.response.set_status(101);
        }
        Front::H2(_) => {
            fields.remove(Known::SecWebSocketAccept);
            if ex.response.status == 101 {
                ex.response.set_status(200);
            }
        }
    }
    ex.has_begun = true;
    ex.facts.status = ex.response.status;
    ex.is_persistent = false;
}

/// Relays one socket to the other.
#[expect(clippy::await_holding_refcell_ref, reason = "the connection is this request's alone until it ends")]
async fn pass_all(ex: &mut Exchange<'_, '_>, peer: &Stream) -> Outcome {
    // Only called where it is one.
    let Front::H1(client, wire) = &mut ex.front else { return Outcome::Done };
    client.unread(wire.take_ahead());
    let spec = ex.service.spec();
    let terms = Terms { splice: spec.splice, ..Terms::new(spec.timeouts.upgrade.get()) };
    let terms = match &ex.guest {
        Some(guest) => guest.terms(terms, ex.permit),
        None => terms,
    };
    let before = ex.record.borrow().bytes();
    let mut record = ex.record.borrow_mut();
    let outcome = relay(client, peer, terms, &mut record).await;
    let after = record.bytes();
    ex.facts.bytes_in += after.0 - before.0;
    ex.facts.bytes_out += after.1 - before.1;
    outcome
}

/// The names of a list.
fn split(names: &[u8]) -> impl Iterator<Item = &[u8]> {
    names.split(|&byte| byte == b',').map(<[u8]>::trim_ascii)
}

/// Whether a name is another, in whatever case.
fn is(name: &[u8], other: &[u8]) -> bool {
    name.eq_ignore_ascii_case(other)
}

fn own_key() -> String {
    let mut nonce = [0; 16];
    entropy::fill(&mut nonce);
    key_text(nonce)
}
