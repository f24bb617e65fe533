//! Checks of what is set on sockets, on those of clients and on those towards servers.

use wmproxy_forward::options::ForwardOptions;
use wmproxy_http::options::HttpOptions;
use wmproxy_net::addr::{AddressSpec, ListenSpec, Protocol};
use wmproxy_net::sockopt::Source;
use wmproxy_stream::options::StreamOptions;
use wmproxy_upstream::GroupSpec;
use wmproxy_wire::units::HumanDuration;

use super::resolve::Planner;
use super::tree::Path;

/// What the kernel takes for TCP_USER_TIMEOUT, in milliseconds: an `int`, some 24 days.
const MAX_USER_TIMEOUT_MS: u128 = i32::MAX as u128;

/// What the tables of all modes say of sockets, as far as it can be wrong.
pub(super) struct SocketKeys<'a> {
    listens: &'a [ListenSpec],
    user_timeout: Option<HumanDuration>,
    mptcp: bool,
    fast_open: bool,
    source: Option<Source>,
}

impl<'a> From<&'a StreamOptions> for SocketKeys<'a> {
    fn from(options: &'a StreamOptions) -> Self {
        SocketKeys {
            listens: options.listen.as_ref().map_or(&[][..], |list| &list.0),
            user_timeout: options.tcp_user_timeout,
            mptcp: options.mptcp,
            fast_open: options.tcp_fast_open,
            source: options.source,
        }
    }
}

impl<'a> From<&'a HttpOptions> for SocketKeys<'a> {
    fn from(options: &'a HttpOptions) -> Self {
        SocketKeys {
            listens: options.listen.as_ref().map_or(&[][..], |list| &list.0),
            user_timeout: options.tcp_user_timeout,
            mptcp: options.mptcp,
            fast_open: options.tcp_fast_open,
            source: options.source,
        }
    }
}

impl<'a> From<&'a ForwardOptions> for SocketKeys<'a> {
    fn from(options: &'a ForwardOptions) -> Self {
        SocketKeys {
            listens: options.listen.as_ref().map_or(&[][..], |list| &list.0),
            user_timeout: options.tcp_user_timeout,
            mptcp: options.mptcp,
            fast_open: options.tcp_fast_open,
            // That of an egress.
            source: None,
        }
    }
}

impl Planner<'_> {
    /// What is wrong with them whatever the listener goes to.
    pub(super) fn check_sockets(&mut self, keys: &SocketKeys<'_>, path: &Path) {
        if let Some(time) = keys.user_timeout
            && !(1..=MAX_USER_TIMEOUT_MS).contains(&time.get().as_millis())
        {
            let found = self.error(&path.key("tcp_user_timeout"), "expected a time from \"1ms\" to \"24d\"");
            self.push(found.hint("leave it out for the system's own"));
        }
        if keys.user_timeout.is_some() && keys.mptcp {
            let message = "the kernel's Multipath TCP has no `tcp_user_timeout`; remove this or `mptcp`";
            self.problem(&path.key("tcp_user_timeout"), message);
        }
        let listens = keys.listens;
        let is_tcp = |listen: &ListenSpec| {
            listen.protocol == Protocol::Tcp && !matches!(listen.address, AddressSpec::Unix(_))
        };
        if listens.is_empty() || listens.iter().any(is_tcp) {
            return;
        }
        for (key, _) in
            [("tcp_fast_open", keys.fast_open), ("mptcp", keys.mptcp)].iter().filter(|(_, on)| *on)
        {
            let found = self.error(&path.key(key), "no address of `listen` is tcp, so this has no effect");
            self.push(found.warning());
        }
    }

    /// What is wrong with them because of a group that the listener goes to.
    pub(super) fn check_way(&mut self, keys: &SocketKeys<'_>, group: &GroupSpec, path: &Path) {
        if group.socket.source.is_none()
            && let (Some(source), Some(server)) = (keys.source, group.unreachable_from(keys.source))
        {
            let message = format!("{source} and {server} are of two families, so one can't reach the other");
            self.problem(&path.key("source"), message);
        }
        if keys.user_timeout.is_some() && group.socket.mptcp {
            let message = format!(
                "`{}` has `mptcp`, and the kernel's Multipath TCP has no `tcp_user_timeout`",
                group.name
            );
            self.problem(&path.key("tcp_user_timeout"), message);
        }
    }
}
