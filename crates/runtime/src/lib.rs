//! Threads and lifetimes.
pub mod counter;
pub mod worker;
