//! What a `Range` asks for (RFC 9110 section 14).
//!
//! A server may send the whole where a client asks for parts (section 14.2). We do where the field says nothing that we
//! understand, and where the parts would cost more than they save.

use std::ops::Range;

use wmproxy_wire::head::{Known, Response};

/// Enough for readers of documents, which ask for several parts at once; each part costs a head and a read.
const MOST: usize = 16;

/// Clients have no reason to ask for a byte twice; section 14.2 names more than two overlapping ranges as a sign of an attack.
const MOST_OVERLAPS: usize = 2;

/// What a client wants of some bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// All of them.
    Whole,
    /// This range; never an empty one.
    Part(Range<u64>),
    /// These, at least two, in the order in which they were asked for. No two overlap or lie side by side.
    Parts(Vec<Range<u64>>),
    /// Only what is not there: a 416.
    Unsatisfiable,
}

/// Reads the value of a `Range` for `len` bytes.
pub fn wanted(value: &[u8], len: u64) -> Wanted {
    let Some(set) = set_of_bytes(value) else { return Wanted::Whole };
    let mut parts: Vec<Range<u64>> = Vec::new();
    let (mut count, mut overlaps, mut is_whole) = (0, 0, false);
    for spec in set.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|spec| !spec.is_empty()) {
        count += 1;
        let Some(spec) = Spec::read(spec).filter(|_| count <= MOST) else { return Wanted::Whole };
        match spec.within(len) {
            // Nothing is the last bytes of nothing, and no `Content-Range` can say so.
            Some(part) if part.is_empty() => is_whole = true,
            Some(part) => overlaps += usize::from(add(part, &mut parts)),
            None => {}
        }
    }
    if count == 0 || is_whole || overlaps > MOST_OVERLAPS {
        return Wanted::Whole;
    }
    match parts.len() {
        0 => Wanted::Unsatisfiable,
        1 => Wanted::Part(parts.swap_remove(0)),
        _ => Wanted::Parts(parts),
    }
}

/// What follows `bytes=`. The unit's case does not matter (section 14.1).
fn set_of_bytes(value: &[u8]) -> Option<&[u8]> {
    let (unit, set) = value.split_at_checked(6)?;
    unit.eq_ignore_ascii_case(b"bytes=").then_some(set)
}

/// A member of the set, as it was written.
#[derive(Debug, Clone, Copy)]
enum Spec {
    /// From the first to the last, that one included.
    Between(u64, u64),
    /// So many of the last.
    Last(u64),
}

impl Spec {
    /// None for what is none, and for one that ends before it begins: both make the whole field void (section 14.1.1).
    fn read(text: &[u8]) -> Option<Spec> {
        let dash = text.iter().position(|&byte| byte == b'-')?;
        match (&text[..dash], &text[dash + 1..]) {
            (b"", last) => Some(Spec::Last(number(last)?)),
            (first, b"") => Some(Spec::Between(number(first)?, u64::MAX)),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Spec::Between(first, last))
            }
        }
    }

    /// Where it lies in so many bytes; None where it is not satisfiable (section 14.1.2). Empty only at the end of nothing.
    fn within(self, len: u64) -> Option<Range<u64>> {
        match self {
            Spec::Between(first, last) => (first < len).then(|| first..last.saturating_add(1).min(len)),
            Spec::Last(0) => None,
            Spec::Last(count) => Some(len.saturating_sub(count)..len),
        }
    }
}

/// A number; one that is too large for any file is the largest.
fn number(digits: &[u8]) -> Option<u64> {
    let add = |number: u64, digit: u8| number.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| digits.iter().fold(0, |number, &digit| add(number, digit)))
}

/// Adds a range behind the others, or joins it with those that it touches, at the place of the first of them. Says whether it
/// has a byte with one of them in common.
fn add(part: Range<u64>, parts: &mut Vec<Range<u64>>) -> bool {
    let mut joined = part.clone();
    let (mut overlaps, mut place, mut index) = (false, parts.len(), 0);
    parts.retain(|other| {
        let is_apart = other.end < part.start || part.end < other.start;
        if !is_apart {
            overlaps |= part.start < other.end && other.start < part.end;
            joined = joined.start.min(other.start)..joined.end.max(other.end);
            place = place.min(index);
        }
        index += 1;
        is_apart
    });
    parts.insert(place, joined);
    overlaps
}

/// Says which part of so many bytes follows.
pub(super) fn put(part: &Range<u64>, len: u64, response: &mut Response) {
    response.fields.push_known(Known::ContentRange, content_range(part, len).as_bytes());
}

/// Says how many bytes there are to ask for.
pub(super) fn put_unsatisfiable(len: u64, response: &mut Response) {
    response.fields.push_known(Known::ContentRange, format!("bytes */{len}").as_bytes());
}

/// The value of a `Content-Range` (section 14.4) with a range that is not empty.
pub(super) fn content_range(part: &Range<u64>, len: u64) -> String {
    format!("bytes {}-{}/{len}", part.start, part.end - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LARGEST: u64 = i64::MAX as u64;

    #[test]
    fn ranges_are_read() {
        use Wanted::{Part, Unsatisfiable, Whole};
        for (value, len, expected) in [
            ("bytes=0-0", 10, Part(0..1)),
            ("bytes=0-", 10, Part(0..10)),
            ("bytes=9-", 10, Part(9..10)),
            ("bytes=3-5", 10, Part(3..6)),
            ("bytes=3-500", 10, Part(3..10)),
            ("bytes=-3", 10, Part(7..10)),
            ("bytes=-10", 10, Part(0..10)),
            ("bytes=-11", 10, Part(0..10)),
            ("BYTES=1-2", 10, Part(1..3)),
            ("bytes= 1-2 ", 10, Part(1..3)),
            ("bytes=,1-2\t,,", 10, Part(1..3)),
            ("bytes=0001-002", 10, Part(1..3)),
            // What is not there.
            ("bytes=10-", 10, Unsatisfiable),
            ("bytes=10-11,20-", 10, Unsatisfiable),
            ("bytes=-0", 10, Unsatisfiable),
            ("bytes=0-", 0, Unsatisfiable),
            ("bytes=-0", 0, Unsatisfiable),
            ("bytes=-1", 0, Whole),
            ("bytes=-1,0-", 0, Whole),
            ("bytes=10-,2-3", 10, Part(2..4)),
            // Near 2^64 and beyond.
            ("bytes=18446744073709551615-", 10, Unsatisfiable),
            ("bytes=18446744073709551616-18446744073709551617", 10, Unsatisfiable),
            ("bytes=5-18446744073709551615", 10, Part(5..10)),
            ("bytes=5-99999999999999999999999999999999999999", 10, Part(5..10)),
            ("bytes=-99999999999999999999999999999999999999", 10, Part(0..10)),
            ("bytes=9223372036854775806-9223372036854775807", LARGEST, Part(LARGEST - 1..LARGEST)),
            // What is no range.
            ("bytes=", 10, Whole),
            ("bytes=,", 10, Whole),
            ("bytes=-", 10, Whole),
            ("bytes=5-3", 10, Whole),
            ("bytes=1-2,5-3", 10, Whole),
            ("bytes=1-2,x", 10, Whole),
            ("bytes=a-b", 10, Whole),
            ("bytes=+1-2", 10, Whole),
            ("bytes=1--2", 10, Whole),
            ("bytes=1 -2", 10, Whole),
            ("bytes=1- 2", 10, Whole),
            ("bytes=1-2-3", 10, Whole),
            ("bytes=0x1-2", 10, Whole),
            ("bytes=1", 10, Whole),
            ("bytes =1-2", 10, Whole),
            ("bytes:1-2", 10, Whole),
            ("lines=1-2", 10, Whole),
            ("1-2", 10, Whole),
            ("", 10, Whole),
            // What is joined.
            ("bytes=0-4,5-9", 10, Part(0..10)),
            ("bytes=5-9,0-4", 10, Part(0..10)),
            ("bytes=0-2,1-4", 10, Part(0..5)),
            ("bytes=0-1,4-5,2-3", 10, Part(0..6)),
            ("bytes=3-4,3-4", 10, Part(3..5)),
        ] {
            assert_eq!(wanted(value.as_bytes(), len), expected, "{value} of {len}");
        }
    }

    #[test]
    fn several_keep_their_order() {
        for (value, expected) in [
            ("bytes=0-0,-1", &[0..1, 99..100][..]),
            ("bytes=50-59, 0-9 ,80-", &[50..60, 0..10, 80..100]),
            ("bytes=50-59,0-9,60-69,30-39", &[50..70, 0..10, 30..40]),
            ("bytes=0-1,4-5,20-29,2-3", &[0..6, 20..30]),
            ("bytes=20-29,4-5,0-1,2-3,500-", &[20..30, 0..6]),
        ] {
            assert_eq!(wanted(value.as_bytes(), 100), Wanted::Parts(expected.to_vec()), "{value}");
        }
    }

    #[test]
    fn too_many_ranges_or_overlaps_get_the_whole() {
        let apart = |count: u64| {
            let specs: Vec<_> = (0..count).map(|index| format!("{}-{}", index * 10, index * 10)).collect();
            format!("bytes={}", specs.join(","))
        };
        let wanted = |value: &str| wanted(value.as_bytes(), 1_000_000);
        assert!(matches!(wanted(&apart(16)), Wanted::Parts(parts) if parts.len() == 16));
        assert_eq!(wanted(&apart(17)), Wanted::Whole);
        assert_eq!(wanted(&apart(10_000)), Wanted::Whole);
        assert_eq!(wanted("bytes=0-9,5-9,5-9"), Wanted::Part(0..10));
        assert_eq!(wanted("bytes=0-9,5-9,5-9,5-9"), Wanted::Whole);
        assert_eq!(wanted("bytes=0-,0-,0-,0-"), Wanted::Whole);
    }

    /// A member of a set: the text, and the bytes that it names in so many.
    fn member() -> impl Strategy<Value = (Option<u64>, Option<u64>)> {
        let number = prop_oneof![4 => 0u64..200, 1 => any::<u64>()];
        prop_oneof![
            4 => (number.clone(), number.clone())
                .prop_map(|(first, last)| (Some(first.min(last)), Some(first.max(last)))),
            1 => number.clone().prop_map(|first| (Some(first), None)),
            1 => number.prop_map(|count| (None, Some(count))),
        ]
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(value in "(bytes=)?\\PC{0,40}", len in any::<u64>()) {
            let _ = wanted(value.as_bytes(), len);
        }

        /// A byte goes when a member names it, and every byte goes once.
        #[test]
        fn what_goes_is_what_the_members_name(members in prop::collection::vec(member(), 1..16), len in 0u64..150) {
            let text = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
            let specs: Vec<_> =
                members.iter().map(|(first, last)| format!("{}-{}", text(*first), text(*last))).collect();
            let names = |byte: u64| members.iter().any(|member| match *member {
                (Some(first), last) => first <= byte && last.is_none_or(|last| byte <= last),
                (None, Some(count)) => len - byte <= count,
                (None, None) => unreachable!(),
            });
            let parts = match wanted(format!("bytes={}", specs.join(",")).as_bytes(), len) {
                Wanted::Whole => return Ok(()),
                Wanted::Part(part) => vec![part],
                Wanted::Parts(parts) => {
                    prop_assert!(parts.len() > 1);
                    parts
                }
                Wanted::Unsatisfiable => Vec::new(),
            };
            for byte in 0..len {
                let count = parts.iter().filter(|part| part.contains(&byte)).count();
                prop_assert_eq!(count, usize::from(names(byte)));
            }
            for (index, part) in parts.iter().enumerate() {
                prop_assert!(part.start < part.end && part.end <= len);
                // None lies beside another.
                prop_assert!(parts.iter().skip(index + 1).all(|other| other.start != part.end && other.end != part.start));
            }
        }
    }
}
