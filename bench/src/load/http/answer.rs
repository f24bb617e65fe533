//! Checks an answer of HTTP/1.1 while it comes.

use anyhow::{Context, Result, bail, ensure};

use crate::pattern::Pattern;

/// More head than any proxy makes of the backend's.
const HEAD: usize = 4096;

pub(super) struct Answer {
    /// Fields that the backend has to have seen.
    added: &'static str,
    size: u64,
    offset: u64,
    /// What came of the head, while it is not whole.
    head: Vec<u8>,
    /// Bytes of the body that came, once the head has.
    got: Option<u64>,
}

impl Answer {
    /// Behind a proxy, whose fields the backend has to have seen, or without one.
    pub(super) fn new(proxied: bool) -> Self {
        let added = if proxied { "4" } else { "0" };
        Self { added, size: 0, offset: 0, head: Vec::new(), got: None }
    }

    /// The next answer is to hold `size` bytes of the pattern from `offset` on.
    pub(super) fn expect(&mut self, size: u64, offset: u64) {
        (self.size, self.offset, self.got) = (size, offset, None);
        self.head.clear();
    }

    pub(super) fn is_whole(&self) -> bool {
        self.got == Some(self.size)
    }

    /// Takes what has come; whether the answer is whole.
    pub(super) fn take(&mut self, data: &[u8], pattern: &Pattern) -> Result<bool> {
        if self.got.is_some() {
            return self.take_body(data, pattern);
        }
        let before = self.head.len();
        self.head.extend_from_slice(data);
        let Some(end) = self.head.windows(4).position(|window| window == b"\r\n\r\n") else {
            ensure!(self.head.len() < HEAD, "an answer with an endless head");
            return Ok(false);
        };
        self.check_head(std::str::from_utf8(&self.head[..end])?)?;
        self.got = Some(0);
        self.take_body(&data[end + 4 - before..], pattern)
    }

    fn take_body(&mut self, data: &[u8], pattern: &Pattern) -> Result<bool> {
        let got = self.got.unwrap_or(0);
        ensure!(data.len() as u64 <= self.size - got, "an answer goes on behind its end");
        if !data.is_empty() && !pattern.agrees(self.offset + got, data) {
            bail!("the body of an answer differs from what was asked for");
        }
        self.got = Some(got + data.len() as u64);
        Ok(self.is_whole())
    }

    fn check_head(&self, head: &str) -> Result<()> {
        ensure!(
            head.starts_with("HTTP/1.1 200 "),
            "the answer is {}",
            head.lines().next().unwrap_or("empty")
        );
        let field = |name: &str| {
            let mut fields = head.lines().filter_map(|line| line.split_once(':'));
            fields.find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
        };
        let length: u64 = field("content-length").context("an answer without a length")?.parse()?;
        ensure!(length == self.size, "{length} bytes come instead of {}", self.size);
        let seen = field("x-seen").unwrap_or("nothing");
        ensure!(
            seen == self.added,
            "the backend has seen {seen} of the fields that a proxy adds, not {}",
            self.added
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_in_any_pieces_and_another_one_is_refused() {
        let pattern = Pattern::new(1024);
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 34\r\nx-seen: 4\r\n\r\n";
        let text = [&head[..], pattern.at(640, 34)].concat();
        for cut in 1..text.len() {
            let mut answer = Answer::new(true);
            answer.expect(34, 640);
            assert!(!answer.take(&text[..cut], &pattern).unwrap());
            assert!(answer.take(&text[cut..], &pattern).unwrap());
            answer.expect(34, 704);
            assert!(answer.take(&text, &pattern).is_err());
        }
        let mut answer = Answer::new(false);
        answer.expect(34, 640);
        assert!(answer.take(&text, &pattern).is_err());
    }
}
