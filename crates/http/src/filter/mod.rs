//! What a route does to requests and responses on their way.

pub mod headers;
pub mod limit;
pub mod rewrite;
