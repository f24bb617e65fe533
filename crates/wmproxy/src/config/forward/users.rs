//! The users of a forward proxy, from its table and from a file.

use std::sync::Arc;

use wmproxy_forward::options::{ForwardOptions, UserOptions, UserSpec};
use wmproxy_wire::units::Secret;

use super::super::include::read_text;
use super::super::resolve::Planner;
use super::super::tree::Path;

/// The longest name of a user: what SOCKS 5 can carry (RFC 1929).
const MAX_NAME: usize = 255;

impl Planner<'_> {
    /// Who may use a forward proxy.
    pub(super) fn users(&mut self, forward: &ForwardOptions, path: &Path) -> Vec<UserSpec> {
        let table = path.key("users");
        let mut users: Vec<UserSpec> = Vec::new();
        let has_certificates = forward
            .tls
            .as_ref()
            .is_some_and(|tls| tls.certificates().iter().any(|(_, cert)| cert.client_ca.is_some()));
        for (name, options) in &forward.users {
            let path = table.key(name);
            if let Err(message) = check_user_name(name) {
                self.problem(&path, message);
            }
            let written = (options.password.as_ref(), options.password_file.as_deref());
            let password = self.secret(&path, "password", written.0, written.1);
            if let Some(password) = &password
                && let Err(message) = check_hash(password)
            {
                let key = if written.1.is_some() { "password_file" } else { "password" };
                let found = self.error(&path.key(key), message);
                self.push(found.hint("`wmproxy hash-password` makes one"));
            }
            let is_said = written.0.is_some() || written.1.is_some();
            if !is_said && !has_certificates && !self.is_in_doubt(&path) {
                let found = self.error(&path, format!("nothing lets `{name}` in: `password` is missing"));
                self.push(found.hint("write password = \"...\" with what `wmproxy hash-password` prints"));
            }
            self.check_egress_name(options.egress.as_deref(), &path.key("egress"));
            users.push(user(name, options, password));
        }
        if let Some(file) = &forward.users_file {
            let path = path.key("users_file");
            let before = self.errors();
            self.users_of_file(file, &path, &mut users);
            // Where there are no users, nobody is asked for a password.
            if users.is_empty() && self.errors() == before {
                let found = self.error(&path, "nobody is in this file, and so everybody would be let in");
                self.push(found.hint("put NAME:HASH lines into it, or leave `users_file` out"));
            }
        }
        users
    }

    fn users_of_file(&mut self, file: &str, path: &Path, users: &mut Vec<UserSpec>) {
        let file = self.file(path, file);
        self.files.push(file.clone());
        self.private.push((file.clone(), "a file of passwords"));
        let text = match read_text(&file) {
            Ok(text) => text,
            Err(why) => return self.problem(path, format!("can't read {}: {why}", file.display())),
        };
        let mut problem = |line: usize, message: String| {
            self.problem(path, format!("{} line {}: {message}", file.display(), line + 1));
        };
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Some((name, hash)) = line.split_once(':') else {
                problem(number, "expected NAME:HASH".to_owned());
                continue;
            };
            let hash = Secret::new(hash).map_err(|_| "expected NAME:HASH".to_owned());
            let checked = check_user_name(name)
                .map_err(str::to_owned)
                .and(hash)
                .and_then(|hash| check_hash(&hash).map(|()| hash));
            match checked {
                Ok(_) if users.iter().any(|user| &*user.name == name) => {
                    problem(number, format!("`{name}` is a user already"));
                }
                Ok(hash) => users.push(user(name, &UserOptions::default(), Some(hash))),
                Err(message) => problem(number, message),
            }
        }
    }
}

fn user(name: &str, options: &UserOptions, password: Option<Secret>) -> UserSpec {
    UserSpec {
        name: Arc::from(name),
        password,
        egress: options.egress.as_deref().map(Arc::from),
        rate_limit: options.rate_limit,
        max_connections: options.max_connections,
        max_associations: options.max_associations,
        quota: options.quota,
    }
}

pub(in super::super) fn check_user_name(name: &str) -> Result<(), &'static str> {
    if !(1..=MAX_NAME).contains(&name.len()) {
        Err("the name of a user has 1 to 255 bytes")
    } else if name.contains(':') {
        // RFC 7617 section 2.
        Err("the name of a user has no colon in it: HTTP could not tell where it ends")
    } else if name.chars().any(char::is_control) {
        Err("the name of a user has no control characters in it")
    } else {
        Ok(())
    }
}

/// Whether that is the hash of a password, and one that is not too dear to compare.
pub(in super::super) fn check_hash(hash: &Secret) -> Result<(), String> {
    hash.expose().parse::<wmproxy_http::auth::Hash>().map(drop)
}
