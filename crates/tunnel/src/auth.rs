//! The proofs of a session: who has which key, bound to the TLS connection on which it is said.
//!
//! A proof is an HMAC-SHA256 over what both ends have said and over the connection's exported keying material (RFC 8446
//! section 7.5, RFC 9266), so that it is worth nothing on any other connection: not to who has recorded it, and not to who
//! stands in between with TLS of their own. That is why a client that knows neither the server's fingerprint nor a CA is
//! safe all the same: the server proves the key, too.
