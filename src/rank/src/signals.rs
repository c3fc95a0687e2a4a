//! A stop request by signal: noted in the handler, acted on at a step boundary.

use train::StopFlag;

/// Set by SIGTERM, SIGINT and SIGUSR1.
pub static STOP: StopFlag = StopFlag::new();

extern "C" fn request_stop(_: libc::c_int) {
    STOP.request();
}

/// Installs the handlers.
pub fn listen() {
    let handler = request_stop as extern "C" fn(libc::c_int);
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGUSR1] {
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
}
