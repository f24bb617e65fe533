//! The chunked coding: in whatever pieces the bytes come, the same is seen, nothing panics, the limits hold, and what was
//! seen is seen again when it is written anew. The first byte says how the rest is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wmproxy_wire::http1::{ChunkError, ChunkLimits, Chunks, Step, chunk_head, write_trailers};

const LIMITS: ChunkLimits = ChunkLimits { extension: 64, excess: 512, trailer_bytes: 512, trailer_fields: 8 };

/// The data, and how many bytes the body was if it is whole.
type Body = Result<(Vec<u8>, Option<usize>), ChunkError>;

fn decode(bytes: &[u8], len: usize, chunks: &mut Chunks) -> Body {
    let (mut data, mut used) = (Vec::new(), 0);
    for mut piece in bytes.chunks(len) {
        loop {
            match chunks.next(piece)? {
                Step::More => {
                    used += piece.len();
                    break;
                }
                Step::Data(at) => {
                    assert!(!at.is_empty() && at.end <= piece.len());
                    data.extend_from_slice(&piece[at.clone()]);
                    used += at.end;
                    piece = &piece[at.end..];
                }
                Step::End(end) => return Ok((data, Some(used + end))),
            }
        }
    }
    Ok((data, None))
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&cut, bytes)) = bytes.split_first() else { return };
    let (mut whole, mut pieces) = (Chunks::new(LIMITS), Chunks::new(LIMITS));
    let at_once = decode(bytes, bytes.len().max(1), &mut whole);
    assert_eq!(at_once, decode(bytes, usize::from(cut) + 1, &mut pieces));
    let Ok((data, Some(used))) = at_once else { return };
    assert!(used <= bytes.len() && whole.is_done() && whole.trailers().len() <= LIMITS.trailer_fields);
    assert!(whole.trailers().iter().all(|field| field.known.may_trail()));

    let mut out = Vec::new();
    for part in data.chunks(usize::from(cut) + 1) {
        out.extend_from_slice(&chunk_head(part.len()));
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
    write_trailers(whole.trailers(), &mut out);
    pieces.reset();
    let wide = ChunkLimits { trailer_bytes: out.len(), ..LIMITS };
    let mut again = Chunks::new(wide);
    assert_eq!(decode(&out, 7, &mut again), Ok((data, Some(out.len()))));
    assert_eq!(format!("{:?}", again.trailers()), format!("{:?}", whole.trailers()));
});
