//! Listings of a directory, one after the other: when the page begins, when its first entry has come, when it is whole,
//! and whether all is there.

use std::io::{Read, Write};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::{FIELDS, LoadReport, await_start, deliver, latency, nanos_since};
use crate::backend::CHUNK;
use crate::cli::LoadArgs;
use crate::identity;
use crate::load::{Latency, connect};
use crate::site::{ENTRY, LISTED};

/// Digits of a file's number.
const DIGITS: usize = 6;

/// An answer as it came, and how long it took.
struct Listing {
    text: Vec<u8>,
    /// Where the body begins.
    body: usize,
    /// Until there was any of the body.
    first_nanos: u32,
    /// Until there was any of the directory's entries in it.
    entry_nanos: u32,
    seconds: f64,
}

pub(in crate::load) fn run(args: &LoadArgs) -> Result<()> {
    let mut room = Vec::new();
    for _ in 0..args.warmup {
        room = fetch(args, room)?.checked(args.size)?;
    }
    await_start()?;
    let (mut nanos, mut entry_nanos, mut seconds) = (Vec::new(), Vec::new(), 0.0);
    for _ in 0..args.work {
        let listing = fetch(args, room)?;
        nanos.push(listing.first_nanos);
        entry_nanos.push(listing.entry_nanos);
        seconds += listing.seconds;
        room = listing.checked(args.size)?;
    }
    let entry = latency(&mut entry_nanos).map(|entry| entry.p50);
    let latency = latency(&mut nanos).map(|latency| Latency { entry, ..latency });
    deliver(&LoadReport { done: args.work, lost: 0, seconds, latency })
}

/// Asks for a listing and reads it into `text`, whose room is there already, on a connection that ends with it.
fn fetch(args: &LoadArgs, mut text: Vec<u8>) -> Result<Listing> {
    text.clear();
    let mut scratch = vec![0; CHUNK];
    let mut socket = connect(args.target)?;
    let request = format!(
        "GET /{LISTED}/ HTTP/1.1\r\nHost: {}\r\n{FIELDS}\r\nConnection: close\r\n\r\n",
        identity::NAME
    );
    let since = Instant::now();
    socket.write_all(request.as_bytes())?;
    let (mut body, mut first_nanos, mut entry_nanos) = (None, None, None);
    loop {
        let len = socket.read(&mut scratch)?;
        if len == 0 {
            break;
        }
        // A name may be cut in two.
        let unseen = text.len().saturating_sub(ENTRY.len() - 1);
        text.extend_from_slice(&scratch[..len]);
        body = body.or_else(|| text.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4));
        if first_nanos.is_none() && body.is_some_and(|body| text.len() > body) {
            first_nanos = Some(nanos_since(since));
        }
        if entry_nanos.is_none() && has_entry(&text[unseen..]) {
            entry_nanos = Some(nanos_since(since));
        }
    }
    let seconds = since.elapsed().as_secs_f64();
    let first_nanos = first_nanos.context("an answer without a body")?;
    let entry_nanos = entry_nanos.context("a page without an entry")?;
    Ok(Listing { text, body: body.unwrap_or(0), first_nanos, entry_nanos, seconds })
}

impl Listing {
    /// Hands the room back for the next one if this one names every file.
    fn checked(self, entries: usize) -> Result<Vec<u8>> {
        let (head, body) = self.text.split_at(self.body);
        let head = String::from_utf8_lossy(head).to_ascii_lowercase();
        ensure!(
            head.starts_with("http/1.1 200 "),
            "the answer is {}",
            head.lines().next().unwrap_or_default()
        );
        ensure!(head.contains("\r\ncontent-type: text/html"), "the answer is no page");
        let joined;
        let body = if head.contains("\r\ntransfer-encoding: chunked") {
            joined = join(body)?;
            &joined
        } else {
            body
        };
        let missing = entries - named(body, entries);
        ensure!(missing == 0, "{missing} of {entries} files are missing");
        Ok(self.text)
    }
}

/// The body that comes in `chunks` (RFC 9112 section 7.1).
fn join(mut chunks: &[u8]) -> Result<Vec<u8>> {
    let mut body = Vec::with_capacity(chunks.len());
    loop {
        let line =
            chunks.windows(2).position(|window| window == b"\r\n").context("a chunk without a size")?;
        let size = std::str::from_utf8(&chunks[..line])?.split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size.trim(), 16).context("a strange size of a chunk")?;
        if size == 0 {
            return Ok(body);
        }
        let start = line + 2;
        body.extend_from_slice(chunks.get(start..start + size).context("a chunk that is not whole")?);
        chunks = chunks.get(start + size + 2..).context("chunks without an end")?;
    }
}

fn has_entry(text: &[u8]) -> bool {
    text.windows(ENTRY.len()).any(|window| window == ENTRY.as_bytes())
}

/// How many of the files a page names.
fn named(page: &[u8], entries: usize) -> usize {
    let mut seen = vec![false; entries];
    let mut at = 0;
    while let Some(name) = page.get(at..at + ENTRY.len() + DIGITS) {
        let Some(digits) = name.strip_prefix(ENTRY.as_bytes()) else {
            at += 1;
            continue;
        };
        let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<usize>().ok());
        if let Some(seen) = number.and_then(|number| seen.get_mut(number)) {
            *seen = true;
        }
        at += name.len();
    }
    seen.into_iter().filter(|seen| *seen).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_joined_and_a_cut_one_is_refused() {
        assert_eq!(join(b"4;a=b\r\nentr\r\nA\r\ny-000001.j\r\n0\r\n\r\n").unwrap(), b"entry-000001.j");
        assert!(join(b"4\r\nen").is_err());
        assert!(join(b"2\r\nen\r\n").is_err());
    }

    #[test]
    fn each_file_counts_once() {
        let page = b"<a href=\"entry-000001.jpg\">entry-000001.jpg</a> entry-000000 entry-000009 entry-x";
        assert_eq!(named(page, 3), 2);
    }
}
