//! Which recipe a command works on, and the flags that overlay it by the recipe's own keys.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use recipe::{Fold, Recipe, Source};

use crate::exit;

const BUILT_IN: &str = include_str!("../../../configs/rsna2022.yaml");
const DEFAULT_FILE: &str = "spinectl.yaml";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Device {
    Cuda,
    Cpu,
}

impl Device {
    /// The word that recipes and command lines have for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Device::Cuda => "cuda",
            Device::Cpu => "cpu",
        }
    }
}

impl From<Device> for recipe::Device {
    fn from(device: Device) -> Self {
        match device {
            Device::Cuda => recipe::Device::Cuda,
            Device::Cpu => recipe::Device::Cpu,
        }
    }
}

impl From<recipe::Device> for Device {
    fn from(device: recipe::Device) -> Self {
        match device {
            recipe::Device::Cuda => Device::Cuda,
            recipe::Device::Cpu => Device::Cpu,
        }
    }
}

/// A recipe and what is laid over it.
#[derive(Clone, Debug, Default, Args)]
pub struct RecipeArguments {
    /// Recipe file [default: ./spinectl.yaml, else the built-in rsna2022 recipe]
    pub recipe: Option<PathBuf>,

    /// GPUs to use, one rank on each [default: all that the machine has]
    #[arg(long, value_name = "N", conflicts_with = "ranks")]
    pub gpus: Option<u64>,

    /// Where ranks compute [default: the recipe's; cuda]
    #[arg(long, value_enum)]
    pub device: Option<Device>,

    /// Ranks on the CPU
    #[arg(long, value_name = "N")]
    pub ranks: Option<u64>,

    /// Stages to run, of 1a,1b,2,3 [default: all of the recipe's]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub stages: Vec<String>,

    /// Folds that stage 2 and 3 hold out, one model each; all: a model that holds none out [default: the recipe's]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub folds: Vec<Fold>,

    /// Lay a value over the recipe, as in --set stage2.training.epochs=1; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl RecipeArguments {
    /// The recipe with its overlays; all of its faults at once where it has some.
    pub fn load(&self) -> anyhow::Result<Recipe> {
        if self.device == Some(Device::Cpu) && self.gpus.is_some() {
            return Err(exit::wrong_use(
                "`--gpus` and `--device cpu` exclude each other: write `--device cpu --ranks N` for N ranks on the CPU",
            ));
        }
        let default = || Some(Path::new(DEFAULT_FILE)).filter(|file| file.exists());
        let file = self.recipe.as_deref().or_else(default);
        Ok(match file {
            Some(file) => recipe::load(file, &self.overlays())?,
            None => {
                let built_in = Source {
                    name: "built-in recipe rsna2022".into(),
                    text: BUILT_IN.into(),
                };
                recipe::parse(&built_in, &self.overlays())?
            }
        })
    }

    /// Flags as `--set` overlays, after those that were written as such.
    fn overlays(&self) -> Vec<String> {
        let mut set = self.set.clone();
        if let Some(gpus) = self.gpus {
            set.push(format!("gpus={gpus}"));
        }
        let device = self.device.or(self.gpus.map(|_| Device::Cuda));
        if let Some(device) = device {
            set.push(format!("device={}", device.as_str()));
        }
        if let Some(ranks) = self.ranks {
            set.push(format!("ranks={ranks}"));
        }
        if !self.stages.is_empty() {
            // Rust's quoting of strings is YAML's as well, for all that a stage can be.
            set.push(format!("stages={:?}", self.stages));
        }
        if !self.folds.is_empty() {
            set.push(format!("folds=[{}]", self.listed_folds()));
        }
        set
    }

    fn listed_folds(&self) -> String {
        let folds: Vec<String> = self.folds.iter().map(Fold::to_string).collect();
        folds.join(",")
    }

    /// The arguments as they would be typed, for a script that calls this program again.
    pub fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        let mut option = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                words.extend([name.to_owned(), value]);
            }
        };
        option("--gpus", self.gpus.map(|n| n.to_string()));
        option(
            "--device",
            self.device.map(|device| device.as_str().to_owned()),
        );
        option("--ranks", self.ranks.map(|n| n.to_string()));
        option(
            "--stages",
            (!self.stages.is_empty()).then(|| self.stages.join(",")),
        );
        option(
            "--folds",
            (!self.folds.is_empty()).then(|| self.listed_folds()),
        );
        for set in &self.set {
            option("--set", Some(set.clone()));
        }
        if let Some(recipe) = &self.recipe {
            words.extend(["--".to_owned(), recipe.display().to_string()]);
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        recipe: RecipeArguments,
    }

    fn read(words: &[&str]) -> RecipeArguments {
        let words = ["spinectl"].iter().chain(words);
        Line::try_parse_from(words).unwrap().recipe
    }

    #[test]
    fn the_built_in_recipe_is_valid_and_has_the_published_numbers() {
        let recipe = read(&[]).load().unwrap();
        assert_eq!(recipe.stages, ["1a", "1b", "2", "3"]);
        let models = recipe.models("2");
        let models: Vec<_> = models
            .iter()
            .map(|m| (m.label, m.training.batch, m.training.seeds.len()))
            .collect();
        assert_eq!(
            models,
            [("resnest50d", 48, 6), ("seresnext50_32x4d", 48, 4)]
        );
        assert_eq!(recipe.folds, [Fold::All]);
        assert_eq!(recipe.data.exclude.len(), 2);
    }

    #[test]
    fn the_built_in_recipe_writes_only_what_is_the_default_anyway() {
        let text = "name: rsna2022\nseed: 2022\nfolds: [all]\nstage1a: {training: {seeds: [0, 1, 2], pretrained: \
                    weights/efficientnet_b1.safetensors}}\nstage1b: {training: {seeds: [0, 1, 2]}, models: [{arch: resnest50d, \
                    pretrained: weights/resnest50d.safetensors}, {arch: efficientnetv2_rw_m, pretrained: \
                    weights/efficientnetv2_rw_m.safetensors, epochs: 2, micro_batch: 1}]}\nstage2: {models: [{arch: resnest50d, \
                    pretrained: weights/resnest50d.safetensors, seeds: [0, 1, 2, 3, 4, 5]}, {arch: seresnext50_32x4d, \
                    pretrained: weights/seresnext50_32x4d.safetensors, seeds: [0, 1, 2, 3]}]}\nstage3: {}\ndata:\n  \
                    root: rsna-2022\n  workers: 4\n  cache: {limit_gb: 400}\n  \
                    exclude: [1.2.826.0.1.3680043.20574, 1.2.826.0.1.3680043.29952]\n";
        let source = Source {
            name: "short".into(),
            text: text.into(),
        };
        let short = recipe::parse(&source, &[]).unwrap();
        assert_eq!(read(&[]).load().unwrap(), short);
    }

    #[test]
    fn flags_win_over_set_and_over_the_recipe() {
        let arguments = read(&[
            "--set", "ranks=7", "--device", "cpu", "--ranks", "2", "--stages", "1b,1a", "--folds",
            "1,0",
        ]);
        let recipe = arguments.load().unwrap();
        assert_eq!(recipe.device, recipe::Device::Cpu);
        assert_eq!(recipe.ranks, 2);
        assert_eq!(recipe.stages, ["1a", "1b"]);
        assert_eq!(recipe.folds, [Fold::HeldOut(1), Fold::HeldOut(0)]);
        let on_gpus = read(&["--set", "device=cpu", "--gpus", "3"])
            .load()
            .unwrap();
        assert_eq!(
            (on_gpus.device, on_gpus.gpus),
            (recipe::Device::Cuda, Some(3))
        );
    }

    #[test]
    fn words_read_back_to_the_same_arguments() {
        let typed = [
            "--gpus",
            "4",
            "--stages",
            "1a,2",
            "--folds",
            "0,all",
            "--set",
            "a.b=c d",
            "--set",
            "x=[1, 2]",
            "my recipe.yaml",
        ];
        let arguments = read(&typed);
        let words = arguments.words();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        assert_eq!(format!("{:?}", read(&words)), format!("{arguments:?}"));
    }
}
