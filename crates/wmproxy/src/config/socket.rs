//! Checks of what is set on sockets, on those of clients and on those towards servers.

use wmproxy_net::addr::{AddressSpec, ListenSpec, Protocol};
use wmproxy_stream::options::StreamOptions;
use wmproxy_upstream::GroupSpec;

use super::resolve::Planner;
use super::tree::Path;

/// What the kernel takes for TCP_USER_TIMEOUT, in milliseconds: an `int`, some 24 days.
const MAX_USER_TIMEOUT_MS: u128 = i32::MAX as u128;

impl Planner<'_> {
    /// What is wrong with a stream's options whatever it goes to.
    pub(super) fn check_sockets(&mut self, stream: &StreamOptions, path: &Path) {
        if let Some(time) = stream.tcp_user_timeout
            && !(1..=MAX_USER_TIMEOUT_MS).contains(&time.get().as_millis())
        {
            let found = self.error(&path.key("tcp_user_timeout"), "expected a time from \"1ms\" to \"24d\"");
            self.push(found.hint("leave it out for the system's own"));
        }
        if stream.tcp_user_timeout.is_some() && stream.mptcp {
            let message = "the kernel's Multipath TCP has no `tcp_user_timeout`; remove this or `mptcp`";
            self.problem(&path.key("tcp_user_timeout"), message);
        }
        let listens = stream.listen.as_ref().map_or(&[][..], |list| &list.0);
        let is_tcp = |listen: &ListenSpec| {
            listen.protocol == Protocol::Tcp && !matches!(listen.address, AddressSpec::Unix(_))
        };
        if listens.is_empty() || listens.iter().any(is_tcp) {
            return;
        }
        for (key, _) in
            [("tcp_fast_open", stream.tcp_fast_open), ("mptcp", stream.mptcp)].iter().filter(|(_, on)| *on)
        {
            let found = self.error(&path.key(key), "no address of `listen` is tcp, so this has no effect");
            self.push(found.warning());
        }
    }

    /// What is wrong with a stream's options because of the group that it goes to.
    pub(super) fn check_way(&mut self, stream: &StreamOptions, group: &GroupSpec, path: &Path) {
        if group.socket.source.is_none()
            && let (Some(source), Some(server)) = (stream.source, group.unreachable_from(stream.source))
        {
            let message = format!("{source} and {server} are of two families, so one can't reach the other");
            self.problem(&path.key("source"), message);
        }
        if stream.tcp_user_timeout.is_some() && group.socket.mptcp {
            let message = format!(
                "`{}` has `mptcp`, and the kernel's Multipath TCP has no `tcp_user_timeout`",
                group.name
            );
            self.problem(&path.key("tcp_user_timeout"), message);
        }
    }
}
