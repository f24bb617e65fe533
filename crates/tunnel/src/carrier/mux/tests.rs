//! Both ends of connections in one process.
