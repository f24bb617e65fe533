//! Passwords on their way in: from a terminal without showing them, from standard input, a file or the environment; and
//! `wmproxy hash-password`, which makes of one what a config holds.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Context, bail};
use clap::Args;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use wmproxy_http::auth::{HashKind, hash_password};
use wmproxy_wire::units::Secret;

use crate::config;

/// No password is longer; what is, is another file.
const LONGEST: u64 = 4096;

/// What is to be hashed, and how.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct HashPasswordArgs {
    /// Make a hash that other programs know, too; passwords have at most 72 bytes then
    #[arg(long)]
    bcrypt: bool,
}

impl HashPasswordArgs {
    /// The hash of a password that somebody types in twice, or of the first line of standard input.
    ///
    /// # Errors
    /// No password came, or none that could be one.
    pub(crate) fn run(self) -> anyhow::Result<String> {
        let password = if io::stdin().is_terminal() {
            let first = from_terminal("Password: ")?;
            if from_terminal("Again: ")? != first {
                bail!("these are two passwords");
            }
            first
        } else {
            from_reader(io::stdin().lock()).context("can't read the password from standard input")?
        };
        let kind = if self.bcrypt { HashKind::Bcrypt } else { HashKind::Argon2id };
        Ok(hash_password(password.expose(), kind)?)
    }
}

/// A password that somebody types in; it is not shown.
///
/// # Errors
/// There is no terminal, or nothing was typed.
pub(crate) fn from_terminal(prompt: &str) -> anyhow::Result<Secret> {
    let mut terminal = File::options()
        .read(true)
        .write(true)
        .open("/dev/tty")
        .context("no terminal to ask for a password")?;
    terminal.write_all(prompt.as_bytes())?;
    let quiet = Quiet::new(terminal.as_fd())?;
    let password = from_reader(&terminal);
    drop(quiet);
    terminal.write_all(b"\n")?;
    Ok(password?)
}

/// The first line of a file; `-` is standard input. `what` it is, as in "password", is for the words of an error.
///
/// # Errors
/// It can't be read, or is empty.
pub(crate) fn from_file(path: &Path, what: &str) -> anyhow::Result<Secret> {
    let line = match path.to_str() {
        Some("-") => from_reader(io::stdin().lock()),
        _ => {
            // Nothing logs yet.
            if let Some(warning) = config::exposed(path) {
                eprintln!("warning: {warning}");
            }
            File::open(path).and_then(from_reader)
        }
    };
    line.with_context(|| format!("can't read a {what} from {}", path.display()))
}

fn from_reader(reader: impl Read) -> io::Result<Secret> {
    let mut line = String::new();
    BufReader::new(reader.take(LONGEST)).read_line(&mut line)?;
    let line = line.strip_suffix('\n').unwrap_or(&line);
    let line = line.strip_suffix('\r').unwrap_or(line);
    Secret::new(line)
        .map_err(|_| io::Error::new(io::ErrorKind::UnexpectedEof, "there is nothing in its first line"))
}

/// A terminal that does not show what is typed, as long as this lives.
struct Quiet<'a> {
    terminal: rustix::fd::BorrowedFd<'a>,
    before: Termios,
}

impl<'a> Quiet<'a> {
    fn new(terminal: rustix::fd::BorrowedFd<'a>) -> io::Result<Quiet<'a>> {
        let before = tcgetattr(terminal)?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(terminal, OptionalActions::Flush, &quiet)?;
        Ok(Quiet { terminal, before })
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        // Nothing else could be done about it, and the user sees it.
        let _ = tcsetattr(self.terminal, OptionalActions::Flush, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_the_first_line() {
        for (text, expected) in [("abc\n", "abc"), ("abc", "abc"), ("a b \r\nnext\n", "a b ")] {
            assert_eq!(from_reader(text.as_bytes()).unwrap().expose(), expected);
        }
        assert!(from_reader(&b""[..]).is_err());
        assert!(from_reader(&b"\nabc\n"[..]).is_err());
    }
}
