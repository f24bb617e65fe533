//! What a header of version 2 says besides the addresses: type-length-values.

use std::fmt;

use super::HeaderError;

/// The registered types.
pub mod kind {
    /// The application protocol, as in TLS's ALPN.
    pub const ALPN: u8 = 0x01;
    /// The host that the client asks for, as in TLS's SNI.
    pub const AUTHORITY: u8 = 0x02;
    /// A checksum of the whole header.
    pub const CRC32C: u8 = 0x03;
    /// Padding.
    pub const NOOP: u8 = 0x04;
    /// The sender's name for this connection, of up to 128 bytes.
    pub const UNIQUE_ID: u8 = 0x05;
    /// Of the client's TLS session; see [`Ssl`](super::Ssl).
    pub const SSL: u8 = 0x20;
    /// Within `SSL`: the version, as in `TLSv1.3`.
    pub const SSL_VERSION: u8 = 0x21;
    /// Within `SSL`: the common name of the client's certificate.
    pub const SSL_CN: u8 = 0x22;
    /// Within `SSL`: the cipher.
    pub const SSL_CIPHER: u8 = 0x23;
    /// Within `SSL`: the algorithm that the server's certificate is signed with.
    pub const SSL_SIG_ALG: u8 = 0x24;
    /// Within `SSL`: the algorithm of its key.
    pub const SSL_KEY_ALG: u8 = 0x25;
    /// The network namespace.
    pub const NETNS: u8 = 0x30;
}

/// One type-length-value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tlv<'a> {
    /// Its type; the registered ones are in [`kind`].
    pub kind: u8,
    /// Its value.
    pub value: &'a [u8],
}

/// Type-length-values one after the other. Written out, one reads as `authority=a.example,alpn=h2`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tlvs<'a>(&'a [u8]);

impl<'a> Tlvs<'a> {
    /// Those in `bytes`, which need not be whole: a broken one ends them.
    pub fn new(bytes: &'a [u8]) -> Tlvs<'a> {
        Tlvs(bytes)
    }

    pub(super) fn check(bytes: &'a [u8]) -> Result<Tlvs<'a>, HeaderError> {
        let mut iter = Tlvs(bytes).iter();
        iter.by_ref().for_each(drop);
        if iter.0.is_empty() { Ok(Tlvs(bytes)) } else { Err(HeaderError::Malformed("a type-length-value")) }
    }

    /// Compares the checksum, if there is one, with that of the whole header, in which these are the last.
    pub(super) fn verify(self, header: &[u8]) -> Result<(), HeaderError> {
        let Some(tlv) = self.iter().find(|tlv| tlv.kind == kind::CRC32C) else { return Ok(()) };
        let Ok(stored) = tlv.value.try_into() else { return Err(HeaderError::Malformed("its checksum")) };
        // It counts as zero in itself. The value is a part of `header`, at this distance from the end.
        let behind: usize = self.iter().map(|tlv| 3 + tlv.value.len()).sum();
        let before: usize =
            self.iter().take_while(|tlv| tlv.kind != kind::CRC32C).map(|tlv| 3 + tlv.value.len()).sum();
        let at = header.len() - behind + before + 3;
        let sum = crc32c(crc32c(crc32c(!0, &header[..at]), &[0; 4]), &header[at + 4..]);
        if !sum == u32::from_be_bytes(stored) { Ok(()) } else { Err(HeaderError::Checksum) }
    }

    /// Each of them.
    pub fn iter(self) -> Iter<'a> {
        Iter(self.0)
    }

    /// The value of the first of a type.
    pub fn get(self, kind: u8) -> Option<&'a [u8]> {
        self.iter().find(|tlv| tlv.kind == kind).map(|tlv| tlv.value)
    }

    /// As they came.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }
}

/// See [`Tlvs::iter`].
#[derive(Debug, Clone)]
pub struct Iter<'a>(&'a [u8]);

impl<'a> Iterator for Iter<'a> {
    type Item = Tlv<'a>;

    fn next(&mut self) -> Option<Tlv<'a>> {
        let (head, rest) = self.0.split_first_chunk::<3>()?;
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([head[1], head[2]])))?;
        self.0 = rest;
        Some(Tlv { kind: head[0], value })
    }
}

/// The value of [`kind::SSL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ssl<'a> {
    /// Bit 0: the client came over TLS; bit 1: with a certificate in this connection; bit 2: in this session.
    pub client: u8,
    /// 0 if the client showed a certificate that was verified.
    pub verify: u32,
    /// More about the session.
    pub tlvs: Tlvs<'a>,
}

impl<'a> Ssl<'a> {
    /// Reads the value; none if it is too short.
    pub fn parse(value: &'a [u8]) -> Option<Ssl<'a>> {
        let (head, rest) = value.split_first_chunk::<5>()?;
        let verify = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        Some(Ssl { client: head[0], verify, tlvs: Tlvs(rest) })
    }
}

impl fmt::Display for Tlvs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for Tlv { kind, value } in self.iter().filter(|tlv| !matches!(tlv.kind, kind::CRC32C | kind::NOOP)) {
            if !std::mem::take(&mut first) {
                f.write_str(",")?;
            }
            match (name(kind), Ssl::parse(value)) {
                (_, Some(ssl)) if kind == kind::SSL => {
                    write!(f, "ssl={},ssl_verify={}", ssl.client, ssl.verify)?;
                    if ssl.tlvs.iter().next().is_some() {
                        write!(f, ",{}", ssl.tlvs)?;
                    }
                }
                (Some(name), _) if value.iter().all(|b| b.is_ascii_graphic() || *b == b' ') => {
                    write!(f, "{name}={}", value.escape_ascii())?;
                }
                (Some(name), _) => write!(f, "{name}=0x{}", Hex(value))?,
                (None, _) => write!(f, "0x{kind:02x}=0x{}", Hex(value))?,
            }
        }
        Ok(())
    }
}

fn name(kind: u8) -> Option<&'static str> {
    Some(match kind {
        kind::ALPN => "alpn",
        kind::AUTHORITY => "authority",
        kind::UNIQUE_ID => "unique_id",
        kind::SSL => "ssl",
        kind::SSL_VERSION => "ssl_version",
        kind::SSL_CN => "ssl_cn",
        kind::SSL_CIPHER => "ssl_cipher",
        kind::SSL_SIG_ALG => "ssl_sig_alg",
        kind::SSL_KEY_ALG => "ssl_key_alg",
        kind::NETNS => "netns",
        _ => return None,
    })
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The remainders of CRC-32C (RFC 3720 appendix B.4) for each byte, the lowest bit first.
const CRC32C: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

/// Carries a checksum on over `bytes`: begun with all ones, and inverted at the end.
pub(super) fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(crc, |crc, byte| (crc >> 8) ^ CRC32C[usize::from(crc as u8 ^ byte)])
}
