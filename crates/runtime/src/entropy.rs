//! Random bytes that nobody can foretell.

use std::cell::RefCell;

use rustix::rand::{GetRandomFlags, getrandom};

/// How many bytes are asked for at once: one call into the kernel for a thousand keys of four bytes.
const BATCH: usize = 4096;

/// Bytes of the kernel's generator, from `.1` on not yet given to anybody.
struct Batch([u8; BATCH], usize);

thread_local! {
    static POOL: RefCell<Batch> = const { RefCell::new(Batch([0; BATCH], BATCH)) };
}

/// Fills `out`, of at most 4096 bytes, with bytes of the kernel's generator: each is handed out once and then wiped.
///
/// # Panics
/// When the kernel has no random bytes to give, which is so at most in the first moments of a machine's start.
pub fn fill(out: &mut [u8]) {
    POOL.with_borrow_mut(|Batch(bytes, next)| {
        if bytes.len() - *next < out.len() {
            *next = bytes.len();
            let mut filled = 0;
            while filled < bytes.len() {
                match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
                    Ok(n) => filled += n,
                    Err(rustix::io::Errno::INTR) => {}
                    Err(error) => panic!("no random bytes: {error}"),
                }
            }
            *next = 0;
        }
        let taken = &mut bytes[*next..*next + out.len()];
        out.copy_from_slice(taken);
        taken.fill(0);
        *next += out.len();
    });
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_bytes_come_twice() {
        let mut seen = HashSet::new();
        for _ in 0..2_000 {
            let mut key = [0; 8];
            fill(&mut key);
            assert!(seen.insert(key));
        }
    }
}
