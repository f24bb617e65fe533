//! The path of a request as the name of a file.

/// A path below the root, decoded: segments that are neither empty nor `.` or `..`, without NUL, slash and backslash in them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct PathName {
    /// The segments with slashes between them; empty for the root itself.
    bytes: Vec<u8>,
    /// Whether it ended with a slash: it is meant for a directory.
    is_directory: bool,
}

/// A path that names no file: what is in it is never part of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a path with NUL, a backslash, an encoded slash, a dot segment or a broken escape in it")]
pub struct BadPath;

impl PathName {
    /// Decodes the path of a request, which begins with a slash and has no query, once, into what is used again.
    ///
    /// # Errors
    /// See [`BadPath`]: a 400.
    pub fn read(&mut self, _raw: &[u8]) -> Result<(), BadPath> {
        self.bytes.clear();
        self.is_directory = false;
        todo!("CONTAIN")
    }

    /// The segments with slashes between them, without any in front or behind; empty for the root.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether it ended with a slash, or is the root.
    pub fn is_directory(&self) -> bool {
        self.is_directory || self.bytes.is_empty()
    }
}
