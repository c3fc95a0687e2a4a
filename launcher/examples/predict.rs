//! A prediction without the command line: `predict RUN_DIR IMAGES OUT` ends with its exit code.

use std::process::ExitCode;

use launcher::Device;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [run_dir, images, out] = &arguments[..] else {
        eprintln!("usage: predict RUN_DIR IMAGES OUT");
        return ExitCode::from(2);
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let (events, _) = tokio::sync::mpsc::unbounded_channel();
    let asked = launcher::Prediction {
        run_dir: run_dir.as_ref(),
        images: images.as_ref(),
        out: out.as_ref(),
        details: None,
        flip: false,
        device: Device::Cpu,
    };
    let prediction = launcher::predict(asked, events);
    let code = match runtime.block_on(prediction) {
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
