//! Automatic mixed precision, as `torch.autocast` does it: matrix products and convolutions run in a half type, what needs
//! range in f32.

use std::marker::PhantomData;

use tch::{Device, Kind};

use crate::error::CollectiveError;
use crate::ffi::{self, call};

/// Runs `body` with autocast to `kind`, [`Kind::BFloat16`] or [`Kind::Half`], for tensors on the kind of device that `device`
/// is; `None` turns it off inside. Regions nest. It holds for this thread alone, and on every way out, a panic included,
/// autocast is again what it was.
///
/// Inside the outermost region a parameter is cast once: change none before it ends, and run backward after it.
///
/// # Errors
/// `Invalid` for another kind and for a device other than CPU and CUDA; otherwise those of `body`.
pub fn run<T, E: From<CollectiveError>>(
    device: Device,
    kind: Option<Kind>,
    body: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    let _region = Region::enter(device, kind)?;
    body()
}

/// An autocast region that this thread is in.
struct Region {
    before: ffi::Autocast,
    /// Not Send: the state belongs to the thread.
    _thread: PhantomData<*const ()>,
}

impl Region {
    fn enter(device: Device, kind: Option<Kind>) -> Result<Self, CollectiveError> {
        let invalid = |reason| Err(CollectiveError::invalid("autocast", reason));
        let cuda = match device {
            Device::Cpu => 0,
            Device::Cuda(_) => 1,
            other => {
                return invalid(format!(
                    "{other:?} is no device of this project; use CPU or CUDA"
                ));
            }
        };
        // libtorch's own numbers, c10::ScalarType.
        let dtype = match kind {
            None => -1,
            Some(Kind::Half) => 5,
            Some(Kind::BFloat16) => 15,
            Some(other) => {
                return invalid(format!(
                    "there is no autocast to {other:?}; use BFloat16, Half or none"
                ));
            }
        };
        let mut before = ffi::Autocast::default();
        // SAFETY: the output lives across the call.
        call(|message| unsafe { ffi::spc_autocast_enter(cuda, dtype, &raw mut before, message) })
            .map_err(|failure| CollectiveError::local("autocast", failure))?;
        Ok(Self {
            before,
            _thread: PhantomData,
        })
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the call that made it succeeded, on this thread, and regions end in the reverse of their order.
        unsafe { ffi::spc_autocast_exit(&raw const self.before) }
    }
}
