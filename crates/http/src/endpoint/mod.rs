//! Who answers requests.

pub mod redirect;
pub mod respond;

pub use respond::EndpointError;
