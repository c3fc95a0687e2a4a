//! Asks a rank about a model: this program does not link libtorch.

use std::process::{Command, Stdio};

use anyhow::Context;
use plan::model_request::{ModelReport, ModelRequest};

use crate::exit;

/// The rank's report, or the code with which it ended; it has then said why on standard error.
pub fn ask(request: &ModelRequest) -> anyhow::Result<Result<ModelReport, u8>> {
    let program = launcher::rank_program()?;
    let request = serde_json::to_string(request).context("cannot write the request as JSON")?;
    let answer = Command::new(&program)
        .args(["model", &request])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {}", program.display()))?;
    if !answer.status.success() {
        return Ok(Err(answer.status.code().map_or(exit::FAILED, exit::of)));
    }
    let report = serde_json::from_slice(&answer.stdout).with_context(|| {
        format!(
            "{} gave an answer that is not understood: are both programs of one build?",
            program.display()
        )
    })?;
    Ok(Ok(report))
}
