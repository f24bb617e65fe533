//! A certificate of our own making, for development: made once and kept, so that whoever trusts it can go on doing so.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::certificate::CertificateInfo;

/// What stands in the place of a certificate's file to ask for one.
pub const SELF_SIGNED: &str = "self-signed";

const CERT: &str = "self-signed.crt";
const KEY: &str = "self-signed.key";

/// How long one is valid: Apple's systems take no longer ones (support article 103769).
const VALID: Duration = Duration::from_secs(825 * 24 * 3600);

/// One that has less than this left is made anew at a start.
const RENEW: Duration = Duration::from_secs(30 * 24 * 3600);

/// Where this program keeps what it makes: what systemd gives it (`StateDirectory=`), or else the user's own directory
/// for that. None if there is neither.
pub fn state_directory(env: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let absolute = |name: &str| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("STATE_DIRECTORY")
        .or_else(|| Some(absolute("XDG_STATE_HOME")?.join("wmproxy")))
        .or_else(|| Some(absolute("HOME")?.join(".local/state/wmproxy")))
}

/// The certificate's file and the key's.
pub(super) fn paths(directory: &Path) -> [PathBuf; 2] {
    [directory.join(CERT), directory.join(KEY)]
}

/// The certificate's file and the key's, which are made unless they are there.
pub(super) fn ensure(directory: &Path) -> Result<(PathBuf, PathBuf), String> {
    let [cert, key] = paths(directory);
    let kept = CertificateDer::from_pem_file(&cert).ok().and_then(|der| CertificateInfo::read(&der).ok());
    if let Some(kept) = kept.filter(|kept| key.exists() && kept.not_after > SystemTime::now() + RENEW) {
        tracing::info!(file = %cert.display(), sha256 = kept.fingerprint, "a self-signed certificate is in use");
        return Ok((cert, key));
    }
    let (cert_text, key_text) = make().map_err(|error| format!("can't make a certificate: {error}"))?;
    let write = || {
        // The key first: the certificate's file says that both are there.
        replace(&key, &key_text, 0o600)?;
        replace(&cert, &cert_text, 0o644)
    };
    write().map_err(|error| {
        format!("can't keep a self-signed certificate in {}: {error}", directory.display())
    })?;
    let made = CertificateDer::from_pem_slice(cert_text.as_bytes()).ok();
    let made = made.and_then(|der| CertificateInfo::read(&der).ok());
    let sha256 = made.map(|made| made.fingerprint).unwrap_or_default();
    tracing::info!(file = %cert.display(), sha256, "a self-signed certificate was made");
    Ok((cert, key))
}

/// Writes a file whole or not at all, which nobody else could read before.
fn replace(file: &Path, text: &str, mode: u32) -> io::Result<()> {
    fs::rename(write_new(file, text, mode)?, file)
}

/// Writes what is to become a file to another beside it, and makes their directory if need be.
pub(super) fn write_new(file: &Path, text: &str, mode: u32) -> io::Result<PathBuf> {
    if let Some(directory) = file.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let draft = file.with_extension(format!("new-{}", std::process::id()));
    let _ = fs::remove_file(&draft);
    let mut open = OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft)?;
    open.write_all(text.as_bytes())?;
    open.sync_all()?;
    Ok(draft)
}

fn make() -> Result<(String, String), rcgen::Error> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let host = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
    // Not every machine's name is one that a certificate can have.
    if rustls::pki_types::DnsName::try_from(host.as_str()).is_ok() && !names.contains(&host) {
        names.push(host);
    }
    let mut params = CertificateParams::new(names)?;
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, "wmproxy self-signed");
    params.distinguished_name = subject;
    // A day in the past, for clocks differ.
    let now = SystemTime::now();
    let day = Duration::from_secs(24 * 3600);
    params.not_before = (now - day).into();
    params.not_after = (now + VALID - day).into();
    let key = KeyPair::generate()?;
    let cert = params.self_signed(&key)?;
    Ok((cert.pem(), key.serialize_pem()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::tls::tests::directory;

    #[test]
    fn it_is_made_once_and_kept_to_ourselves() {
        let directory = directory("self-signed");
        let inner = directory.path().join("a/b");
        let (cert, key) = ensure(&inner).unwrap();
        let first = fs::read(&cert).unwrap();
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&inner).unwrap().permissions().mode() & 0o777, 0o700);
        let info = CertificateInfo::read(&CertificateDer::from_pem_slice(&first).unwrap()).unwrap();
        assert!(info.names.contains(&"localhost".to_owned()));
        assert!(info.not_after > SystemTime::now() + RENEW);
        ensure(&inner).unwrap();
        assert_eq!(fs::read(&cert).unwrap(), first, "it is used again");
        fs::write(&cert, "garbage").unwrap();
        ensure(&inner).unwrap();
        assert_ne!(fs::read(&cert).unwrap(), first, "what is broken is replaced");
    }

    #[test]
    fn its_place_follows_the_environment() {
        let of = |set: &[(&str, &str)]| {
            state_directory(|name| {
                set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            })
        };
        let all = [("STATE_DIRECTORY", "/a"), ("XDG_STATE_HOME", "/b"), ("HOME", "/c")];
        assert_eq!(of(&all), Some("/a".into()));
        assert_eq!(of(&all[1..]), Some("/b/wmproxy".into()));
        assert_eq!(of(&all[2..]), Some("/c/.local/state/wmproxy".into()));
        assert_eq!(of(&[("HOME", "relative")]), None);
    }
}
