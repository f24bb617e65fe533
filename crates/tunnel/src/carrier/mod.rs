//! What carries the streams of a session: connections of their own, or many on one.
