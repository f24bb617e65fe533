//! Clients that stay with their server by a cookie.

use std::fmt::Write;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wmproxy_wire::units::{HumanDuration, Secret};

use super::Problems;
use crate::balance::is_token;

/// How a client is sent to the server that it had before.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Sticky")]
pub struct StickyOptions {
    /// The name of the cookie that says which server a client had. Required.
    pub cookie: String,
    /// What the cookie's value is made with, so that nobody can find out by trying which address it stands for. All
    /// instances that serve the same clients need the same one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// The file that holds `secret`, instead of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<String>,
    /// For how long the client keeps the cookie. By default as long as its session lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<HumanDuration>,
    /// Below which path the client sends it. Default `"/"`.
    #[serde(default = "root")]
    pub path: String,
    /// To which domain and all below it the client sends it. By default to the host alone that it asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Whether the client sends it by TLS only. By default that is so if it came by TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secure: Option<bool>,
    /// Keeps it from the page's scripts. Default `true`.
    #[serde(default = "yes")]
    pub http_only: bool,
    /// On which requests that another site caused the client sends it: `strict` (none), `lax` (when it follows a link)
    /// or `none` (on all, and then by TLS only). Default `lax`.
    #[serde(default)]
    pub same_site: SameSite,
}

fn root() -> String {
    "/".to_owned()
}

fn yes() -> bool {
    true
}

/// On which requests from other sites a client sends a cookie (RFC 6265bis section 5.6.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SameSite {
    /// On none.
    Strict,
    /// When it follows a link.
    #[default]
    Lax,
    /// On all.
    None,
}

/// The cookie of a group whose clients stay with their servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StickySpec {
    /// Its name.
    pub cookie: Arc<str>,
    /// What its values are made with.
    pub secret: Option<Secret>,
    plain: Arc<str>,
    secure: Arc<str>,
}

impl StickySpec {
    /// What follows its value in a `Set-Cookie` field, from the first `;` on, for a client that came by TLS or not.
    pub fn attributes(&self, is_tls: bool) -> &str {
        if is_tls { &self.secure } else { &self.plain }
    }
}

impl StickyOptions {
    pub(super) fn check(&self, problems: &mut Problems) -> StickySpec {
        if !is_token(&self.cookie) {
            problems.add("sticky.cookie", "expected a name like \"route\": letters, digits, `-` and `_`");
        }
        let is_value = |text: &str| text.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b';');
        if !self.path.starts_with('/') || !is_value(&self.path) {
            problems.add("sticky.path", "expected a path like \"/\" or \"/app\"");
        }
        if let Some(domain) = &self.domain
            && (domain.is_empty() || !domain.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b)))
        {
            problems.add("sticky.domain", "expected a domain like \"example.com\"");
        }
        if self.same_site == SameSite::None && self.secure == Some(false) {
            problems.add("sticky.secure", "clients refuse a cookie that has same_site = \"none\" without it");
        }
        let needs_tls = self.secure.unwrap_or(self.same_site == SameSite::None);
        let attributes = |is_tls: bool| self.attributes(needs_tls || (is_tls && self.secure.is_none()));
        StickySpec {
            cookie: self.cookie.as_str().into(),
            secret: self.secret.clone(),
            plain: attributes(false).into(),
            secure: attributes(true).into(),
        }
    }

    fn attributes(&self, secure: bool) -> String {
        let mut text = format!("; Path={}", self.path);
        if let Some(domain) = &self.domain {
            let _ = write!(text, "; Domain={domain}");
        }
        if let Some(age) = self.max_age {
            let _ = write!(text, "; Max-Age={}", age.get().as_secs());
        }
        text.push_str(match self.same_site {
            SameSite::Strict => "; SameSite=Strict",
            SameSite::Lax => "; SameSite=Lax",
            SameSite::None => "; SameSite=None",
        });
        if self.http_only {
            text.push_str("; HttpOnly");
        }
        if secure {
            text.push_str("; Secure");
        }
        text
    }
}
