//! The host name of a ClientHello.

use std::net::IpAddr;

/// The longest name that DNS can hold, written out (RFC 1035 section 2.3.4).
const MAX_NAME: usize = 253;

/// The longest label of a name.
const MAX_LABEL: usize = 63;

/// A host name in the one form that names are compared in: lower case, without a closing dot, which RFC 6066 section 3
/// forbids and some clients send nonetheless. None if it is no name, an inner none if it is an IP address, which the RFC
/// forbids, too, but says nothing of what to route by.
///
/// Labels are those of host names (RFC 1123 section 2.1), and underscores, which are common in container networks.
pub(super) fn normalize(host: &[u8]) -> Option<Option<Box<str>>> {
    let text = std::str::from_utf8(host).ok()?;
    if text.parse::<IpAddr>().is_ok() {
        return Some(None);
    }
    let text = text.strip_suffix('.').unwrap_or(text);
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= MAX_LABEL
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    let fits = text.len() <= MAX_NAME && text.split('.').all(label);
    fits.then(|| Some(text.to_ascii_lowercase().into()))
}
