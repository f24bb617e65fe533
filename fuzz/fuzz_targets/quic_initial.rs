//! A QUIC client's first datagrams, and the frames that are in them: whatever comes is taken without a panic, every limit
//! holds, and what comes twice changes nothing.
//!
//! An even first byte: datagrams, each behind its length in two bytes. An odd one: frames without their protection, which
//! random bytes would never get through, in packets each behind its length in two bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wmproxy_wire::client_hello::parse_handshake;
use wmproxy_wire::quic_initial::{
    ClientFlight, CryptoStream, Limits, MAX_CID, long_header, packets, read_frames, short_header_dcid,
};

const LIMITS: Limits = Limits { hello: 4096, datagrams: 8, pieces: 16 };

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, rest)) = bytes.split_first() else { return };
    if kind % 2 == 0 { datagrams(parts(rest)) } else { frames(parts(rest)) }
});

fn parts(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
        parts.push(&rest[..length]);
        bytes = &rest[length..];
    }
    parts
}

fn datagrams(all: Vec<&[u8]>) {
    let mut flight = ClientFlight::new(LIMITS);
    let mut taken = 0;
    for datagram in all {
        if let Some(header) = long_header(datagram) {
            assert!(header.dcid.len() + header.scid.len() + 7 <= datagram.len());
        }
        for length in 0..=MAX_CID {
            assert!(short_header_dcid(datagram, length).is_none_or(|cid| cid.len() == length));
        }
        assert!(packets(datagram).count() <= datagram.len());
        match flight.push(datagram) {
            Ok(None) => taken += 1,
            Ok(Some(_)) | Err(_) => break,
        }
        assert!(taken <= LIMITS.datagrams && flight.dcid().len() <= MAX_CID);
    }
}

fn frames(packets: Vec<&[u8]>) {
    let mut stream = CryptoStream::new(LIMITS.hello, LIMITS.pieces);
    let mut before = Vec::new();
    for packet in &packets {
        let result = read_frames(packet, &mut stream);
        // What was there stays.
        assert!(stream.contiguous().starts_with(&before) && stream.contiguous().len() <= LIMITS.hello);
        let _ = parse_handshake(stream.contiguous(), LIMITS.hello);
        if result.is_err() {
            return;
        }
        before = stream.contiguous().to_vec();
    }
    for packet in &packets {
        assert_eq!(read_frames(packet, &mut stream), Ok(()));
    }
    assert_eq!(stream.contiguous(), before);
}
