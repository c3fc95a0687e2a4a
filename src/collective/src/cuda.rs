//! The GPU half of libtorch, opened at run time, so that one binary serves machines with and without a GPU.

use std::ffi::{CStr, CString, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tch::Tensor;

use crate::error::{CollectiveError, Result};
use crate::ffi::{self, call};

const NCCL_LIBRARY: &str = "libspinectl_nccl.so";

/// Opens `libtorch_cuda.so` from the folder that libtorch itself was loaded from. Later calls return what the first found.
///
/// Call it before anything asks libtorch about CUDA (`tch::Cuda`, `tch::utils::has_cudart`, a CUDA device): libtorch looks for
/// its GPU half once and remembers an answer that came too early. That it loads does not mean that there is a GPU: ask
/// `tch::Cuda::device_count` afterwards.
///
/// # Errors
/// `Library` says which file is missing: a libtorch for CPUs has none, and one for GPUs needs NVIDIA's libraries beside it.
pub fn load() -> Result<()> {
    static LOADED: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    let outcome = LOADED.get_or_init(|| {
        let library = libtorch_folder()?.join("libtorch_cuda.so");
        open(&library).map(|_| ())
    });
    outcome.clone().map_err(|detail| CollectiveError::Library {
        library: "libtorch_cuda.so".to_owned(),
        detail,
        remedy: "run on the CPU, or point LIBTORCH at a PyTorch 2.11 with CUDA and all of its NVIDIA packages".to_owned(),
    })
}

/// Makes the CUDA device `index` this thread's current one, and [`load`]s the GPU half first. A rank calls it before anything
/// else of CUDA: what libtorch and NCCL do on the current device would otherwise begin a context on device 0, which costs
/// memory there for each rank.
///
/// # Errors
/// As [`load`]; `NoDevice` where there is no such device; `Torch` where CUDA refuses it.
pub fn set_device(index: usize) -> Result<()> {
    load()?;
    let mut found = 0;
    // SAFETY: the output lives across the call.
    call(|message| unsafe { ffi::spc_cuda_set_device(index as u64, &raw mut found, message) })
        .map_err(|failure| CollectiveError::local("set_device", failure))?;
    if index as u64 >= found {
        return Err(CollectiveError::NoDevice { index, found });
    }
    Ok(())
}

/// A copy of `bytes` in pinned memory, (bytes,) u8, from where a GPU fetches them while the host goes on. libtorch does not
/// use that memory again before copies out of it are done.
///
/// # Errors
/// `Torch` where there is no GPU, or no more memory that can be pinned.
pub fn pinned(bytes: &[u8]) -> Result<Tensor> {
    let mut tensor = std::ptr::null_mut();
    // SAFETY: so many bytes are there, and the output lives across the call.
    call(|message| unsafe {
        ffi::spc_pinned_bytes(bytes.as_ptr(), bytes.len() as u64, &raw mut tensor, message)
    })
    .map_err(|failure| CollectiveError::local("pinned", failure))?;
    // SAFETY: a call that succeeds hands out a new handle.
    Ok(unsafe { Tensor::from_ptr(tensor) })
}

/// The most memory of this thread's CUDA device that tensors ever held at once in this process, bytes: without what libtorch
/// keeps in reserve, and without CUDA's own.
///
/// # Errors
/// `Torch` where no CUDA device has been opened.
pub fn peak_memory() -> Result<u64> {
    let mut bytes = 0;
    // SAFETY: the output lives across the call.
    call(|message| unsafe { ffi::spc_cuda_peak_memory(&raw mut bytes, message) })
        .map_err(|failure| CollectiveError::local("peak_memory", failure))?;
    Ok(bytes)
}

/// The constructor in `libspinectl_nccl.so`, which lies beside the program or where it was built.
pub(crate) fn nccl_backend() -> Result<ffi::NcclBackend> {
    static BACKEND: OnceLock<std::result::Result<ffi::NcclBackend, String>> = OnceLock::new();
    load()?;
    BACKEND.get_or_init(open_nccl).clone().map_err(|detail| CollectiveError::Library {
        library: NCCL_LIBRARY.to_owned(),
        detail,
        remedy: "build spinectl where NVIDIA's NCCL and CUDA packages are installed beside torch, or use the Gloo backend"
            .to_owned(),
    })
}

fn open_nccl() -> std::result::Result<ffi::NcclBackend, String> {
    let beside_program = std::env::current_exe()
        .ok()
        .and_then(|program| Some(program.parent()?.join(NCCL_LIBRARY)));
    let where_built = option_env!("SPINECTL_NCCL_LIBRARY").map(PathBuf::from);
    let places: Vec<PathBuf> = beside_program.into_iter().chain(where_built).collect();
    let Some(library) = places.iter().find(|place| place.is_file()) else {
        return Err(format!("it is not at any of {places:?}"));
    };
    let handle = open(library)?;
    // SAFETY: the handle is of a library that stays open, and the name is a C string.
    let symbol = unsafe { libc::dlsym(handle, c"spc_nccl_backend".as_ptr()) };
    if symbol.is_null() {
        return Err(format!(
            "{} has no spc_nccl_backend; it is of another build",
            library.display()
        ));
    }
    // SAFETY: the library is built with this crate, from the header that declares the function so.
    Ok(unsafe { std::mem::transmute::<*mut c_void, ffi::NcclBackend>(symbol) })
}

fn libtorch_folder() -> std::result::Result<PathBuf, String> {
    let mut folder = std::ptr::null_mut();
    // SAFETY: the output lives across the call.
    call(|message| unsafe { ffi::spc_libtorch_folder(&raw mut folder, message) })
        .map_err(|failure| failure.text)?;
    // SAFETY: a call that succeeds leaves a text of its own making there.
    Ok(PathBuf::from(unsafe { ffi::take_text(folder) }))
}

/// Opens a library for good, its symbols visible to those opened after it.
fn open(library: &Path) -> std::result::Result<*mut c_void, String> {
    let path = CString::new(library.as_os_str().as_bytes()).map_err(|error| error.to_string())?;
    // SAFETY: the path is a C string; the libraries' initialisers are libtorch's own.
    unsafe {
        let handle = libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL);
        if !handle.is_null() {
            return Ok(handle);
        }
        let reason = libc::dlerror();
        Err(if reason.is_null() {
            format!("{} does not load", library.display())
        } else {
            CStr::from_ptr(reason).to_string_lossy().into_owned()
        })
    }
}
