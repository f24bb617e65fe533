//! Servers that are believed for their certificate alone, whoever it comes from and whatever name it is for.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, OtherError, SignatureScheme};

use super::TlsError;
use super::certificate::Fingerprint;

/// Takes certificates for good by what they are. That their owner is there is still seen: the signatures have to fit.
#[derive(Debug)]
pub(super) struct Alone {
    provider: Arc<CryptoProvider>,
    /// The certificates; none is any.
    pinned: Option<Vec<Fingerprint>>,
}

impl Alone {
    /// Takes every certificate.
    pub(super) fn anybody(provider: Arc<CryptoProvider>) -> Alone {
        Alone { provider, pinned: None }
    }

    /// Takes those with one of these fingerprints.
    pub(super) fn pinned(provider: Arc<CryptoProvider>, fingerprints: &[[u8; 32]]) -> Alone {
        Alone { provider, pinned: Some(fingerprints.iter().copied().map(Fingerprint).collect()) }
    }
}

/// A certificate that none of the fingerprints is of.
struct Unpinned(Fingerprint);

impl fmt::Display for Unpinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        TlsError::Unpinned(self.0).fmt(f)
    }
}

/// The same for people: rustls shows errors of verifiers in this form, and with QUIC nothing else is left of them.
impl fmt::Debug for Unpinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Unpinned {}

/// The fingerprint that was found, where an error says that it is none of those that are pinned.
pub(super) fn unpinned(error: &rustls::Error) -> Option<Fingerprint> {
    let rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) = error else {
        return None;
    };
    inner.downcast_ref().map(|Unpinned(found)| *found)
}

impl ServerCertVerifier for Alone {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(pinned) = &self.pinned {
            let found = Fingerprint::of(certificate);
            if !pinned.contains(&found) {
                return Err(CertificateError::Other(OtherError(Arc::new(Unpinned(found)))).into());
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
