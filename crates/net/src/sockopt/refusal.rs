//! An option that the system refused, and what to do about it.

use std::io;

use rustix::io::Errno;

/// A socket option that could not be set.
#[derive(Debug, thiserror::Error)]
#[error("`{option}` can't be set: {}", explain(.source, .right))]
pub struct Refusal {
    /// The key of the config.
    option: &'static str,
    /// The capability that it takes (capabilities(7)), if it takes one.
    right: &'static str,
    source: io::Error,
}

fn explain(error: &io::Error, right: &str) -> String {
    match Errno::from_io_error(error) {
        Some(Errno::PERM) if !right.is_empty() => format!(
            "this process lacks {right}; run it as root, or give it that right, and restart it if it has given up root"
        ),
        Some(Errno::NODEV) => "this machine has no such network device".to_owned(),
        Some(Errno::ADDRNOTAVAIL) => "this machine has no such address".to_owned(),
        Some(Errno::NOPROTOOPT | Errno::OPNOTSUPP | Errno::PROTONOSUPPORT) => {
            format!("this kernel does not offer it here ({error})")
        }
        _ => error.to_string(),
    }
}

impl Refusal {
    /// Whether an error is of this kind.
    pub fn is_in(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Refusal>())
    }

    pub(super) fn new(option: &'static str, right: &'static str, source: io::Error) -> Refusal {
        Refusal { option, right, source }
    }

    /// The same for an option that needs no right.
    pub(super) fn of(option: &'static str) -> impl FnOnce(io::Error) -> Refusal {
        move |source| Refusal::new(option, "", source)
    }
}

impl From<Refusal> for io::Error {
    fn from(refusal: Refusal) -> io::Error {
        io::Error::new(refusal.source.kind(), refusal)
    }
}
