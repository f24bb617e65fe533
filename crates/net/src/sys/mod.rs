//! System calls that no safe wrapper offers. The only `unsafe` of the program; each block says why it is sound.

pub(crate) mod datagram;
pub(crate) mod ids;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Descriptors that stay open and the same for as long as their owner lives.
pub(crate) trait Steady: AsRawFd {}

impl Steady for OwnedFd {}
impl Steady for Arc<OwnedFd> {}

/// Registers a descriptor with the event queue of the worker that runs this.
pub(crate) fn watch<T: Steady>(fd: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    // SAFETY: both implementors own their descriptor, or a share of it, and hand out no way to close or change it, so
    // it is the same open one until the `AsyncFd` is dropped.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(Into::into)
}

/// Sets a socket option whose value is an `int`.
pub(crate) fn set_int(fd: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> io::Result<()> {
    let len = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the pointer and length describe `value`, which outlives the call; the kernel only reads it.
    let done = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), len) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reads a socket option whose value is an `int`.
pub(crate) fn get_int(fd: BorrowedFd<'_>, level: i32, name: i32) -> io::Result<i32> {
    let mut value = 0i32;
    let mut len = size_of::<i32>() as libc::socklen_t;
    // SAFETY: both pointers are valid for the call, and `len` says how much may be written through the first.
    let done =
        unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut len) };
    if done == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

/// How many bytes a stream socket has yet to deliver: those that were not acknowledged, sent or not (SIOCOUTQ, tcp(7)).
pub(crate) fn outgoing(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let mut value = 0i32;
    // SAFETY: the pointer is valid for the call, which writes an `int` through it.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut value) };
    if done == 0 { Ok(value.unsigned_abs().into()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn an_option_is_set_and_a_bad_one_is_refused() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        set_int(socket.as_fd(), libc::SOL_SOCKET, libc::SO_BROADCAST, 1).unwrap();
        assert!(socket.broadcast().unwrap());
        assert_eq!(get_int(socket.as_fd(), libc::SOL_SOCKET, libc::SO_BROADCAST).unwrap(), 1);
        assert!(get_int(socket.as_fd(), libc::SOL_SOCKET, 9999).is_err());
        let refused = set_int(socket.as_fd(), libc::SOL_SOCKET, 9999, 1).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ENOPROTOOPT));
    }

    #[test]
    fn what_waits_to_be_delivered_is_counted_and_a_listener_has_none() {
        let (mut near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(outgoing(near.as_fd()).unwrap(), 0);
        io::Write::write_all(&mut near, b"hello").unwrap();
        // Unix sockets count what the bytes take in memory.
        assert!(outgoing(near.as_fd()).unwrap() >= 5);
        assert_eq!(outgoing(far.as_fd()).unwrap(), 0);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(outgoing(listener.as_fd()).is_err());
    }
}
