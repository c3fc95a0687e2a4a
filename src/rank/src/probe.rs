//! `spinectl-rank probe`: what libtorch, Gloo, CUDA and NCCL are like here, as JSON. Hidden: `spinectl doctor` asks.

use std::ffi::{CStr, c_int};
use std::path::{Path, PathBuf};
use std::time::Duration;

use plan::probe::{DeviceMemory, ProbeReport};
use tch::Tensor;
use train::{Backend, ProcessGroup, Rendezvous, Store, cuda};

use crate::failure::RankError;

/// For a group of one rank on loopback: what takes longer is stuck.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Prints what is found; only an answer that cannot be printed is an error.
pub fn run() -> Result<(), RankError> {
    let folder = libtorch_folder();
    // Before anything asks libtorch about CUDA: it remembers an answer that came too early.
    let cuda = cuda::load().map_err(|error| error.to_string());
    let report = ProbeReport {
        libtorch_version: folder.as_deref().and_then(version),
        threads: tch::get_num_threads(),
        gloo: gloo(),
        devices: cuda.clone().and_then(|()| devices()),
        nccl: cuda.clone().and_then(|()| nccl()),
        cuda,
        libtorch_folder: folder,
    };
    let text = serde_json::to_string(&report);
    println!(
        "{}",
        text.map_err(|error| RankError::Setup(error.to_string()))?
    );
    Ok(())
}

/// Listens on loopback for others, as each rank of a job does, meets itself, and gathers a tensor.
fn gloo() -> Result<(), String> {
    let store = Store::connect(&Rendezvous::alone(TIMEOUT)).map_err(|error| error.to_string())?;
    let group = ProcessGroup::new(&store, Backend::Gloo, "probe", TIMEOUT)
        .map_err(|error| error.to_string())?;
    let sent = Tensor::from_slice(&[1.0_f32, 2.0, 3.0]);
    let gathered = group.all_gather(&sent).map_err(|error| error.to_string())?;
    match gathered.as_slice() {
        [received] if *received == sent => Ok(()),
        other => Err(format!("a gathered tensor came back as {other:?}")),
    }
}

fn devices() -> Result<Vec<DeviceMemory>, String> {
    type SetDevice = unsafe extern "C" fn(c_int) -> c_int;
    type MemGetInfo = unsafe extern "C" fn(*mut usize, *mut usize) -> c_int;
    let count = c_int::try_from(tch::Cuda::device_count()).unwrap_or(0);
    if count == 0 {
        return Ok(Vec::new());
    }
    let set = symbol(c"cudaSetDevice")?;
    let info = symbol(c"cudaMemGetInfo")?;
    // SAFETY: the CUDA runtime declares the two so, and it stays loaded.
    let (set, info) = unsafe {
        (
            std::mem::transmute::<*mut libc::c_void, SetDevice>(set),
            std::mem::transmute::<*mut libc::c_void, MemGetInfo>(info),
        )
    };
    (0..count)
        .map(|device| {
            let (mut free, mut total) = (0_usize, 0_usize);
            // SAFETY: the outputs live across the calls.
            let error = match unsafe { set(device) } {
                0 => unsafe { info(&raw mut free, &raw mut total) },
                error => error,
            };
            match error {
                0 => Ok(DeviceMemory {
                    free: free as u64,
                    total: total as u64,
                }),
                error => Err(format!(
                    "GPU {device} cannot be used: CUDA error {error} (`nvidia-smi` may say more)"
                )),
            }
        })
        .collect()
}

fn nccl() -> Result<String, String> {
    type GetVersion = unsafe extern "C" fn(*mut c_int) -> c_int;
    let get = symbol(c"ncclGetVersion")?;
    let mut version = 0;
    // SAFETY: NCCL declares it so, and the output lives across the call.
    let error = unsafe {
        let get = std::mem::transmute::<*mut libc::c_void, GetVersion>(get);
        get(&raw mut version)
    };
    match error {
        0 => Ok(format!(
            "{}.{}.{}",
            version / 10_000,
            version / 100 % 100,
            version % 100
        )),
        error => Err(format!("NCCL does not tell its version: error {error}")),
    }
}

/// A function of a library that is loaded.
fn symbol(name: &CStr) -> Result<*mut libc::c_void, String> {
    // SAFETY: the name is a C string; the call only looks.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    match found.is_null() {
        false => Ok(found),
        true => Err(format!(
            "no loaded library has {}: the NVIDIA packages beside libtorch are not all there",
            name.to_string_lossy()
        )),
    }
}

/// The folder that libtorch was loaded from, as the kernel knows it.
fn libtorch_folder() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let library = maps
        .lines()
        .find(|line| line.ends_with("/libtorch_cpu.so"))?;
    let path = library.get(library.find('/')?..)?;
    Path::new(path).parent().map(Path::to_owned)
}

/// A PyTorch writes its version beside `lib` in version.py, a libtorch in build-version.
fn version(lib: &Path) -> Option<String> {
    let root = lib.parent()?;
    let of_pytorch = std::fs::read_to_string(root.join("version.py"))
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("__version__"))?;
            Some(line.split(['\'', '"']).nth(1)?.to_owned())
        });
    let of_libtorch = || std::fs::read_to_string(root.join("build-version")).ok();
    let version = of_pytorch.or_else(of_libtorch)?;
    Some(version.trim().to_owned())
}
