//! The certificate that every end of a run uses, made anew for each run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The name in it.
pub(crate) const NAME: &str = "bench.test";

/// Where certificate and key are in the run's directory.
pub(crate) fn files(dir: &Path) -> (PathBuf, PathBuf) {
    (dir.join("bench.pem"), dir.join("bench.key"))
}

/// Makes them: ECDSA with P-256, as most certificates are today.
pub(crate) fn create(dir: &Path) -> Result<()> {
    let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()])?;
    let (cert, key) = files(dir);
    let (cert_text, key_text) = (made.cert.pem(), made.signing_key.serialize_pem());
    // HAProxy wants both in one file.
    fs::write(dir.join("bench.both"), format!("{cert_text}{key_text}"))?;
    fs::write(&cert, cert_text)?;
    fs::write(&key, key_text)?;
    // And rathole in a file of its own kind.
    let made = Command::new("openssl")
        .args(["pkcs12", "-export", "-passout", "pass:bench", "-out"])
        .arg(dir.join("bench.pfx"))
        .args(["-inkey".as_ref(), key.as_os_str(), "-in".as_ref(), cert.as_os_str()])
        .status()
        .context("apt-get install openssl")?;
    ensure!(made.success(), "openssl makes no PKCS #12 file");
    Ok(())
}
