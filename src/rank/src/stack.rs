//! The stack of this process's main thread, taken by another thread while the main one is stuck.
//!
//! A signal interrupts the main thread; its handler does nothing but note return addresses in a static buffer. The unwinder
//! has been used once before, at start-up, so that nothing is loaded or allocated in the handler. Names are looked up outside.

use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const DEEPEST: usize = 96;
/// How long the main thread has to run its handler: one that the kernel holds never does.
const PATIENCE: Duration = Duration::from_millis(250);

static MAIN_THREAD: AtomicI32 = AtomicI32::new(0);
static FRAMES: [AtomicUsize; DEEPEST] = [const { AtomicUsize::new(0) }; DEEPEST];
static COUNT: AtomicUsize = AtomicUsize::new(0);
/// Where the main thread was interrupted.
static INTERRUPTED_AT: AtomicUsize = AtomicUsize::new(0);
static DONE: AtomicBool = AtomicBool::new(false);

fn signal() -> i32 {
    libc::SIGRTMIN() + 3
}

/// Makes the calling thread, the main one, ready to be asked.
pub fn prepare() {
    // Loads what the unwinder needs.
    note_frames();
    // SAFETY: a zeroed sigaction is a valid value; the handler is async-signal-safe, see above.
    unsafe {
        MAIN_THREAD.store(libc::gettid(), Ordering::Release);
        let mut action: libc::sigaction = std::mem::zeroed();
        let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) = on_signal;
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
        libc::sigaction(signal(), &raw const action, std::ptr::null_mut());
    }
}

extern "C" fn on_signal(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    INTERRUPTED_AT.store(instruction(context), Ordering::Relaxed);
    note_frames();
    DONE.store(true, Ordering::Release);
}

/// The instruction that a signal interrupted; 0 where this architecture is not known.
fn instruction(context: *mut libc::c_void) -> usize {
    // SAFETY: the kernel hands a ucontext_t to a handler with SA_SIGINFO.
    let context = unsafe { &*context.cast::<libc::ucontext_t>() };
    #[cfg(target_arch = "x86_64")]
    return context.uc_mcontext.gregs[libc::REG_RIP as usize] as usize;
    #[cfg(target_arch = "aarch64")]
    return context.uc_mcontext.pc as usize;
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return 0;
}

fn note_frames() {
    let mut count = 0;
    // SAFETY: only the main thread unwinds through this, and never twice at once: the signal is blocked in its handler.
    unsafe {
        backtrace::trace_unsynchronized(|frame| {
            if let Some(slot) = FRAMES.get(count) {
                slot.store(frame.ip() as usize, Ordering::Relaxed);
                count += 1;
            }
            count < DEEPEST
        });
    }
    COUNT.store(count, Ordering::Relaxed);
}

/// Function names, innermost first; none where the main thread does not answer.
pub fn of_main_thread() -> Option<Vec<String>> {
    DONE.store(false, Ordering::Release);
    let thread = MAIN_THREAD.load(Ordering::Acquire);
    // SAFETY: a plain system call; the thread is this process's own main thread.
    let sent = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal()) };
    let asked = Instant::now();
    while !DONE.load(Ordering::Acquire) {
        if sent != 0 || asked.elapsed() > PATIENCE {
            return None;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let count = COUNT.load(Ordering::Relaxed).min(DEEPEST);
    let frames: Vec<usize> = FRAMES[..count]
        .iter()
        .map(|frame| frame.load(Ordering::Relaxed))
        .filter(|address| *address != 0)
        .collect();
    // Before it come the handler's own.
    let interrupted_at = INTERRUPTED_AT.load(Ordering::Relaxed);
    let first = frames.iter().position(|frame| *frame == interrupted_at);
    Some(
        frames
            .into_iter()
            .skip(first.unwrap_or(0))
            .map(name)
            .collect(),
    )
}

/// A function's name; else the file that holds the address, and where in it.
fn name(address: usize) -> String {
    // SAFETY: an all-zero Dl_info is a valid value, and the call only fills it in.
    let mut about: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: dladdr takes any address; what it returns lives as long as the library.
    let known = unsafe { libc::dladdr(address as *const libc::c_void, &raw mut about) } != 0;
    let text = |text: *const libc::c_char| {
        // SAFETY: a name of dladdr's is null or ends with a zero.
        (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) })
    };
    if known && let Some(exported) = text(about.dli_sname) {
        return format!("{:#}", backtrace::SymbolName::new(exported.to_bytes()));
    }
    let file = text(about.dli_fname).filter(|_| known);
    let file = file.map_or_else(String::new, |file| file.to_string_lossy().into_owned());
    let file = file.rsplit('/').next().unwrap_or_default().to_owned();
    let mut found = None;
    // Only this program's own table of symbols is read: libtorch's would take longer than anybody waits here.
    if !file.contains(".so") {
        backtrace::resolve(address as *mut std::ffi::c_void, |symbol| {
            let name = symbol.name().map(|name| format!("{name:#}"));
            found = found.take().or(name);
        });
    }
    found.unwrap_or_else(|| {
        format!(
            "{file}+{:#x}",
            address.wrapping_sub(about.dli_fbase as usize)
        )
    })
}
