//! Compiles the C++ shim against the libtorch that torch-sys was given and, where NVIDIA's headers lie beside it, the NCCL
//! library that is opened at run time.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// tch 0.24 and the layout of c10d's classes are those of this release.
const LIBTORCH_RELEASE: &str = "2.11.";
const NCCL_LIBRARY: &str = "libspinectl_nccl.so";
/// What a compile against ProcessGroupNCCL.hpp cannot do without.
const NVIDIA_HEADERS: [&str; 4] = [
    "nccl.h",
    "cuda_runtime_api.h",
    "crt/host_defines.h",
    "nv/target",
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=cpp");
    let lib = PathBuf::from(
        env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys says where libtorch's lib folder is"),
    );
    let root = lib
        .parent()
        .unwrap_or_else(|| stop(&format!("{} has no parent folder", lib.display())));
    check_version(root);

    let mut shim = cc::Build::new();
    compiler_flags(&mut shim, root);
    shim.files([
        "cpp/process_group.cpp",
        "cpp/reducer.cpp",
        "cpp/kernels.cpp",
        "cpp/optimizers.cpp",
        "cpp/autocast.cpp",
        "cpp/recompute.cpp",
        "cpp/batch_norm.cpp",
        "cpp/device.cpp",
        "cpp/tracing.cpp",
    ])
    .compile("spinectl_collective");
    println!("cargo:rustc-link-search=native={}", lib.display());
    println!("cargo:rustc-link-lib=dylib=torch_cpu");
    println!("cargo:rustc-link-lib=dylib=c10");
    // For this package's own tests; a binary that depends on it does the same in its build script.
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());

    build_nccl(root, &lib);
}

fn stop(reason: &str) -> ! {
    println!("cargo::error={reason}");
    std::process::exit(1)
}

fn check_version(root: &Path) {
    let found = ["version.py", "build-version"].iter().find_map(|name| {
        let text = fs::read_to_string(root.join(name)).ok()?;
        let line = text
            .lines()
            .find(|line| line.starts_with("__version__") || !text.contains("__version__"))?;
        Some(
            line.trim_start_matches("__version__")
                .trim_matches([' ', '=', '\'', '"'])
                .to_owned(),
        )
    });
    match found {
        Some(version) if version.starts_with(LIBTORCH_RELEASE) => {}
        Some(version) => stop(&format!(
            "libtorch {version} in {} cannot be used: {LIBTORCH_RELEASE}x is needed; run `make setup`",
            root.display()
        )),
        None => stop(&format!(
            "no libtorch in {} (neither version.py nor build-version is there): {LIBTORCH_RELEASE}x is needed; run `make setup`",
            root.display()
        )),
    }
}

fn compiler_flags(build: &mut cc::Build, root: &Path) {
    let include = root.join("include");
    build
        .cpp(true)
        .pic(true)
        .std("c++17")
        .include("cpp")
        .include("cpp/stub");
    for folder in [&include, &include.join("torch/csrc/api/include")] {
        build.flag("-isystem").flag(folder);
    }
    for define in ["USE_DISTRIBUTED", "USE_C10D_GLOO"] {
        build.define(define, None);
    }
}

/// Without NVIDIA's headers there is nothing to build, and `Backend::Nccl` says so at run time. They are looked for in the
/// Python packages beside torch and, where it is set, in the folder of packages that SPINECTL_NVIDIA_HEADERS names.
fn build_nccl(root: &Path, lib: &Path) {
    println!("cargo:rerun-if-env-changed=SPINECTL_NVIDIA_HEADERS");
    // The folder that LIBTORCH names may be a link into the packages.
    let beside_torch = fs::canonicalize(root)
        .ok()
        .and_then(|root| Some(root.parent()?.to_owned()));
    let named = env::var_os("SPINECTL_NVIDIA_HEADERS").map(PathBuf::from);
    let packages: Vec<PathBuf> = beside_torch.into_iter().chain(named).collect();
    let includes = nvidia_includes(&packages);
    if !NVIDIA_HEADERS
        .iter()
        .all(|header| includes.iter().any(|folder| folder.join(header).is_file()))
    {
        return;
    }

    let library =
        PathBuf::from(env::var("OUT_DIR").expect("cargo sets OUT_DIR")).join(NCCL_LIBRARY);
    let mut build = cc::Build::new();
    compiler_flags(&mut build, root);
    build.define("USE_C10D_NCCL", None);
    for folder in &includes {
        build.flag("-isystem").flag(folder);
    }
    build.flag("-idirafter").flag("cpp/stub/cuda");
    let mut command: Command = build.get_compiler().to_command();
    command
        .args(["-shared", "cpp/nccl.cpp", "-o"])
        .arg(&library);
    command
        .arg("-L")
        .arg(lib)
        .args(["-ltorch_cuda", "-lc10_cuda", "-ltorch_cpu", "-lc10"]);
    command.arg(format!("-Wl,-rpath,{}", lib.display()));
    match command.status() {
        Ok(status) if status.success() => println!(
            "cargo:rustc-env=SPINECTL_NCCL_LIBRARY={}",
            library.display()
        ),
        outcome => stop(&format!(
            "{NCCL_LIBRARY} did not compile ({outcome:?}) with NVIDIA's headers in {includes:?}"
        )),
    }
}

/// The include folders of NVIDIA's wheels (`nvidia/<package>/include`), each with the CUDA C++ core libraries inside it.
fn nvidia_includes(packages: &[PathBuf]) -> Vec<PathBuf> {
    let mut includes = Vec::new();
    for package in packages {
        let Ok(entries) = fs::read_dir(package.join("nvidia")) else {
            continue;
        };
        println!(
            "cargo:rerun-if-changed={}",
            package.join("nvidia").display()
        );
        for entry in entries.flatten() {
            let include = entry.path().join("include");
            includes.push(include.join("cccl"));
            includes.push(include);
        }
    }
    includes.retain(|folder| folder.is_dir());
    includes.sort();
    includes
}
