//! How often clients were told that they may not go somewhere.

use std::sync::atomic::{AtomicU64, Ordering};

use super::policy::Denial;

/// The reasons, in the words of metrics.
const REASONS: [&str; 6] = ["deny", "not_allowed", "deny_port", "private", "own_listener", "rejected"];

/// One for each of them, of all egresses together: what is denied is rare, and counts over reloads.
static COUNTS: [AtomicU64; REASONS.len()] = [const { AtomicU64::new(0) }; REASONS.len()];

/// How often visits, and datagrams, were denied since this process began, by reason.
pub fn denials() -> impl Iterator<Item = (&'static str, u64)> {
    REASONS.into_iter().zip(COUNTS.iter().map(|count| count.load(Ordering::Relaxed)))
}

/// Counts one more.
pub(super) fn note(denial: Denial) {
    let index = match denial {
        Denial::Denied => 0,
        Denial::NotAllowed => 1,
        Denial::Port => 2,
        Denial::Class(_) => 3,
        Denial::Own => 4,
        Denial::Rejected => 5,
    };
    COUNTS[index].fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_counts_under_its_reason() {
        let of = |reason: &str| denials().find(|(name, _)| *name == reason).map(|(_, count)| count);
        let before = of("own_listener");
        note(Denial::Own);
        // Tests of other rules run beside this one.
        assert!(of("own_listener") > before);
    }
}
