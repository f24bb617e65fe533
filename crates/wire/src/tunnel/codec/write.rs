//! Messages to bytes.

use super::fields::Writer;
use super::kinds::*;
use crate::tunnel::message::{
    Answer, Challenge, Failed, Hello, HttpRules, Join, Message, Placed, Refusal, Register, Registered,
    Service, Start, State, Visit, Welcome,
};

pub(super) fn message(message: &Message, out: &mut Vec<u8>) {
    let mut out = Writer(out);
    match message {
        Message::Hello(it) => out.nested(HELLO, |out| hello(out, it)),
        Message::Challenge(it) => out.nested(CHALLENGE, |out| challenge(out, it)),
        Message::Proof(mac) => out.nested(PROOF, |out| out.bytes(1, mac)),
        Message::Welcome(it) => out.nested(WELCOME, |out| welcome(out, it)),
        Message::Refused(it) => out.nested(REFUSED, |out| refusal(out, it)),
        Message::Join(it) => out.nested(JOIN, |out| join(out, it)),
        Message::Register(it) => out.nested(REGISTER, |out| register(out, it)),
        Message::Registered(it) => out.nested(REGISTERED, |out| registered(out, it)),
        Message::State(it) => out.nested(STATE, |out| state(out, *it)),
        Message::Ping(number) => out.nested(PING, |out| out.u64(1, *number)),
        Message::Pong(number) => out.nested(PONG, |out| out.u64(1, *number)),
        Message::Need(count) => out.nested(NEED, |out| out.u32(1, *count)),
        Message::Start(it) => out.nested(START, |out| start(out, it)),
        Message::Visit(it) => out.nested(VISIT, |out| visit(out, it)),
        Message::Dare(nonce) => out.nested(DARE, |out| out.bytes(1, nonce)),
        Message::Answer(it) => out.nested(ANSWER, |out| answer(out, it)),
        Message::Granted(mac) => out.nested(GRANTED, |out| out.bytes(1, mac)),
        Message::Failed(it) => out.nested(FAILED, |out| failed(out, it)),
        Message::Leaving => out.nested(LEAVING, |_| {}),
    }
}

fn hello(out: &mut Writer<'_>, it: &Hello) {
    out.u16(1, it.version);
    out.u64(2, it.capabilities);
    out.text(3, &it.name);
    out.bytes(4, &it.nonce);
    out.prose(5, &it.agent);
}

fn challenge(out: &mut Writer<'_>, it: &Challenge) {
    out.u16(1, it.version);
    out.u64(2, it.capabilities);
    out.bytes(3, &it.nonce);
}

fn welcome(out: &mut Writer<'_>, it: &Welcome) {
    out.bytes(1, &it.session);
    out.bytes(2, &it.secret);
    out.bytes(3, &it.mac);
    out.u32(4, it.heartbeat_ms);
    out.u32(5, it.max_pool);
    out.prose(6, &it.agent);
}

fn refusal(out: &mut Writer<'_>, it: &Refusal) {
    out.u16(1, it.code as u16);
    out.prose(2, &it.text);
}

fn join(out: &mut Writer<'_>, it: &Join) {
    out.bytes(1, &it.session);
    out.number(2, [it.purpose as u8]);
    out.bytes(3, &it.mac);
}

fn register(out: &mut Writer<'_>, it: &Register) {
    out.u64(1, it.epoch);
    for it in &it.services {
        out.nested(2, |out| service(out, it));
    }
}

fn service(out: &mut Writer<'_>, it: &Service) {
    out.u32(1, it.id);
    out.text(2, &it.name);
    out.number(3, [it.kind as u8]);
    out.flag(4, it.is_private);
    out.u16(5, it.port);
    out.texts(6, &it.hosts);
    out.texts(7, &it.paths);
    out.texts(8, &it.visitors);
    out.texts(9, &it.clients);
    option(out, 10, it.group.as_deref());
    out.flag(11, it.is_up);
    out.flag(12, it.terminate);
    out.u32(13, it.max_connections);
    out.u64(14, it.rate_up);
    out.u64(15, it.rate_down);
    if it.http != HttpRules::default() {
        out.nested(16, |out| http_rules(out, &it.http));
    }
}

fn http_rules(out: &mut Writer<'_>, it: &HttpRules) {
    pairs(out, 1, &it.users);
    option(out, 2, it.host.as_deref());
    pairs(out, 3, &it.set_request);
    out.texts(4, &it.remove_request);
    pairs(out, 5, &it.set_response);
    out.texts(6, &it.remove_response);
    out.flag(7, it.is_h2c);
}

fn registered(out: &mut Writer<'_>, it: &Registered) {
    out.u64(1, it.epoch);
    for it in &it.results {
        out.nested(2, |out| placed(out, it));
    }
}

fn placed(out: &mut Writer<'_>, it: &Placed) {
    out.u32(1, it.id);
    match &it.result {
        Ok(places) => out.texts(2, places),
        Err(it) => out.nested(3, |out| refusal(out, it)),
    }
}

fn state(out: &mut Writer<'_>, it: State) {
    out.u32(1, it.id);
    out.flag(2, it.is_up);
}

fn start(out: &mut Writer<'_>, it: &Start) {
    out.u32(1, it.service);
    out.number(2, [it.form as u8]);
    out.address(3, it.visitor);
    out.address(4, it.local);
    option(out, 5, it.client.as_deref());
}

fn visit(out: &mut Writer<'_>, it: &Visit) {
    out.text(1, &it.service);
    out.number(2, [it.form as u8]);
    out.address(3, it.visitor);
}

fn answer(out: &mut Writer<'_>, it: &Answer) {
    out.bytes(1, &it.mac);
    out.bytes(2, &it.nonce);
}

fn failed(out: &mut Writer<'_>, it: &Failed) {
    out.u32(1, it.service);
    out.nested(2, |out| refusal(out, &it.refusal));
}

/// What is there, be it empty, is told apart from what is not.
fn option(out: &mut Writer<'_>, tag: u16, value: Option<&str>) {
    if let Some(value) = value {
        out.bytes(tag, value.as_bytes());
    }
}

fn pairs(out: &mut Writer<'_>, tag: u16, values: &[(String, String)]) {
    for (name, value) in values {
        out.nested(tag, |out| {
            out.text(1, name);
            out.text(2, value);
        });
    }
}
