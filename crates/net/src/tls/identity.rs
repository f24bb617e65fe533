//! A certificate that others know us by: made once, and never again. It lies in one file with its key, so that there is no
//! moment at which only one of them is there.

use std::fs;
use std::path::Path;

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, date_time_ymd};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::certificate::Fingerprint;
use super::self_signed::write_new;

/// Makes one unless something is there. Whatever is there stays as it is, were it broken: who knows us by it is to learn that
/// from a person.
pub(super) fn ensure(file: &Path) -> Result<(), String> {
    let kept = || CertificateDer::from_pem_file(file).map(|certificate| Fingerprint::of(&certificate));
    // A link that leads nowhere is something, too.
    if file.symlink_metadata().is_ok() {
        if let Ok(fingerprint) = kept() {
            tracing::info!(file = %file.display(), %fingerprint, "the identity is in use");
        }
        return Ok(());
    }
    let text = make().map_err(|error| format!("can't make an identity: {error}"))?;
    let fault = |error| format!("can't keep an identity in {}: {error}", file.display());
    let draft = write_new(file, &text, 0o600).map_err(fault)?;
    let placed = place(&draft, file);
    if placed.is_err() {
        let _ = fs::remove_file(&draft);
    }
    match placed {
        Ok(()) => {}
        // Somebody else was quicker, and that one counts.
        Err(Errno::EXIST) => return Ok(()),
        Err(error) => return Err(fault(error.into())),
    }
    if let Ok(fingerprint) = kept() {
        tracing::info!(file = %file.display(), %fingerprint, "an identity was made; who knows us by it needs this file to stay");
    }
    Ok(())
}

/// Gives a draft its name, unless that is taken.
fn place(draft: &Path, file: &Path) -> rustix::io::Result<()> {
    match renameat_with(CWD, draft, CWD, file, RenameFlags::NOREPLACE) {
        // Not every file system knows how. A second name for a file is as good.
        Err(Errno::INVAL | Errno::NOSYS) => {
            rustix::fs::link(draft, file)?;
            rustix::fs::unlink(draft)
        }
        done => done,
    }
}

/// The key and the certificate, in PEM.
fn make() -> Result<String, rcgen::Error> {
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, "wmproxy identity");
    params.distinguished_name = subject;
    // Long before any clock that is wrong, and for good: nobody who pins a certificate asks for its dates.
    params.not_before = date_time_ymd(1975, 1, 1);
    params.not_after = date_time_ymd(9999, 12, 31);
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(key.serialize_pem() + &certificate.pem())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::tls::tests::directory;
    use crate::tls::{Acceptor, AcceptorSpec, CertSpec, Fault};

    fn load(file: &Path) -> Result<Acceptor, Fault> {
        let certs = vec![CertSpec::Identity { file: file.to_owned() }];
        Acceptor::load(AcceptorSpec { certs, ..AcceptorSpec::default() }).map(|(acceptor, _)| acceptor)
    }

    #[test]
    fn it_is_made_once_and_never_again() {
        let directory = directory("identity");
        let file = directory.path().join("state/identity.pem");
        let spec = load(&file).unwrap().spec().clone();
        let text = fs::read(&file).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(file.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "no draft is left");
        let acceptor = load(&file).unwrap();
        let fingerprint = acceptor.fingerprint().unwrap();
        assert_eq!(load(&file).unwrap().fingerprint(), Some(fingerprint));
        assert_eq!(fs::read(&file).unwrap(), text);
        let year_9990 = std::time::Duration::from_secs(8020 * 365 * 24 * 3600);
        assert!(acceptor.certificates()[0].not_after > std::time::UNIX_EPOCH + year_9990);
        assert_eq!(Acceptor::check(&spec).unwrap(), []);

        fs::remove_file(&file).unwrap();
        assert!(!acceptor.follow().unwrap_or_default());
        let fault = acceptor.follow().unwrap_err();
        assert!(fault.message.contains("identity.pem"), "{fault}");
        assert!(!file.exists(), "who runs does not make another");
        assert_eq!(acceptor.fingerprint(), Some(fingerprint), "and goes on with the one it has");
        assert_eq!(Acceptor::check(&spec).unwrap(), [], "a first start would make one");
        assert!(!file.exists());

        fs::write(&file, "garbage").unwrap();
        load(&file).unwrap_err();
        assert_eq!(fs::read(&file).unwrap(), b"garbage", "what is broken is left to its owner");
    }

    #[test]
    fn of_two_that_make_one_at_once_the_first_counts() {
        let directory = directory("identity");
        let file = directory.path().join("identity.pem");
        load(&file).unwrap();
        let draft = write_new(&file, "the second", 0o600).unwrap();
        assert_eq!(place(&draft, &file), Err(Errno::EXIST));
        load(&file).unwrap();
    }
}
