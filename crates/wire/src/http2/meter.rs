//! Counts the frames of a connection that cost their receiver work and their sender nothing.

use std::fmt;

/// What begins a connection (RFC 9113 section 3.4), before the first frame.
pub(crate) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The length of what begins every frame (RFC 9113 section 4.1).
const FRAME_HEAD: usize = 9;

/// How many costly frames a connection may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeterLimits {
    /// So many at once.
    pub burst: u32,
    /// So many a second afterwards.
    pub per_second: u32,
    /// One more for each so many bytes that were sent to its other end, which may have reason to speak of them.
    pub bytes_each: u32,
}

/// More costly frames than the limits allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flood {
    /// The frame that was one too many.
    pub frame: &'static str,
}

impl fmt::Display for Flood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a flood of HTTP/2 frames, at last {}", self.frame)
    }
}

impl std::error::Error for Flood {}

/// Reads along with what comes from the other end of a connection, and counts what costs us more than it: RST_STREAM
/// ("rapid reset", CVE-2023-44487), PING and SETTINGS (each wants an answer, CVE-2019-9512 and -9515), PRIORITY,
/// CONTINUATION (CVE-2024-27316), and DATA and HEADERS that carry nothing (CVE-2019-9518).
#[derive(Debug, Clone)]
pub struct FrameMeter {
    limits: MeterLimits,
    /// So much is to come before the next frame's head: the preface, the rest of a frame.
    skip: usize,
    head: [u8; FRAME_HEAD],
    /// So much of the head is there.
    have: usize,
    /// Costly frames that may still come, each as a thousand.
    credit: u64,
    /// Up to when credit was given, in milliseconds.
    at: u64,
    /// Bytes that were sent and not yet credited.
    sent: u64,
}

impl FrameMeter {
    /// A meter for a connection from now on, in milliseconds of any clock that does not go back.
    /// `expects_preface` says that it is a client's.
    pub fn new(limits: MeterLimits, expects_preface: bool, now_ms: u64) -> FrameMeter {
        FrameMeter {
            limits,
            skip: if expects_preface { PREFACE.len() } else { 0 },
            head: [0; FRAME_HEAD],
            have: 0,
            credit: u64::from(limits.burst) * 1000,
            at: now_ms,
            sent: 0,
        }
    }

    /// Takes what came next.
    ///
    /// # Errors
    /// When there was too much of what costs; nothing that follows is worth reading.
    pub fn feed(&mut self, mut bytes: &[u8], now_ms: u64) -> Result<(), Flood> {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let n = self.skip.min(bytes.len());
                self.skip -= n;
                bytes = &bytes[n..];
                continue;
            }
            let n = (FRAME_HEAD - self.have).min(bytes.len());
            self.head[self.have..][..n].copy_from_slice(&bytes[..n]);
            self.have += n;
            bytes = &bytes[n..];
            if self.have == FRAME_HEAD {
                self.have = 0;
                self.count(now_ms)?;
            }
        }
        Ok(())
    }

    /// Says that so many bytes were sent to the other end.
    pub fn sent(&mut self, bytes: usize) {
        self.sent = self.sent.saturating_add(bytes as u64);
    }

    /// Looks at a frame's head.
    fn count(&mut self, now_ms: u64) -> Result<(), Flood> {
        let [a, b, c, kind, flags, ..] = self.head;
        let length = u32::from_be_bytes([0, a, b, c]);
        // 24 bits.
        self.skip = length as usize;
        let ends = flags & 1 != 0;
        let frame = match (kind, length) {
            (0, 0) if !ends => "DATA without data",
            (1, 0) => "HEADERS without fields",
            (2, _) => "PRIORITY",
            (3, _) => "RST_STREAM",
            (4, _) if !ends => "SETTINGS",
            (6, _) if !ends => "PING",
            (9, _) => "CONTINUATION",
            _ => return Ok(()),
        };
        self.earn(now_ms);
        self.credit = self.credit.checked_sub(1000).ok_or(Flood { frame })?;
        Ok(())
    }

    fn earn(&mut self, now_ms: u64) {
        let MeterLimits { burst, per_second, bytes_each } = self.limits;
        let passed = now_ms.saturating_sub(self.at);
        self.at = self.at.max(now_ms);
        let for_bytes = self.sent / u64::from(bytes_each.max(1));
        self.sent -= for_bytes * u64::from(bytes_each.max(1));
        let earned =
            passed.saturating_mul(u64::from(per_second)).saturating_add(for_bytes.saturating_mul(1000));
        self.credit = self.credit.saturating_add(earned).min(u64::from(burst) * 1000);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: MeterLimits = MeterLimits { burst: 10, per_second: 2, bytes_each: 1000 };

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        frame.resize(FRAME_HEAD + payload, 0);
        frame
    }

    fn meter() -> FrameMeter {
        FrameMeter::new(LIMITS, false, 0)
    }

    #[test]
    fn each_costly_frame_is_counted_and_named() {
        let costly = [
            (frame(0, 0, 0), "DATA without data"),
            (frame(1, 4, 0), "HEADERS without fields"),
            (frame(2, 0, 5), "PRIORITY"),
            (frame(3, 0, 4), "RST_STREAM"),
            (frame(4, 0, 0), "SETTINGS"),
            (frame(6, 0, 8), "PING"),
            (frame(9, 4, 3), "CONTINUATION"),
        ];
        for (bytes, name) in costly {
            let mut meter = meter();
            for _ in 0..10 {
                assert_eq!(meter.feed(&bytes, 0), Ok(()), "{name}");
            }
            assert_eq!(meter.feed(&bytes, 0), Err(Flood { frame: name }));
        }
    }

    #[test]
    fn what_a_connection_lives_on_is_free() {
        let mut meter = meter();
        let free = [
            frame(0, 0, 1000),
            frame(0, 1, 0),
            frame(1, 5, 30),
            frame(4, 1, 0),
            frame(6, 1, 8),
            frame(7, 0, 8),
            frame(8, 0, 4),
        ];
        for _ in 0..1000 {
            free.iter().for_each(|bytes| assert_eq!(meter.feed(bytes, 0), Ok(())));
        }
    }

    #[test]
    fn credit_comes_back_with_time_and_with_what_is_sent() {
        let ping = frame(6, 0, 8);
        let mut meter = meter();
        (0..10).for_each(|_| meter.feed(&ping, 0).unwrap());
        // Nothing is fed to a meter after an error.
        assert!(meter.clone().feed(&ping, 499).is_err());
        assert!(meter.feed(&ping, 500).is_ok());
        meter.sent(1999);
        assert!(meter.feed(&ping, 500).is_ok());
        assert!(meter.clone().feed(&ping, 500).is_err());
        meter.sent(1);
        assert!(meter.feed(&ping, 500).is_ok());
    }

    #[test]
    fn pieces_of_any_size_and_the_preface_count_the_same() {
        let mut bytes = PREFACE.to_vec();
        for _ in 0..11 {
            bytes.extend(frame(0, 0, 300));
            bytes.extend(frame(3, 0, 4));
        }
        for size in [1, 2, 7, 9, 10, 24, 300, bytes.len()] {
            let mut meter = FrameMeter::new(LIMITS, true, 0);
            let mut pieces = bytes.chunks(size);
            assert!(pieces.any(|piece| meter.feed(piece, 0).is_err()), "{size}");
            let mut meter = FrameMeter::new(LIMITS, true, 0);
            let but_one = &bytes[..bytes.len() - 13];
            assert!(but_one.chunks(size).all(|piece| meter.feed(piece, 0).is_ok()), "{size}");
        }
    }
}
