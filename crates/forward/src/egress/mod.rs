//! Where clients may go, and by which way.
