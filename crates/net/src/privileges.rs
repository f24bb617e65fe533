//! Running as somebody with fewer rights once the sockets are bound.

use std::io;

use crate::sys::ids;

/// Who to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    user: u32,
    group: u32,
}

impl Identity {
    /// Looks up a user, and a group if it is not to be the user's own.
    ///
    /// # Errors
    /// One of them does not exist; the text says which.
    pub fn find(user: &str, group: Option<&str>) -> io::Result<Identity> {
        let unknown =
            |what: &str, name: &str| io::Error::new(io::ErrorKind::NotFound, format!("no {what} `{name}`"));
        let (user, own_group) = ids::lookup_user(user)?.ok_or_else(|| unknown("user", user))?;
        let group = match group {
            Some(name) => ids::lookup_group(name)?.ok_or_else(|| unknown("group", name))?,
            None => own_group,
        };
        Ok(Identity { user, group })
    }

    /// Becomes it, in every thread and for good. Nothing happens when the process is that already.
    ///
    /// # Errors
    /// The process may not: only root can become somebody else.
    pub fn assume(self) -> io::Result<()> {
        let now = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        if now == (self.user, self.group) {
            return Ok(());
        }
        ids::become_user(self.user, self.group)
    }
}
