//! Bytes to messages.

use super::fields::{Field, Fields};
use super::kinds::*;
use super::{CodecError, MAX_SERVICES};
use crate::tunnel::message::{
    Answer, Challenge, Failed, Form, Hello, HttpRules, Join, Kind, Message, Placed, Purpose, Refusal,
    RefusalCode, Register, Registered, Service, Start, State, Visit, Welcome,
};

type Read<T> = Result<T, CodecError>;

/// Reads the body of a message of a type that is known.
pub(super) fn message(kind: u16, body: &[u8]) -> Read<Message> {
    let body = Fields::new(body);
    Ok(match kind {
        HELLO => Message::Hello(hello(body)?),
        CHALLENGE => Message::Challenge(challenge(body)?),
        PROOF => Message::Proof(bytes(body, "MAC")?),
        WELCOME => Message::Welcome(welcome(body)?),
        REFUSED => Message::Refused(refusal(body)?),
        JOIN => Message::Join(join(body)?),
        REGISTER => Message::Register(register(body)?),
        REGISTERED => Message::Registered(registered(body)?),
        STATE => Message::State(state(body)?),
        PING => Message::Ping(number(body, Field::u64)?),
        PONG => Message::Pong(number(body, Field::u64)?),
        NEED => Message::Need(number(body, Field::u32)?),
        START => Message::Start(start(body)?),
        VISIT => Message::Visit(visit(body)?),
        DARE => Message::Dare(bytes(body, "nonce")?),
        ANSWER => Message::Answer(answer(body)?),
        GRANTED => Message::Granted(bytes(body, "MAC")?),
        FAILED => Message::Failed(failed(body)?),
        LEAVING => {
            each(body, |_| Ok(()))?;
            Message::Leaving
        }
        other => return Err(CodecError::UnknownType(other)),
    })
}

/// Gives every field to `take`, which passes over those that it does not know.
fn each<'a>(mut fields: Fields<'a>, mut take: impl FnMut(Field<'a>) -> Read<()>) -> Read<()> {
    while let Some(field) = fields.next()? {
        take(field)?;
    }
    Ok(())
}

/// The number that a message has as its only field.
fn number<'a, T: Default>(fields: Fields<'a>, read: fn(Field<'a>) -> Read<T>) -> Read<T> {
    let mut number = T::default();
    each(fields, |field| {
        if field.tag == 1 {
            number = read(field)?;
        }
        Ok(())
    })?;
    Ok(number)
}

/// The bytes that a message has as its only field.
fn bytes<const N: usize>(fields: Fields<'_>, what: &'static str) -> Read<[u8; N]> {
    let mut bytes = None;
    each(fields, |field| {
        if field.tag == 1 {
            bytes = Some(field.array()?);
        }
        Ok(())
    })?;
    bytes.ok_or(CodecError::Missing(what))
}

fn hello(fields: Fields<'_>) -> Read<Hello> {
    let (mut it, mut nonce) = (Hello::default(), None);
    each(fields, |field| {
        match field.tag {
            1 => it.version = field.u16()?,
            2 => it.capabilities = field.u64()?,
            3 => it.name = field.text()?,
            4 => nonce = Some(field.array()?),
            5 => it.agent = field.text()?,
            _ => {}
        }
        Ok(())
    })?;
    it.nonce = nonce.ok_or(CodecError::Missing("nonce"))?;
    Ok(it)
}

fn challenge(fields: Fields<'_>) -> Read<Challenge> {
    let (mut it, mut nonce) = (Challenge::default(), None);
    each(fields, |field| {
        match field.tag {
            1 => it.version = field.u16()?,
            2 => it.capabilities = field.u64()?,
            3 => nonce = Some(field.array()?),
            _ => {}
        }
        Ok(())
    })?;
    it.nonce = nonce.ok_or(CodecError::Missing("nonce"))?;
    Ok(it)
}

fn welcome(fields: Fields<'_>) -> Read<Welcome> {
    let (mut it, mut session, mut secret, mut mac) = (Welcome::default(), None, None, None);
    each(fields, |field| {
        match field.tag {
            1 => session = Some(field.array()?),
            2 => secret = Some(field.array()?),
            3 => mac = Some(field.array()?),
            4 => it.heartbeat_ms = field.u32()?,
            5 => it.max_pool = field.u32()?,
            6 => it.agent = field.text()?,
            _ => {}
        }
        Ok(())
    })?;
    it.session = session.ok_or(CodecError::Missing("session"))?;
    it.secret = secret.ok_or(CodecError::Missing("secret"))?;
    it.mac = mac.ok_or(CodecError::Missing("MAC"))?;
    Ok(it)
}

fn refusal(fields: Fields<'_>) -> Read<Refusal> {
    let mut it = Refusal { code: RefusalCode::Other, text: String::new() };
    each(fields, |field| {
        match field.tag {
            1 => it.code = refusal_code(field.u16()?),
            2 => it.text = field.text()?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(it)
}

pub(super) fn refusal_code(code: u16) -> RefusalCode {
    use RefusalCode::*;
    [
        Version,
        Unauthenticated,
        NoSession,
        Limit,
        NotGranted,
        InUse,
        Invalid,
        NoService,
        Unavailable,
        System,
        Leaving,
    ]
    .into_iter()
    .find(|known| *known as u16 == code)
    .unwrap_or(Other)
}

fn join(fields: Fields<'_>) -> Read<Join> {
    let (mut session, mut purpose, mut mac) = (None, Purpose::Wait, None);
    each(fields, |field| {
        match field.tag {
            1 => session = Some(field.array()?),
            2 => {
                purpose = match field.byte()? {
                    0 => Purpose::Wait,
                    1 => Purpose::Many,
                    2 => Purpose::Visit,
                    _ => return Err(CodecError::Malformed("an unknown purpose")),
                }
            }
            3 => mac = Some(field.array()?),
            _ => {}
        }
        Ok(())
    })?;
    Ok(Join {
        session: session.ok_or(CodecError::Missing("session"))?,
        purpose,
        mac: mac.ok_or(CodecError::Missing("MAC"))?,
    })
}

fn register(fields: Fields<'_>) -> Read<Register> {
    let mut it = Register::default();
    each(fields, |field| {
        match field.tag {
            1 => it.epoch = field.u64()?,
            2 => field
                .push_within(&mut it.services, MAX_SERVICES, "services", |field| service(field.fields()?))?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(it)
}

fn service(fields: Fields<'_>) -> Read<Service> {
    let mut it = Service::default();
    each(fields, |field| {
        match field.tag {
            1 => it.id = field.u32()?,
            2 => it.name = field.text()?,
            3 => it.kind = kind(field)?,
            4 => it.is_private = field.flag()?,
            5 => it.port = field.u16()?,
            6 => field.push(&mut it.hosts, Field::text)?,
            7 => field.push(&mut it.paths, Field::text)?,
            8 => field.push(&mut it.visitors, Field::text)?,
            9 => field.push(&mut it.clients, Field::text)?,
            10 => it.group = Some(field.text()?),
            11 => it.is_up = field.flag()?,
            12 => it.terminate = field.flag()?,
            13 => it.max_connections = field.u32()?,
            14 => it.rate_up = field.u64()?,
            15 => it.rate_down = field.u64()?,
            16 => it.http = http_rules(field.fields()?)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(it)
}

fn kind(field: Field<'_>) -> Read<Kind> {
    Ok(match field.byte()? {
        0 => Kind::Tcp,
        1 => Kind::Udp,
        2 => Kind::Http,
        3 => Kind::Https,
        4 => Kind::Proxy,
        _ => return Err(CodecError::Malformed("an unknown kind of service")),
    })
}

fn http_rules(fields: Fields<'_>) -> Read<HttpRules> {
    let mut it = HttpRules::default();
    each(fields, |field| {
        match field.tag {
            1 => field.push(&mut it.users, pair)?,
            2 => it.host = Some(field.text()?),
            3 => field.push(&mut it.set_request, pair)?,
            4 => field.push(&mut it.remove_request, Field::text)?,
            5 => field.push(&mut it.set_response, pair)?,
            6 => field.push(&mut it.remove_response, Field::text)?,
            7 => it.is_h2c = field.flag()?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(it)
}

fn pair(field: Field<'_>) -> Read<(String, String)> {
    let mut it = (String::new(), String::new());
    each(field.fields()?, |field| {
        match field.tag {
            1 => it.0 = field.text()?,
            2 => it.1 = field.text()?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(it)
}

fn registered(fields: Fields<'_>) -> Read<Registered> {
    let mut it = Registered::default();
    each(fields, |field| {
        match field.tag {
            1 => it.epoch = field.u64()?,
            2 => field
                .push_within(&mut it.results, MAX_SERVICES, "results", |field| placed(field.fields()?))?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(it)
}

fn placed(fields: Fields<'_>) -> Read<Placed> {
    let (mut id, mut places, mut refused) = (0, Vec::new(), None);
    each(fields, |field| {
        match field.tag {
            1 => id = field.u32()?,
            2 => field.push(&mut places, Field::text)?,
            3 => refused = Some(refusal(field.fields()?)?),
            _ => {}
        }
        Ok(())
    })?;
    match refused {
        Some(_) if !places.is_empty() => {
            Err(CodecError::Malformed("a service that is refused and has places"))
        }
        Some(refusal) => Ok(Placed { id, result: Err(refusal) }),
        None => Ok(Placed { id, result: Ok(places) }),
    }
}

fn state(fields: Fields<'_>) -> Read<State> {
    let mut it = State { id: 0, is_up: false };
    each(fields, |field| {
        match field.tag {
            1 => it.id = field.u32()?,
            2 => it.is_up = field.flag()?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(it)
}

fn form(field: Field<'_>) -> Read<Form> {
    match field.byte()? {
        0 => Ok(Form::Bytes),
        1 => Ok(Form::Datagrams),
        _ => Err(CodecError::Malformed("an unknown form of what follows")),
    }
}

fn start(fields: Fields<'_>) -> Read<Start> {
    let mut it = Start { service: 0, form: Form::Bytes, visitor: None, local: None, client: None };
    each(fields, |field| {
        match field.tag {
            1 => it.service = field.u32()?,
            2 => it.form = form(field)?,
            3 => it.visitor = Some(field.address()?),
            4 => it.local = Some(field.address()?),
            5 => it.client = Some(field.text()?),
            _ => {}
        }
        Ok(())
    })?;
    Ok(it)
}

fn visit(fields: Fields<'_>) -> Read<Visit> {
    let mut it = Visit { service: String::new(), form: Form::Bytes, visitor: None };
    each(fields, |field| {
        match field.tag {
            1 => it.service = field.text()?,
            2 => it.form = form(field)?,
            3 => it.visitor = Some(field.address()?),
            _ => {}
        }
        Ok(())
    })?;
    Ok(it)
}

fn answer(fields: Fields<'_>) -> Read<Answer> {
    let (mut mac, mut nonce) = (None, None);
    each(fields, |field| {
        match field.tag {
            1 => mac = Some(field.array()?),
            2 => nonce = Some(field.array()?),
            _ => {}
        }
        Ok(())
    })?;
    Ok(Answer {
        mac: mac.ok_or(CodecError::Missing("MAC"))?,
        nonce: nonce.ok_or(CodecError::Missing("nonce"))?,
    })
}

fn failed(fields: Fields<'_>) -> Read<Failed> {
    let mut it = Failed { service: 0, refusal: Refusal { code: RefusalCode::Other, text: String::new() } };
    each(fields, |field| {
        match field.tag {
            1 => it.service = field.u32()?,
            2 => it.refusal = refusal(field.fields()?)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(it)
}
