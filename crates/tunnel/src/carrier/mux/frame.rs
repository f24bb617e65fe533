//! The headers of yamux, version 0.

/// The length of a header.
pub(super) const HEADER: usize = 12;

/// The stream begins.
pub(super) const SYN: u16 = 1;
/// It was taken.
pub(super) const ACK: u16 = 2;
/// Its sender has said all.
pub(super) const FIN: u16 = 4;
/// It broke off.
pub(super) const RST: u16 = 8;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Bytes of a stream; the length is theirs.
    Data = 0,
    /// The length is by how much more may be sent.
    Window = 1,
    /// The length is a number to be sent back.
    Ping = 2,
    /// The connection ends; the length says why.
    GoAway = 3,
}

/// What stands before each frame's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) flags: u16,
    /// 0 is the connection.
    pub(super) stream: u32,
    pub(super) length: u32,
}

impl Header {
    pub(super) fn encode(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[1] = self.kind as u8;
        bytes[2..4].copy_from_slice(&self.flags.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.stream.to_be_bytes());
        bytes[8..].copy_from_slice(&self.length.to_be_bytes());
        bytes
    }

    /// None for what no version 0 says.
    pub(super) fn decode(bytes: [u8; HEADER]) -> Option<Header> {
        let [0, kind, f0, f1, s0, s1, s2, s3, l0, l1, l2, l3] = bytes else { return None };
        let kind = match kind {
            0 => Kind::Data,
            1 => Kind::Window,
            2 => Kind::Ping,
            3 => Kind::GoAway,
            _ => return None,
        };
        let stream = u32::from_be_bytes([s0, s1, s2, s3]);
        let is_of_stream = matches!(kind, Kind::Data | Kind::Window);
        (is_of_stream == (stream != 0)).then_some(Header {
            kind,
            flags: u16::from_be_bytes([f0, f1]),
            stream,
            length: u32::from_be_bytes([l0, l1, l2, l3]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_as_the_specification_has_them() {
        let header =
            Header { kind: Kind::Window, flags: SYN | FIN, stream: 0x0102_0304, length: 0xfffe_fdfc };
        let bytes = [0, 1, 0, 5, 1, 2, 3, 4, 0xff, 0xfe, 0xfd, 0xfc];
        assert_eq!(header.encode(), bytes);
        assert_eq!(Header::decode(bytes), Some(header));
    }

    #[test]
    fn what_is_not_of_version_0_is_no_header() {
        assert_eq!(Header::decode([1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]), None, "another version");
        assert_eq!(Header::decode([0, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]), None, "another kind");
        assert_eq!(Header::decode([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), None, "data of the connection");
        assert_eq!(Header::decode([0, 2, 0, 1, 0, 0, 0, 3, 0, 0, 0, 0]), None, "a ping of a stream");
    }
}
