//! Who may use the proxy, and how much.
//!
//! What lives here: the users of a listener and how they prove who they are; their [accounts](Accounts), with what each has
//! open and has used up, which outlive reloads and are kept in a file over restarts; and what keeps strangers from finding out
//! names and passwords. What must not: the protocols in which somebody says a name, and where users may go.
//!
//! A name that nobody has costs as much as a wrong password. Who is wrong too often has to wait, longer each time, whoever comes
//! from the same address; but who was right a short time ago is let in all the same, since other people may be behind that
//! address as well.
//!
//! A connection of a user is a tunnel, or a request of HTTP that is being answered: a client that does nothing holds no place.
//! An association of datagrams is counted apart. A user that the config loses is refused from then on, also by connections that
//! are open; its tunnels go on to their ends.

mod account;
mod accounts;
mod directory;
mod guest;
mod ledger;
mod logins;
mod period;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use account::{Account, QuotaStatus, UserStatus};
pub use accounts::Accounts;
pub use directory::UserError;
pub(crate) use directory::{User, Users};
pub use guest::ForwardGuest;
pub use logins::LoginCounts;
pub use wmproxy_http::auth::{HashKind, UnfitPassword, hash_password};
