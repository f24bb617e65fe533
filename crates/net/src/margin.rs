//! Where in a page the workers' buffers begin.

/// So many bytes of a worker's buffer stay unused at its front, for the allocator puts pieces of that size at the border
/// of a page.
///
/// glibc copies from about 2 KiB up by `rep movsb`. On AMD's Zen 3 that does 2 GB a second instead of 50 where the
/// destination lies 1 to 63 bytes further into its page of 4 KiB than the source into its own. rustls copies what it
/// encrypts to 5 bytes behind the start of a piece of memory, that is behind the border of a page or its middle, and
/// from there one record after the other into the buffer that is sent: from and to buffers at the border these copies
/// cost more than the encryption. A quarter of a page stays clear of all of them.
pub const MARGIN: usize = 1024;
