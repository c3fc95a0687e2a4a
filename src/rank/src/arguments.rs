//! The command line of a rank.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tch::Device;
use train::{CollectiveError, Resume, cuda};

/// One rank of a spinectl job. Usually started by `spinectl launch`.
#[derive(Debug, Parser)]
#[command(name = "spinectl-rank", version)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a job of a run directory's plan as one of its ranks.
    ///
    /// Reads RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT as torchrun sets them.
    Job(Job),
    /// Predict a folder of studies with a run's finished models.
    Predict(Predict),
    /// Do with a single model what `spinectl model` asks for.
    Model {
        /// A JSON object.
        request: String,
    },
    /// Tell what libtorch, Gloo, CUDA and NCCL are like here, as JSON: `spinectl doctor` asks.
    #[command(hide = true)]
    Probe,
}

#[derive(Debug, Args)]
pub struct Job {
    /// The run directory; the plan is its plan.json.
    #[arg(long)]
    pub run_dir: PathBuf,
    /// The job's name in the plan.
    #[arg(long)]
    pub job: String,
    /// The attempt at this job, from 1: names the folder of logs and failure reports.
    #[arg(long, default_value_t = 1)]
    pub attempt: u32,
    #[arg(long, value_enum)]
    pub device: DeviceKind,
    /// `auto`: from the newest valid checkpoint; `never`; or a checkpoint folder.
    #[arg(long, default_value = "auto")]
    pub resume: String,
    /// Samples that a rank takes through the model at once, where memory was too small for the recipe's; the global batch
    /// stays.
    #[arg(long)]
    pub micro_batch: Option<u64>,
}

#[derive(Debug, Args)]
pub struct Predict {
    /// The run directory with the trained models.
    #[arg(long)]
    pub run_dir: PathBuf,
    /// A folder with one folder of DICOM files for each study.
    #[arg(long)]
    pub images: PathBuf,
    /// The submission to write.
    #[arg(long)]
    pub out: PathBuf,
    /// The folder for a JSON file of each study.
    #[arg(long)]
    pub details: Option<PathBuf>,
    /// Predict each study's mirror image too, and take the mean.
    #[arg(long)]
    pub flip: bool,
    #[arg(long, value_enum)]
    pub device: DeviceKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DeviceKind {
    Cpu,
    Cuda,
}

impl DeviceKind {
    /// The device of the rank with this number on its machine, as libtorch writes it.
    pub fn name(self, local_rank: usize) -> String {
        match self {
            DeviceKind::Cpu => "cpu".to_owned(),
            DeviceKind::Cuda => format!("cuda:{local_rank}"),
        }
    }

    /// The device of the rank with this number on its machine. Where it is a GPU, loads libtorch's GPU half and makes the
    /// device this thread's current one.
    pub fn open(self, local_rank: usize) -> Result<Device, CollectiveError> {
        match self {
            DeviceKind::Cpu => Ok(Device::Cpu),
            DeviceKind::Cuda => {
                cuda::set_device(local_rank)?;
                Ok(Device::Cuda(local_rank))
            }
        }
    }
}

impl Job {
    pub fn resume(&self) -> Resume {
        match self.resume.as_str() {
            "auto" => Resume::Auto,
            "never" => Resume::Never,
            path => Resume::From(PathBuf::from(path)),
        }
    }
}
