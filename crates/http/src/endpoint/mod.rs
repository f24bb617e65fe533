//! Who answers requests.

pub(crate) mod files;
pub(crate) mod mirror;
pub(crate) mod onward;
pub(crate) mod passing;
pub mod redirect;
pub mod respond;
pub(crate) mod reverse;
mod sticky;

pub use respond::EndpointError;
