//! Changes of this machine's network, as the kernel tells them (rtnetlink(7)): who waits before it tries again to reach
//! somebody need wait no longer when there is another way.
//!
//! The messages are those of netlink(7): a header of 16 bytes (length, type, flags, sequence, port), and behind it what
//! linux/if_addr.h, linux/if_link.h and linux/rtnetlink.h say.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recvfrom, socket_with};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::sys;

/// What one change sets off comes within this, such as the routes that go with an address.
const JOINED: Duration = Duration::from_millis(100);

/// Addresses and links that are remembered. With more of them what is told again counts as a change.
const KNOWN: usize = 4096;

/// What a message needs to be understood, with room for the attributes of an address. The rest of a larger one is cut off.
const MESSAGES: usize = 8 * 1024;

/// The calling process's view of changes from the moment it is opened. Belongs to the runtime that it was opened on.
#[derive(Debug)]
pub struct NetworkChanges {
    socket: AsyncFd<OwnedFd>,
    known: Known,
    /// Whether there was a change that nobody has been told of yet.
    is_due: bool,
}

/// What was told before. The kernel tells an address anew whenever its lifetime is prolonged, and a link whenever anything
/// about it is, such as its counters of errors.
#[derive(Debug, Default)]
struct Known(HashMap<Subject, u32>);

/// What a message is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Subject {
    /// The network interface with this index.
    Link(u32),
    /// An address of one.
    Address(u32, Box<[u8]>),
}

impl NetworkChanges {
    /// Begins to listen.
    ///
    /// # Errors
    /// The system gives no such socket: where processes are kept from asking for any but those of the internet, say.
    pub fn open() -> io::Result<NetworkChanges> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // Without a number for the protocol it is NETLINK_ROUTE, which is 0.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        let groups = libc::RTMGRP_LINK
            | libc::RTMGRP_IPV4_IFADDR
            | libc::RTMGRP_IPV4_ROUTE
            | libc::RTMGRP_IPV6_IFADDR
            | libc::RTMGRP_IPV6_ROUTE;
        bind(&socket, &SocketAddrNetlink::new(0, groups.unsigned_abs()))?;
        let socket = sys::watch(socket, Interest::READABLE)?;
        Ok(NetworkChanges { socket, known: Known::default(), is_due: false })
    }

    /// Waits for the next change of an address, a link or a route, and for those that come with it. Dropped before it is over it
    /// loses none: the next call tells.
    pub async fn changed(&mut self) {
        while !self.is_due {
            // An event queue that is over ends whoever waits for it, too.
            let Ok(mut ready) = self.socket.readable().await else { return std::future::pending().await };
            self.is_due = take_all(ready.get_inner(), &mut self.known);
            ready.clear_ready();
        }
        tokio::time::sleep(JOINED).await;
        // What came meanwhile is of the same change.
        take_all(self.socket.get_ref(), &mut self.known);
        self.is_due = false;
    }
}

/// Whether this machine has the address, or may act as if it had. What was sent from one that it has no longer is never
/// answered, which is otherwise found out only by waiting.
pub fn is_ours(mut address: SocketAddr) -> bool {
    address.set_port(0);
    let bound = UdpSocket::bind(address);
    // Where no socket can be had nobody knows, and nothing is to be given up.
    !bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}

/// Takes all messages that there are, and says whether there is a change among them.
fn take_all(socket: &OwnedFd, known: &mut Known) -> bool {
    let mut buffer = [0; MESSAGES];
    let mut has_changed = false;
    loop {
        match recvfrom(socket, &mut buffer, RecvFlags::empty()) {
            Ok((length, _, from)) => {
                let from = from.and_then(|from| SocketAddrNetlink::try_from(from).ok());
                // Who is not the kernel has nothing to tell.
                if from.is_some_and(|from| from.pid() == 0) {
                    has_changed |= known.take(&buffer[..length]);
                }
            }
            Err(Errno::AGAIN) => return has_changed,
            Err(Errno::INTR) => {}
            Err(error) => {
                // Some were lost, and more may follow.
                tracing::debug!(%error, "changes of the network were missed");
                known.0.clear();
                return true;
            }
        }
    }
}

impl Known {
    /// Takes the messages of one datagram, and says whether one of them is news.
    fn take(&mut self, mut messages: &[u8]) -> bool {
        let mut has_changed = false;
        while let Some((header, _)) = messages.split_first_chunk::<16>() {
            let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
            let kind = u16::from_ne_bytes([header[4], header[5]]);
            let body = messages.get(16..length.min(messages.len())).unwrap_or_default();
            // One that can't be understood may be anything.
            has_changed |= self.is_news(kind, body).unwrap_or(true);
            let Some(rest) = messages.get(length.max(16).next_multiple_of(4)..) else { break };
            messages = rest;
        }
        has_changed
    }

    fn is_news(&mut self, kind: u16, body: &[u8]) -> Option<bool> {
        let number = |at: usize| Some(u32::from_ne_bytes(*body.get(at..)?.first_chunk()?));
        Some(match kind {
            // Family, prefix length, flags and scope, a byte each; the link's index.
            libc::RTM_NEWADDR => {
                let flags = u32::from(*body.get(2)?);
                self.is_new(Subject::Address(number(4)?, address(body.get(8..)?)), flags)
            }
            libc::RTM_DELADDR => {
                self.0.remove(&Subject::Address(number(4)?, address(body.get(8..)?)));
                true
            }
            // Family and padding, a byte each; type, two bytes; index, flags and which of them have changed, four each.
            // That a link is a port of a bridge is told as of another family.
            libc::RTM_NEWLINK if i32::from(*body.first()?) == libc::AF_UNSPEC => {
                let flags = number(8)? & (libc::IFF_UP | libc::IFF_RUNNING).unsigned_abs();
                self.is_new(Subject::Link(number(4)?), flags)
            }
            libc::RTM_DELLINK if i32::from(*body.first()?) == libc::AF_UNSPEC => {
                let link = number(4)?;
                self.0.retain(|subject, _| match subject {
                    Subject::Link(index) | Subject::Address(index, _) => *index != link,
                });
                true
            }
            // Family, lengths of both prefixes, type of service, table, protocol, scope and type, a byte each; flags. Routes to
            // where no packet goes out, and what is only remembered of one, come and go with addresses and packets.
            libc::RTM_NEWROUTE | libc::RTM_DELROUTE => {
                body.get(7) == Some(&libc::RTN_UNICAST) && number(8)? & libc::RTM_F_CLONED == 0
            }
            _ => false,
        })
    }

    fn is_new(&mut self, subject: Subject, flags: u32) -> bool {
        if self.0.get(&subject) == Some(&flags) {
            return false;
        }
        if self.0.len() >= KNOWN {
            self.0.clear();
        }
        self.0.insert(subject, flags);
        true
    }
}

/// The attributes that say which address it is; those of its lifetime change. Empty where there is none.
fn address(mut attributes: &[u8]) -> Box<[u8]> {
    let mut found = Vec::new();
    while let Some((header, _)) = attributes.split_first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]])).max(4);
        let kind = u16::from_ne_bytes([header[2], header[3]]);
        if kind == libc::IFA_ADDRESS || kind == libc::IFA_LOCAL {
            found.extend_from_slice(attributes.get(4..length).unwrap_or_default());
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found.into()
}

#[cfg(test)]
mod tests;
