//! From text to plan: reads config files, finds every problem in them, and says what they come to.

pub(crate) mod options;
pub(crate) mod plan;
