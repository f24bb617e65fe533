//! Several ranges in one body: `multipart/byteranges` (RFC 9110 section 14.6).

use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::ops::Range;
use std::sync::LazyLock;

use wmproxy_wire::head::{Known, Response};

use super::Parts;
use super::range::content_range;
use crate::file::File;

/// What the names of boundaries come from. Nobody outside knows it, so nobody can write a file with a boundary in it.
static SECRET: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Writes the type of a body with these ranges, of which there are at least two, and lays the body out. None where it would be
/// no smaller than the file.
pub(super) fn put(file: &File, ranges: &[Range<u64>], response: &mut Response) -> Option<Parts> {
    let boundary = boundary(file, ranges);
    let parts = lay_out(&boundary, &file.content_type, file.version.len, ranges)?;
    let content_type = format!("multipart/byteranges; boundary={boundary}");
    response.fields.push_known(Known::ContentType, content_type.as_bytes());
    Some(parts)
}

fn lay_out(boundary: &str, content_type: &str, len: u64, ranges: &[Range<u64>]) -> Option<Parts> {
    let mut parts = Vec::with_capacity(ranges.len());
    for range in ranges {
        let mut head = Vec::new();
        // The line before a boundary ends with it; before the first there is none.
        let before = if parts.is_empty() { "" } else { "\r\n" };
        let range_field = content_range(range, len);
        // A vector takes everything.
        let _ = write!(
            head,
            "{before}--{boundary}\r\nContent-Type: {content_type}\r\nContent-Range: {range_field}\r\n\r\n"
        );
        parts.push((head, range.clone()));
    }
    let end = format!("\r\n--{boundary}--\r\n").into_bytes();
    // They do not overlap, so that the sum is near the length of the file at most.
    let total = parts.iter().map(|(head, range)| head.len() as u64 + (range.end - range.start)).sum::<u64>()
        + end.len() as u64;
    (total < len).then_some(Parts { parts, end, len: total })
}

/// The same for the same ranges of the same version, so that a client that asks again gets the same body.
fn boundary(file: &File, ranges: &[Range<u64>]) -> String {
    let half = |number: u8| SECRET.hash_one((&file.etag, ranges, number));
    format!("{:016x}{:016x}", half(0), half(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body as it goes to a client.
    fn written(parts: &Parts, file: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        for (head, range) in &parts.parts {
            body.extend_from_slice(head);
            body.extend_from_slice(&file[range.start as usize..range.end as usize]);
        }
        body.extend_from_slice(&parts.end);
        body
    }

    #[test]
    fn each_range_stands_behind_a_head_and_the_length_is_exact() {
        let file: Vec<u8> = (0..1000).map(|index| b'a' + (index % 26) as u8).collect();
        let parts = lay_out("x", "text/plain", 1000, &[995..1000, 0..3]).unwrap();
        let body = written(&parts, &file);
        let expected = "--x\r\nContent-Type: text/plain\r\nContent-Range: bytes 995-999/1000\r\n\r\nhijkl\
             \r\n--x\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-2/1000\r\n\r\nabc\r\n--x--\r\n";
        assert_eq!(String::from_utf8(body.clone()).unwrap(), expected);
        assert_eq!(parts.len, body.len() as u64);
    }

    #[test]
    fn it_is_always_smaller_than_the_file() {
        let of = |len: u64| lay_out("x", "text/plain", len, &[0..1, len - 1..len]);
        // All these numbers have three digits.
        let total = of(999).unwrap().len;
        for len in 101..999 {
            assert_eq!(of(len).map(|parts| parts.len), (len > total).then_some(total), "{len}");
        }
    }
}
