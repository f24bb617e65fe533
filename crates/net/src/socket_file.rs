//! The file of a unix socket, which does not go by itself when its socket does.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The file of a listening socket. Dropping it removes the file, unless another process has put its own in place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode: what tells our file from another's of the same name.
    id: (u64, u64),
}

impl SocketFile {
    /// Takes over the file of a socket that has just been bound to `path`.
    ///
    /// # Errors
    /// When the file is gone already, or can't be looked at.
    pub fn at(path: &Path) -> io::Result<SocketFile> {
        Ok(SocketFile { path: path.to_owned(), id: id(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = id(&self.path).is_ok_and(|id| id == self.id);
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a socket's file stays behind");
        }
    }
}

/// Links are not followed: the socket's file is none.
fn id(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn the_own_file_goes_and_that_of_another_stays() {
        let dir = std::env::temp_dir().join(format!("wmproxy-socket-file-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("x.sock");
        let _own = UnixListener::bind(&path).unwrap();
        let file = SocketFile::at(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(file);
        assert!(path.exists());
        drop(SocketFile::at(&path).unwrap());
        assert!(!path.exists());
        assert!(SocketFile::at(&path).is_err());
        fs::remove_dir_all(&dir).unwrap();
    }
}
