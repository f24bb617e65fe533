//! CONNECT (RFC 9110 section 9.3.6) over HTTP/1.1.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use wmproxy_http::forward::pseudonym;
use wmproxy_net::connect::Fault;
use wmproxy_net::stream::Stream;
use wmproxy_upstream::FailKind;
use wmproxy_wire::destination::Destination;
use wmproxy_wire::head::{Known, Request, Response};
use wmproxy_wire::http1::{HeadLimits, read_response, write_request};

use super::socks::Who;
use super::{Progress, Refusal, Talk};

/// What the answer's head may be: more than any proxy says, and little enough to hold for everybody who waits.
const LIMITS: HeadLimits = HeadLimits { bytes: 16 * 1024, target: 0, fields: 100, any_host: false };

/// Interim answers (RFC 9110 section 15.2) that are skipped. CONNECT calls for none, and a proxy that says nothing else would
/// go on for ever.
const INTERIM: usize = 8;

/// Asks a proxy for a connection.
pub(in crate::chain) async fn connect(
    stream: &Stream,
    who: Who<'_>,
    to: &Destination,
    progress: &mut Progress,
) -> Result<(), Refusal> {
    let mut talk = Talk::new(stream, progress);
    let mut message = Vec::new();
    write_request(&request(to, who), &mut message);
    talk.ask(&message).await?;
    let mut response = Response::new();
    for _ in 0..=INTERIM {
        talk.head(&mut response).await?;
        match response.status {
            // Behind that nothing is HTTP any more.
            101 => break,
            100..=199 => {}
            // Whatever its fields say of a body: it has none (RFC 9110 section 9.3.6).
            200..=299 => {
                talk.end();
                return Ok(());
            }
            status => return Err(refusal(status, who.is_some())),
        }
    }
    Err(Refusal::broken(format!("status {}", response.status)))
}

/// The request for a connection.
fn request(to: &Destination, who: Who<'_>) -> Request {
    let mut request = Request::new();
    request.set_method(b"CONNECT");
    let authority = to.to_string();
    request.set_target(authority.as_bytes());
    request.set_authority(authority.as_bytes());
    if let Some(authorization) = authorization(who) {
        request.fields.push_known(Known::ProxyAuthorization, authorization.as_bytes());
    }
    // A chain that leads back to us ends here at its second round.
    request.fields.push_known(Known::Via, format!("1.1 {}", pseudonym()).as_bytes());
    request
}

/// The value of `Proxy-Authorization` (RFC 7617).
pub(in crate::chain) fn authorization(who: Who<'_>) -> Option<String> {
    who.map(|(name, password)| format!("Basic {}", STANDARD.encode(format!("{name}:{password}"))))
}

/// What an answer other than yes means.
pub(in crate::chain) fn refusal(status: u16, said_who: bool) -> Refusal {
    let fault = match status {
        407 => {
            let text = if said_who {
                "does not accept the user and password (407)"
            } else {
                "wants to know who comes (407), and no user is set for it"
            };
            return Refusal::of_proxy(Fault::Unauthorized, FailKind::Unauthorized, text);
        }
        // A server that is no proxy, or none that lets anybody through.
        404 | 405 | 501 => {
            let text = format!("does not know CONNECT: it answers {status}");
            return Refusal::of_proxy(Fault::Broken, FailKind::Status, text);
        }
        403 | 451 => Fault::Denied,
        429 => Fault::Limited,
        // What is wrong with the destination is said by one of these, whatever it is.
        502 | 503 => Fault::HostUnreachable,
        504 => Fault::TimedOut,
        _ => Fault::Other,
    };
    Refusal::of_destination(fault, format!("answers {status}"))
}

impl Talk<'_> {
    /// Waits for the head of an answer and takes it.
    async fn head(&mut self, into: &mut Response) -> Result<(), Refusal> {
        // Looked at when a line has ended, or one that comes byte by byte would be read once for each of them.
        let mut looked = 0;
        loop {
            if self.came[looked..].contains(&b'\n') || self.came.len() >= LIMITS.bytes {
                let read = read_response(&self.came, &LIMITS, into);
                if let Some(used) = read.map_err(Refusal::broken)? {
                    self.came.drain(..used);
                    return Ok(());
                }
            }
            looked = self.came.len();
            self.hear().await?;
        }
    }
}
