//! The conditions of a request: whether it is to be done at all (RFC 9110 section 13).
//!
//! A date that is none counts as if it were not there. A list of tags with something else in it counts up to that: with
//! `If-Match` the request then fails rather than being done to the wrong file, with `If-None-Match` the file is sent.

use wmproxy_wire::head::{Fields, Known, Method, Request, parse_date};

use super::tags::{Tag, tags};
use crate::file::File;

/// What tells one version of a file from another.
#[derive(Debug, Clone, Copy)]
pub struct Validators<'a> {
    /// Its strong entity tag, with quotes.
    pub etag: &'a [u8],
    /// When it was modified, in seconds since 1970.
    pub modified: u64,
}

/// What the conditions of a request come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is to be done.
    Met,
    /// The client has the file: a 304.
    NotModified {
        /// Whether the tag that it knows it by is a weak one.
        is_weak: bool,
    },
    /// It is not to be done: a 412.
    Failed,
}

impl<'a> Validators<'a> {
    /// Those of a file.
    pub(super) fn of(file: &'a File) -> Validators<'a> {
        const NANOSECONDS: i128 = 1_000_000_000;
        let seconds = file.version.modified.div_euclid(NANOSECONDS).max(0);
        Validators { etag: file.etag.as_bytes(), modified: u64::try_from(seconds).unwrap_or(u64::MAX) }
    }
}

/// Judges the conditions of a request for a file that is there, in the order of section 13.2.2. `now` is in seconds since
/// 1970.
pub fn judge(validators: &Validators<'_>, request: &Request, now: u64) -> Verdict {
    let fields = &request.fields;
    if fields.has(Known::IfMatch) {
        // Only the very same bytes will do (section 13.1.1).
        let matches = |tag: Tag<'_>| !tag.is_weak && tag.quoted == validators.etag;
        if !fields.all(Known::IfMatch).any(|line| line == b"*" || tags(line).any(matches)) {
            return Verdict::Failed;
        }
    } else if only_date(fields, Known::IfUnmodifiedSince, now).is_some_and(|date| validators.modified > date)
    {
        return Verdict::Failed;
    }
    if fields.has(Known::IfNoneMatch) {
        return judge_if_none_match(validators, fields);
    }
    let is_read = matches!(request.method, Method::Get | Method::Head);
    let since = only_date(fields, Known::IfModifiedSince, now).filter(|_| is_read);
    // We never name a date that is yet to come, so that one is of another server's clock, and says nothing of this file.
    match since.filter(|&date| date <= now) {
        Some(date) if validators.modified <= date => Verdict::NotModified { is_weak: false },
        _ => Verdict::Met,
    }
}

/// Whether the client has none of these (section 13.1.2). Weak tags count as well.
fn judge_if_none_match(validators: &Validators<'_>, fields: &Fields) -> Verdict {
    let mut verdict = Verdict::Met;
    for line in fields.all(Known::IfNoneMatch) {
        if line == b"*" {
            return Verdict::NotModified { is_weak: false };
        }
        for tag in tags(line).filter(|tag| tag.quoted == validators.etag) {
            if !tag.is_weak {
                return Verdict::NotModified { is_weak: false };
            }
            verdict = Verdict::NotModified { is_weak: true };
        }
    }
    verdict
}

/// Whether `If-Range` lets ranges be sent: where it is there, the client has a part of this very version (section 13.1.5).
pub fn are_ranges_valid(validators: &Validators<'_>, request: &Request, now: u64) -> bool {
    let mut lines = request.fields.all(Known::IfRange);
    let line = match (lines.next(), lines.next()) {
        (None, _) => return true,
        (Some(line), None) => line,
        // Two of them mean nothing, and the whole is never wrong.
        (Some(_), Some(_)) => return false,
    };
    if let Some((tag, behind)) = Tag::read(line) {
        return behind.is_empty() && !tag.is_weak && tag.quoted == validators.etag;
    }
    // A date is a weak validator as long as the file can change within its second (section 8.8.2.2).
    let is_strong = validators.modified < now;
    is_strong && parse_date(line, now) == Some(validators.modified)
}

/// The date of a field that is there once.
fn only_date(fields: &Fields, known: Known, now: u64) -> Option<u64> {
    let mut lines = fields.all(known);
    let line = lines.next()?;
    lines.next().is_none().then(|| parse_date(line, now))?
}
