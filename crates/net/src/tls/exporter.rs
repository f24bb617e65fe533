//! Keying material of a session for who binds something to it (RFC 8446 section 7.5).
//!
//! rustls's unbuffered connections export none. But it tells a log of keys, on the thread that goes on with a handshake, the
//! secret that all of it is derived from; whoever makes the handshake takes that as its own.

use std::cell::Cell;

use rustls::crypto::tls13::OkmBlock;
use rustls::{CommonState, KeyLog, SupportedCipherSuite};

thread_local! {
    static LOGGED: Cell<Option<Box<OkmBlock>>> = const { Cell::new(None) };
}

/// Takes the one secret out of what rustls logs. For configurations whose sessions speak TLS 1.3 only: that of TLS 1.2 is
/// another, and made otherwise.
#[derive(Debug)]
pub(super) struct Exporters;

impl KeyLog for Exporters {
    fn log(&self, _: &str, _: &[u8], secret: &[u8]) {
        LOGGED.set(Some(Box::new(OkmBlock::new(secret))));
    }

    fn will_log(&self, label: &str) -> bool {
        label == "EXPORTER_SECRET"
    }
}

/// The secret of the handshake that has just gone on, if that came so far.
pub(super) fn take_secret() -> Option<Box<OkmBlock>> {
    LOGGED.take()
}

/// Derives keying material for a label and a context from the secret of a session. None where its label is longer than one
/// can be.
pub(super) fn derive(
    state: &CommonState,
    secret: &OkmBlock,
    label: &[u8],
    context: &[u8],
) -> Option<[u8; 32]> {
    let SupportedCipherSuite::Tls13(suite) = state.negotiated_cipher_suite()? else { return None };
    let hash = |bytes: &[u8]| suite.common.hash_provider.hash(bytes);
    let length = u16::try_from(secret.as_ref().len()).ok()?;
    let nothing = hash(b"");
    let hkdf = suite.hkdf_provider.expander_for_okm(secret);
    let parts = expand_label(&length.to_be_bytes(), label, nothing.as_ref(), |info| hkdf.expand_block(info))?;
    let hkdf = suite.hkdf_provider.expander_for_okm(&parts);
    let mut material = [0; 32];
    expand_label(&32_u16.to_be_bytes(), b"exporter", hash(context).as_ref(), |info| {
        hkdf.expand_slice(info, &mut material)
    })?
    .ok()?;
    Some(material)
}

/// HKDF-Expand-Label (RFC 8446 section 7.1), where `expand` does the HKDF-Expand.
fn expand_label<T>(
    length: &[u8; 2],
    label: &[u8],
    context: &[u8],
    expand: impl FnOnce(&[&[u8]]) -> T,
) -> Option<T> {
    const PREFIX: &[u8] = b"tls13 ";
    let label_length = u8::try_from(PREFIX.len() + label.len()).ok()?;
    let context_length = u8::try_from(context.len()).ok()?;
    Some(expand(&[length, &[label_length], PREFIX, label, &[context_length], context]))
}
