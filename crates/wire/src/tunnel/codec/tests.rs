use std::net::{IpAddr, SocketAddr};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::tunnel::message::{
    Answer, Challenge, Failed, Form, Hello, HttpRules, Join, Kind, Placed, Purpose, Refusal, RefusalCode,
    Register, Registered, Service, Start, State, Visit, Welcome,
};

fn encoded(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(message, &mut bytes);
    bytes
}

/// A message of this type with this body.
fn framed(kind: u16, body: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &(body.len() as u32).to_be_bytes(), body].concat()
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[a-z0-9.*/-]{1,12}", "\\PC{1,8}"]
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    vec(text(), 0..4)
}

fn pairs() -> impl Strategy<Value = Vec<(String, String)>> {
    vec((text(), text()), 0..3)
}

fn address() -> impl Strategy<Value = Option<SocketAddr>> {
    option::of((any::<IpAddr>(), any::<u16>()).prop_map(SocketAddr::from))
}

fn refusal() -> impl Strategy<Value = Refusal> {
    (0..=11u16, text()).prop_map(|(code, text)| Refusal { code: read::refusal_code(code), text })
}

fn form() -> impl Strategy<Value = Form> {
    prop_oneof![Just(Form::Bytes), Just(Form::Datagrams)]
}

fn purpose() -> impl Strategy<Value = Purpose> {
    prop_oneof![Just(Purpose::Wait), Just(Purpose::Many), Just(Purpose::Visit)]
}

fn http_rules() -> impl Strategy<Value = HttpRules> {
    let lists = (pairs(), option::of(text()), pairs(), texts(), pairs(), texts(), any::<bool>());
    lists.prop_map(|(users, host, set_request, remove_request, set_response, remove_response, is_h2c)| {
        HttpRules { users, host, set_request, remove_request, set_response, remove_response, is_h2c }
    })
}

fn service() -> impl Strategy<Value = Service> {
    use Kind::*;
    let kind = prop_oneof![Just(Tcp), Just(Udp), Just(Http), Just(Https), Just(Proxy)];
    let whose = (any::<u32>(), text(), kind, any::<[bool; 3]>(), any::<u16>(), option::of(text()));
    let lists = (texts(), texts(), texts(), texts());
    let limits = (any::<u32>(), any::<u64>(), any::<u64>(), http_rules());
    (whose, lists, limits).prop_map(|(whose, (hosts, paths, visitors, clients), limits)| {
        let (id, name, kind, [is_private, is_up, terminate], port, group) = whose;
        let (max_connections, rate_up, rate_down, http) = limits;
        Service {
            id,
            name,
            kind,
            is_private,
            port,
            hosts,
            paths,
            visitors,
            clients,
            group,
            is_up,
            terminate,
            max_connections,
            rate_up,
            rate_down,
            http,
        }
    })
}

fn login() -> impl Strategy<Value = Message> {
    let nonce = any::<[u8; 32]>;
    let hello = (any::<u16>(), any::<u64>(), text(), nonce(), text());
    let challenge = (any::<u16>(), any::<u64>(), nonce());
    let welcome = (any::<[u8; 16]>(), nonce(), nonce(), any::<u32>(), any::<u32>(), text());
    prop_oneof![
        hello.prop_map(|(version, capabilities, name, nonce, agent)| {
            Message::Hello(Hello { version, capabilities, name, nonce, agent })
        }),
        challenge.prop_map(|(version, capabilities, nonce)| {
            Message::Challenge(Challenge { version, capabilities, nonce })
        }),
        nonce().prop_map(Message::Proof),
        welcome.prop_map(|(session, secret, mac, heartbeat_ms, max_pool, agent)| {
            Message::Welcome(Welcome { session, secret, mac, heartbeat_ms, max_pool, agent })
        }),
        refusal().prop_map(Message::Refused),
        (any::<[u8; 16]>(), purpose(), nonce()).prop_map(|(session, purpose, mac)| Message::Join(Join {
            session,
            purpose,
            mac
        })),
    ]
}

fn control() -> impl Strategy<Value = Message> {
    let placed = (any::<u32>(), prop_oneof![texts().prop_map(Ok), refusal().prop_map(Err)]);
    let placed = placed.prop_map(|(id, result)| Placed { id, result });
    prop_oneof![
        (any::<u64>(), vec(service(), 0..3))
            .prop_map(|(epoch, services)| Message::Register(Register { epoch, services })),
        (any::<u64>(), vec(placed, 0..4))
            .prop_map(|(epoch, results)| Message::Registered(Registered { epoch, results })),
        (any::<u32>(), any::<bool>()).prop_map(|(id, is_up)| Message::State(State { id, is_up })),
        any::<u64>().prop_map(Message::Ping),
        any::<u64>().prop_map(Message::Pong),
        any::<u32>().prop_map(Message::Need),
        (any::<u32>(), refusal()).prop_map(|(service, refusal)| Message::Failed(Failed { service, refusal })),
        Just(Message::Leaving),
    ]
}

fn streams() -> impl Strategy<Value = Message> {
    let nonce = any::<[u8; 32]>;
    prop_oneof![
        (any::<u32>(), form(), address(), address(), option::of(text())).prop_map(
            |(service, form, visitor, local, client)| {
                Message::Start(Start { service, form, visitor, local, client })
            }
        ),
        (text(), form(), address()).prop_map(|(service, form, visitor)| Message::Visit(Visit {
            service,
            form,
            visitor
        })),
        nonce().prop_map(Message::Dare),
        (nonce(), nonce()).prop_map(|(mac, nonce)| Message::Answer(Answer { mac, nonce })),
        nonce().prop_map(Message::Granted),
    ]
}

fn any_message() -> impl Strategy<Value = Message> {
    prop_oneof![login(), control(), streams()]
}

proptest! {
    #[test]
    fn a_message_is_read_as_it_was_written(message in any_message(), behind in vec(any::<u8>(), 0..20)) {
        let mut bytes = encoded(&message);
        let length = bytes.len();
        bytes.extend_from_slice(&behind);
        prop_assert_eq!(decode(&bytes, length - HEADER_LEN), Ok(Some((message, length))));
        prop_assert_eq!(needed(&bytes, LIMIT), Ok(length));
    }

    #[test]
    fn any_part_of_a_message_asks_for_more(message in any_message()) {
        let bytes = encoded(&message);
        for length in 0..bytes.len() {
            prop_assert_eq!(decode(&bytes[..length], LIMIT), Ok(None));
            let total = if length < HEADER_LEN { HEADER_LEN } else { bytes.len() };
            prop_assert_eq!(needed(&bytes[..length], LIMIT), Ok(total));
        }
    }

    #[test]
    fn any_bytes_are_taken(bytes in vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes, LIMIT);
        let _ = needed(&bytes, LIMIT);
    }

    #[test]
    fn what_breaks_a_message_is_seen_or_is_another_message(
        message in any_message(), at in any::<prop::sample::Index>(), to in any::<u8>(),
    ) {
        let mut bytes = encoded(&message);
        *at.get_mut(&mut bytes) = to;
        if let Ok(Some((message, used))) = decode(&bytes, LIMIT) {
            prop_assert!(used <= bytes.len());
            let again = encoded(&message);
            prop_assert_eq!(decode(&again, LIMIT), Ok(Some((message, again.len()))));
        }
    }

    #[test]
    fn what_is_newer_is_passed_over(
        message in any_message(), kind in PASSED_OVER.., body in vec(any::<u8>(), 0..20),
        tag in 100u16.., value in vec(any::<u8>(), 0..20),
    ) {
        let mut bytes = framed(kind, &body);
        let skipped = bytes.len();
        let known = encoded(&message);
        // The same with one more field, which is in its place behind all that are known.
        let body = [&known[HEADER_LEN..], &framed(tag, &value)].concat();
        bytes.extend_from_slice(&framed(u16::from_be_bytes([known[0], known[1]]), &body));
        for length in 0..bytes.len() {
            prop_assert_eq!(decode(&bytes[..length], LIMIT), Ok(None));
            let total = needed(&bytes[..length], LIMIT).unwrap();
            prop_assert!(total > length && total <= bytes.len());
            prop_assert!(length >= skipped || total <= skipped + HEADER_LEN);
        }
        prop_assert_eq!(decode(&bytes, LIMIT), Ok(Some((message, bytes.len()))));
    }
}

#[test]
fn lengths_are_judged_before_the_bytes_are_there() {
    for length in [LOGIN_LIMIT as u32 + 1, 1 << 31, u32::MAX - 5, u32::MAX] {
        let header = [&[0, 1][..], &length.to_be_bytes()].concat();
        assert_eq!(decode(&header, LOGIN_LIMIT), Err(CodecError::TooLong(length)));
        assert_eq!(needed(&header, LOGIN_LIMIT), Err(CodecError::TooLong(length)));
        let newer = [&[0xff, 1][..], &length.to_be_bytes()].concat();
        assert_eq!(decode(&newer, LOGIN_LIMIT), Err(CodecError::TooLong(length)));
        // A field that says that it is longer than its message.
        let field = [&[0, 3][..], &length.to_be_bytes(), b"home"].concat();
        let cut_off = CodecError::Malformed("a field that is cut off");
        assert_eq!(decode(&framed(1, &field), LOGIN_LIMIT), Err(cut_off));
    }
    assert_eq!(needed(&[0, 1, 0, 0, 0x10, 0], LOGIN_LIMIT), Ok(HEADER_LEN + LOGIN_LIMIT));
}

#[test]
fn a_row_of_what_is_passed_over_comes_to_an_end() {
    let row = framed(PASSED_OVER, &[]).repeat(LOGIN_LIMIT);
    assert_eq!(decode(&row[..HEADER_LEN * 100], LOGIN_LIMIT), Ok(None));
    let ping = [row.clone(), framed(10, &[0; 14])].concat();
    assert_eq!(decode(&ping, LOGIN_LIMIT), Err(CodecError::TooLong(14)));
    let full = [framed(PASSED_OVER, &[0; 94]), framed(10, &[])].concat();
    assert_eq!(decode(&full, 100), Ok(Some((Message::Ping(0), 106))));
    assert_eq!(decode(&full, 93), Err(CodecError::TooLong(94)));
    let more = [framed(PASSED_OVER, &[0; 94]), framed(PASSED_OVER, &[0])].concat();
    assert_eq!(decode(&more, 100), Err(CodecError::TooLong(1)));
}

#[test]
fn counts_are_bounded() {
    let empty = framed(2, &[]);
    let Ok(Some((Message::Register(register), _))) = decode(&framed(7, &empty.repeat(MAX_SERVICES)), LIMIT)
    else {
        panic!()
    };
    assert_eq!(register.services, vec![Service::default(); MAX_SERVICES]);
    let too_many = framed(7, &empty.repeat(MAX_SERVICES + 1));
    assert_eq!(decode(&too_many, LIMIT), Err(CodecError::TooMany("services")));
    let too_many = framed(8, &empty.repeat(MAX_SERVICES + 1));
    assert_eq!(decode(&too_many, LIMIT), Err(CodecError::TooMany("results")));
    for list in [6, 7, 8, 9] {
        let hosts = |count| framed(7, &framed(2, &framed(list, b"a").repeat(count)));
        assert!(decode(&hosts(MAX_LIST), LIMIT).is_ok());
        assert_eq!(decode(&hosts(MAX_LIST + 1), LIMIT), Err(CodecError::TooMany("entries")));
    }
}

#[test]
fn texts_are_bounded_and_those_for_people_cut() {
    let long = "ä".repeat(MAX_TEXT);
    let refusal = Refusal { code: RefusalCode::Limit, text: format!("a{long}") };
    let Ok(Some((Message::Refused(read), _))) = decode(&encoded(&Message::Refused(refusal)), LIMIT) else {
        panic!()
    };
    assert_eq!(read.text.len(), MAX_TEXT - 1, "cut between two letters");
    assert!(read.text.starts_with("aää") && read.text.ends_with('ä'));
    let hello = Hello { name: long, ..Hello::default() };
    let refused = CodecError::Malformed("a text that is too long");
    assert_eq!(decode(&encoded(&Message::Hello(hello)), LIMIT), Err(refused));
}

#[test]
fn what_breaks_the_rules_is_refused() {
    let nonce = framed(4, &[7; 32]);
    let hello = |body: &[&[u8]]| framed(1, &body.concat());
    let address = |value: &[u8]| framed(13, &framed(3, value));
    for (bytes, expected) in [
        (framed(0, &[]), CodecError::UnknownType(0)),
        (framed(20, &[]), CodecError::UnknownType(20)),
        (framed(PASSED_OVER - 1, &[]), CodecError::UnknownType(PASSED_OVER - 1)),
        (hello(&[]), CodecError::Missing("nonce")),
        (hello(&[&framed(4, &[7; 31])]), CodecError::Malformed("a value of another size")),
        (hello(&[&framed(1, &[1]), &nonce]), CodecError::Malformed("a value of another size")),
        (hello(&[&nonce, &framed(3, b"home")]), CodecError::Malformed("fields out of order")),
        (hello(&[&nonce, &nonce]), CodecError::Malformed("a field that comes twice")),
        (hello(&[&framed(3, &[0xff]), &nonce]), CodecError::Malformed("a text that is no UTF-8")),
        (hello(&[&nonce, &[0, 5, 0]]), CodecError::Malformed("a field that is cut off")),
        (framed(3, &[]), CodecError::Missing("MAC")),
        (framed(15, &[]), CodecError::Missing("nonce")),
        (framed(19, &[1]), CodecError::Malformed("a field that is cut off")),
        (framed(9, &framed(2, &[2])), CodecError::Malformed("a flag that is neither 0 nor 1")),
        (framed(13, &framed(2, &[2])), CodecError::Malformed("an unknown form of what follows")),
        (framed(6, &framed(2, &[3])), CodecError::Malformed("an unknown purpose")),
        (framed(7, &framed(2, &framed(3, &[5]))), CodecError::Malformed("an unknown kind of service")),
        (address(&[]), CodecError::Malformed("an address of neither IPv4 nor IPv6")),
        (address(&[0; 7]), CodecError::Malformed("an address of neither IPv4 nor IPv6")),
        (
            framed(8, &framed(2, &[framed(2, b"tcp://a:1"), framed(3, &[])].concat())),
            CodecError::Malformed("a service that is refused and has places"),
        ),
    ] {
        assert_eq!(decode(&bytes, LIMIT), Err(expected), "{bytes:?}");
    }
}

#[test]
fn what_is_left_out_is_zero_empty_none_or_no() {
    let start = Start { service: 0, form: Form::Bytes, visitor: None, local: None, client: None };
    assert_eq!(encoded(&Message::Start(start)), framed(13, &[]));
    assert_eq!(encoded(&Message::Register(Register::default())), framed(7, &[]));
    // What is there and empty is not none.
    let service = Service { group: Some(String::new()), ..Service::default() };
    let register = Message::Register(Register { epoch: 0, services: vec![service] });
    assert_eq!(encoded(&register), framed(7, &framed(2, &framed(10, &[]))));
}

#[test]
fn a_code_of_a_newer_end_is_some_other() {
    let refused = framed(5, &[framed(1, &[0xff, 0xff]), framed(2, b"why")].concat());
    let expected = Refusal { code: RefusalCode::Other, text: "why".into() };
    assert_eq!(decode(&refused, LIMIT), Ok(Some((Message::Refused(expected), refused.len()))));
}

#[test]
fn secrets_do_not_show() {
    let welcome = Welcome { secret: [0x5a; 32], ..Welcome::default() };
    assert!(!format!("{welcome:?}").contains("90"));
    let pair = |name: &str| (name.to_owned(), "$argon2id$".to_owned());
    let http =
        HttpRules { users: vec![pair("anna")], set_request: vec![pair("x-key")], ..HttpRules::default() };
    let service = format!("{:?}", Service { http, ..Service::default() });
    assert!(
        service.contains("anna") && service.contains("x-key") && !service.contains("argon2id"),
        "{service}"
    );
}
