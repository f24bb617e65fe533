//! Rules that can't be used.

use std::fmt;
use std::sync::Arc;

use super::rule::{Domain, Rule};

/// Which of the rules of an `[egress]` can't be used, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("[egress.{egress}] {place}: {text}")]
pub struct RuleError {
    /// The egress.
    pub egress: Arc<str>,
    /// Where it stands.
    pub place: RulePlace,
    /// What is wrong with it, and what would be right.
    pub text: String,
}

/// Where a rule stands; indices begin at 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RulePlace {
    /// In `allow`.
    Allow(usize),
    /// In `deny`.
    Deny(usize),
    /// In `domains` of a route.
    Domain {
        /// The route.
        route: usize,
        /// Which of its domains.
        index: usize,
    },
    /// `via` of a route.
    Via {
        /// The route.
        route: usize,
    },
}

impl fmt::Display for RulePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RulePlace::Allow(index) => write!(f, "allow[{index}]"),
            RulePlace::Deny(index) => write!(f, "deny[{index}]"),
            RulePlace::Domain { route, index } => write!(f, "route[{route}].domains[{index}]"),
            RulePlace::Via { route } => write!(f, "route[{route}].via"),
        }
    }
}

/// Checks the text of a rule of `allow` or `deny`.
///
/// # Errors
/// What is wrong with it, and what would be right.
pub fn check_rule(text: &str) -> Result<(), String> {
    text.parse::<Rule>().map(drop)
}

/// Checks the text of a domain of a route.
///
/// # Errors
/// As [`check_rule`].
pub fn check_domain(text: &str) -> Result<(), String> {
    text.parse::<Domain>().map(drop)
}
