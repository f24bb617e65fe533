//! The service over real sockets: a worker with a listener, a client and origins by hand, no binary.
#![allow(clippy::unwrap_used, reason = "tests")]

mod allocations;
mod files;
mod forward;
mod h2;
mod h2_limits;
mod h2_upgrade;
mod house;
mod requests;

#[global_allocator]
static COUNTING: allocations::Counting = allocations::Counting;
