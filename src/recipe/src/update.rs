//! How weights move and how the network is run while they do: the keys of `training` that PyTorch users know.

use serde::{Deserialize, Serialize};

use crate::Device;
use crate::section::Section;

/// How weights move. In YAML its keys stand with the others of `training`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Optimization {
    /// `optimizer`, and `momentum` with SGD.
    #[serde(flatten)]
    pub optimizer: Optimizer,
    /// The highest of the schedule.
    pub learning_rate: f64,
    /// Of the CNN, following the same schedule; `learning_rate` where absent.
    pub backbone_learning_rate: Option<f64>,
    pub weight_decay: f64,
    /// Whether biases and norms decay too.
    pub decay_all: bool,
    /// Share of the updates over which the learning rate rises from 0.
    pub warmup: f64,
    /// `schedule`, with `step_at` and `step_factor` where it falls in steps.
    #[serde(flatten)]
    pub schedule: Schedule,
    /// Gradients are scaled down to this L2 norm; not clipped where absent.
    pub clip_norm: Option<f64>,
    /// Decay of a moving average of the weights, which then is what is evaluated and handed on; none where absent.
    pub ema: Option<f64>,
}

/// The update rule.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "optimizer", rename_all = "lowercase")]
pub enum Optimizer {
    /// Adam with decoupled weight decay.
    AdamW,
    /// With Nesterov's momentum.
    Sgd { momentum: f64 },
    /// AdamW whose step is scaled by each tensor's norm: for batches of thousands.
    Lamb,
}

/// How the learning rate falls after the warm-up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "schedule", rename_all = "lowercase")]
pub enum Schedule {
    /// Half a cosine to 0.
    Cosine,
    /// A line to 0.
    Linear,
    /// By a factor at each of some points.
    Step {
        /// Shares of all updates, rising.
        step_at: Vec<f64>,
        step_factor: f64,
    },
}

/// In what numbers and layouts the network runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Numerics {
    pub precision: Precision,
    /// Memory layout of images and kernels; by device and architecture where absent.
    pub channels_last: Option<bool>,
    /// Batch normalisation by the statistics of all ranks, so that their number changes nothing.
    pub sync_batch_norm: bool,
    /// Blocks of the CNN keep no activations but run again in the backward pass: memory for time.
    pub gradient_checkpointing: bool,
}

/// The type of matrix products and convolutions; weights, losses and norms are f32 in all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// fp16 on GPUs, fp32 on CPUs.
    Auto,
    Fp32,
    Bf16,
    /// With a loss scale; GPUs only.
    Fp16,
}

pub(crate) fn optimization(
    section: &Section,
    learning_rate: f64,
    weight_decay: f64,
) -> Optimization {
    let warmup = section.number("warmup", 0.1, 0.0..=1.0);
    let optimization = Optimization {
        optimizer: optimizer(section),
        learning_rate: section.number("learning_rate", learning_rate, 0.0..=100.0),
        backbone_learning_rate: section.optional_number("backbone_learning_rate", 0.0..=100.0),
        weight_decay: section.number("weight_decay", weight_decay, 0.0..=10.0),
        decay_all: section.switch("decay_all", false),
        warmup,
        schedule: schedule(section, warmup),
        clip_norm: section.optional_number("clip_norm", 1e-6..=1e9),
        ema: section.optional_number("ema", 0.0..=1.0),
    };
    if optimization.learning_rate == 0.0 && optimization.backbone_learning_rate.is_some() {
        section.refuse(
            "backbone_learning_rate",
            "the CNN's rate follows the main one, and learning_rate is 0".into(),
            "give learning_rate a value above 0".into(),
        );
    }
    match optimization.ema {
        Some(1.0) => section.refuse(
            "ema",
            "an average with a decay of 1 never moves from the initial weights".into(),
            "write less than 1, for example 0.999".into(),
        ),
        Some(0.0) => section.refuse(
            "ema",
            "an average with a decay of 0 is the weights themselves".into(),
            "leave ema out, or write for example 0.999".into(),
        ),
        _ => {}
    }
    optimization
}

fn optimizer(section: &Section) -> Optimizer {
    let momentum = section.optional_number("momentum", 0.0..=0.999);
    let words = [
        ("adamw", Optimizer::AdamW),
        ("sgd", Optimizer::Sgd { momentum: 0.9 }),
        ("lamb", Optimizer::Lamb),
    ];
    let chosen = section.choice("optimizer", Optimizer::AdamW, &words);
    match (chosen, momentum) {
        (Optimizer::Sgd { .. }, Some(momentum)) => Optimizer::Sgd { momentum },
        (Optimizer::AdamW | Optimizer::Lamb, Some(_)) => {
            section.refuse(
                "momentum",
                "only SGD has a momentum to choose".into(),
                "write `optimizer: sgd`, or take momentum out".into(),
            );
            chosen
        }
        (_, None) => chosen,
    }
}

fn schedule(section: &Section, warmup: f64) -> Schedule {
    let step_at = section.optional_numbers("step_at", "[0.5, 0.75]");
    let step_factor = section.optional_number("step_factor", 0.0..=1.0);
    let words = ["cosine", "linear", "step"].map(|word| (word, word));
    let word = section.choice("schedule", "cosine", &words);
    if word == "step" {
        check_steps(section, step_at.as_deref(), warmup);
        return Schedule::Step {
            step_at: step_at.unwrap_or_default(),
            step_factor: step_factor.unwrap_or(0.1),
        };
    }
    let given = [
        ("step_at", step_at.is_some()),
        ("step_factor", step_factor.is_some()),
    ];
    for (key, _) in given.iter().filter(|(_, given)| *given) {
        section.refuse(
            key,
            "it says how a rate falls in steps, and this schedule has none".into(),
            format!("write `schedule: step`, or take {key} out"),
        );
    }
    match word {
        "linear" => Schedule::Linear,
        _ => Schedule::Cosine,
    }
}

fn check_steps(section: &Section, step_at: Option<&[f64]>, warmup: f64) {
    let shares = "shares of the job's updates, for example `step_at: [0.5, 0.75]`";
    let Some(points) = step_at else {
        section.refuse(
            "schedule",
            "a rate that falls in steps needs step_at: where it does".into(),
            format!("add {shares}"),
        );
        return;
    };
    if points.is_empty() {
        section.refuse(
            "step_at",
            "there is no step".into(),
            format!("write {shares}"),
        );
    } else if points.iter().any(|at| !(*at > 0.0 && *at < 1.0)) {
        section.refuse(
            "step_at",
            "a step lies between 0 and 1, the beginning and the end of the job".into(),
            format!("write {shares}"),
        );
    } else if points.windows(2).any(|pair| pair[0] >= pair[1]) {
        section.refuse(
            "step_at",
            "the steps do not rise from one to the next".into(),
            format!("write them in order, {shares}"),
        );
    } else if points[0] < warmup {
        section.refuse(
            "step_at",
            format!(
                "the rate would fall at {} while it still rises: warmup is {warmup}",
                points[0]
            ),
            "let the first step come after the warm-up".into(),
        );
    }
}

pub(crate) fn numerics(section: &Section, device: Device) -> Numerics {
    let precision = section.choice(
        "precision",
        Precision::Auto,
        &[
            ("auto", Precision::Auto),
            ("fp32", Precision::Fp32),
            ("bf16", Precision::Bf16),
            ("fp16", Precision::Fp16),
        ],
    );
    if (precision, device) == (Precision::Fp16, Device::Cpu) {
        section.refuse(
            "precision",
            "libtorch has no LSTM in fp16 for most CPUs, and what it has is slower than fp32"
                .into(),
            "write auto (fp16 on GPUs, fp32 on CPUs), fp32 or bf16".into(),
        );
    }
    Numerics {
        precision,
        channels_last: section.optional_switch("channels_last"),
        sync_batch_norm: section.switch("sync_batch_norm", false),
        gradient_checkpointing: section.switch("gradient_checkpointing", false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{RecipeError, Source, Training, parse, to_yaml};

    fn read(training: &str) -> Result<Training, RecipeError> {
        recipe("stage2", training).map(|recipe| recipe.stage2.unwrap().training)
    }

    fn recipe(stage: &str, training: &str) -> Result<crate::Recipe, RecipeError> {
        let source = Source {
            name: "r.yaml".into(),
            text: format!("data: {{root: d}}\n{stage}:\n  training: {training}\n"),
        };
        parse(&source, &[])
    }

    /// The keys at fault, each with the column at which the fault stands.
    fn faults(stage: &str, training: &str) -> Vec<String> {
        let Err(RecipeError::Faults(faults)) = recipe(stage, training) else {
            panic!("{training} is accepted")
        };
        let text = format!("  training: {training}");
        faults
            .iter()
            .map(|fault| {
                let key = fault.path.rsplit('.').next().unwrap();
                let column = fault.column as usize - 1;
                assert!(text[column..].starts_with(key), "{fault}");
                key.to_owned()
            })
            .collect()
    }

    #[test]
    fn absent_keys_are_what_the_pipeline_needs() {
        let training = read("{}").unwrap();
        let Optimization {
            optimizer,
            backbone_learning_rate,
            decay_all,
            schedule,
            clip_norm,
            ema,
            ..
        } = training.optimization;
        assert_eq!((optimizer, schedule), (Optimizer::AdamW, Schedule::Cosine));
        assert_eq!(
            (backbone_learning_rate, decay_all, clip_norm, ema),
            (None, false, None, None)
        );
        assert_eq!(
            training.numerics,
            Numerics {
                precision: Precision::Auto,
                channels_last: None,
                sync_batch_norm: false,
                gradient_checkpointing: false,
            }
        );
        assert_eq!((training.drop_path, training.drop_rate), (0.0, 0.0));
    }

    #[test]
    fn a_word_brings_its_own_keys() {
        let optimizer = |text| read(text).unwrap().optimization.optimizer;
        assert_eq!(
            optimizer("{optimizer: sgd}"),
            Optimizer::Sgd { momentum: 0.9 }
        );
        assert_eq!(
            optimizer("{optimizer: sgd, momentum: 0}"),
            Optimizer::Sgd { momentum: 0.0 }
        );
        assert_eq!(optimizer("{optimizer: lamb}"), Optimizer::Lamb);
        let schedule = read("{schedule: step, step_at: [0.5, 0.75]}").unwrap();
        assert_eq!(
            schedule.optimization.schedule,
            Schedule::Step {
                step_at: vec![0.5, 0.75],
                step_factor: 0.1
            }
        );
    }

    #[test]
    fn the_flat_keys_read_back_to_themselves() {
        for training in [
            "{}",
            "{optimizer: sgd, momentum: 0.8, schedule: step, step_at: [0.5], step_factor: 0.2, ema: 0.99}",
            "{optimizer: lamb, schedule: linear, backbone_learning_rate: 0.0001, precision: bf16, channels_last: false}",
        ] {
            let recipe = recipe("stage2", training).unwrap();
            let yaml = to_yaml(&recipe).unwrap();
            let again = Source {
                name: "again.yaml".into(),
                text: yaml.clone(),
            };
            assert_eq!(parse(&again, &[]).unwrap(), recipe, "{yaml}");
            // A plan holds it as JSON.
            let training = recipe.stage2.unwrap().training;
            let json = serde_json::to_string(&training).unwrap();
            assert_eq!(serde_json::from_str::<Training>(&json).unwrap(), training);
        }
    }

    #[test]
    fn keys_without_their_word_are_refused_together() {
        let training =
            "{momentum: 0.9, step_at: [0.5], step_factor: 0.5, ema: 1.0, optimizer: lamb}";
        assert_eq!(
            faults("stage2", training),
            ["momentum", "step_at", "step_factor", "ema"]
        );
        assert_eq!(faults("stage2", "{ema: 0}"), ["ema"]);
        let training = "{learning_rate: 0, backbone_learning_rate: 0.1}";
        assert_eq!(faults("stage2", training), ["backbone_learning_rate"]);
    }

    #[test]
    fn steps_lie_in_order_after_the_warm_up() {
        assert_eq!(faults("stage2", "{schedule: step}"), ["schedule"]);
        for points in [
            "[]",
            "[0.5, 0.5]",
            "[0.7, 0.2]",
            "[0]",
            "[0.5, 1]",
            "[0.05]",
        ] {
            let training = format!("{{schedule: step, step_at: {points}}}");
            assert_eq!(faults("stage2", &training), ["step_at"], "{points}");
        }
        assert!(read("{schedule: step, step_at: [0.05], warmup: 0}").is_ok());
    }

    #[test]
    fn fp16_is_for_gpus() {
        let source = |device: &str| Source {
            name: "r.yaml".into(),
            text: format!(
                "device: {device}\ndata: {{root: d}}\nstage1a:\n  training: {{precision: fp16}}\n"
            ),
        };
        assert!(parse(&source("cuda"), &[]).is_ok());
        let error = parse(&source("cpu"), &[]).unwrap_err().to_string();
        assert!(
            error.contains("r.yaml:4:14: stage1a.training.precision"),
            "{error}"
        );
        let elsewhere = parse(&source("cuda"), &["device=cpu".into()]);
        assert!(elsewhere.is_err(), "also where a flag says so");
    }

    #[test]
    fn stage_3_has_no_cnn_to_train() {
        let keys = [
            ("backbone_learning_rate", "0.1"),
            ("gradient_checkpointing", "true"),
            ("sync_batch_norm", "true"),
            ("drop_path", "0.1"),
            ("drop_rate", "0.1"),
        ];
        let all: Vec<String> = keys.iter().map(|(k, v)| format!("{k}: {v}")).collect();
        let training = format!("{{{}}}", all.join(", "));
        assert_eq!(faults("stage3", &training), keys.map(|(key, _)| key));
        assert!(read(&training).is_ok());
        assert!(recipe("stage3", "{sync_batch_norm: false, ema: 0.9}").is_ok());
    }
}
