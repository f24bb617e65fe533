//! Fields in their order, over one buffer.

use std::fmt;

use super::{Known, is_token, is_value};

/// A place in the buffer of some [`Fields`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    start: u32,
    len: u32,
}

impl Span {
    /// From `start` to `end`, which a limit keeps below 4 GiB.
    #[inline]
    pub(crate) fn between(start: usize, end: usize) -> Span {
        debug_assert!(start <= end && end <= u32::MAX as usize);
        Span { start: start as u32, len: (end - start) as u32 }
    }

    /// Whether nothing is there.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }
}

/// A field: a line of a head.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// Which one it is, if it is one that we know.
    pub known: Known,
    /// Its name, in the case that it came in.
    pub name: &'a [u8],
    /// Its value, without whitespace around it.
    pub value: &'a [u8],
}

impl fmt::Debug for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name.escape_ascii(), self.value.escape_ascii())
    }
}

/// The fields of a head or a trailer section, in their order. A message that is read into it again costs no allocation.
#[derive(Clone, Default)]
pub struct Fields {
    /// Names and values, and whatever else of the head lies in the same buffer.
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    known: Known,
    name: Span,
    value: Span,
}

impl Fields {
    /// None yet.
    pub fn new() -> Fields {
        Fields::default()
    }

    /// Forgets everything, and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// So much memory it holds, in bytes.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity() + self.entries.capacity() * size_of::<Entry>()
    }

    /// Puts bytes into the buffer that belong to no field.
    ///
    /// # Panics
    /// Beyond 4 GiB, which limits of heads keep far away.
    pub fn intern(&mut self, bytes: &[u8]) -> Span {
        let start = u32::try_from(self.bytes.len()).expect("heads are limited");
        self.bytes.extend_from_slice(bytes);
        let len = u32::try_from(bytes.len()).expect("heads are limited");
        Span { start, len }
    }

    /// What lies at a place.
    #[inline]
    pub fn at(&self, span: Span) -> &[u8] {
        &self.bytes[span.start as usize..][..span.len as usize]
    }

    /// A part of what lies at a place: from `start`, so many bytes.
    ///
    /// # Panics
    /// When it reaches beyond.
    pub fn part(&self, span: Span, start: usize, len: usize) -> Span {
        assert!(start + len <= span.len as usize, "a part lies within");
        // Both are within a u32, for the span is.
        Span { start: span.start + start as u32, len: len as u32 }
    }

    /// Adds a field at a place of the buffer, as a parser that has interned the head as a whole does.
    #[inline]
    pub fn push_spans(&mut self, name: Span, value: Span) {
        let known = Known::of(self.at(name));
        self.entries.push(Entry { known, name, value });
    }

    /// Adds a field at a place that [`fill`](Fields::fill) is yet to bring.
    #[inline]
    pub(crate) fn push_ahead(&mut self, known: Known, name: Span, value: Span) {
        self.entries.push(Entry { known, name, value });
    }

    /// Puts a head as a whole at the front of the empty buffer, where the spans of its fields point to already.
    pub(crate) fn fill(&mut self, head: &[u8]) {
        debug_assert!(self.bytes.is_empty());
        self.bytes.extend_from_slice(head);
    }

    /// Writes all of them, each as a line of HTTP/1.
    pub(crate) fn write_lines(&self, out: &mut Vec<u8>) {
        for Entry { name, value, .. } in &self.entries {
            let (start, end) = (name.start as usize, value.start as usize + value.len as usize);
            // As most of them came: one copy of the line instead of four.
            let is_line = value.start == name.start + name.len + 2
                && self.bytes[start + name.len as usize..].starts_with(b": ")
                && self.bytes[end..].starts_with(b"\r\n");
            if is_line {
                out.extend_from_slice(&self.bytes[start..end + 2]);
                continue;
            }
            out.extend_from_slice(self.at(*name));
            out.extend_from_slice(b": ");
            out.extend_from_slice(self.at(*value));
            out.extend_from_slice(b"\r\n");
        }
    }

    /// Adds a field at the end. Name and value have to be valid; see [`is_token`](super::is_token) and
    /// [`is_value`](super::is_value).
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        debug_assert!(is_token(name) && is_value(value), "{}: {}", name.escape_ascii(), value.escape_ascii());
        let (name, value) = (self.intern(name), self.intern(value));
        self.push_spans(name, value);
    }

    /// Adds a field that we know at the end, under its usual name. The value has to be valid.
    pub fn push_known(&mut self, known: Known, value: &[u8]) {
        debug_assert!(is_value(value), "{known:?}: {}", value.escape_ascii());
        let (name, value) = (self.intern(known.as_str().as_bytes()), self.intern(value));
        self.entries.push(Entry { known, name, value });
    }

    /// All of them, in order.
    #[inline]
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Field<'_>> + ExactSizeIterator {
        self.entries.iter().map(|entry| self.field(entry))
    }

    fn field(&self, entry: &Entry) -> Field<'_> {
        Field { known: entry.known, name: self.at(entry.name), value: self.at(entry.value) }
    }

    /// The value of the first field that we know.
    #[inline]
    pub fn get(&self, known: Known) -> Option<&[u8]> {
        self.all(known).next()
    }

    /// The values of a field that we know, line by line.
    #[inline]
    pub fn all(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        debug_assert!(known != Known::Other, "others go by their names");
        self.entries.iter().filter(move |entry| entry.known == known).map(|entry| self.at(entry.value))
    }

    /// Where the values of a field that we know lie.
    pub(crate) fn spans(&self, known: Known) -> impl Iterator<Item = Span> {
        self.entries.iter().filter(move |entry| entry.known == known).map(|entry| entry.value)
    }

    /// Whether there is such a field.
    pub fn has(&self, known: Known) -> bool {
        self.get(known).is_some()
    }

    /// The values of a field by its name, in whatever case, line by line.
    pub fn all_named<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let known = Known::of(name);
        let is_it = move |entry: &&Entry| {
            entry.known == known && (known != Known::Other || self.at(entry.name).eq_ignore_ascii_case(name))
        };
        self.entries.iter().filter(is_it).map(|entry| self.at(entry.value))
    }

    /// The members of a field that is a list (RFC 9110 section 5.6.1), over all its lines: without whitespace around them,
    /// empty ones left out. Quoted strings with a comma inside are not for this.
    pub fn list(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        self.all(known).flat_map(members)
    }

    /// Sets a field that we know to one value, which has to be valid: the first keeps its place, others go.
    pub fn set(&mut self, known: Known, value: &[u8]) {
        debug_assert!(is_value(value), "{known:?}: {}", value.escape_ascii());
        let value = self.intern(value);
        let mut is_set = false;
        self.entries.retain_mut(|entry| {
            if entry.known != known {
                return true;
            }
            entry.value = value;
            !std::mem::replace(&mut is_set, true)
        });
        if !is_set {
            let name = self.intern(known.as_str().as_bytes());
            self.entries.push(Entry { known, name, value });
        }
    }

    /// Sets a field by its name to one value, both valid: the first keeps its place, others go.
    pub fn set_named(&mut self, name: &[u8], value: &[u8]) {
        debug_assert!(is_token(name) && is_value(value), "{}: {}", name.escape_ascii(), value.escape_ascii());
        let known = Known::of(name);
        if known != Known::Other {
            return self.set(known, value);
        }
        let value = self.intern(value);
        let mut is_set = false;
        let bytes = &self.bytes;
        self.entries.retain_mut(|entry| {
            let own = &bytes[entry.name.start as usize..][..entry.name.len as usize];
            if entry.known != Known::Other || !own.eq_ignore_ascii_case(name) {
                return true;
            }
            entry.value = value;
            !std::mem::replace(&mut is_set, true)
        });
        if !is_set {
            let name = self.intern(name);
            self.entries.push(Entry { known, name, value });
        }
    }

    /// Takes a field that we know out. Says whether there was one.
    pub fn remove(&mut self, known: Known) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| entry.known != known);
        before != self.entries.len()
    }

    /// Takes a field out by its name, in whatever case. Says whether there was one.
    pub fn remove_named(&mut self, name: &[u8]) -> bool {
        let known = Known::of(name);
        if known != Known::Other {
            return self.remove(known);
        }
        let before = self.entries.len();
        self.retain(|field| field.known != Known::Other || !field.name.eq_ignore_ascii_case(name));
        before != self.entries.len()
    }

    /// Puts the values of all lines of a field into the buffer, as one list.
    pub(super) fn joined(&mut self, known: Known) -> Span {
        let start = self.bytes.len();
        for entry in self.entries.iter().filter(|entry| entry.known == known) {
            let from = entry.value.start as usize;
            self.bytes.extend_from_within(from..from + entry.value.len as usize);
            self.bytes.push(b',');
        }
        Span::between(start, self.bytes.len())
    }

    /// Keeps those fields for which `keep` is true, which is shown what lies at a place, too.
    pub(super) fn retain_by(&mut self, place: Span, mut keep: impl FnMut(&[u8], Field<'_>) -> bool) {
        let Fields { bytes, entries } = self;
        let at = |span: Span| &bytes[span.start as usize..][..span.len as usize];
        entries.retain(|entry| {
            keep(at(place), Field { known: entry.known, name: at(entry.name), value: at(entry.value) })
        });
    }

    /// Keeps those fields for which `keep` is true.
    pub fn retain(&mut self, mut keep: impl FnMut(Field<'_>) -> bool) {
        self.retain_by(Span::default(), |_, field| keep(field));
    }
}

/// The members of one line of a list.
pub(super) fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::new();
        pairs.iter().for_each(|(name, value)| fields.push(name.as_bytes(), value.as_bytes()));
        fields
    }

    fn lines(fields: &Fields) -> Vec<String> {
        fields.iter().map(|field| format!("{field:?}")).collect()
    }

    #[test]
    fn names_keep_their_case_and_order() {
        let fields = fields(&[("hOST", "a"), ("X-One", "1"), ("x-one", "2"), ("Cookie", "c")]);
        assert_eq!(lines(&fields), ["hOST: a", "X-One: 1", "x-one: 2", "Cookie: c"]);
        assert_eq!(fields.get(Known::Host), Some(&b"a"[..]));
        assert_eq!(fields.all_named(b"X-ONE").collect::<Vec<_>>(), [b"1", b"2"]);
        assert_eq!(fields.get(Known::Via), None);
    }

    #[test]
    fn a_field_that_is_set_keeps_its_first_place() {
        let mut fields = fields(&[("A", "1"), ("via", "x"), ("B", "2"), ("Via", "y"), ("b", "3")]);
        fields.set(Known::Via, b"z");
        fields.set_named(b"B", b"4");
        fields.set_named(b"C", b"5");
        fields.set(Known::Host, b"h");
        assert_eq!(lines(&fields), ["A: 1", "via: z", "B: 4", "C: 5", "Host: h"]);
    }

    #[test]
    fn fields_are_taken_out_by_name() {
        let mut fields = fields(&[("A", "1"), ("Upgrade", "x"), ("a", "2"), ("UPGRADE", "y")]);
        assert!(fields.remove(Known::Upgrade));
        assert!(!fields.remove(Known::Upgrade));
        assert!(fields.remove_named(b"a"));
        assert!(!fields.remove_named(b"a"));
        assert!(fields.is_empty());
    }

    #[test]
    fn a_list_goes_over_all_its_lines() {
        let fields = fields(&[("Connection", "close, , Foo"), ("connection", ", bar\t,")]);
        let members: Vec<_> = fields.list(Known::Connection).collect();
        assert_eq!(members, [&b"close"[..], b"Foo", b"bar"]);
    }

    #[test]
    fn clearing_keeps_the_memory() {
        let mut fields = fields(&[("A", "1"), ("B", "2")]);
        let capacity = fields.capacity();
        fields.clear();
        assert!(fields.is_empty());
        assert_eq!(fields.capacity(), capacity);
    }
}
