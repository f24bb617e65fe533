//! Running as somebody with fewer rights once the sockets are bound.

use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_keep_capabilities};

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

    /// Whether the process is that already.
    pub fn is_current(self) -> bool {
        let now = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        now == (self.user, self.group)
    }

    /// Becomes it, in every thread and for good. Nothing happens when the process is that already.
    ///
    /// # Errors
    /// The process may not: only root can become somebody else.
    pub fn assume(self) -> io::Result<()> {
        if self.is_current() { Ok(()) } else { ids::become_user(self.user, self.group) }
    }
}

/// What of root's rights is still needed (capabilities(7)). They belong to threads, so each that needs them keeps them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rights {
    /// CAP_NET_RAW: to have other machines' addresses.
    pub raw: bool,
    /// CAP_NET_ADMIN: to mark packets.
    pub admin: bool,
}

impl Rights {
    /// Whether none is needed.
    pub fn is_none(self) -> bool {
        self == Rights::default()
    }

    /// Has the calling thread's rights outlive the change of its user.
    ///
    /// # Errors
    /// The system does not allow that.
    pub fn hold() -> io::Result<()> {
        Ok(set_keep_capabilities(true)?)
    }

    /// Leaves the calling thread these of the rights that it held, and no other.
    ///
    /// # Errors
    /// It held none.
    pub fn restrict(self) -> io::Result<()> {
        let mut kept = CapabilitySet::empty();
        kept.set(CapabilitySet::NET_RAW, self.raw);
        kept.set(CapabilitySet::NET_ADMIN, self.admin);
        kept &= capabilities(None)?.permitted;
        let none = CapabilitySet::empty();
        set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable: none })?;
        Ok(set_keep_capabilities(false)?)
    }
}
