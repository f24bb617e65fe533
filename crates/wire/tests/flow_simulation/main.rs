//! The flow table against a naive model of its rules: in thousands of small random worlds on a virtual
//! clock, and under operations in any order.
//!
//! A failure prints the seed of its world. `WMPROXY_SIM_SEED=<seed> cargo test -p wmproxy-wire --test
//! flow_simulation` plays that one again, step for step the same.

#![allow(clippy::unwrap_used, reason = "a test; what is missing is the failure")]

mod cids;
mod model;
mod operations;
mod rng;
mod world;

use std::panic::{catch_unwind, resume_unwind};

/// A few seconds' worth in a debug build.
const SEEDS: u64 = 3_000;

#[test]
fn worlds_of_many_seeds() {
    play(world::run);
}

#[test]
fn worlds_of_connection_ids() {
    play(cids::run);
}

/// Plays the worlds of all seeds, or of the one that is asked for.
fn play(run: fn(u64)) {
    if let Ok(seed) = std::env::var("WMPROXY_SIM_SEED") {
        return run(seed.parse().expect("WMPROXY_SIM_SEED is a number"));
    }
    for seed in 0..SEEDS {
        if let Err(panic) = catch_unwind(|| run(seed)) {
            eprintln!("the world of seed {seed} failed; WMPROXY_SIM_SEED={seed} plays it again");
            resume_unwind(panic);
        }
    }
}
