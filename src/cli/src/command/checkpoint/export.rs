//! `spinectl checkpoint export`: a trained model as a file for other programs.

use std::path::{Path, PathBuf};

use checkpoint::{Error, Manifest, TensorData};
use clap::{Args, ValueEnum};
use plan::model_request::OutputRow;
use serde::Serialize;

use super::list::{is_checkpoint, job_folders};
use super::torchscript::{self, Example};
use crate::{exit, output, units};

/// Where a model keeps its CNN.
const BACKBONE: &str = "backbone.";

/// Write a trained model as a file for other programs
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  spinectl checkpoint export runs/rsna2022/jobs/stage2-resnest50d-foldall-seed0 --out model.safetensors
  spinectl checkpoint export runs/rsna2022/jobs/stage2-resnest50d-foldall-seed0 --part backbone --out cnn.safetensors
  spinectl checkpoint export runs/rsna2022/jobs/stage2-resnest50d-foldall-seed0 --format torchscript --out model.pt

timm takes a backbone as it is:
  model = timm.create_model('resnest50d', num_classes=0)
  model.load_state_dict(safetensors.torch.load_file('cnn.safetensors'), strict=True)

TorchScript holds the weights and one forward pass, recorded on the CPU; torch.jit.load reads it. It takes inputs of
the recorded shapes only: image (B, C, H, W) of a CNN or stage 1a; image (B, S, C, H, W) and position (B, S) of
stage 1b and 2; features (B, S, F) and mask (B, S) of stage 3. It gives box, has_box; ratio; ratio, fracture, any;
or logits.

ONNX: libtorch has no exporter, PyTorch has (with onnx and onnxscript installed). From timm's model above:
  torch.onnx.export(model.eval(), (torch.zeros(1, 3, 512, 512),), 'cnn.onnx', dynamo=True)")]
pub struct Arguments {
    /// A checkpoint's folder, or a job's: then its newest checkpoint that is whole
    path: PathBuf,

    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// The whole model, or its CNN under timm's names
    #[arg(long, value_enum, default_value_t = Part::Model)]
    part: Part,

    #[arg(long, value_enum, default_value_t = Format::Safetensors)]
    format: Format,

    #[command(flatten)]
    example: Example,

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

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
enum Format {
    /// Tensors by name
    Safetensors,
    /// Tensors and a forward pass
    Torchscript,
}

/// What was written, from what.
#[derive(Serialize)]
struct Exported {
    out: PathBuf,
    bytes: u64,
    tensors: usize,
    part: Part,
    format: Format,
    /// What a module of TorchScript takes, in this order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    inputs: Vec<OutputRow>,
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
    if arguments.format != Format::Torchscript && arguments.example.is_given() {
        return Err(exit::wrong_use(
            "--arch, --batch, --images and --image-size are for --format torchscript: leave them out, or add it",
        ));
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
    let (bytes, inputs) = match arguments.format {
        Format::Safetensors => (checkpoint::save_safetensors(out, &tensors)?, Vec::new()),
        Format::Torchscript => {
            let whole = *part == Part::Model;
            match torchscript::write(out, &checkpoint, &manifest, &arguments.example, whole)? {
                Ok(written) => written,
                // The rank has said what was wrong.
                Err(code) => return Ok(code),
            }
        }
    };
    let exported = Exported {
        out: out.clone(),
        bytes,
        tensors: tensors.len(),
        part: *part,
        format: arguments.format,
        inputs,
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
        let inputs: Vec<String> = self
            .inputs
            .iter()
            .map(|input| format!("{} {:?}", input.name, input.shape))
            .collect();
        let takes = match inputs.is_empty() {
            true => String::new(),
            false => format!("; it takes {} and no other shapes", inputs.join(", ")),
        };
        format!(
            "wrote {}: {what} of {} after step {}, {} tensors, {}{takes}",
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
