//! `spinectl checkpoint export`: a trained model as a file for other programs.

use std::path::{Path, PathBuf};

use checkpoint::{Error, Manifest, TensorData};
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::list::{is_checkpoint, job_folders};
use crate::{exit, output, units};

/// Where a model keeps its CNN.
const BACKBONE: &str = "backbone.";

/// Write a trained model as a safetensors file
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  spinectl checkpoint export runs/rsna2022/jobs/stage2-resnest50d-fold0-seed0 --out model.safetensors
  spinectl checkpoint export runs/rsna2022/jobs/stage2-resnest50d-fold0-seed0 --part backbone --out cnn.safetensors

timm takes a backbone as it is:
  model = timm.create_model('resnest50d', num_classes=0)
  model.load_state_dict(safetensors.torch.load_file('cnn.safetensors'), strict=True)

ONNX: libtorch has no exporter, PyTorch has. From that model:
  torch.onnx.export(model.eval(), torch.zeros(1, 3, 512, 512), 'cnn.onnx', dynamo=True)")]
pub struct Arguments {
    /// A checkpoint's folder, or a job's: then its newest checkpoint that is whole
    path: PathBuf,

    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// The whole model, or its CNN under timm's names
    #[arg(long, value_enum, default_value_t = Part::Model)]
    part: Part,

    /// Write over a file that is there
    #[arg(long)]
    force: bool,

    /// Print what was written as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
enum Part {
    Model,
    Backbone,
}

/// What was written, from what.
#[derive(Serialize)]
struct Exported {
    out: PathBuf,
    bytes: u64,
    tensors: usize,
    part: Part,
    job: String,
    step: u64,
    checkpoint: PathBuf,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    let Arguments { out, part, .. } = arguments;
    if !arguments.force && out.symlink_metadata().is_ok() {
        return Err(exit::wrong_use(format!(
            "{} is there already: write --force to replace it, or another --out",
            out.display()
        )));
    }
    let checkpoint = find(&arguments.path)?;
    let (manifest, model) = checkpoint::read_model(&checkpoint).map_err(broken)?;
    let tensors = match part {
        Part::Model => model,
        Part::Backbone => backbone(model),
    };
    if tensors.is_empty() {
        return Err(exit::wrong_use(nothing(&manifest, *part)));
    }
    let bytes = checkpoint::save_safetensors(out, &tensors)?;
    let exported = Exported {
        out: out.clone(),
        bytes,
        tensors: tensors.len(),
        part: *part,
        job: manifest.job,
        step: manifest.step,
        checkpoint,
    };
    match arguments.json {
        true => output::print_json(&exported)?,
        false => output::print(&exported.said())?,
    }
    Ok(exit::DONE)
}

impl Exported {
    fn said(&self) -> String {
        let what = match self.part {
            Part::Model => "the model",
            Part::Backbone => "the CNN",
        };
        format!(
            "wrote {}: {what} of {} after step {}, {} tensors, {}",
            self.out.display(),
            self.job,
            self.step,
            self.tensors,
            units::bytes(self.bytes)
        )
    }
}

/// The checkpoint that the path is, or the newest whole one of the job that it is.
fn find(path: &Path) -> anyhow::Result<PathBuf> {
    if is_checkpoint(path) {
        return Ok(path.to_owned());
    }
    if path.join("jobs").is_dir() {
        return Err(exit::wrong_use(format!(
            "{} is a whole run: name one of its jobs\n{}",
            path.display(),
            jobs(path)?.join("\n")
        )));
    }
    let beside = path.join("checkpoints");
    let root = match beside.is_dir() {
        true => beside.as_path(),
        false => path,
    };
    let found = checkpoint::newest_valid(root).map_err(broken)?;
    let found = found.ok_or_else(|| {
        exit::wrong_use(format!(
            "there is no checkpoint in {}: name a checkpoint's folder (step-...) or that of a job that has some",
            path.display()
        ))
    })?;
    for skipped in &found.skipped {
        output::say(&format!("warning: skipped {skipped}"));
    }
    Ok(found.path)
}

/// The folders of the jobs of a run that have checkpoints.
fn jobs(run_dir: &Path) -> anyhow::Result<Vec<String>> {
    let folders = job_folders(&run_dir.join("jobs"))?;
    let with_checkpoints = folders
        .iter()
        .filter(|job| job.join("checkpoints").is_dir());
    Ok(with_checkpoints
        .map(|job| format!("  {}", job.display()))
        .collect())
}

/// The tensors of `backbone.`, without it.
fn backbone(model: Vec<TensorData>) -> Vec<TensorData> {
    let inside = model.into_iter().filter_map(|tensor| {
        let name = tensor.name.strip_prefix(BACKBONE)?.to_owned();
        Some(TensorData { name, ..tensor })
    });
    inside.collect()
}

fn nothing(manifest: &Manifest, part: Part) -> String {
    match part {
        Part::Model => format!("job {} has a checkpoint without a model", manifest.job),
        Part::Backbone => format!(
            "the model of job {} has no CNN: leave --part out for the whole of it",
            manifest.job
        ),
    }
}

/// A checkpoint that is not what was written is a failure, and not the machine's.
fn broken(error: Error) -> anyhow::Error {
    match error {
        Error::Damaged { .. } | Error::NoneValid { .. } => {
            exit::fault(exit::FAILED, error.to_string())
        }
        error => error.into(),
    }
}
