//! A single model, outside of any run: what `spinectl model` asks for. The answer is one JSON object on standard output.

mod build;
mod pass;
mod step;
mod trace;

use plan::model_request::{ArchitectureRow, ComputeDevice, ModelReport, ModelRequest, OutputRow};
use tch::Tensor;
use train::TrainError;

use crate::failure::RankError;

/// Does what the request says and prints the report.
pub fn run(request: &str) -> Result<(), RankError> {
    let request = serde_json::from_str(request)
        .map_err(|error| RankError::Setup(format!("the request is not understood: {error}")))?;
    let mut report = match &request {
        ModelRequest::List => list()?,
        ModelRequest::Run { model, pass } => pass::run(model, *pass)?,
        ModelRequest::Step { model, step } => step::run(model, step)?,
        ModelRequest::Trace(spec) => trace::run(spec)?,
    };
    report.peak_rss = peak_rss();
    report.peak_device_memory = match &request {
        ModelRequest::Run { model, .. } | ModelRequest::Step { model, .. }
            if model.device != ComputeDevice::Cpu =>
        {
            Some(train::cuda::peak_memory().map_err(TrainError::from)?)
        }
        _ => None,
    };
    let line = serde_json::to_string(&report)
        .map_err(|error| RankError::Setup(format!("the report cannot be written: {error}")))?;
    println!("{line}");
    Ok(())
}

fn list() -> Result<ModelReport, RankError> {
    let rows = stage::model::facts()?
        .into_iter()
        .map(|facts| ArchitectureRow {
            name: facts.name.to_owned(),
            features: facts.features as u64,
            parameters: facts.parameters as u64,
            channels_last_on_gpu: facts.prefers_channels_last,
        });
    Ok(ModelReport {
        architectures: rows.collect(),
        ..ModelReport::default()
    })
}

/// Writes the tensors, and says what was written.
fn write(path: &std::path::Path, named: &[(String, Tensor)]) -> Result<Vec<OutputRow>, TrainError> {
    let tensors = named
        .iter()
        .map(|(name, tensor)| train::to_host(name, tensor))
        .collect::<train::Result<Vec<_>>>()?;
    checkpoint::save_safetensors(path, &tensors)?;
    let row = |(name, tensor): &(String, Tensor)| OutputRow {
        name: name.clone(),
        shape: tensor.size(),
    };
    Ok(named.iter().map(row).collect())
}

/// The most memory that this process ever had, in bytes; 0 where the system does not say.
fn peak_rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
    kilobytes.unwrap_or(0) * 1024
}
