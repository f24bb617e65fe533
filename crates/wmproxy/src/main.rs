//! wmproxy
mod admin;
mod cli;
mod config;
mod observe;

fn main() {}
