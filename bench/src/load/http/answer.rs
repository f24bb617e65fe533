//! Checks an answer of HTTP/1.1 while it comes.

use anyhow::{Context, Result, bail, ensure};

use crate::pattern::Pattern;

/// More head than any proxy makes of the backend's.
const HEAD: usize = 4096;

/// Fields that every file comes with.
const OF_FILES: [&str; 4] = ["etag", "last-modified", "accept-ranges", "content-type"];

/// What an answer has to tell beside its length.
#[derive(Clone, Copy)]
pub(super) enum Expected {
    /// That the backend has seen so many of the fields that a proxy adds.
    Fields(u32),
    /// All about a file.
    File,
}

pub(super) struct Answer {
    expected: Expected,
    /// The entity tag of a file that the client has, and that is not to come again; empty where it is to come.
    unchanged: String,
    size: u64,
    offset: u64,
    /// What came of the head, while it is not whole.
    head: Vec<u8>,
    /// Bytes of the body that came, once the head has.
    got: Option<u64>,
}

impl Answer {
    pub(super) fn new(expected: Expected) -> Self {
        Self { expected, unchanged: String::new(), size: 0, offset: 0, head: Vec::new(), got: None }
    }

    /// The next answer is to hold `size` bytes of the pattern from `offset` on.
    pub(super) fn expect(&mut self, size: u64, offset: u64) {
        (self.size, self.offset, self.got) = (size, offset, None);
        self.head.clear();
        self.unchanged.clear();
    }

    /// The next answer is to say that what has this `tag` is unchanged.
    pub(super) fn expect_unchanged(&mut self, tag: &str) {
        self.expect(0, 0);
        self.unchanged.push_str(tag);
    }

    /// The entity tag of the answer that is whole.
    pub(super) fn tag(&self) -> Option<&str> {
        // The beginning of the body may be with the head, and be no text.
        let head = self.head.windows(4).position(|window| window == b"\r\n\r\n")?;
        field(std::str::from_utf8(&self.head[..head]).ok()?, "etag")
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
        let status = if self.unchanged.is_empty() { "HTTP/1.1 200 " } else { "HTTP/1.1 304 " };
        ensure!(head.starts_with(status), "the answer is {}", head.lines().next().unwrap_or("empty"));
        if !self.unchanged.is_empty() {
            let came = field(head, "etag").unwrap_or("nothing");
            ensure!(came == self.unchanged, "{came} is unchanged, but {} was asked for", self.unchanged);
            return Ok(());
        }
        let length: u64 = field(head, "content-length").context("an answer without a length")?.parse()?;
        ensure!(length == self.size, "{length} bytes come instead of {}", self.size);
        match self.expected {
            Expected::Fields(added) => {
                let seen = field(head, "x-seen").unwrap_or("nothing");
                ensure!(
                    seen.parse() == Ok(added),
                    "the backend has seen {seen} of the fields that a proxy adds, not {added}"
                );
            }
            Expected::File => {
                for name in OF_FILES {
                    ensure!(field(head, name).is_some(), "a file comes without {name}");
                }
            }
        }
        Ok(())
    }
}

/// The value of the field called `name`.
fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
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
            let mut answer = Answer::new(Expected::Fields(4));
            answer.expect(34, 640);
            assert!(!answer.take(&text[..cut], &pattern).unwrap());
            assert!(answer.take(&text[cut..], &pattern).unwrap());
            answer.expect(34, 704);
            assert!(answer.take(&text, &pattern).is_err());
        }
        let mut answer = Answer::new(Expected::Fields(0));
        answer.expect(34, 640);
        assert!(answer.take(&text, &pattern).is_err());
    }

    #[test]
    fn a_file_is_described_or_unchanged() {
        let pattern = Pattern::new(1024);
        let about = "ETag: \"a\"\r\nLast-Modified: x\r\nAccept-Ranges: bytes\r\nContent-Type: image/jpeg\r\n";
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n{about}\r\n");
        let text = [head.as_bytes(), pattern.at(64, 4)].concat();
        let mut answer = Answer::new(Expected::File);
        answer.expect(4, 64);
        assert!(answer.take(&text, &pattern).unwrap());
        assert_eq!(answer.tag(), Some("\"a\""));
        answer.expect(4, 64);
        let undescribed = String::from_utf8_lossy(&text).replace("Accept-Ranges", "Ranges");
        assert!(answer.take(undescribed.as_bytes(), &pattern).is_err());
        answer.expect_unchanged("\"a\"");
        assert!(answer.take(b"HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n", &pattern).unwrap());
        answer.expect_unchanged("\"a\"");
        assert!(answer.take(b"HTTP/1.1 304 Not Modified\r\nETag: \"b\"\r\n\r\n", &pattern).is_err());
        answer.expect_unchanged("\"a\"");
        assert!(answer.take(&text, &pattern).is_err());
    }
}
