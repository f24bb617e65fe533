//! Messages of the tunnel: whatever comes is taken without a panic, each beginning of a message asks for more, a reader that
//! goes by what is needed reads no byte behind it, and what is a message means the same when it is written again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wmproxy_wire::tunnel::codec::{HEADER_LEN, LIMIT, LOGIN_LIMIT, decode, encode, needed};

fuzz_target!(|bytes: &[u8]| {
    // The same as a whole, for who has proven something and for who has not.
    let whole = decode(bytes, LIMIT);
    let wanted = needed(bytes, LIMIT);
    if let Ok(Some((_, used))) = &decode(bytes, LOGIN_LIMIT) {
        assert!(*used <= bytes.len() && whole.as_ref().unwrap().is_some());
    }
    match whole {
        Ok(None) => assert!(wanted.unwrap() > bytes.len()),
        Ok(Some((message, used))) => {
            assert!(HEADER_LEN <= used && used <= bytes.len());
            assert_eq!(wanted, Ok(used));
            // A reader that takes so many bytes as are needed, and then again.
            let mut have = 0;
            while decode(&bytes[..have], LIMIT).unwrap().is_none() {
                let more = needed(&bytes[..have], LIMIT).unwrap();
                assert!(have < more && more <= used);
                have = more;
            }
            assert_eq!(have, used);
            let mut again = Vec::new();
            encode(&message, &mut again);
            assert_eq!(decode(&again, LIMIT), Ok(Some((message, again.len()))));
        }
        Err(error) => drop(error.to_string()),
    }
});
