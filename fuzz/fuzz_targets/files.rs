//! What a request for a file says: its path, its conditions, its ranges. Whatever comes is taken without a panic, no path leads
//! out, and no byte is sent that is not there or twice.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wmproxy_files::path::PathName;
use wmproxy_files::reply::conditions::{Validators, Verdict, are_ranges_valid, judge};
use wmproxy_files::reply::range::{Wanted, wanted};
use wmproxy_wire::head::{Known, Request, date, is_value};

const NOW: u64 = 1_800_000_000;
const FILE: Validators<'_> = Validators { etag: b"\"v1\"", modified: 784_111_777 };

fn check_path(raw: &[u8]) {
    let mut path = PathName::default();
    if path.read(raw).is_err() {
        return;
    }
    let name = path.as_bytes();
    assert!(name.len() < raw.len() && !name.iter().any(|byte| matches!(byte, 0 | b'\\')));
    let is_name = |segment: &[u8]| !matches!(segment, b"" | b"." | b"..");
    assert!(name.is_empty() || name.split(|&byte| byte == b'/').all(is_name), "{}", name.escape_ascii());
}

fn check_ranges(value: &[u8], len: u64) {
    let parts = match wanted(value, len) {
        Wanted::Whole | Wanted::Unsatisfiable => return,
        Wanted::Part(part) => vec![part],
        Wanted::Parts(parts) => {
            assert!((2..=16).contains(&parts.len()));
            parts
        }
    };
    for (index, part) in parts.iter().enumerate() {
        assert!(part.start < part.end && part.end <= len);
        let is_apart = |other: &std::ops::Range<u64>| other.end < part.start || part.end < other.start;
        assert!(parts[index + 1..].iter().all(is_apart));
    }
}

/// What gets as far as this came through a codec, which lets only valid values pass.
fn check_conditions(lines: &[&[u8]]) {
    let names = [
        Known::IfMatch,
        Known::IfUnmodifiedSince,
        Known::IfNoneMatch,
        Known::IfModifiedSince,
        Known::IfRange,
    ];
    let mut request = Request::new();
    names
        .iter()
        .zip(lines)
        .filter(|(_, line)| is_value(line))
        .for_each(|(name, line)| request.fields.push_known(*name, line));
    let verdict = judge(&FILE, &request, NOW);
    let names_it =
        |known| request.fields.get(known).is_some_and(|list| list.windows(4).any(|part| part == FILE.etag));
    let is_any = |known| request.fields.get(known) == Some(b"*");
    if request.fields.has(Known::IfMatch) && !names_it(Known::IfMatch) && !is_any(Known::IfMatch) {
        assert_eq!(verdict, Verdict::Failed);
    }
    if verdict == (Verdict::NotModified { is_weak: true }) {
        assert!(names_it(Known::IfNoneMatch));
    }
    if let Some(value) = request.fields.get(Known::IfRange)
        && value.len() == date(0).len()
        && are_ranges_valid(&FILE, &request, NOW)
    {
        // The day of the week follows from the date; nobody looks whether it is the right one.
        assert_eq!(value[3..], date(FILE.modified)[3..]);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((len, rest)) = bytes.split_first_chunk() else { return };
    let lines: Vec<&[u8]> = rest.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).collect();
    check_path(lines[0]);
    check_ranges(lines[0], u64::from_le_bytes(*len));
    check_conditions(&lines);
});
