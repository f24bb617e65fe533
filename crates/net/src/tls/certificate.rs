//! What is written in certificates.

use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

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
