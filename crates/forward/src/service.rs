//! A listener that tells the protocols of one port apart.
