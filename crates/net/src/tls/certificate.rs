//! What is written in certificates.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What a certificate is known by: the SHA-256 of the whole of it. Written as `sha256:` and 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

/// A text that is no fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint is `sha256:` and 64 hexadecimal digits")]
pub struct NoFingerprint;

impl Fingerprint {
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Fingerprint {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, certificate).as_ref());
        Fingerprint(bytes)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Fingerprint {
    type Err = NoFingerprint;

    /// Takes colons between the bytes and capital letters, too, as `openssl x509 -fingerprint` writes them.
    fn from_str(text: &str) -> Result<Fingerprint, NoFingerprint> {
        let (kind, digits) = text.trim().split_once(':').ok_or(NoFingerprint)?;
        let parted = digits.contains(':');
        let mut rest = digits.as_bytes();
        let mut bytes = [0; 32];
        for (index, byte) in bytes.iter_mut().enumerate() {
            if parted && index > 0 {
                rest = rest.strip_prefix(b":").ok_or(NoFingerprint)?;
            }
            let (pair, behind) = rest.split_at_checked(2).ok_or(NoFingerprint)?;
            let digit = |at: usize| char::from(pair[at]).to_digit(16).ok_or(NoFingerprint);
            *byte = (digit(0)? << 4 | digit(1)?) as u8;
            rest = behind;
        }
        let is_whole = rest.is_empty() && kind.eq_ignore_ascii_case("sha256");
        is_whole.then_some(Fingerprint(bytes)).ok_or(NoFingerprint)
    }
}

/// A client's certificate, which was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Whom it names, as in `CN=alice, O=Example`.
    pub subject: String,
    /// The common name of the subject, where it has exactly one that is text: what stands for a user. Apart from `subject`,
    /// since a name may hold what looks like another of its parts there.
    pub common_name: Option<String>,
    /// SHA-256 of the whole certificate in hexadecimal.
    pub fingerprint: String,
}

impl ClientCertificate {
    pub(super) fn new(certificate: &CertificateDer<'_>) -> ClientCertificate {
        let parsed = X509Certificate::from_der(certificate).ok().map(|(_, parsed)| parsed);
        ClientCertificate {
            subject: parsed.as_ref().map(|parsed| parsed.subject().to_string()).unwrap_or_default(),
            common_name: parsed.as_ref().and_then(common_name),
            fingerprint: fingerprint(certificate),
        }
    }
}

/// The common name, if there is no doubt about it.
fn common_name(certificate: &X509Certificate<'_>) -> Option<String> {
    let mut names = certificate.subject().iter_common_name();
    let (Some(name), None) = (names.next(), names.next()) else { return None };
    let name = name.as_str().ok()?;
    (!name.is_empty() && !name.chars().any(char::is_control)).then(|| name.to_owned())
}

/// A certificate in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateInfo {
    /// The names it is for, in lower case; `*.` stands for one label.
    pub names: Vec<String>,
    /// From when on it is not valid any more.
    pub not_after: SystemTime,
    /// SHA-256 of it in hexadecimal.
    pub fingerprint: String,
}

impl CertificateInfo {
    /// Reads a certificate.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn read(certificate: &CertificateDer<'_>) -> Result<CertificateInfo, String> {
        let (_, parsed) = X509Certificate::from_der(certificate)
            .map_err(|error| format!("a broken certificate: {error}"))?;
        let names = parsed
            .subject_alternative_name()
            .ok()
            .flatten()
            .map(|extension| {
                let names = extension.value.general_names.iter();
                names
                    .filter_map(|name| match name {
                        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
                        _ => None,
                    })
                    .collect()
            })
            .unwrap_or_default();
        let not_after = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
        Ok(CertificateInfo {
            names,
            not_after: SystemTime::UNIX_EPOCH + Duration::from_secs(not_after),
            fingerprint: fingerprint(certificate),
        })
    }
}

/// SHA-256 in hexadecimal.
pub(super) fn fingerprint(bytes: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;

    #[test]
    fn a_fingerprint_is_read_as_it_is_written() {
        let certificate = CertificateParams::default().self_signed(&KeyPair::generate().unwrap()).unwrap();
        let found = Fingerprint::of(certificate.der());
        let text = found.to_string();
        assert_eq!(text, format!("sha256:{}", fingerprint(certificate.der())));
        assert_eq!(text.parse(), Ok(found));
        let digits = text.strip_prefix("sha256:").unwrap().to_uppercase();
        let parted: Vec<&str> = (0..32).map(|at| &digits[2 * at..2 * at + 2]).collect();
        assert_eq!(format!(" SHA256:{}\n", parted.join(":")).parse(), Ok(found));
        let sha1 = text.replace("256", "1");
        let cut = &text[..text.len() - 1];
        for wrong in
            ["", "sha256:", &digits, &sha1, cut, &format!("{text}0"), &format!("{cut}+"), &format!("{cut}ß")]
        {
            assert_eq!(wrong.parse::<Fingerprint>(), Err(NoFingerprint), "{wrong}");
        }
    }

    #[test]
    fn a_common_name_is_what_stands_there_and_nothing_that_looks_like_one() {
        let named = |parts: &[(DnType, &str)]| {
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            parts.iter().for_each(|(kind, text)| params.distinguished_name.push(kind.clone(), *text));
            let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            ClientCertificate::new(certificate.der()).common_name
        };
        let common = |text| named(&[(DnType::CommonName, text)]);
        assert_eq!(common("alice").as_deref(), Some("alice"));
        assert_eq!(common("bob, CN=alice").as_deref(), Some("bob, CN=alice"));
        assert_eq!(named(&[(DnType::OrganizationName, "x, CN=alice")]), None);
        assert_eq!((common(""), common("al\nice"), named(&[])), (None, None, None));
    }
}
