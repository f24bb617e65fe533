//! `[[forward]]` in a config: what `check` refuses, and what a reload changes.
