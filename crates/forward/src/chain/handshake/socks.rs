//! SOCKS.

use std::net::SocketAddr;

use wmproxy_net::connect::Fault;
use wmproxy_net::stream::Stream;
use wmproxy_upstream::FailKind;
use wmproxy_wire::socks::v5::{self, method};
use wmproxy_wire::socks::{Command, Parsed, SocksError, Target, v4};

use super::{Progress, Refusal, Talk};

/// Name and password.
pub(in crate::chain) type Who<'a> = Option<(&'a str, &'a str)>;

/// Where a server has its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::chain) enum Bound {
    Address(SocketAddr),
    /// RFC 1928 allows it, and nobody does it.
    Name,
}

/// Asks a server of SOCKS 5 for a connection.
pub(in crate::chain) async fn socks5(
    stream: &Stream,
    who: Who<'_>,
    to: Target<'_>,
    progress: &mut Progress,
) -> Result<(), Refusal> {
    let mut talk = Talk::new(stream, progress);
    meet(&mut talk, who).await?;
    request(&mut talk, Command::Connect, to).await?;
    talk.end();
    Ok(())
}

/// Asks a server of SOCKS 5 for a relay of datagrams, and says where that is. They may come from any port of the address that
/// the stream comes from.
pub(in crate::chain) async fn associate(
    stream: &Stream,
    who: Who<'_>,
    progress: &mut Progress,
) -> Result<Bound, Refusal> {
    let mut talk = Talk::new(stream, progress);
    meet(&mut talk, who).await?;
    let anywhere = Target::Address(SocketAddr::from(([0; 4], 0)));
    let bound = request(&mut talk, Command::Associate, anywhere).await?;
    talk.end();
    Ok(bound)
}

/// Agrees on a method, and says who we are where the server wants to know.
async fn meet(talk: &mut Talk<'_>, who: Who<'_>) -> Result<(), Refusal> {
    // Most servers have an order of their own; those that take the first that they know are to know who comes.
    let methods: &[u8] = if who.is_some() { &[method::PASSWORD, method::NONE] } else { &[method::NONE] };
    let mut message = Vec::new();
    v5::write_greeting(&mut message, methods).map_err(too_long)?;
    talk.say(&message).await?;
    match (talk.next(v5::parse_choice).await?, who) {
        (method::NONE, _) => Ok(()),
        (method::PASSWORD, Some((name, password))) => {
            message.clear();
            let credentials = v5::Credentials { name: name.as_bytes(), password: password.as_bytes() };
            v5::write_credentials(&mut message, &credentials).map_err(too_long)?;
            talk.say(&message).await?;
            let is_believed = talk.next(v5::parse_verdict).await?;
            if is_believed { Ok(()) } else { Err(unauthorized("does not accept the user and password")) }
        }
        (method::UNACCEPTABLE, None) => {
            Err(unauthorized("wants to know who comes, and no user is set for it"))
        }
        (method::UNACCEPTABLE, Some(_)) => Err(unauthorized("takes no user and password")),
        (other, _) => Err(Refusal::broken(format!("it chose method {other:#04x}, which was not offered"))),
    }
}

async fn request(talk: &mut Talk<'_>, command: Command, target: Target<'_>) -> Result<Bound, Refusal> {
    let mut message = Vec::new();
    let written = v5::write_request(&mut message, &v5::Request { command, target });
    written.map_err(unsayable)?;
    talk.ask(&message).await?;
    let parse = |bytes: &[u8]| {
        Ok(match v5::parse_reply(bytes)? {
            Parsed::NeedMore(total) => Parsed::NeedMore(total),
            Parsed::Done(reply, used) => {
                let bound = match reply.bound {
                    Target::Address(address) => Bound::Address(address),
                    Target::Name(..) => Bound::Name,
                };
                Parsed::Done((reply.code, bound), used)
            }
        })
    };
    let (code, bound) = talk.next(parse).await?;
    let fault = match code {
        v5::Code::SUCCEEDED => return Ok(bound),
        v5::Code::NOT_ALLOWED => Fault::Denied,
        v5::Code::NETWORK_UNREACHABLE => Fault::NetworkUnreachable,
        v5::Code::HOST_UNREACHABLE => Fault::HostUnreachable,
        v5::Code::REFUSED => Fault::Refused,
        v5::Code::TTL_EXPIRED => Fault::TimedOut,
        v5::Code::COMMAND_UNSUPPORTED | v5::Code::ADDRESS_UNSUPPORTED => Fault::Unsupported,
        _ => Fault::Other,
    };
    Err(Refusal::of_destination(fault, format!("answers: {}", code.text())))
}

/// Asks a server of SOCKS 4 for a connection, or one of 4a where the target is a name.
pub(in crate::chain) async fn socks4(
    stream: &Stream,
    user_id: &str,
    target: Target<'_>,
    progress: &mut Progress,
) -> Result<(), Refusal> {
    let mut talk = Talk::new(stream, progress);
    let mut message = Vec::new();
    let request = v4::Request { command: Command::Connect, target, user_id: user_id.as_bytes() };
    v4::write_request(&mut message, &request).map_err(unsayable)?;
    talk.ask(&message).await?;
    let reply = talk.next(v4::parse_reply).await?;
    match reply.code {
        v4::Code::GRANTED => {
            talk.end();
            Ok(())
        }
        v4::Code::NO_IDENTD | v4::Code::OTHER_USER => Err(unauthorized("does not accept the user id")),
        code => Err(Refusal::of_destination(Fault::Other, format!("answers: {}", code.text()))),
    }
}

impl Talk<'_> {
    /// Waits for a message and takes it.
    async fn next<T>(
        &mut self,
        parse: impl Fn(&[u8]) -> Result<Parsed<T>, SocksError>,
    ) -> Result<T, Refusal> {
        // Ends soon: the longest of the messages, a reply with a name, has 262 bytes.
        loop {
            match parse(&self.came).map_err(Refusal::broken)? {
                Parsed::Done(message, used) => {
                    self.came.drain(..used);
                    return Ok(message);
                }
                Parsed::NeedMore(_) => self.hear().await?,
            }
        }
    }
}

fn unauthorized(text: &'static str) -> Refusal {
    Refusal::of_proxy(Fault::Unauthorized, FailKind::Unauthorized, text)
}

fn too_long(error: SocksError) -> Refusal {
    Refusal::of_proxy(
        Fault::Unauthorized,
        FailKind::Unauthorized,
        format!("can't be told who we are: {error}"),
    )
}

fn unsayable(error: SocksError) -> Refusal {
    Refusal::of_destination(Fault::Unsupported, format!("can't be asked for that: {error}"))
}
