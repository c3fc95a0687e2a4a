//! What a rank is asked to do with a single model, outside of any run: `spinectl model`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use recipe::{Optimization, Precision};
use serde::{Deserialize, Serialize};

/// One of the commands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelRequest {
    /// The architectures.
    List,
    /// One forward pass.
    Run { model: ModelSpec, pass: PassSpec },
    /// Updates of the weights.
    Step { model: ModelSpec, step: StepSpec },
    /// One forward pass recorded as a file of TorchScript.
    Trace(TraceSpec),
}

/// A model, its weights, where it is and what it is given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelSpec {
    pub name: ModelName,
    /// Initial values where absent.
    pub weights: Option<PathBuf>,
    /// Weights that are NaN or infinite are taken.
    pub allow_non_finite: bool,
    pub input: PathBuf,
    pub output: PathBuf,
    pub device: ComputeDevice,
    /// Never `Auto`.
    pub precision: Precision,
    pub drop_path: f64,
    pub drop_rate: f64,
    /// Of initial weights and of what is dropped.
    pub seed: u64,
    /// D; from the weights where absent.
    pub lstm_hidden: Option<u64>,
    /// S of stage 3; from the weights where absent.
    pub max_images: Option<u64>,
}

/// How the forward pass is made.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PassSpec {
    pub train: bool,
    /// Intermediate maps are written too.
    pub taps: bool,
}

/// A trained model, and the sizes of the example with which its forward pass is recorded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TraceSpec {
    pub name: ModelName,
    pub weights: PathBuf,
    pub output: PathBuf,
    /// B
    pub batch: u64,
    /// S of stage 1b and 2; stage 3 has its own.
    pub images: u64,
    /// H and W
    pub side: u64,
}

/// How many updates are made, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepSpec {
    pub targets: PathBuf,
    pub steps: u64,
    /// Micro-batches of an update.
    pub accumulation: u64,
    pub optimization: Optimization,
    pub channels_last: bool,
    pub gradient_checkpointing: bool,
    /// Where the loss scale of fp16 begins.
    pub loss_scale: Option<f64>,
}

/// A backbone by timm's name, or a stage's model around it: `resnest50d`, `stage2:resnest50d`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelName {
    pub stage: Option<ModelStage>,
    pub arch: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelStage {
    Stage1a,
    Stage1b,
    Stage2,
    Stage3,
}

impl ModelStage {
    const ALL: [(&str, ModelStage); 4] = [
        ("stage1a", ModelStage::Stage1a),
        ("stage1b", ModelStage::Stage1b),
        ("stage2", ModelStage::Stage2),
        ("stage3", ModelStage::Stage3),
    ];

    pub fn name(self) -> &'static str {
        let known = Self::ALL.iter().find(|(_, stage)| *stage == self);
        known.map_or("", |(name, _)| name)
    }
}

impl FromStr for ModelName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((stage, arch)) = text.split_once(':') else {
            return Ok(ModelName {
                stage: None,
                arch: text.to_owned(),
            });
        };
        let known = ModelStage::ALL.iter().find(|(name, _)| *name == stage);
        match known {
            Some((_, stage)) => Ok(ModelName {
                stage: Some(*stage),
                arch: arch.to_owned(),
            }),
            None => Err(format!(
                "`{stage}` is no stage: write a backbone (resnest50d) or one of stage1a, stage1b, stage2, stage3 and a backbone \
                 (stage2:resnest50d)"
            )),
        }
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.stage {
            Some(stage) => write!(f, "{}:{}", stage.name(), self.arch),
            None => f.write_str(&self.arch),
        }
    }
}

/// Where a model is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ComputeDevice {
    Cpu,
    /// By the number that the CUDA runtime gives it.
    Cuda(usize),
}

impl FromStr for ComputeDevice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = match text {
            "cpu" => return Ok(ComputeDevice::Cpu),
            "cuda" => Some(0),
            _ => text.strip_prefix("cuda:").and_then(|n| n.parse().ok()),
        };
        number
            .map(ComputeDevice::Cuda)
            .ok_or_else(|| "write cpu, cuda, or cuda:N for the GPU with number N".to_owned())
    }
}

impl fmt::Display for ComputeDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ComputeDevice::Cpu => f.write_str("cpu"),
            ComputeDevice::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

/// What came of a request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelReport {
    /// The architectures, for [`ModelRequest::List`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub architectures: Vec<ArchitectureRow>,
    /// What was done to the weights' keys to make them fit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The tensors of the output, in the file's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<OutputRow>,
    /// By update.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub updates: Vec<UpdateRow>,
    /// The most memory that the process ever had, bytes.
    #[serde(default)]
    pub peak_rss: u64,
    /// The most memory that tensors ever held on the GPU, bytes; absent on a CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_device_memory: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchitectureRow {
    pub name: String,
    /// Width of the pooled features.
    pub features: u64,
    /// Trainable numbers, without a classifier.
    pub parameters: u64,
    pub channels_last_on_gpu: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputRow {
    pub name: String,
    pub shape: Vec<i64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UpdateRow {
    /// Absent where fp16 overflowed, which leaves an update out.
    pub loss: Option<f64>,
    /// Absent where fp16 overflowed.
    pub gradient_norm: Option<f64>,
    pub seconds: f64,
    /// Seconds by phase.
    pub phases: std::collections::BTreeMap<String, f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_devices_are_read_as_they_are_shown() {
        for text in ["resnest50d", "stage1a:efficientnet_b1", "stage3:resnest14d"] {
            assert_eq!(text.parse::<ModelName>().unwrap().to_string(), text);
        }
        let error = "stage4:resnest50d".parse::<ModelName>().unwrap_err();
        assert!(error.contains("stage4") && error.contains("stage1b"));
        assert_eq!("cuda".parse(), Ok(ComputeDevice::Cuda(0)));
        assert_eq!("cuda:3".parse(), Ok(ComputeDevice::Cuda(3)));
        assert!("gpu".parse::<ComputeDevice>().is_err());
        assert!("cuda:x".parse::<ComputeDevice>().is_err());
    }
}
