//! stream
pub mod options;
