//! Who answers requests.

pub(crate) mod onward;
pub mod redirect;
pub mod respond;
pub(crate) mod reverse;

pub use respond::EndpointError;
