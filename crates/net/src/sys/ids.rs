//! Giving up root for all threads at once.

use std::ffi::{CString, c_char, c_int};
use std::io;
use std::mem::MaybeUninit;
use std::ptr;

/// The numeric ids of a user and of its main group.
pub(crate) fn lookup_user(name: &str) -> io::Result<Option<(u32, u32)>> {
    lookup(name, libc::getpwnam_r, |entry| (entry.pw_uid, entry.pw_gid))
}

/// The numeric id of a group.
pub(crate) fn lookup_group(name: &str) -> io::Result<Option<u32>> {
    lookup(name, libc::getgrnam_r, |entry| entry.gr_gid)
}

/// The C library's functions that find an entry by its name (getpwnam(3), getgrnam(3)).
type Find<E> = unsafe extern "C" fn(*const c_char, *mut E, *mut c_char, usize, *mut *mut E) -> c_int;

/// Room for the texts of an entry; a group names all of its members.
const ROOM: usize = 64 * 1024;

fn lookup<E, T>(name: &str, find: Find<E>, read: fn(&E) -> T) -> io::Result<Option<T>> {
    let name = CString::new(name)?;
    let mut buffer: Vec<c_char> = vec![0; ROOM];
    let mut entry = MaybeUninit::<E>::uninit();
    let mut found: *mut E = ptr::null_mut();
    // SAFETY: all pointers are valid for the call, and `buffer`'s length is its own.
    let code =
        unsafe { find(name.as_ptr(), entry.as_mut_ptr(), buffer.as_mut_ptr(), buffer.len(), &raw mut found) };
    match code {
        // SAFETY: the call leaves `found` null, or points it to `entry`, which it has filled then.
        0 => Ok(unsafe { found.as_ref() }.map(read)),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

/// Becomes `user` and `group` for good, in every thread, and leaves all other groups.
///
/// The C library's functions are used, not the bare system calls: only they change all threads (nptl(7)).
pub(crate) fn become_user(user: u32, group: u32) -> io::Result<()> {
    let check = |code: i32| if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    // SAFETY: an empty list is named by length 0; the calls take plain numbers otherwise.
    check(unsafe { libc::setgroups(0, ptr::null()) })?;
    // SAFETY: as above.
    check(unsafe { libc::setresgid(group, group, group) })?;
    // SAFETY: as above.
    check(unsafe { libc::setresuid(user, user, user) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_known_and_nonsense_is_not() {
        assert_eq!(lookup_user("root").unwrap(), Some((0, 0)));
        assert_eq!(lookup_group("root").unwrap(), Some(0));
        assert_eq!(lookup_user("no-such-user").unwrap(), None);
        assert_eq!(lookup_group("no-such-group").unwrap(), None);
        assert!(lookup_user("a\0b").is_err());
    }
}
