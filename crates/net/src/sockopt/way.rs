//! How packets leave: through which device, with which marks.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use socket2::SockRef;

use super::{Dscp, Interface, Refusal};
use crate::sys;

/// What the system and the network may route packets by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Way {
    /// The device that they leave through, and come in by (SO_BINDTODEVICE, socket(7)).
    pub interface: Option<Interface>,
    /// The mark of this machine's rules for routing and filtering (SO_MARK, socket(7)); 0 is none.
    pub mark: u32,
    /// The class that the network sees in them.
    pub dscp: Option<Dscp>,
}

/// What marks take.
const MARK_RIGHT: &str = "CAP_NET_ADMIN";

impl Way {
    /// Sets it on a socket that was just opened, where what is off is off already.
    pub(super) fn apply_to_new(&self, socket: BorrowedFd<'_>, is_ipv4: bool) -> Result<(), Refusal> {
        if self.interface.is_some() {
            self.set_interface(socket)?;
        }
        if self.mark != 0 {
            self.set_mark(socket)?;
        }
        if self.dscp.is_some() { self.set_dscp(socket, is_ipv4) } else { Ok(()) }
    }

    /// Sets it on a socket that may have had another.
    pub(super) fn apply(&self, socket: BorrowedFd<'_>, is_ipv4: bool) -> Result<(), Refusal> {
        let now = SockRef::from(&socket);
        // What stays is left alone: a change takes a right that the process may have given up.
        let bound = now.device().unwrap_or_default().unwrap_or_default();
        if bound != self.interface.as_ref().map_or("", Interface::as_str).as_bytes() {
            self.set_interface(socket)?;
        }
        if now.mark().unwrap_or_default() != self.mark {
            self.set_mark(socket)?;
        }
        let octet = if is_ipv4 { now.tos_v4() } else { now.tclass_v6() };
        let class = octet.unwrap_or_default() >> 2 << 2;
        if class != u32::from(self.dscp.map_or(0, Dscp::octet)) {
            self.set_dscp(socket, is_ipv4)?;
        }
        Ok(())
    }

    fn set_interface(&self, socket: BorrowedFd<'_>) -> Result<(), Refusal> {
        let name = self.interface.as_ref().map(|interface| interface.as_str().as_bytes());
        // The first device may be chosen by anybody, another one by who may send raw packets.
        let refused = |error| Refusal::new("interface", "CAP_NET_RAW", error);
        SockRef::from(&socket).bind_device(name).map_err(refused)
    }

    fn set_mark(&self, socket: BorrowedFd<'_>) -> Result<(), Refusal> {
        let refused = |error| Refusal::new("mark", MARK_RIGHT, error);
        SockRef::from(&socket).set_mark(self.mark).map_err(refused)
    }

    /// The bits of ECN are left to the kernel, which uses them for TCP.
    fn set_dscp(&self, socket: BorrowedFd<'_>, is_ipv4: bool) -> Result<(), Refusal> {
        let octet = i32::from(self.dscp.map_or(0, Dscp::octet));
        let (level, name) = match is_ipv4 {
            true => (libc::IPPROTO_IP, libc::IP_TOS),
            false => (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
        };
        sys::set_int(socket, level, name, octet).map_err(Refusal::of("dscp"))
    }
}

/// Lets a socket have addresses that are not this machine's (IP_TRANSPARENT, ip(7)).
pub(super) fn set_transparent(socket: impl AsFd, is_ipv4: bool, on: bool) -> io::Result<()> {
    let (level, name) = transparent_option(is_ipv4);
    sys::set_int(socket.as_fd(), level, name, i32::from(on))
}

/// Whether it may.
pub(super) fn is_transparent(socket: impl AsFd, is_ipv4: bool) -> bool {
    let (level, name) = transparent_option(is_ipv4);
    sys::get_int(socket.as_fd(), level, name).is_ok_and(|on| on != 0)
}

fn transparent_option(is_ipv4: bool) -> (i32, i32) {
    match is_ipv4 {
        true => (libc::IPPROTO_IP, libc::IP_TRANSPARENT),
        false => (libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT),
    }
}

/// What [`set_transparent`] takes: either right will do.
pub(super) const TRANSPARENT_RIGHT: &str = "CAP_NET_RAW (or CAP_NET_ADMIN)";
