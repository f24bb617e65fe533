//! wmproxy
fn main() {}
