//! Why a session failed, in words: for much of what may be wrong with a certificate rustls has no more than a name.

use std::fmt;

use rustls::{CertificateError, Error};

/// Shows an error of rustls, with words where it has none.
pub(super) struct Reason<'a>(pub(super) &'a Error);

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Error::InvalidCertificate(error) = self.0 else { return self.0.fmt(f) };
        let name = match error {
            CertificateError::Other(other) => other.0.to_string(),
            error => format!("{error:?}"),
        };
        match words(&name) {
            Some(words) => write!(f, "invalid peer certificate: {words} ({name})"),
            None => self.0.fmt(f),
        }
    }
}

/// What the name of an error means, of those that mistakes in the making of certificates lead to.
fn words(name: &str) -> Option<&'static str> {
    Some(match name {
        "UnknownIssuer" => "no authority that is trusted here has issued it",
        "CaUsedAsEndEntity" => {
            "it is an authority's own, as `openssl req -x509` makes it unless told `basicConstraints=CA:FALSE`"
        }
        "UnsupportedCertVersion" => "it is of version 1 of X.509, which knows no subjectAltName",
        "InvalidPurpose" => "its extendedKeyUsage is for something else",
        "BadSignature" => "its signature is not its issuer's",
        "Revoked" => "its issuer has revoked it",
        _ => return None,
    })
}
