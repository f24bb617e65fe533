//! What a service says of requests, answers and users.

use wmproxy_http::filter::headers::{FieldName, FieldPattern, FieldValue};
use wmproxy_tunnel::options::HeaderChanges;
use wmproxy_wire::head::is_value;
use wmproxy_wire::units::Secret;

use super::super::forward::users::{check_hash, check_user_name};
use super::super::options::TunnelServiceOptions;
use super::super::resolve::Planner;
use super::super::tree::Path;

impl Planner<'_> {
    /// What is done to requests and answers.
    pub(super) fn check_http_rules(&mut self, service: &TunnelServiceOptions, path: &Path) {
        for (index, prefix) in service.paths.0.iter().enumerate().filter(|(_, text)| !text.starts_with('/')) {
            let place = self.element(&path.key("paths"), index);
            let found = self.error(&place, "a path begins with \"/\"");
            self.push(found.hint(format!("write \"/{prefix}\"")));
        }
        if let Some(host) = &service.host_header
            && (host.is_empty() || !is_value(host.as_bytes()) || host.contains(['/', ' ', ',']))
        {
            let found = self.error(&path.key("host_header"), "this is no host that a request could ask for");
            self.push(found.hint("write it as in \"app.lan\" or \"127.0.0.1:3000\""));
        }
        for (key, changes) in
            [("request_headers", &service.request_headers), ("response_headers", &service.response_headers)]
        {
            self.check_changes(changes, &path.key(key));
        }
    }

    /// Who may come, by their names, with the hashes of their passwords.
    pub(super) fn service_users(
        &mut self,
        service: &TunnelServiceOptions,
        path: &Path,
    ) -> Vec<(String, Secret)> {
        let table = path.key("users");
        let mut users = Vec::new();
        for (name, user) in &service.users {
            let path = table.key(name);
            if let Err(message) = check_user_name(name) {
                self.problem(&path, message);
            }
            let hash = self.secret(&path, "password", user.password.as_ref(), user.password_file.as_deref());
            let is_said = user.password.is_some() || user.password_file.is_some();
            if !is_said && !self.is_in_doubt(&path) {
                let found = self.error(&path, format!("nothing lets `{name}` in: `password` is missing"));
                self.push(found.hint("write password = \"...\" with what `wmproxy hash-password` prints"));
            }
            let Some(hash) = hash else { continue };
            if let Err(message) = check_hash(&hash) {
                let found = self.error(&self.secret_place(&path, "password"), message);
                self.push(found.hint("`wmproxy hash-password` makes one"));
            }
            users.push((name.clone(), hash));
        }
        users
    }

    fn check_changes(&mut self, changes: &HeaderChanges, path: &Path) {
        for (name, value) in &changes.set {
            let place = path.key("set").key(name);
            if let Err(error) = name.parse::<FieldName<true>>() {
                self.problem(&place, error.to_string());
            }
            if let Err(message) = value.parse::<FieldValue>() {
                self.problem(&place, message);
            }
        }
        for (index, name) in changes.remove.0.iter().enumerate() {
            if let Err(error) = name.parse::<FieldPattern>() {
                let place = self.element(&path.key("remove"), index);
                self.problem(&place, error.to_string());
            }
        }
    }
}
