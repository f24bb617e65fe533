use proptest::prelude::*;

use super::packet::{Body, MAX_PACKET_HEADER, Packet, Part};
use super::parts::{Came, Parts};
use super::*;
use crate::flow::Now;

fn address() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), any::<u16>()).prop_map(SocketAddr::from)
}

fn origin() -> impl Strategy<Value = Option<Origin>> {
    let some = (prop::option::of(address()), prop::option::of(address()));
    prop::option::of(some.prop_map(|(visitor, local)| Origin { visitor, local }))
}

fn ending() -> impl Strategy<Value = Ending> {
    any::<u8>().prop_map(Ending::of)
}

fn body(data: &[u8]) -> impl Strategy<Value = Body<'_>> {
    let part = (any::<u16>(), any::<u8>(), 1u8..).prop_map(|(datagram, index, count)| Part {
        datagram,
        index: index % count,
        count,
    });
    prop_oneof![
        Just(Body::Data(data)),
        part.prop_map(move |part| Body::Part(part, data)),
        Just(Body::Opened),
        ending().prop_map(Body::End),
    ]
}

fn data() -> &'static [u8] {
    b"some bytes"
}

proptest! {
    #[test]
    fn frames_come_back_one_by_one_wherever_they_are_cut(
        frames in prop::collection::vec((any::<u32>(), origin(), prop::collection::vec(any::<u8>(), 0..50), ending()), 0..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = Vec::new();
        for (flow, origin, data, why) in &frames {
            put_data(&mut bytes, *flow, origin.as_ref(), data);
            put_end(&mut bytes, *flow, *why);
        }
        let expected: Vec<_> = frames.iter().flat_map(|(flow, origin, data, why)| {
            [Frame::Data { flow: *flow, origin: *origin, data }, Frame::End { flow: *flow, why: *why }]
        }).collect();
        let cut = cut.index(bytes.len() + 1);
        let mut got = Vec::new();
        let mut at = 0;
        for until in [cut, bytes.len()] {
            while let Some((frame, used)) = next_frame(&bytes[at..until]).unwrap() {
                got.push(frame);
                at += used;
            }
        }
        prop_assert_eq!((got, at), (expected, bytes.len()));
    }

    #[test]
    fn packets_come_back(service: u32, flow: u32, origin in origin(), body in body(data())) {
        let packet = Packet { service, flow, origin, body };
        let mut bytes = Vec::new();
        packet.put(&mut bytes);
        prop_assert!(bytes.len() <= MAX_PACKET_HEADER + data().len());
        prop_assert_eq!(Packet::read(&bytes), Ok(packet));
    }

    #[test]
    fn junk_is_read_or_refused_and_what_is_read_was_there(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        if let Ok(Some((_, used))) = next_frame(&bytes) {
            prop_assert!(used <= bytes.len());
        }
        let _ = Packet::read(&bytes);
    }

    #[test]
    fn parts_in_any_order_make_the_datagram(
        data in prop::collection::vec(any::<u8>(), 0..4000),
        size in 40usize..200,
        seed in any::<[u8; 32]>(),
    ) {
        let mut parts: Vec<_> = data.chunks(size).enumerate().collect();
        let count = parts.len() as u8;
        // A shuffle that the seed decides.
        parts.sort_by_key(|(index, _)| (seed[index % 32], *index));
        let mut all = Parts::new(1 << 20);
        let mut whole = None;
        for (index, part) in parts {
            prop_assert!(whole.is_none());
            match all.take(Now::default(), 7, Part { datagram: 3, index: index as u8, count }, part) {
                Came::Whole(parts) => whole = Some(parts.concat()),
                came => prop_assert_eq!(came, Came::Waits(0)),
            }
        }
        prop_assert_eq!(whole.as_deref(), (!data.is_empty()).then_some(&data[..]));
        prop_assert_eq!((all.len(), all.bytes()), (0, 0));
    }
}

/// Parts of many datagrams on a path that loses some, doubles some and mixes all.
fn rough_path() -> impl Strategy<Value = (Vec<(u16, u8, u8)>, usize)> {
    let datagrams = prop::collection::vec(1u8..6, 1..30);
    let sent = datagrams.prop_map(|counts| {
        let parts =
            |(datagram, count): (usize, u8)| (0..count).map(move |index| (datagram as u16, index, count));
        counts.into_iter().enumerate().flat_map(parts).collect::<Vec<_>>()
    });
    let came = sent.prop_flat_map(|sent| {
        let fates = prop::collection::vec((0usize..3, 0usize..12), sent.len());
        (Just(sent), fates).prop_map(|(sent, fates)| {
            let copies = sent.into_iter().zip(fates).enumerate().flat_map(|(at, (part, (copies, late)))| {
                (0..copies).map(move |copy| (at + late + copy, part))
            });
            let mut came: Vec<_> = copies.collect();
            came.sort_by_key(|(at, _)| *at);
            came.into_iter().map(|(_, part)| part).collect()
        })
    });
    (came, 100usize..4000)
}

proptest! {
    #[test]
    fn what_is_whole_is_what_was_sent_and_what_is_kept_is_bounded((came, limit) in rough_path()) {
        let mut all = Parts::new(limit);
        let mut given_up = 0;
        let mut whole = 0;
        for (datagram, index, count) in &came {
            let data = vec![*index; usize::from(*datagram % 7) * 10];
            match all.take(Now::default(), 1, part(*datagram, *index, *count), data) {
                Came::Whole(parts) => {
                    whole += 1;
                    let expected = (0..*count).map(|index| vec![index; usize::from(*datagram % 7) * 10]);
                    prop_assert!(parts.into_iter().eq(expected));
                }
                Came::Waits(others) => given_up += others,
                Came::Odd => {}
            }
            prop_assert!(all.bytes() <= limit);
        }
        // Nothing got lost but what the path lost, or what had to make room.
        let has_all = |datagram: &u16| {
            let count = came.iter().find(|(of, ..)| of == datagram).map_or(0, |(.., count)| *count);
            (0..count).all(|index| came.iter().any(|(of, at, _)| (of, *at) == (datagram, index)))
        };
        let complete = (0..30).filter(|datagram| came.iter().any(|(of, ..)| of == datagram)).filter(has_all).count();
        prop_assert!(whole + given_up as usize >= complete, "{whole} of {complete}, {given_up} given up");
        all.expire(Now::from_millis(60_000));
        prop_assert_eq!((all.len(), all.bytes()), (0, 0));
    }
}

#[test]
fn lengths_beyond_any_datagram_are_refused_at_once() {
    let mut bytes = vec![0, 0, 0xff, 0xff, 0, 0, 0, 1];
    assert_eq!(next_frame(&bytes), Err(DatagramError::TooLong));
    bytes[2..4].copy_from_slice(&65_527u16.to_be_bytes());
    assert_eq!(next_frame(&bytes), Ok(None));
}

#[test]
fn kinds_of_the_future_are_passed_over_if_they_may_be() {
    let frame = [0x9f, 0, 0, 2, 0, 0, 0, 1, 8, 8];
    assert_eq!(next_frame(&frame), Ok(Some((Frame::Unknown, 10))));
    assert_eq!(next_frame(&[0x1f, 0, 0, 0, 0, 0, 0, 1]), Err(DatagramError::UnknownKind(0x1f)));
    let mut packet = [0x9f, 0, 0, 0, 1, 0, 0, 0, 2, 3];
    assert_eq!(Packet::read(&packet).map(|packet| packet.body), Ok(Body::Unknown));
    packet[0] = 0x1f;
    assert_eq!(Packet::read(&packet), Err(DatagramError::UnknownKind(0x1f)));
}

fn part(datagram: u16, index: u8, count: u8) -> Part {
    Part { datagram, index, count }
}

#[test]
fn a_lost_part_loses_its_datagram_only_and_only_for_a_while() {
    let mut parts = Parts::new(1 << 20);
    assert_eq!(parts.take(Now::default(), 1, part(0, 0, 2), [1]), Came::Waits(0));
    assert_eq!(parts.take(Now::default(), 1, part(1, 0, 2), [2]), Came::Waits(0));
    assert_eq!(parts.take(Now::default(), 1, part(1, 1, 2), [3]), Came::Whole(vec![[2], [3]]));
    assert_eq!(parts.expire(Now::from_millis(1999)), 0);
    assert_eq!(parts.expire(Now::from_millis(2000)), 1);
    assert_eq!((parts.len(), parts.bytes()), (0, 0));
}

#[test]
fn parts_that_make_no_sense_change_nothing() {
    let mut parts = Parts::new(1 << 20);
    assert_eq!(parts.take(Now::default(), 1, part(0, 0, 3), vec![1]), Came::Waits(0));
    for (odd, data) in [
        (part(0, 0, 3), vec![2]),
        (part(0, 1, 4), vec![2]),
        (part(0, 2, 2), vec![2]),
        (part(0, 1, 3), vec![2; MAX_DATAGRAM]),
    ] {
        assert_eq!(parts.take(Now::default(), 1, odd, data), Came::Odd, "{odd:?}");
    }
    assert_eq!(parts.take(Now::default(), 1, part(0, 1, 3), vec![]), Came::Waits(0));
    let whole = Came::Whole(vec![vec![1], vec![], vec![3]]);
    assert_eq!(parts.take(Now::default(), 1, part(0, 2, 3), vec![3]), whole);
}

#[test]
fn never_more_is_kept_than_may_be() {
    let mut parts = Parts::new(10_000);
    let mut given_up = 0;
    for datagram in 0..u16::MAX {
        match parts.take(Now::default(), u32::from(datagram % 5), part(datagram, 0, 60), vec![0; 1000]) {
            Came::Waits(others) => given_up += others,
            came => panic!("{came:?}"),
        }
        assert!(parts.bytes() <= 10_000);
    }
    assert_eq!(given_up + parts.len() as u64, u64::from(u16::MAX));
    let mut many = Parts::new(usize::MAX);
    for datagram in 0..1000 {
        many.take(Now::default(), 0, part(datagram, 0, 2), []);
    }
    assert_eq!(many.len(), 256);
}
