//! The keys of filters that are tables.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wmproxy_wire::units::CountRate;

use super::text::text_option;
pub use crate::filter::headers::HeaderRules;
use crate::vars::Template;

/// A name and a password have to come with each request (RFC 7617). Others get a 401.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BasicAuthOptions {
    /// A file with a line `NAME:HASH` for each user, as `htpasswd -B` makes it: hashes of bcrypt and argon2id. Read again
    /// when it changes. Required.
    pub users_file: String,
    /// What clients show their users when they ask.
    pub realm: String,
    /// Whether the `Authorization` of the request is passed on.
    pub forward: bool,
}

/// How often requests with the same key may come.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitRequestsOptions {
    /// What is counted by, with variables. Of IPv6 clients `{client_ip}` is the /64 here. By default `{client_ip}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Template>,
    /// How often, as in `"10/s"` or `"600/m"`. Required.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(required)]
    pub rate: Option<CountRate>,
    /// How many more may come at once after a pause.
    pub burst: u32,
    /// Lets those of the burst wait until the rate has room for them, instead of passing them on at once.
    pub delay: bool,
    /// The status for those that are too many, which also say when to come again (`Retry-After`).
    pub status: u16,
}

/// How many requests with the same key may be under way at once.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitConnectionsOptions {
    /// What is counted by, with variables. Of IPv6 clients `{client_ip}` is the /64 here. By default `{client_ip}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Template>,
    /// How many, at least 1. Required.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(required)]
    pub max: Option<u32>,
    /// The status for those that are too many.
    pub status: u16,
}

/// The statuses that an error page is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PageStatus {
    /// This one, from 400 to 599.
    One(u16),
    /// All from this hundred: 4 or 5.
    Class(u16),
}

impl Default for BasicAuthOptions {
    fn default() -> Self {
        BasicAuthOptions { users_file: String::new(), realm: "restricted".to_owned(), forward: false }
    }
}

/// RFC 6585 section 4.
const TOO_MANY: u16 = 429;

impl Default for LimitRequestsOptions {
    fn default() -> Self {
        LimitRequestsOptions { key: None, rate: None, burst: 0, delay: false, status: TOO_MANY }
    }
}

impl Default for LimitConnectionsOptions {
    fn default() -> Self {
        LimitConnectionsOptions { key: None, max: None, status: TOO_MANY }
    }
}

impl PageStatus {
    /// Whether it is for this status.
    pub fn covers(self, status: u16) -> bool {
        match self {
            PageStatus::One(one) => one == status,
            PageStatus::Class(class) => status / 100 == class,
        }
    }
}

impl FromStr for PageStatus {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text, text.parse()) {
            ("4xx", _) => Ok(PageStatus::Class(4)),
            ("5xx", _) => Ok(PageStatus::Class(5)),
            (_, Ok(status @ 400..=599)) => Ok(PageStatus::One(status)),
            _ => Err("expected a status from 400 to 599, or `4xx` or `5xx`"),
        }
    }
}

impl fmt::Display for PageStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PageStatus::One(status) => status.fmt(f),
            PageStatus::Class(class) => write!(f, "{class}xx"),
        }
    }
}

text_option!(PageStatus, "a status from 400 to 599, or 4xx or 5xx");
