//! The option `tls`: its files are looked into, so that what is wrong with them has a line in the config.

use wmproxy_net::tls::{
    Acceptor, AcceptorSpec, CertOptions, CertSpec, Connector, ConnectorSpec, Fault, Field, ListenerTls,
    PeerTls, PeerTlsOptions, SELF_SIGNED, state_directory,
};
use wmproxy_upstream::GroupSpec;

use super::resolve::Planner;
use super::tree::Path;

/// The longest name of an application protocol (RFC 7301 section 3.1).
const MAX_ALPN: usize = 255;

impl Planner<'_> {
    /// What a listener's TLS is made of; `path` is that of the option. None if something is wrong with it.
    pub(super) fn listener_tls(&mut self, tls: &ListenerTls, path: &Path) -> Option<AcceptorSpec> {
        let before = self.errors();
        let mut spec = AcceptorSpec::default();
        let certificates = tls.certificates();
        if certificates.is_empty() && !self.is_damaged(path) {
            self.problem(path, "at least one certificate is needed");
        }
        let place = |index: Option<usize>| index.map_or_else(|| path.clone(), |index| path.index(index));
        for (number, (index, options)) in certificates.iter().enumerate() {
            let path = place(*index);
            spec.certs.extend(self.cert(options, &path));
            if number == 0 {
                spec.client_ca = options.client_ca.as_ref().map(|ca| self.file(&path.key("client_ca"), ca));
                spec.alpn = self.alpn(&options.alpn, &path);
                spec.strict_sni = options.strict_sni;
            } else {
                self.only_first(options, &path);
            }
        }
        if self.errors() > before || self.is_damaged(path) || spec.certs.is_empty() {
            return None;
        }
        let (faults, is_good) = match Acceptor::check(&spec) {
            Ok(odd) => (odd, true),
            Err(fault) => (vec![fault], false),
        };
        for fault in faults {
            let at = |index: usize| place(certificates.get(index).and_then(|(index, _)| *index));
            let path = match fault.field {
                Field::Cert(index) => at(index).key("cert"),
                Field::Key(index) => at(index).key("key"),
                Field::Ca | Field::ServerName => at(0).key("client_ca"),
            };
            self.fault(fault, &path);
        }
        is_good.then_some(spec)
    }

    fn cert(&mut self, options: &CertOptions, path: &Path) -> Option<CertSpec> {
        if options.cert == SELF_SIGNED {
            if options.key.is_some() {
                self.problem(&path.key("key"), "a self-signed certificate brings its own key; remove this");
            }
            let directory = state_directory(|name| std::env::var(name).ok());
            let Some(directory) = directory else {
                let found = self.error(path, "there is no place to keep a self-signed certificate in");
                self.push(found.hint("set XDG_STATE_HOME or HOME"));
                return None;
            };
            self.private.push((directory.clone(), "a private key"));
            return Some(CertSpec::SelfSigned { directory });
        }
        for (key, is_missing) in [("cert", options.cert.is_empty()), ("key", options.key.is_none())] {
            if is_missing && !self.is_damaged(path) && !self.was_dropped(&path.key(key)) {
                let found = self.error(path, format!("`{key}` is missing"));
                self.push(
                    found.hint("write tls = { cert = \"cert.pem\", key = \"key.pem\" }, or \"self-signed\""),
                );
            }
        }
        let key = options.key.as_deref().filter(|_| !options.cert.is_empty())?;
        let cert = self.file(&path.key("cert"), &options.cert);
        let key = self.file(&path.key("key"), key);
        self.private.push((key.clone(), "a private key"));
        Some(CertSpec::Files { cert, key })
    }

    /// What is one for the whole listener stands with the first certificate.
    fn only_first(&mut self, options: &CertOptions, path: &Path) {
        let said = [
            ("client_ca", options.client_ca.is_some()),
            ("alpn", !options.alpn.is_empty()),
            ("strict_sni", options.strict_sni),
        ];
        for (key, _) in said.into_iter().filter(|(_, is_said)| *is_said) {
            let found = self.error(&path.key(key), format!("`{key}` is for all certificates of a listener"));
            self.push(found.hint("say it with the first of them"));
        }
    }

    fn alpn(&mut self, protocols: &[String], path: &Path) -> Vec<String> {
        for (index, protocol) in protocols.iter().enumerate() {
            if !(1..=MAX_ALPN).contains(&protocol.len()) {
                let message = format!("the name of a protocol has 1 to {MAX_ALPN} bytes");
                self.problem(&path.key("alpn").index(index), message);
            }
        }
        protocols.to_vec()
    }

    /// Adds to a group what its TLS is made of; `path` is that of the option.
    pub(super) fn peer_tls(&mut self, tls: &PeerTls, group: &mut GroupSpec, path: &Path) {
        let PeerTls::On(options) = tls else { return };
        let before = self.errors();
        let file = |planner: &mut Self, key: &str, value: &Option<String>| {
            value.as_deref().map(|value| planner.file(&path.key(key), value))
        };
        let ca = file(self, "ca", &options.ca);
        let (cert, key) = (file(self, "cert", &options.cert), file(self, "key", &options.key));
        let cert = match (cert, key) {
            (Some(cert), Some(key)) => {
                self.private.push((key.clone(), "a private key"));
                Some(CertSpec::Files { cert, key })
            }
            (None, None) => None,
            (Some(_), None) => {
                self.problem(&path.key("cert"), "`key` is missing: a certificate proves nothing without it");
                None
            }
            (None, Some(_)) => {
                self.problem(&path.key("key"), "`cert` is missing: nobody knows whose key this is");
                None
            }
        };
        let alpn = self.alpn(&options.alpn, path);
        self.check_verifying(options, group, path);
        let PeerTlsOptions { server_name, insecure_skip_verify, .. } = options.as_ref().clone();
        let spec =
            ConnectorSpec { server_name, ca, cert, alpn, insecure_skip_verify, ..ConnectorSpec::default() };
        if self.errors() == before && !self.is_damaged(path) {
            let faults = match Connector::load(spec.clone()) {
                Ok((_, odd)) => odd,
                Err(fault) => vec![fault],
            };
            for fault in faults {
                let key = match fault.field {
                    Field::Cert(_) => "cert",
                    Field::Key(_) => "key",
                    Field::Ca => "ca",
                    Field::ServerName => "server_name",
                };
                self.fault(fault, &path.key(key));
            }
        }
        // Also when something is wrong: without it the group would be one in the clear.
        group.tls = Some(spec);
    }

    fn check_verifying(&mut self, options: &PeerTlsOptions, group: &GroupSpec, path: &Path) {
        let skip = path.key("insecure_skip_verify");
        if !options.insecure_skip_verify {
            let is_unix = |address: &wmproxy_net::addr::TargetSpec| address.to_string().starts_with("unix:");
            if options.server_name.is_none() && group.servers.iter().any(|server| is_unix(&server.target)) {
                let found = self.error(path, "a unix socket has no name that its server could prove");
                self.push(found.hint("say which one to expect with `server_name`"));
            }
        } else if options.ca.is_some() {
            self.problem(&skip, "this believes anybody, so `ca` has no effect; remove one of them");
        } else {
            let message = format!("whoever answers in the place of `{}` is believed", group.name);
            let found = self.error(&skip, message).warning();
            self.push(found.hint("name whom to trust with `ca` instead"));
        }
    }

    pub(super) fn fault(&mut self, fault: Fault, path: &Path) {
        let found = self.error(path, fault.message);
        self.push(if fault.is_warning { found.warning() } else { found });
    }
}
