//! The plan of `[tunnel_server]` and `[tunnel_client]`: keys found, names and files looked at, and what does not fit together
//! told with its remedy.

mod client;
pub(crate) mod plan;
mod rules;
mod server;
mod service;
#[cfg(test)]
mod tests;
mod visitor;

use std::collections::BTreeSet;

use wmproxy_net::addr::{AddressSpec, Host, Protocol};
use wmproxy_tunnel::options::host_pattern;
use wmproxy_wire::units::{HumanDuration, Secret};

use super::include::exposed;
use super::resolve::Planner;
use super::tree::Path;

/// Shorter keys can be guessed by whoever has heard a proof: 16 characters of base64 are 96 bits.
const MIN_KEY: usize = 16;

/// How a key is made that nobody guesses.
const KEY_HINT: &str = "`openssl rand -base64 32` makes one that nobody guesses";

impl Planner<'_> {
    /// A key or secret that is written as `key` or in the file `key_file`; `of` says whose. Missing ones are told.
    fn proof_secret(
        &mut self,
        path: &Path,
        key: &str,
        (written, file): (Option<&Secret>, Option<&str>),
        of: &str,
    ) -> Option<Secret> {
        let secret = self.guarded(path, key, (written, file));
        let is_said = written.is_some() || file.is_some();
        if !is_said && !self.is_in_doubt(path) {
            let found = self.error(path, format!("`{key}` is missing: {of}"));
            self.push(found.hint(format!("write {key} = \"...\" or {key}_file = \"...\"; {KEY_HINT}")));
        }
        secret
    }

    /// What `key` says, or the file `key_file`: nobody should be able to read or to guess it.
    fn guarded(
        &mut self,
        path: &Path,
        key: &str,
        (written, file): (Option<&Secret>, Option<&str>),
    ) -> Option<Secret> {
        let secret = self.secret(path, key, written, file)?;
        let place = self.secret_place(path, key);
        if let Some(file) = file {
            let file = self.file(&place, file);
            if let Some(message) = exposed(&file) {
                let found = self.error(&place, message);
                self.push(found.warning().hint(format!("chmod o-r {}", file.display())));
            }
        }
        // Of keys both ends have more to say.
        if key == "secret" && secret.expose().chars().count() < MIN_KEY {
            let message = format!(
                "a secret of less than {MIN_KEY} characters may be guessed, also by the tunnel server"
            );
            let found = self.error(&place, message);
            self.push(found.warning().hint(KEY_HINT));
        }
        Some(secret)
    }

    /// Where to point for what is said by `key`, or in the file that `key` with `_file` names.
    fn secret_place(&self, path: &Path, key: &str) -> Path {
        let file = path.key(&format!("{key}_file"));
        if self.node(&file).is_some() { file } else { path.key(key) }
    }

    /// The hosts of a list as they are compared.
    fn hosts(&mut self, list: &[String], path: &Path) -> Vec<String> {
        let mut seen = BTreeSet::new();
        for (index, text) in list.iter().enumerate() {
            let place = self.element(path, index);
            match host_pattern(text) {
                Ok(host) if seen.contains(&host) => {
                    let found = self.error(&place, format!("`{host}` is in this list twice"));
                    self.push(found.warning());
                }
                Ok(host) => drop(seen.insert(host)),
                Err(message) => self.problem(&place, message),
            }
        }
        seen.into_iter().collect()
    }

    /// Takes the addresses of a list for `protocol`; each has one port.
    fn places(&mut self, list: &[AddressSpec], protocols: &[Protocol], path: &Path) -> Vec<AddressSpec> {
        for (index, address) in list.iter().enumerate() {
            let place = self.element(path, index);
            if address.count() != 1 {
                self.problem(&place, "one port is meant here, not a range");
                continue;
            }
            for protocol in protocols {
                self.claim(*protocol, address, &place);
            }
        }
        list.to_vec()
    }

    /// Reports times that nobody could keep.
    fn check_no_zero(&mut self, times: &[(&str, HumanDuration)], path: &Path) {
        for (key, _) in times.iter().filter(|(_, time)| time.is_zero()) {
            self.problem(&path.key(key), "nobody does anything in no time");
        }
    }

    /// Reports a target that nothing can connect to.
    fn check_target(&mut self, target: &AddressSpec, path: &Path) -> bool {
        let message = match target {
            AddressSpec::Unix(_) => return true,
            _ if target.count() != 1 => "one port is meant here, not a range".to_owned(),
            AddressSpec::Inet { host: Host::Any, first_port, .. } => {
                format!("a target needs a host: \"127.0.0.1:{first_port}\", not \":{first_port}\"")
            }
            AddressSpec::Inet { first_port: 0, .. } => "port 0 can't be connected to".to_owned(),
            AddressSpec::Inet { .. } => return true,
        };
        self.problem(path, message);
        false
    }
}
