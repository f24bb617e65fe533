//! The registry among clients that come, go, change their minds and are cut off, in thousands of small random worlds on a
//! virtual clock: whatever happens in whatever order, in the end all agree on who offers what.
//!
//! A failure prints the seed of its world. `WMPROXY_SIM_SEED=<seed> cargo test -p wmproxy-tunnel simulation` plays that one
//! again, step for step the same.

mod agreement;
mod chance;
mod network;
mod publisher;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use world::{Event, World};

/// A few seconds' worth in a debug build.
const SEEDS: u64 = 300;

/// Long enough for every client to come, go and come back some times.
const STEPS: u64 = 150;

/// Worlds in which each step is the one where something is lost, and how long they last.
const LOSSES: (u64, u64) = (6, 40);

#[test]
fn in_the_end_all_agree() {
    play(SEEDS, |seed| {
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
        }
        world.come_to_rest();
        agreement::check(&world);
    });
}

#[test]
fn either_end_may_be_lost_at_every_step() {
    play(LOSSES.0, |seed| {
        for at in 0..LOSSES.1 {
            for loss in Event::LOSSES {
                let mut world = World::new(seed);
                for step in 0..LOSSES.1 {
                    if step == at {
                        world.happen(loss);
                    }
                    world.calm_step();
                }
                world.come_to_rest();
                agreement::check(&world);
            }
        }
    });
}

#[test]
fn a_world_is_the_same_again() {
    let run = || {
        let mut world = World::new(7);
        (0..STEPS).for_each(|_| world.step());
        world.come_to_rest();
        format!("{:?}", world.registry)
    };
    assert_eq!(run(), run());
}

/// Plays the worlds of all seeds, or of the one that is asked for.
fn play(seeds: u64, run: impl Fn(u64)) {
    if let Ok(seed) = std::env::var("WMPROXY_SIM_SEED") {
        return run(seed.parse().expect("WMPROXY_SIM_SEED is a number"));
    }
    for seed in 0..seeds {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(seed))) {
            eprintln!("the world of seed {seed} failed; WMPROXY_SIM_SEED={seed} plays it again");
            resume_unwind(panic);
        }
    }
}
