//! When a response was made.

use std::cell::Cell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use wmproxy_runtime::clock::{self, Ticks};
use wmproxy_wire::head::{DATE_LEN, Known, Response, date};

thread_local! {
    /// The second of now, its date, and until when it is that.
    static NOW: Cell<(Ticks, u64, [u8; DATE_LEN])> = const { Cell::new((Ticks(0), 0, [0; DATE_LEN])) };
}

/// Dates a response that has no date: what is made here, and what a peer without a clock has made (RFC 9110 section 6.6.1).
pub(super) fn put(response: &mut Response) {
    if !response.fields.has(Known::Date) {
        response.fields.push_known(Known::Date, &current(clock::now()).1);
    }
}

/// The time in seconds since 1970, up to a kernel tick late.
pub(crate) fn seconds() -> u64 {
    current(clock::now()).0
}

/// The second of now and its date, found out anew once a second.
fn current(now: Ticks) -> (u64, [u8; DATE_LEN]) {
    let (until, seconds, text) = NOW.get();
    if now < until {
        return (seconds, text);
    }
    // Before 1970 there is no date to be told.
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let rest = Duration::from_secs(1).saturating_sub(Duration::from_nanos(time.subsec_nanos().into()));
    let (seconds, text) = (time.as_secs(), date(time.as_secs()));
    NOW.set((now + rest, seconds, text));
    (seconds, text)
}

#[cfg(test)]
mod tests {
    use wmproxy_wire::head::parse_date;

    use super::*;

    fn said(text: &[u8]) -> u64 {
        parse_date(text, 0).expect("a date")
    }

    #[test]
    fn a_response_gets_the_date_of_now_once() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut response = Response::with_status(200);
        put(&mut response);
        put(&mut response);
        assert_eq!(response.fields.all(Known::Date).count(), 1);
        let said = said(response.fields.get(Known::Date).unwrap());
        assert!((now..=now + 5).contains(&said), "{said} at {now}");
    }

    #[test]
    fn what_a_peer_says_stays() {
        let mut response = Response::with_status(200);
        response.fields.push(b"date", b"Sun, 06 Nov 1994 08:49:37 GMT");
        put(&mut response);
        assert_eq!(response.fields.len(), 1);
    }

    #[test]
    fn the_text_is_written_anew_when_its_second_is_over() {
        let now = clock::now();
        current(now);
        let (until, ..) = NOW.get();
        assert!(until > now && until.since(now) <= Duration::from_secs(1));
        NOW.set((until, 784_111_777, *b"Sun, 06 Nov 1994 08:49:37 GMT"));
        assert_eq!(said(&current(now).1), 784_111_777, "it is not over");
        assert!(said(&current(until).1) > 784_111_777);
    }
}
