//! What the plan of a stream has to know of its bridge.

use std::sync::Arc;

use wmproxy_net::addr::{AddressSpec, Protocol, TargetSpec};
use wmproxy_stream::bridge::options::{BridgeMode, BridgeSpec};
use wmproxy_stream::bridge::url::BridgeUrl;
use wmproxy_stream::options::StreamOptions;
use wmproxy_upstream::GroupSpec;

use super::resolve::Planner;
use super::tree::Path;

impl Planner<'_> {
    /// Reports what is wrong with the keys of a bridge.
    pub(super) fn check_bridge(&mut self, stream: &StreamOptions, path: &Path) {
        // What only follows from a value that could not be read is no problem of its own.
        if self.lacks_bridge(path) {
            return;
        }
        for (key, message) in BridgeSpec::new(stream).err().unwrap_or_default() {
            self.problem(&path.key(key), message);
        }
        let mut listens = stream.listen.iter().flat_map(|list| &list.0);
        if stream.bridge.is_some() && listens.any(|listen| listen.protocol == Protocol::Udp) {
            let found =
                self.error(&path.key("bridge"), "a bridge is for tcp, and `listen` has a udp address");
            self.push(found.related(self.span(&path.key("listen")), "here"));
        }
    }

    /// Whether what says where a bridge goes is there but could not be read.
    pub(super) fn lacks_bridge(&self, path: &Path) -> bool {
        ["bridge", "bridge_url"].iter().any(|key| self.was_dropped(&path.key(key)))
    }

    /// The group of the servers that a URL is asked of. It bears the URL's scheme, so that nobody else's is the same.
    pub(super) fn bridge_group(
        &mut self,
        url: &BridgeUrl,
        addresses: &str,
        targets: Vec<TargetSpec>,
    ) -> Arc<str> {
        let name: Arc<str> = match url.origin() {
            origin if addresses == url.address() => origin.into(),
            origin => format!("{origin} at {addresses}").into(),
        };
        let spec = || match url.is_secure() {
            true => GroupSpec::inline_by_tls(name.clone(), targets, url.host(), &[HTTP_1_1]),
            false => GroupSpec::inline(name.clone(), targets),
        };
        self.groups.entry(name.clone()).or_insert_with(spec);
        name
    }

    /// Reports an upstream of a bridge to `wss` that goes without TLS.
    pub(super) fn check_secure_group(&mut self, name: &str, stream: &Path) {
        if self.groups.get(name).is_none_or(|group| group.tls.is_some()) {
            return;
        }
        let message = format!("`wss` is TLS, and upstream `{name}` has none");
        let found = self.error(&stream.key("bridge_url"), message);
        self.push(found.hint(format!("add `tls` to [upstream.{name}], or leave out `upstream`")));
    }
}

/// What is offered to a server by `wss`, so that it does not choose HTTP/2 (RFC 7301).
const HTTP_1_1: &str = "http/1.1";

/// The URL that a stream goes to, if it has no other target.
pub(super) fn target_of(stream: &StreamOptions) -> Option<&BridgeUrl> {
    let url = stream.bridge_url.as_ref()?;
    (stream.bridge == Some(BridgeMode::Tcp2ws) && stream.upstream.is_none()).then_some(url)
}

/// The URL of a bridge that needs TLS.
pub(super) fn secure_url(stream: &StreamOptions) -> Option<&BridgeUrl> {
    let url = stream.bridge_url.as_ref()?;
    (stream.bridge == Some(BridgeMode::Tcp2ws) && url.is_secure()).then_some(url)
}

/// Where that is; what is a host in a URL is one in an address.
pub(super) fn address_of(url: &BridgeUrl) -> Vec<AddressSpec> {
    url.address().parse().into_iter().collect()
}
