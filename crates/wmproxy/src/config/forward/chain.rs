//! The plan of `[chain]`: for each hop its parents, and the group that shares connections between them.

use std::sync::Arc;

use wmproxy_forward::options::{
    ChainOptions, ChainSpec, HopKind, HopOptions, HopSpec, ParentGroupSpec, ParentOptions,
};
use wmproxy_net::tls::{ConnectorSpec, PeerTls, PeerTlsOptions};
use wmproxy_upstream::GroupSpec;
use wmproxy_wire::units::Secret;

use super::super::options::Options;
use super::super::resolve::Planner;
use super::super::tree::{Path, Step};

/// What HTTP parents are offered in TLS: with and without one connection for many.
const ALPN: [&str; 2] = ["h2", "http/1.1"];

/// The longest user and password of SOCKS 5 (RFC 1929), and of what we write to others.
const MAX_CREDENTIAL: usize = 255;

/// More hops than anybody has; each costs a round trip for every connection.
const MAX_HOPS: usize = 16;

impl Planner<'_> {
    /// Plans the chains and the groups of their parents.
    pub(in super::super) fn chains(&mut self, options: &Options) {
        let table = Path::default().key("chain");
        self.chain_names = self.written_names(&table, options.chain.keys());
        for (name, group) in &options.upstream {
            if let Some(via) = &group.via {
                self.check_chain_name(via, &Path::default().key("upstream").key(name).key("via"));
            }
        }
        for (name, chain) in &options.chain {
            let path = table.key(name);
            self.check_name(&path, name, true);
            if matches!(name.as_str(), "direct" | "reject") {
                let found =
                    self.error(&path, format!("`{name}` is a way of its own, and no name for a chain"));
                self.push(found.hint("give the chain another name"));
            }
            let before = self.errors();
            let hops = self.hops(chain, name, &path);
            if self.errors() == before && !self.is_damaged(&path) {
                let name: Arc<str> = name.as_str().into();
                let connect_timeout = chain.connect_timeout.get();
                self.chains.insert(name.clone(), ChainSpec { name, hops, connect_timeout });
            }
        }
    }

    fn hops(&mut self, chain: &ChainOptions, name: &str, path: &Path) -> Vec<ParentGroupSpec> {
        let place = path.key("hops");
        if chain.hops.is_empty() && !self.is_in_doubt(&place) {
            let found = self.error(path, "`hops` is missing: a chain has at least one proxy");
            self.push(found.hint("write hops = [\"socks5://127.0.0.1:9050\"]"));
        }
        if chain.hops.len() > MAX_HOPS {
            self.problem(&place, format!("a chain has at most {MAX_HOPS} hops"));
            return Vec::new();
        }
        let mut hops = Vec::new();
        for (index, hop) in chain.hops.iter().enumerate() {
            let place = place.index(index);
            if hop.parents().next().is_none() {
                self.problem(&place, "no proxy is in this list");
                continue;
            }
            let name = format!("{name}/{}", index + 1);
            let group = chain.group(&name, index).unwrap_or_else(|problems| {
                for (key, message) in problems {
                    self.hop_problem(&key, &message, hop, index, path);
                }
                // For a look at the rest.
                GroupSpec::inline(name, vec![])
            });
            let parents = hop.parents().map(|(number, parent)| {
                let place = number.map_or_else(|| place.clone(), |number| place.index(number));
                self.parent(parent, &group, &place)
            });
            let parents: Vec<HopSpec> = parents.collect();
            let name = group.name.clone();
            self.groups.insert(name.clone(), group);
            hops.push(ParentGroupSpec { parents, group: name });
        }
        hops
    }

    /// `key` is as in `servers[1].weight`, where servers are parents.
    fn hop_problem(&mut self, key: &str, message: &str, hop: &HopOptions, index: usize, path: &Path) {
        let hop_path = path.key("hops").index(index);
        // What would be right is said of groups, some of whose keys a chain has not.
        let message = message.split(';').next().unwrap_or(message).replace("server", "proxy");
        let Some(rest) = key.strip_prefix("servers") else {
            // What belongs to the chain as a whole is told with its first hop.
            if index == 0 {
                let place = key.split('.').fold(path.clone(), |path, key| path.key(key));
                self.problem(&place, message);
            }
            return;
        };
        let number = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')?.0.parse::<usize>().ok());
        let mut place = hop_path;
        if let (Some(number), HopOptions::Group(_)) = (number, hop) {
            place.0.push(Step::Index(number));
        }
        self.problem(&place, message);
    }

    fn parent(&mut self, parent: &ParentOptions, group: &GroupSpec, path: &Path) -> HopSpec {
        HopSpec {
            kind: parent.url.kind,
            address: parent.url.address.clone(),
            credentials: self.hop_credentials(parent, path),
            tls: self.hop_tls(parent, group, path),
            multiplex: parent.multiplex,
        }
    }

    fn hop_credentials(&mut self, parent: &ParentOptions, path: &Path) -> Option<(Box<str>, Option<Secret>)> {
        let (file, written) = (parent.password_file.as_deref(), parent.password.as_ref());
        let mut password = self.secret(path, "password", written, file);
        let mut user = parent.user.as_deref();
        if let Some(named) = parent.url.user.as_deref() {
            if user.is_some() {
                self.problem(&path.key("user"), "the URL names a user already");
            }
            user = Some(named);
        }
        if let Some(secret) = &parent.url.password {
            if written.is_some() || file.is_some() {
                let key = if written.is_some() { "password" } else { "password_file" };
                self.problem(&path.key(key), "the URL has a password already");
            }
            password = Some(secret.clone());
        }
        let is_said = password.is_some() || file.is_some();
        let Some(user) = user else {
            if is_said {
                let found = self.error(path, "a password without a user");
                self.push(found.hint("add `user`, or write the URL as in \"socks5://user@127.0.0.1:9050\""));
            }
            return None;
        };
        let is_old = matches!(parent.url.kind, HopKind::Socks4 | HopKind::Socks4a);
        match (is_old, is_said) {
            (true, true) => self.problem(path, "SOCKS 4 has no password, only a user"),
            (false, false) => {
                let found = self.error(path, format!("the password of the user `{user}` is missing"));
                self.push(found.hint("add `password` or `password_file`"));
            }
            _ => {}
        }
        let length = user.len().max(password.as_ref().map_or(0, |password| password.expose().len()));
        if length > MAX_CREDENTIAL {
            self.problem(path, format!("user and password have at most {MAX_CREDENTIAL} bytes"));
        }
        if user.is_empty() || user.bytes().any(|byte| byte.is_ascii_control()) {
            self.problem(path, "a user has a name without control characters");
        } else if user.contains(':') && matches!(parent.url.kind, HopKind::Http | HopKind::Https) {
            // RFC 7617 section 2.
            self.problem(path, "a user of HTTP has no colon in its name");
        }
        Some((user.into(), password))
    }

    fn hop_tls(&mut self, parent: &ParentOptions, group: &GroupSpec, path: &Path) -> Option<ConnectorSpec> {
        let kind = parent.url.kind;
        if parent.multiplex && kind != HopKind::Https {
            let found = self
                .error(&path.key("multiplex"), format!("`{}` has one connection for each", kind.as_str()));
            self.push(found.hint("only `https` carries many over one"));
        }
        if !kind.is_tls() {
            let said = [
                ("server_name", parent.server_name.is_some()),
                ("ca", parent.ca.is_some()),
                ("cert", parent.cert.is_some()),
                ("key", parent.key.is_some()),
                ("insecure_skip_verify", parent.insecure_skip_verify),
            ];
            for (key, _) in said.into_iter().filter(|(_, is_said)| *is_said) {
                let found = self.error(&path.key(key), format!("`{}` goes without TLS", kind.as_str()));
                self.push(found.hint("write the URL with `https` or `socks5+tls`"));
            }
            return None;
        }
        let alpn = match (kind, parent.multiplex) {
            (HopKind::Https, true) => &ALPN[..],
            (HopKind::Https, false) => &ALPN[1..],
            _ => &[],
        };
        let options = PeerTlsOptions {
            server_name: parent.server_name.clone(),
            ca: parent.ca.clone(),
            cert: parent.cert.clone(),
            key: parent.key.clone(),
            alpn: alpn.iter().map(|name| (*name).to_owned()).collect(),
            insecure_skip_verify: parent.insecure_skip_verify,
        };
        let mut judged = group.clone();
        self.peer_tls(&PeerTls::On(Box::new(options)), &mut judged, path);
        judged.tls
    }
}
