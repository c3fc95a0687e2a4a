//! The launcher without its command line: runs a compiled plan with any program as the rank.
//!
//! `launch RUN_DIR PLAN.json RANK_PROGRAM RANKS auto|never|CHECKPOINT` ends with the run's exit code. With FAKE_NVML=LIBRARY each
//! rank has a GPU, of which this library tells.

use std::path::PathBuf;
use std::process::ExitCode;

use launcher::gpu::Gpus;
use launcher::{Device, LaunchOptions, Resume};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [run_dir, plan, rank_program, ranks, resume] = &arguments[..] else {
        eprintln!("usage: launch RUN_DIR PLAN.json RANK_PROGRAM RANKS auto|never|CHECKPOINT");
        return ExitCode::from(2);
    };
    let library = std::env::var_os("FAKE_NVML");
    let options = LaunchOptions {
        plan: plan::read(plan.as_ref()).expect("a compiled plan"),
        recipe_yaml: "# none: the plan was compiled elsewhere\n".to_owned(),
        run_dir: PathBuf::from(run_dir),
        device: match library {
            Some(_) => Device::Cuda,
            None => Device::Cpu,
        },
        gpus: Gpus {
            count: usize::MAX,
            library: library.unwrap_or_default().into(),
            ..Gpus::default()
        },
        ranks: ranks.parse().expect("a number of ranks"),
        jobs: None,
        resume: match resume.as_str() {
            "auto" => Resume::Auto,
            "never" => Resume::Never,
            checkpoint => Resume::From(checkpoint.into()),
        },
        rank_program: PathBuf::from(rank_program),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let (events, _) = tokio::sync::mpsc::unbounded_channel();
    let code = match runtime.block_on(launcher::launch(options, events)) {
        Ok(outcome) => {
            println!("{outcome:?}");
            outcome.exit_code()
        }
        Err(error) => {
            eprintln!("{error}");
            error.exit_code()
        }
    };
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
