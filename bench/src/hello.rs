//! A TLS ClientHello as browsers send it in size and order, for those who only look at its server name.

use crate::identity::NAME;

/// A record with a ClientHello for [`NAME`] (RFC 8446 section 4.1.2, RFC 6066 section 3), padded to `size` bytes
/// (RFC 7685).
pub(crate) fn client_hello(size: usize) -> Vec<u8> {
    let name = NAME.as_bytes();
    let host = [&[0][..], &prefixed(name)].concat();
    let mut extensions = extension(0, &prefixed(&host));
    extensions.extend(extension(16, &prefixed(b"\x02h2\x08http/1.1")));
    extensions.extend(extension(43, &[4, 3, 4, 3, 3]));
    // Version, random, session id, two cipher suites, no compression.
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.push(32);
    body.extend([9; 32]);
    body.extend([0, 4, 0x13, 0x01, 0xc0, 0x2f, 1, 0]);
    // Record and handshake headers, the length of the extensions, the header of the padding.
    let used = 5 + 4 + body.len() + 2 + extensions.len() + 4;
    extensions.extend(extension(21, &vec![0; size.saturating_sub(used)]));
    body.extend(prefixed(&extensions));
    let len = body.len() as u32;
    let message = [&[1][..], &len.to_be_bytes()[1..], &body].concat();
    [&[22, 3, 1][..], &prefixed(&message)].concat()
}

fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &prefixed(data)].concat()
}

/// With its length in two bytes before it. All parts of a hello are far shorter than that can tell.
fn prefixed(data: &[u8]) -> Vec<u8> {
    [&(data.len() as u16).to_be_bytes()[..], data].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_as_long_as_it_says() {
        let hello = client_hello(517);
        assert_eq!(hello.len(), 517);
        assert_eq!(u16::from_be_bytes([hello[3], hello[4]]), 512);
        assert_eq!(u32::from_be_bytes([0, hello[6], hello[7], hello[8]]), 508);
        assert!(hello.windows(NAME.len()).any(|window| window == NAME.as_bytes()));
    }
}
