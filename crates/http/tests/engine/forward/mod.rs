//! The engine as a forward proxy, with a gateway made by hand.

mod connect;
pub(crate) mod gate;
mod h2;
mod refusals;
mod requests;
mod smuggling;
mod windows;
