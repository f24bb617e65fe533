//! Keys of tunnels: where they come from, and how one is made.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rustix::rand::{GetRandomFlags, getrandom};
use wmproxy_net::tls::state_directory;
use wmproxy_wire::units::Secret;

use super::KEY_VARIABLE;
use crate::passwords;

/// As many as the digest of a proof has.
const KEY_BYTES: usize = 32;

/// A key, and how its owner may be told of it.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) secret: Secret,
    pub(super) origin: Origin,
}

/// Where a key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// Whoever runs the program said it.
    Told,
    /// It is in a file of theirs.
    File(PathBuf),
    /// It was made by ourselves, and is kept in this file.
    Made(PathBuf),
}

/// The key that was told: in so many words, in a file, or by the environment. None if it was not.
///
/// # Errors
/// The file can't be read, or nothing is in it.
pub(super) fn told(key: Option<&Secret>, file: Option<&Path>) -> anyhow::Result<Option<Key>> {
    if let Some(key) = key {
        return Ok(Some(Key { secret: key.clone(), origin: Origin::Told }));
    }
    if let Some(file) = file {
        let secret = passwords::from_file(file, "key")?;
        return Ok(Some(Key { secret, origin: Origin::File(file.to_owned()) }));
    }
    match std::env::var(KEY_VARIABLE) {
        Ok(key) => {
            let secret = Secret::new(key).with_context(|| format!("{KEY_VARIABLE} is empty"))?;
            Ok(Some(Key { secret, origin: Origin::Told }))
        }
        Err(_) => Ok(None),
    }
}

/// The key of the client `name` that was made at the first start, or a new one.
///
/// # Errors
/// There is no place to keep it in, or what is there can't be read.
pub(super) fn kept(name: &str) -> anyhow::Result<Key> {
    let Some(directory) = state_directory(|name| std::env::var(name).ok()) else {
        bail!(
            "there is no place to keep a key in: set STATE_DIRECTORY, XDG_STATE_HOME or HOME, or give --key"
        );
    };
    let file = directory.join(format!("tunnel-{name}.key"));
    let secret =
        kept_in(&directory, &file).with_context(|| format!("can't keep a key in {}", file.display()))?;
    Ok(Key { secret, origin: Origin::Made(file) })
}

fn kept_in(directory: &Path, file: &Path) -> io::Result<Secret> {
    let read = |file: &Path| {
        let text = fs::read_to_string(file)?;
        Secret::new(text.trim_end())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the file is empty"))
    };
    match read(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        kept => return kept,
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let draft = file.with_extension(format!("new-{}", std::process::id()));
    let mut open = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    writeln!(open, "{}", make()?.expose())?;
    open.sync_all()?;
    // Linked, not renamed: of two that begin at once the first one's key is that of both.
    let linked = fs::hard_link(&draft, file);
    fs::remove_file(&draft)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => read(file),
    }
}

/// A key that nobody guesses, which can stand in a command line as it is.
fn make() -> io::Result<Secret> {
    let mut bytes = [0; KEY_BYTES];
    let mut filled = 0;
    while filled < bytes.len() {
        filled += getrandom(&mut bytes[filled..], GetRandomFlags::empty())?;
    }
    Secret::new(BASE64_URL_SAFE_NO_PAD.encode(bytes)).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_kept_to_ourselves() {
        let directory = std::env::temp_dir().join(format!("wmproxy-key-{}", std::process::id()));
        let inner = directory.join("state");
        let file = inner.join("tunnel-home.key");
        let first = kept_in(&inner, &file).unwrap();
        assert_eq!(first.expose().len(), 43);
        assert!(kept_in(&inner, &file).unwrap() == first, "it is used again");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&inner).unwrap().count(), 1, "no draft is left");
        assert!(make().unwrap() != first);
        fs::write(&file, "\n").unwrap();
        assert!(kept_in(&inner, &file).is_err());
        fs::remove_dir_all(&directory).unwrap();
    }
}
