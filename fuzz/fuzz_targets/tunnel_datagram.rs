//! Datagrams in the tunnel. The first byte says how: frames of a stream, which come out the same however the stream is cut;
//! packets of QUIC; or parts of many datagrams, of which only so much is kept, and which come together to what was cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wmproxy_wire::flow::Now;
use wmproxy_wire::tunnel::datagram::packet::{MAX_PACKET_HEADER, Packet, Part};
use wmproxy_wire::tunnel::datagram::parts::{Came, Parts};
use wmproxy_wire::tunnel::datagram::{Frame, MAX_DATAGRAM, MAX_FRAME, next_frame, put_data, put_end};

fuzz_target!(|data: &[u8]| {
    let Some((&how, bytes)) = data.split_first() else { return };
    match how % 3 {
        0 => frames(bytes),
        1 => packet(bytes),
        _ => parts(bytes),
    }
});

fn frames(bytes: &[u8]) {
    let (mut at, mut again, mut seen) = (0, Vec::new(), Vec::new());
    while let Ok(Some((frame, used))) = next_frame(&bytes[at..]) {
        assert!(0 < used && used <= bytes.len() - at && used <= MAX_FRAME);
        for length in 0..used.min(64) {
            // What can't be one is known early; what can asks for more.
            assert_eq!(next_frame(&bytes[at..at + length]), Ok(None), "the first {length}");
        }
        match &frame {
            Frame::Data { flow, origin, data } => put_data(&mut again, *flow, origin.as_ref(), data),
            Frame::End { flow, why } => put_end(&mut again, *flow, *why),
            Frame::Unknown => {}
        }
        seen.push(frame);
        at += used;
    }
    let mut at = 0;
    for frame in seen.iter().filter(|frame| **frame != Frame::Unknown) {
        let (read, used) = next_frame(&again[at..]).unwrap().unwrap();
        assert_eq!(read, *frame);
        at += used;
    }
    assert_eq!(at, again.len());
}

fn packet(bytes: &[u8]) {
    match Packet::read(bytes) {
        Ok(packet) => {
            let mut again = Vec::new();
            packet.put(&mut again);
            assert_eq!(Packet::read(&again), Ok(packet));
            again.clear();
            packet.put_header(&mut again);
            assert!(again.len() <= MAX_PACKET_HEADER);
        }
        Err(error) => drop(error.to_string()),
    }
}

/// Each five bytes are a part of one of a few datagrams, some of which contradict each other.
fn parts(bytes: &[u8]) {
    const LIMIT: usize = 4096;
    let mut all = Parts::new(LIMIT);
    let mut now = 0;
    for part in bytes.as_chunks::<5>().0 {
        let [ids, index, count, length, wait] = *part;
        now += u64::from(wait);
        let (flow, datagram) = (u32::from(ids >> 4), u16::from(ids & 3));
        let length = if length == u8::MAX { MAX_DATAGRAM } else { usize::from(length) };
        let part = Part { datagram, index: index % 8, count: count % 8 };
        match all.take(Now::from_millis(now), flow, part, vec![index; length]) {
            Came::Whole(whole) => {
                assert_eq!(whole.len(), usize::from(part.count));
                assert!(whole.iter().map(Vec::len).sum::<usize>() <= MAX_DATAGRAM);
                let is_in_place = |(at, piece): (usize, &Vec<u8>)| piece.iter().all(|byte| usize::from(byte % 8) == at);
                assert!(whole.iter().enumerate().all(is_in_place));
            }
            Came::Waits(_) | Came::Odd => {}
        }
        assert!(all.bytes() <= LIMIT && all.is_empty() == (all.bytes() == 0));
    }
    all.expire(Now::from_millis(now + 60_000));
    assert_eq!((all.len(), all.bytes()), (0, 0));
}
