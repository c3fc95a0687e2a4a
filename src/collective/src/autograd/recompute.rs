//! Gradient checkpointing (Chen et al., "Training Deep Nets with Sublinear Memory Cost", arXiv:1604.06174).

use std::any::Any;
use std::ffi::{CString, c_void};
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tch::{Device, Tensor};
use torch_sys::C_tensor;

use super::home::Home;
use crate::error::{CollectiveError, Result};
use crate::ffi::{self, Work, call};

/// A part of a network. It is told whether it runs for the first time: only then may it move running statistics.
pub type Segment = Box<dyn Fn(&Tensor, bool) -> std::result::Result<Tensor, String>>;

/// `f(x)` without keeping what `f` computes in between: `f` runs now, recording no graph, and again in the backward pass, with
/// the random numbers (of the CPU, and of the device of `x`) and the autocast of the first run. Gradients reach `x` and
/// whatever parameters `f` uses, and are those of a plain call, bit for bit where the operations are deterministic.
///
/// With gradients turned off it is a plain call. In the backward pass `f` runs on the thread that called this function,
/// whichever of libtorch's threads asks for it, so `f` need not be `Send`; for CUDA tensors that thread must be in
/// [`crate::backward`] or [`crate::Reducer::backward`]. `f` is dropped with the graph, on its own thread too; a graph that
/// another thread drops while this one is not in a backward pass leaks it.
///
/// `f` does not change its input in place, and gives the same output at each run. A [`crate::Reducer`] over parameters that
/// `f` uses must not have `find_unused`: it cannot see them. There is no second derivative, and no `torch.autograd.grad`.
///
/// # Errors
/// What `f` returns or panics with, here and from the backward pass, as `Torch`, or `OutOfMemory` where it says so.
pub fn recompute(x: &Tensor, f: Segment) -> Result<Tensor> {
    let guest = x.device() != Device::Cpu;
    let home = Home::here();
    home.count_guests(guest.into());
    let block = ffi::Block {
        closure: Box::into_raw(Box::new(Block { home, guest, f })).cast(),
        run,
        at_home,
        free,
    };
    let mut output = std::ptr::null_mut();
    // SAFETY: the tensor is live, the closure becomes the callee's, and the output lives across the call.
    call(|message| unsafe {
        ffi::spc_recompute(ffi::handle(x), &raw const block, &raw mut output, message)
    })
    .map_err(|failure| CollectiveError::local("recompute", failure))?;
    // SAFETY: a call that succeeds hands out a new handle.
    Ok(unsafe { Tensor::from_ptr(output) })
}

/// What C++ holds as `closure`.
struct Block {
    home: Arc<Home>,
    /// Whether another thread asks for it in the backward pass.
    guest: bool,
    f: Segment,
}

/// # Safety
/// As `SpcBlock::run`: on the block's thread, with a live `x`.
unsafe extern "C" fn run(
    closure: *mut c_void,
    x: *mut C_tensor,
    first: i32,
    y: *mut *mut C_tensor,
    message: ffi::Message,
) -> i32 {
    // SAFETY: a block that was not freed, on its thread; other handles of `x` are C++'s.
    let outcome = catch_unwind(AssertUnwindSafe(|| unsafe {
        let x = Tensor::clone_from_ptr(x);
        ((*closure.cast::<Block>()).f)(&x, first != 0)
    }));
    let text = match outcome {
        Ok(Ok(output)) => {
            let output = ManuallyDrop::new(output);
            // SAFETY: the place is the caller's, who takes the handle over.
            unsafe { *y = ffi::handle(&output) };
            return 0;
        }
        Ok(Err(text)) => text,
        Err(payload) => format!(
            "a recomputed block panicked: {}",
            panic_text(payload.as_ref())
        ),
    };
    let status = if text.contains("out of memory") { 4 } else { 1 };
    let text = CString::new(text.replace('\0', " ")).unwrap_or_default();
    // SAFETY: the place is the caller's, who frees the text.
    unsafe { *message = libc::strdup(text.as_ptr()) };
    status
}

fn panic_text(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or(payload.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
}

/// # Safety
/// As `SpcBlock::at_home`.
unsafe extern "C" fn at_home(closure: *mut c_void, work: Work, context: *mut c_void) -> i32 {
    // SAFETY: a block that was not freed, of which only the home is used, which is for any thread; `work` is C++'s and does
    // not throw.
    unsafe {
        let home = &(*closure.cast::<Block>()).home;
        i32::from(home.perform(work, context))
    }
}

/// # Safety
/// As `SpcBlock::free`: the closure is not used again.
unsafe extern "C" fn free(closure: *mut c_void) {
    unsafe extern "C" fn destroy(closure: *mut c_void) {
        // SAFETY: the box that `recompute` made, on its own thread, for the last time.
        let block = unsafe { Box::from_raw(closure.cast::<Block>()) };
        block.home.count_guests(-isize::from(block.guest));
        // What the closure holds may panic when it is dropped, and there is nobody to tell.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(block)));
    }
    // SAFETY: as the caller promises. The home is held across the call that may end the block.
    unsafe {
        let home = Arc::clone(&(*closure.cast::<Block>()).home);
        home.perform(destroy, closure);
    }
}
