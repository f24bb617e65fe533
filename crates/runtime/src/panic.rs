//! Panics are defects, but each ends one task only: they are counted and logged here.

use std::backtrace::Backtrace;
use std::panic::PanicHookInfo;
use std::sync::Once;

use crate::counter::Counter;

static PANICS: Counter = Counter::new();

/// How many panics there were since the process began.
pub fn count() -> u64 {
    PANICS.get()
}

/// Sends panics to the log in place of standard error. Calling it again changes nothing.
///
/// The task's own future is dropped by the runtime while it unwinds, which closes its sockets and its record.
pub fn install_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| std::panic::set_hook(Box::new(report)));
}

fn report(info: &PanicHookInfo<'_>) {
    PANICS.add(1);
    let payload = info.payload();
    let message = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    let backtrace = Backtrace::capture();
    tracing::error!(place, thread = thread.name().unwrap_or("?"), %backtrace, "panic, a defect of wmproxy: {message}");
}
