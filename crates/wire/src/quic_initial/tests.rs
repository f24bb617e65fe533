//! The examples of the RFCs, and flights made up here.

use proptest::prelude::*;

use super::keys::{InitialKeys, Side};
use super::*;
use crate::client_hello::ClientHello;

const LIMITS: Limits = Limits { hello: 16 << 10, datagrams: 8, pieces: 64 };

/// The connection id in all examples of RFC 9001 and RFC 9369.
const DCID: [u8; 8] = [0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08];

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn appendix(version: Version, side: Side) -> Vec<u8> {
    hex(match (version, side) {
        (Version::V1, Side::Client) => include_str!("vectors/v1_client.hex"),
        (Version::V1, Side::Server) => include_str!("vectors/v1_server.hex"),
        (Version::V2, Side::Client) => include_str!("vectors/v2_client.hex"),
        (Version::V2, Side::Server) => include_str!("vectors/v2_server.hex"),
    })
}

fn only_long(datagram: &[u8]) -> LongPacket<'_> {
    match packets(datagram).collect::<Vec<_>>()[..] {
        [Packet::Long(packet)] => packet,
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn the_clients_packets_of_the_appendices_name_their_host() {
    for version in [Version::V1, Version::V2] {
        let datagram = appendix(version, Side::Client);
        let packet = only_long(&datagram);
        assert_eq!((packet.version, packet.kind), (version, Kind::Initial));
        assert_eq!((packet.dcid, packet.scid), (&DCID[..], &[][..]));
        let mut flight = ClientFlight::new(LIMITS);
        let hello = flight.push(&datagram).unwrap().unwrap();
        assert_eq!(hello.server_name.as_deref(), Some("example.com"));
        assert_eq!(flight.dcid(), DCID);
    }
}

#[test]
fn the_servers_packets_of_the_appendices_open_with_its_keys_and_show_its_id() {
    for version in [Version::V1, Version::V2] {
        let datagram = appendix(version, Side::Server);
        let packet = only_long(&datagram);
        assert_eq!((packet.dcid, packet.scid), (&[][..], &hex("f067a5502a4262b5")[..]));
        let keys = InitialKeys::new(version, &DCID, Side::Server).unwrap();
        let mut scratch = Vec::new();
        let opened = keys.open(&packet, 0, &mut scratch).unwrap();
        assert_eq!(opened.number, 1);
        // An ACK, and a CRYPTO frame with a ServerHello.
        assert_eq!(opened.frames[..5], hex("0200000000"));
        let mut stream = CryptoStream::new(1_000, 1);
        read_frames(opened.frames, &mut stream).unwrap();
        assert_eq!((stream.contiguous()[0], stream.contiguous().len()), (2, 90));
        // What a server says never looks like a client's beginning.
        assert_eq!(ClientFlight::new(LIMITS).push(&datagram), Err(NoHello::NotQuic));
    }
}

#[test]
fn a_retry_and_a_short_header_of_the_appendices_are_told_apart() {
    let retries = [
        "ff000000010008f067a5502a4262b5746f6b656e04a265ba2eff4d829058fb3f0f2496ba",
        "cf6b3343cf0008f067a5502a4262b5746f6b656ec8646ce8bfe33952d955543665dcc7b6",
    ];
    for retry in retries {
        let datagram = hex(retry);
        assert_eq!(packets(&datagram).collect::<Vec<_>>(), [Packet::Retry]);
        assert_eq!(long_header(&datagram).unwrap().scid, hex("f067a5502a4262b5"));
        assert_eq!(ClientFlight::new(LIMITS).push(&datagram), Err(NoHello::NotQuic));
    }
    let short = hex("4cfe4189655e5cd55c41f69080575d7999c25a5bfb");
    assert_eq!(packets(&short).collect::<Vec<_>>(), [Packet::Short]);
    assert_eq!(short_header_dcid(&short, 8), Some(&short[1..9]));
    assert_eq!(short_header_dcid(&short, 21), None);
    assert_eq!(long_header(&short), None);
}

#[test]
fn of_other_versions_the_ids_are_known_and_nothing_else() {
    let datagram = [&hex("c0 1a2a3a4a 04 01020304 02 0506")[..], &[7; 1_200]].concat();
    let header = long_header(&datagram).unwrap();
    assert_eq!((header.version, header.dcid, header.scid), (0x1a2a_3a4a, &[1, 2, 3, 4][..], &[5, 6][..]));
    assert_eq!(short_header_dcid(&datagram, 4), None);
    assert_eq!(ClientFlight::new(LIMITS).push(&datagram), Err(NoHello::UnknownVersion));
    let negotiation = hex("80 00000000 04 01020304 02 0506 00000001");
    assert_eq!(packets(&negotiation).collect::<Vec<_>>(), [Packet::VersionNegotiation]);
    assert_eq!(ClientFlight::new(LIMITS).push(&negotiation), Err(NoHello::NotQuic));
}

#[test]
fn what_is_no_quic_is_none_at_once() {
    for other in
        [&b""[..], b"\x00", b"\x12\x34\x01\x00\x00\x01 a question", &[0x16, 0xfe, 0xfd, 0, 0], &[0x40; 1_200]]
    {
        assert_eq!(ClientFlight::new(LIMITS).push(other), Err(NoHello::NotQuic), "{other:?}");
    }
    assert_eq!(ClientFlight::new(LIMITS).push(&[0xc0, 0, 0, 0, 1]), Err(NoHello::Malformed));
}

/// A ClientHello for `name`, `extra` bytes longer than it needs to be.
fn hello_for(name: &str, extra: usize) -> Vec<u8> {
    let name = name.as_bytes();
    let with_length = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes(), bytes].concat();
    let server_name = with_length(&[&[0][..], &with_length(name)].concat());
    let extensions = [
        &[0, 0][..],
        &with_length(&server_name),
        &[0, 16],
        &with_length(&with_length(b"\x02h3")),
        // An extension that nobody knows, as long as a post-quantum key.
        &[0xfe, 0x01],
        &with_length(&vec![0xab; extra]),
    ]
    .concat();
    let body = [&[3, 3][..], &[9; 32], &[0], &with_length(&[0x13, 0x01]), &[1, 0], &with_length(&extensions)]
        .concat();
    [&[1], &(body.len() as u32).to_be_bytes()[1..], &body].concat()
}

fn varint(value: usize) -> Vec<u8> {
    if value < 64 { vec![value as u8] } else { ((value as u32) | 0x8000_0000).to_be_bytes().to_vec() }
}

fn crypto_frame(offset: usize, data: &[u8]) -> Vec<u8> {
    [&[6][..], &varint(offset), &varint(data.len()), data].concat()
}

/// A client's protected Initial packet.
fn initial(version: Version, dcid: &[u8], number: u32, frames: &[u8]) -> Vec<u8> {
    long_packet(version, 0, dcid, number, frames)
}

fn long_packet(version: Version, kind: u8, dcid: &[u8], number: u32, frames: &[u8]) -> Vec<u8> {
    let (tag, bits) = match version {
        Version::V1 => (1u32, kind),
        Version::V2 => (0x6b33_43cf, (kind + 1) & 3),
    };
    let token: &[u8] = if kind == 0 { &[3, 7, 7, 7] } else { &[] };
    let header = [
        &[0xc3 | bits << 4][..],
        &tag.to_be_bytes(),
        &[dcid.len() as u8],
        dcid,
        &[2, 0xaa, 0xbb],
        token,
        &(0x8000_0000 | (4 + frames.len() as u32 + 16)).to_be_bytes(),
        &number.to_be_bytes(),
    ]
    .concat();
    InitialKeys::new(version, dcid, Side::Client).unwrap().seal(&header, frames)
}

/// The same in a datagram of its own, padded as it has to be.
fn datagram(number: u32, frames: &[u8]) -> Vec<u8> {
    let padded = [frames, &vec![0; 1_200usize.saturating_sub(frames.len())]].concat();
    initial(Version::V1, &DCID, number, &padded)
}

fn named(hello: Option<ClientHello>) -> String {
    let hello = hello.expect("a hello");
    assert_eq!(hello.alpn.iter().collect::<Vec<_>>(), [b"h3"]);
    hello.server_name.expect("a name").into()
}

#[test]
fn a_hello_with_a_post_quantum_key_takes_two_datagrams_in_any_order() {
    let hello = hello_for("a.example", 1_184);
    let first = datagram(0, &crypto_frame(0, &hello[..1_000]));
    let second = datagram(1, &crypto_frame(1_000, &hello[1_000..]));
    for order in [[&first, &second], [&second, &first]] {
        let mut flight = ClientFlight::new(LIMITS);
        assert_eq!(flight.push(order[0]), Ok(None));
        assert_eq!(flight.push(order[0]), Ok(None), "again");
        assert_eq!(named(flight.push(order[1]).unwrap()), "a.example");
    }
}

#[test]
fn packets_share_a_datagram() {
    let hello = hello_for("b.example", 200);
    let early = long_packet(Version::V2, 1, &DCID, 0, &[1; 40]);
    let ones = [1; 800];
    let one = initial(Version::V2, &DCID, 0, &[&crypto_frame(100, &hello[100..]), &ones[..]].concat());
    let two = initial(Version::V2, &DCID, 1, &[&[1, 0, 0][..], &crypto_frame(0, &hello[..100])].concat());
    let together = [&one[..], &early, &two, &[0; 90]].concat();
    assert_eq!(packets(&together).count(), 4);
    assert_eq!(named(ClientFlight::new(LIMITS).push(&together).unwrap()), "b.example");
    // What is sent early may also overtake, in a datagram of its own or in the same.
    let mut flight = ClientFlight::new(LIMITS);
    assert_eq!(flight.push(&early), Ok(None));
    assert_eq!(named(flight.push(&together).unwrap()), "b.example");
    let behind = [&early[..], &one, &two].concat();
    assert_eq!(named(ClientFlight::new(LIMITS).push(&behind).unwrap()), "b.example");
}

#[test]
fn a_damaged_beginning_is_skipped_where_another_is_due() {
    let hello = hello_for("g.example", 0);
    let whole = datagram(0, &crypto_frame(0, &hello));
    let mut damaged = whole.clone();
    damaged[600] ^= 1;
    let mut flight = ClientFlight::new(LIMITS);
    assert_eq!(flight.push(&damaged), Err(NoHello::Undecryptable), "nothing more has to come");
    let early = long_packet(Version::V1, 1, &DCID, 0, &[1; 40]);
    let mut flight = ClientFlight::new(LIMITS);
    assert_eq!(flight.push(&early), Ok(None));
    assert_eq!(flight.push(&damaged), Ok(None));
    assert_eq!(named(flight.push(&whole).unwrap()), "g.example");
}

#[test]
fn every_frame_that_may_stand_there_is_passed_over() {
    let hello = hello_for("c.example", 0);
    let frames = [
        &hex("00 01 02 05 00 01 03 01 02 03 40ff 00 00 00 01 02 03")[..],
        &crypto_frame(0, &hello[..10]),
        &hex("1c 0a 06 02 6f6f 00"),
        &crypto_frame(10, &hello[10..]),
    ]
    .concat();
    assert_eq!(named(ClientFlight::new(LIMITS).push(&datagram(0, &frames)).unwrap()), "c.example");
    for wrong in ["08 00", "1d 00 00", "1e", "06 00 4002 01", "02 05 00 ffffffffffffffff 00", "06 00"] {
        let tail = [&vec![0; 1_200], &hex(wrong)[..]].concat();
        let datagram = initial(Version::V1, &DCID, 0, &tail);
        assert_eq!(ClientFlight::new(LIMITS).push(&datagram), Err(NoHello::Malformed), "{wrong}");
    }
}

#[test]
fn a_stranger_can_neither_break_nor_change_a_hello_that_has_begun() {
    let hello = hello_for("d.example", 1_184);
    let mut flight = ClientFlight::new(LIMITS);
    assert_eq!(flight.push(&datagram(0, &crypto_frame(0, &hello[..1_000]))), Ok(None));
    let mut broken = datagram(1, &crypto_frame(1_000, &hello[1_000..]));
    *broken.last_mut().unwrap() ^= 1;
    assert_eq!(flight.push(&broken), Ok(None), "it does not open");
    let mut elsewhere = initial(Version::V1, &[1; 8], 1, &[1; 1_200]);
    assert_eq!(flight.push(&elsewhere), Ok(None), "it is another connection's");
    elsewhere.truncate(30);
    assert_eq!(flight.push(&elsewhere), Ok(None), "it is cut");
    let short = initial(Version::V1, &DCID, 2, &crypto_frame(1_000, b"another end"));
    assert_eq!(flight.push(&short), Ok(None), "a server would drop so short a datagram");
    let rest = datagram(3, &crypto_frame(1_000, &hello[1_000..]));
    assert_eq!(named(flight.push(&rest).unwrap()), "d.example");
}

#[test]
fn every_limit_holds() {
    let hello = hello_for("e.example", 1_184);
    let piece = |number: u32, at: usize| datagram(number, &crypto_frame(at, &hello[at..at + 10]));
    let mut flight = ClientFlight::new(Limits { datagrams: 2, ..LIMITS });
    let results: Vec<_> = (0..3).map(|i| flight.push(&piece(i, i as usize * 10))).collect();
    assert_eq!(results, [Ok(None), Ok(None), Err(NoHello::TooManyDatagrams)]);

    let mut flight = ClientFlight::new(Limits { pieces: 2, ..LIMITS });
    let results: Vec<_> = (0..3).map(|i| flight.push(&piece(i, i as usize * 20))).collect();
    assert_eq!(results, [Ok(None), Ok(None), Err(NoHello::TooManyPieces)]);

    let mut flight = ClientFlight::new(Limits { hello: 1_000, ..LIMITS });
    assert_eq!(flight.push(&piece(0, 990)), Ok(None));
    assert_eq!(flight.push(&piece(1, 991)), Err(NoHello::TooLong));
    let mut flight = ClientFlight::new(Limits { hello: 1_000, ..LIMITS });
    assert_eq!(flight.push(&piece(0, 0)), Err(NoHello::TooLong), "its length is in its first bytes");

    let mut flight = ClientFlight::new(LIMITS);
    let twice = [crypto_frame(5, b"one way"), crypto_frame(8, b"other")].concat();
    assert_eq!(flight.push(&datagram(0, &twice)), Err(NoHello::Conflict));
    let undecryptable = [&datagram(0, &[])[..40], &[5; 1_300]].concat();
    assert_eq!(ClientFlight::new(LIMITS).push(&undecryptable), Err(NoHello::Undecryptable));
    let short_id = initial(Version::V1, &DCID[..7], 0, &[1; 1_200]);
    assert_eq!(ClientFlight::new(LIMITS).push(&short_id), Err(NoHello::Malformed));
    let other_message = datagram(0, &crypto_frame(0, &[2, 0, 0, 1, 0]));
    assert_eq!(ClientFlight::new(LIMITS).push(&other_message), Err(NoHello::Malformed));
}

#[test]
fn reserved_bits_that_are_set_refuse_the_packet() {
    let hello = crypto_frame(0, &hello_for("f.example", 1_000));
    let keys = InitialKeys::new(Version::V1, &DCID, Side::Client).unwrap();
    let length = (4 + hello.len() + 16) as u32;
    for (first, opens) in [(0xc3, true), (0x83, true), (0xcb, false)] {
        let header =
            [&[first, 0, 0, 0, 1, 8][..], &DCID, &[0, 0], &(0x8000_0000 | length).to_be_bytes(), &[0; 4]]
                .concat();
        let datagram = [keys.seal(&header, &hello), vec![0; 200]].concat();
        assert_eq!(ClientFlight::new(LIMITS).push(&datagram).is_ok(), opens, "{first:x}");
    }
}

/// A hello cut at random places, in random order, some pieces twice, in random packets and datagrams.
fn shuffled() -> impl Strategy<Value = (Vec<u8>, Vec<(usize, usize)>)> {
    (0usize..3_000, proptest::collection::vec(any::<prop::sample::Index>(), 0..20)).prop_flat_map(
        |(extra, cuts)| {
            let hello = hello_for("shuffled.example", extra);
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(hello.len())).collect();
            at.extend([0, hello.len()]);
            at.sort_unstable();
            let mut pieces: Vec<(usize, usize)> = at.windows(2).map(|pair| (pair[0], pair[1])).collect();
            let overlapping =
                pieces.iter().map(|(start, end)| (start / 2, *end)).step_by(3).collect::<Vec<_>>();
            pieces.extend(overlapping);
            (Just(hello), Just(pieces).prop_shuffle())
        },
    )
}

proptest! {
    #[test]
    fn a_hello_is_put_together_from_any_pieces_in_any_order(
        (hello, pieces) in shuffled(), size in 100usize..1_400,
    ) {
        // Frames of at most `size` bytes, as many to a datagram as have room in it.
        let mut datagrams = vec![Vec::new()];
        for (start, end) in pieces {
            for at in (start..end).step_by(size) {
                let frame = crypto_frame(at, &hello[at..end.min(at + size)]);
                if datagrams.last().unwrap().len() + frame.len() > 1_400 {
                    datagrams.push(Vec::new());
                }
                datagrams.last_mut().unwrap().extend(frame);
            }
        }
        let mut flight = ClientFlight::new(Limits { datagrams: datagrams.len(), ..LIMITS });
        let mut found = None;
        for (number, frames) in datagrams.iter().enumerate() {
            found = flight.push(&datagram(number as u32, frames)).unwrap();
            if found.is_some() {
                break;
            }
        }
        prop_assert_eq!(named(found), "shuffled.example");
    }

    #[test]
    fn the_stream_is_what_a_plain_array_would_be(
        inserts in proptest::collection::vec((0usize..200, 0usize..50), 0..40), max_pieces in 1usize..6,
    ) {
        let mut stream = CryptoStream::new(220, max_pieces);
        assert_eq!(stream.memory(), 0);
        let mut have = [false; 220];
        let pattern: Vec<u8> = (0..250).map(|i| i as u8).collect();
        for (start, length) in inserts {
            let mut after = have;
            after.iter_mut().skip(start).take(length).for_each(|here| *here = true);
            let pieces = after.split(|here| !here).filter(|run| !run.is_empty()).count();
            let result = stream.insert(start as u64, &pattern[start..start + length]);
            if start + length > 220 {
                prop_assert_eq!(result, Err(NoHello::TooLong));
            } else if pieces > max_pieces {
                prop_assert_eq!(result, Err(NoHello::TooManyPieces));
            } else {
                prop_assert_eq!(result, Ok(()));
                have = after;
            }
            let contiguous = have.iter().take_while(|here| **here).count();
            prop_assert_eq!(stream.contiguous(), &pattern[..contiguous]);
            let end = have.iter().rposition(|here| *here).map_or(0, |last| last + 1);
            prop_assert!((end..10_000).contains(&stream.memory()), "{} for {}", stream.memory(), end);
        }
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>, start in prop::sample::select(vec![
        &b""[..], b"\xc0\x00\x00\x00\x01\x08", b"\xd0\x6b\x33\x43\xcf\x14", b"\xff\x00\x00\x00\x01",
    ])) {
        let bytes = [start, &bytes].concat();
        let _ = ClientFlight::new(LIMITS).push(&bytes);
        let _ = long_header(&bytes);
        let _ = short_header_dcid(&bytes, 20);
        prop_assert!(packets(&bytes).count() <= bytes.len());
        let _ = read_frames(&bytes, &mut CryptoStream::new(1_000, 10));
    }

    #[test]
    fn a_changed_bit_is_never_taken_for_another_hello(bit in 0usize..1_200 * 8) {
        let mut datagram = appendix(Version::V1, Side::Client);
        datagram[bit / 8] ^= 1 << (bit % 8);
        match ClientFlight::new(LIMITS).push(&datagram) {
            Ok(Some(hello)) => prop_assert_eq!(hello.server_name.as_deref(), Some("example.com")),
            Ok(None) => {}
            Err(_) => {}
        }
    }
}
