//! Giving up root for all threads at once.

use std::ffi::CString;
use std::io;

/// The numeric ids of a user and of its main group.
pub(crate) fn lookup_user(name: &str) -> io::Result<Option<(u32, u32)>> {
    let name = CString::new(name)?;
    let mut buffer = vec![0u8; 16 * 1024];
    let mut entry = std::mem::MaybeUninit::<libc::passwd>::uninit();
    let mut found: *mut libc::passwd = std::ptr::null_mut();
    // SAFETY: all pointers are valid for the call and `buffer`'s length is its own.
    let code = unsafe {
        libc::getpwnam_r(
            name.as_ptr(),
            entry.as_mut_ptr(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            &mut found,
        )
    };
    match code {
        0 if found.is_null() => Ok(None),
        // SAFETY: `found` is not null, so the call filled `entry`.
        0 => Ok(Some(unsafe { ((*found).pw_uid, (*found).pw_gid) })),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

/// The numeric id of a group.
pub(crate) fn lookup_group(name: &str) -> io::Result<Option<u32>> {
    let name = CString::new(name)?;
    let mut buffer = vec![0u8; 64 * 1024];
    let mut entry = std::mem::MaybeUninit::<libc::group>::uninit();
    let mut found: *mut libc::group = std::ptr::null_mut();
    // SAFETY: all pointers are valid for the call and `buffer`'s length is its own.
    let code = unsafe {
        libc::getgrnam_r(
            name.as_ptr(),
            entry.as_mut_ptr(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            &mut found,
        )
    };
    match code {
        0 if found.is_null() => Ok(None),
        // SAFETY: `found` is not null, so the call filled `entry`.
        0 => Ok(Some(unsafe { (*found).gr_gid })),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

/// Becomes `user` and `group` for good, in every thread, and leaves all other groups.
///
/// The C library's functions are used, not the bare system calls: only they change all threads (nptl(7)).
pub(crate) fn become_user(user: u32, group: u32) -> io::Result<()> {
    let check = |code: i32| if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    // SAFETY: an empty list is named by length 0; the calls take plain numbers otherwise.
    check(unsafe { libc::setgroups(0, std::ptr::null()) })?;
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
