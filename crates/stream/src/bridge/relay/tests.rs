use super::*;

fn size<F>(_: fn(Ends<'static>, Vec<u8>, Option<Duration>, Terms, &'static mut Record) -> F) -> usize {
    size_of::<F>()
}

#[test]
fn an_idle_bridge_is_small() {
    // What a connection holds while it waits, beside what it would hold without a bridge; buffers are the worker's.
    let size = size(relay);
    assert!(size <= 1024, "{size} bytes");
    assert!(size_of::<Machine<'_>>() <= 448, "{} bytes", size_of::<Machine<'_>>());
}
