//! Fields: a tag, a length, a value.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{CodecError, HEADER_LEN, MAX_LIST, MAX_TEXT};

/// The number and the length at the front of a message or a field.
pub(super) fn header(bytes: &[u8]) -> Option<(u16, u32)> {
    let (number, rest) = bytes.split_first_chunk()?;
    let (length, _) = rest.split_first_chunk()?;
    Some((u16::from_be_bytes(*number), u32::from_be_bytes(*length)))
}

/// Fields from the first to the last.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
    last: Option<u16>,
}

/// One of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field<'a> {
    pub(super) tag: u16,
    value: &'a [u8],
    /// Whether the one before had the same tag.
    is_again: bool,
}

impl<'a> Fields<'a> {
    pub(super) fn new(body: &'a [u8]) -> Fields<'a> {
        Fields { rest: body, last: None }
    }

    pub(super) fn next(&mut self) -> Result<Option<Field<'a>>, CodecError> {
        const CUT_OFF: CodecError = CodecError::Malformed("a field that is cut off");
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (tag, length) = header(self.rest).ok_or(CUT_OFF)?;
        let rest = &self.rest[HEADER_LEN..];
        let length = usize::try_from(length).map_err(|_| CUT_OFF)?;
        let (value, rest) = rest.split_at_checked(length).ok_or(CUT_OFF)?;
        if self.last.is_some_and(|last| last > tag) {
            return Err(CodecError::Malformed("fields out of order"));
        }
        let is_again = self.last == Some(tag);
        self.last = Some(tag);
        self.rest = rest;
        Ok(Some(Field { tag, value, is_again }))
    }
}

impl<'a> Field<'a> {
    /// The value of a field that stands once.
    fn once(self) -> Result<&'a [u8], CodecError> {
        if self.is_again { Err(CodecError::Malformed("a field that comes twice")) } else { Ok(self.value) }
    }

    pub(super) fn array<const N: usize>(self) -> Result<[u8; N], CodecError> {
        self.once()?.try_into().map_err(|_| CodecError::Malformed("a value of another size"))
    }

    pub(super) fn byte(self) -> Result<u8, CodecError> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn u16(self) -> Result<u16, CodecError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(self) -> Result<u32, CodecError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(self) -> Result<u64, CodecError> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn flag(self) -> Result<bool, CodecError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(CodecError::Malformed("a flag that is neither 0 nor 1")),
        }
    }

    pub(super) fn text(self) -> Result<String, CodecError> {
        let value = self.once()?;
        if value.len() > MAX_TEXT {
            return Err(CodecError::Malformed("a text that is too long"));
        }
        let text =
            std::str::from_utf8(value).map_err(|_| CodecError::Malformed("a text that is no UTF-8"))?;
        Ok(text.to_owned())
    }

    /// Four or sixteen bytes of an address, and its port.
    pub(super) fn address(self) -> Result<SocketAddr, CodecError> {
        let value = self.once()?;
        let bad = CodecError::Malformed("an address of neither IPv4 nor IPv6");
        let (ip, port) = value.split_last_chunk().ok_or(bad)?;
        let ip: IpAddr = match ip.len() {
            4 => <[u8; 4]>::try_from(ip).map(|ip| Ipv4Addr::from(ip).into()).map_err(|_| bad)?,
            16 => <[u8; 16]>::try_from(ip).map(|ip| Ipv6Addr::from(ip).into()).map_err(|_| bad)?,
            _ => return Err(bad),
        };
        Ok(SocketAddr::new(ip, u16::from_be_bytes(*port)))
    }

    pub(super) fn fields(self) -> Result<Fields<'a>, CodecError> {
        self.once().map(Fields::new)
    }

    /// Takes the field as one more entry of a list.
    pub(super) fn push<T>(
        self,
        list: &mut Vec<T>,
        read: impl FnOnce(Field<'a>) -> Result<T, CodecError>,
    ) -> Result<(), CodecError> {
        self.push_within(list, MAX_LIST, "entries", read)
    }

    pub(super) fn push_within<T>(
        mut self,
        list: &mut Vec<T>,
        max: usize,
        what: &'static str,
        read: impl FnOnce(Field<'a>) -> Result<T, CodecError>,
    ) -> Result<(), CodecError> {
        if list.len() >= max {
            return Err(CodecError::TooMany(what));
        }
        self.is_again = false;
        list.push(read(self)?);
        Ok(())
    }
}

/// Writes fields, in the order in which it is told to. What is zero, empty or no is left out.
#[derive(Debug)]
pub(super) struct Writer<'a>(pub(super) &'a mut Vec<u8>);

impl Writer<'_> {
    pub(super) fn number<const N: usize>(&mut self, tag: u16, value: [u8; N]) {
        if value != [0; N] {
            self.bytes(tag, &value);
        }
    }

    pub(super) fn u16(&mut self, tag: u16, value: u16) {
        self.number(tag, value.to_be_bytes());
    }

    pub(super) fn u32(&mut self, tag: u16, value: u32) {
        self.number(tag, value.to_be_bytes());
    }

    pub(super) fn u64(&mut self, tag: u16, value: u64) {
        self.number(tag, value.to_be_bytes());
    }

    pub(super) fn flag(&mut self, tag: u16, value: bool) {
        self.number(tag, [u8::from(value)]);
    }

    pub(super) fn text(&mut self, tag: u16, value: &str) {
        if !value.is_empty() {
            self.bytes(tag, value.as_bytes());
        }
    }

    /// A text for people, of which the beginning will do.
    pub(super) fn prose(&mut self, tag: u16, value: &str) {
        self.text(tag, &value[..value.floor_char_boundary(MAX_TEXT)]);
    }

    /// The value as it is, be it empty or zero.
    pub(super) fn bytes(&mut self, tag: u16, value: &[u8]) {
        self.nested(tag, |out| out.0.extend_from_slice(value));
    }

    pub(super) fn texts(&mut self, tag: u16, values: &[String]) {
        for value in values {
            self.bytes(tag, value.as_bytes());
        }
    }

    pub(super) fn address(&mut self, tag: u16, address: Option<SocketAddr>) {
        let Some(address) = address else { return };
        self.nested(tag, |out| {
            match address.ip() {
                IpAddr::V4(ip) => out.0.extend_from_slice(&ip.octets()),
                IpAddr::V6(ip) => out.0.extend_from_slice(&ip.octets()),
            }
            out.0.extend_from_slice(&address.port().to_be_bytes());
        });
    }

    /// A field, or a message, with what `write` writes as its value.
    pub(super) fn nested(&mut self, tag: u16, write: impl FnOnce(&mut Writer<'_>)) {
        self.0.extend_from_slice(&tag.to_be_bytes());
        let at = self.0.len();
        self.0.extend_from_slice(&[0; 4]);
        write(&mut Writer(self.0));
        let length = self.0.len() - at - 4;
        debug_assert!(u32::try_from(length).is_ok(), "a message of 4 GiB");
        self.0[at..at + 4].copy_from_slice(&(length as u32).to_be_bytes());
    }
}
