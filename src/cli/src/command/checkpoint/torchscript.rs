//! A model as a file of TorchScript, which a rank records: this program does not link libtorch.

use std::fs;
use std::path::{Path, PathBuf};

use checkpoint::Manifest;
use clap::Args;
use plan::model_request::{ModelName, ModelRequest, ModelStage, OutputRow, TraceSpec};
use plan::{JobKind, TrainStage};

use crate::command::model::rank;
use crate::exit;

/// The model's tensors in a checkpoint's folder.
const MODEL: &str = "model.safetensors";

/// The shapes with which a forward pass is recorded.
#[derive(Debug, Args)]
pub struct Example {
    /// For TorchScript: the model, as `spinectl model` names it (stage2:resnest50d) [default: what the run's plan says]
    #[arg(long, value_name = "ARCH")]
    arch: Option<ModelName>,

    /// For TorchScript: sequences or images at once [default: 1]
    #[arg(long, value_name = "B", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    batch: Option<u64>,

    /// For TorchScript: images of a sequence [default: what the run's plan says]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    images: Option<u64>,

    /// For TorchScript: side of the square image in pixels [default: what the run's plan says]
    #[arg(long, value_name = "PX", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    image_size: Option<u64>,
}

impl Example {
    pub fn is_given(&self) -> bool {
        self.arch.is_some()
            || self.batch.is_some()
            || self.images.is_some()
            || self.image_size.is_some()
    }
}

/// Bytes of the file and what the module takes, or the code with which the rank ended.
type Written = Result<(u64, Vec<OutputRow>), u8>;

/// Writes the model of a checkpoint, or its CNN, to `out`, which appears whole or not at all.
pub fn write(
    out: &Path,
    checkpoint: &Path,
    manifest: &Manifest,
    example: &Example,
    whole: bool,
) -> anyhow::Result<Written> {
    let beside = beside(out);
    let spec = TraceSpec {
        weights: checkpoint.join(MODEL),
        output: beside.clone(),
        ..sizes(checkpoint, manifest, example, whole)?
    };
    let written = record(&spec, out);
    if !matches!(written, Ok(Ok(_))) {
        // Nothing is there to be removed where the file could not be created.
        let _ = fs::remove_file(&beside);
    }
    written
}

fn record(spec: &TraceSpec, out: &Path) -> anyhow::Result<Written> {
    let report = match rank::ask(&ModelRequest::Trace(spec.clone()))? {
        Ok(report) => report,
        Err(code) => return Ok(Err(code)),
    };
    let bytes = fs::File::open(&spec.output)
        .and_then(|file| file.sync_all().and(file.metadata()))
        .and_then(|data| fs::rename(&spec.output, out).map(|()| data.len()))
        .map_err(|error| anyhow::anyhow!("cannot write {}: {error}", out.display()))?;
    Ok(Ok((bytes, report.outputs)))
}

/// The name under which the file is filled.
fn beside(out: &Path) -> PathBuf {
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    out.with_file_name(format!(".tmp-{name}-{}", std::process::id()))
}

/// What is to be recorded: as the flags say, else as the plan of the run that the checkpoint lies in.
fn sizes(
    checkpoint: &Path,
    manifest: &Manifest,
    example: &Example,
    whole: bool,
) -> anyhow::Result<TraceSpec> {
    let planned = planned(checkpoint, manifest);
    let missing = |flag: &str| {
        exit::wrong_use(format!(
            "no plan of the run that made {} is there to say it: write {flag}",
            checkpoint.display()
        ))
    };
    let name = match (&example.arch, &planned) {
        (Some(name), _) => name.clone(),
        (None, Some(planned)) => planned.name.clone(),
        (None, None) => return Err(missing("--arch, such as stage2:resnest50d or resnest50d")),
    };
    let name = ModelName {
        stage: name.stage.filter(|_| whole),
        ..name
    };
    let in_sequences = matches!(name.stage, Some(ModelStage::Stage1b | ModelStage::Stage2));
    let on_features = name.stage == Some(ModelStage::Stage3);
    let images = example.images.or(planned.as_ref().map(|p| p.images));
    let side = example.image_size.or(planned.as_ref().map(|p| p.side));
    Ok(TraceSpec {
        images: match images {
            Some(images) => images,
            None if in_sequences => return Err(missing("--images S")),
            None => 1,
        },
        side: match side {
            Some(side) => side,
            None if !on_features => return Err(missing("--image-size PX")),
            None => 1,
        },
        batch: example.batch.unwrap_or(1),
        name,
        weights: PathBuf::new(),
        output: PathBuf::new(),
    })
}

struct Planned {
    name: ModelName,
    images: u64,
    side: u64,
}

/// What the plan of RUN_DIR says of the job in RUN_DIR/jobs/<job>/checkpoints/step-<n>.
fn planned(checkpoint: &Path, manifest: &Manifest) -> Option<Planned> {
    let absolute = fs::canonicalize(checkpoint).ok()?;
    let run_dir = absolute.ancestors().nth(4)?;
    let plan = plan::read(&run_dir.join("plan.json")).ok()?;
    let job = plan.job(&manifest.job)?;
    let JobKind::Train {
        stage, training, ..
    } = &job.kind
    else {
        return None;
    };
    let (stage, images) = match stage {
        TrainStage::Stage1a { .. } => (ModelStage::Stage1a, 1),
        TrainStage::Stage1b { sequence, .. } => (ModelStage::Stage1b, sequence.images),
        TrainStage::Stage2 { sequence } => (ModelStage::Stage2, sequence.images),
        TrainStage::Stage3 { study, .. } => (ModelStage::Stage3, study.max_images),
    };
    (job.hash == manifest.plan_hash).then(|| Planned {
        name: ModelName {
            stage: Some(stage),
            arch: training.arch.clone(),
        },
        images,
        side: training.image_size,
    })
}
