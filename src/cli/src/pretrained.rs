//! The files of weights that a recipe starts from: looked at before anything starts.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use recipe::{Recipe, StageModel};

use crate::{exit, run_command};

/// The Hugging Face Hub's names of timm's own weights, as timm's table of models gives them.
const HUB: [(&str, &str); 9] = [
    ("efficientnet_b0", "timm/efficientnet_b0.ra_in1k"),
    ("efficientnet_b1", "timm/efficientnet_b1.ft_in1k"),
    ("efficientnetv2_rw_m", "timm/efficientnetv2_rw_m.agc_in1k"),
    ("efficientnetv2_rw_s", "timm/efficientnetv2_rw_s.ra2_in1k"),
    ("resnest14d", "timm/resnest14d.gluon_in1k"),
    ("resnest26d", "timm/resnest26d.gluon_in1k"),
    ("resnest50d", "timm/resnest50d.in1k"),
    ("seresnext26d_32x4d", "timm/seresnext26d_32x4d.bt_in1k"),
    ("seresnext50_32x4d", "timm/seresnext50_32x4d.racm_in1k"),
];

/// Writes an architecture's published weights, without the classifier, to a file.
const WRITE: &str = "import os, sys, timm, safetensors.torch as s; \
                     os.makedirs(os.path.dirname(sys.argv[2]) or \".\", exist_ok=True); \
                     m = timm.create_model(sys.argv[1], pretrained=True, num_classes=0); \
                     s.save_file(m.state_dict(), sys.argv[2], {\"format\": \"pt\"})";

/// What a look at the files found.
#[derive(Debug, Default)]
pub struct Pretrained {
    /// SHA-256 of the files that are as they should be.
    pub hashes: BTreeMap<PathBuf, String>,
    /// What is wrong with the others.
    faults: Vec<String>,
}

impl Pretrained {
    /// Looks at the file of every model that will be trained. None of them needs to be there to show a plan.
    pub fn look(recipe: &Recipe) -> Self {
        // Stages may share a file.
        let mut users: BTreeMap<(&Path, &str), Vec<String>> = BTreeMap::new();
        let models = recipe.stages.iter().flat_map(|stage| recipe.models(stage));
        for StageModel {
            path: key,
            training,
            ..
        } in models
        {
            if let Some(path) = &training.pretrained {
                let user = (path.as_path(), training.arch.as_str());
                users
                    .entry(user)
                    .or_default()
                    .push(format!("{key}.pretrained"));
            }
        }
        let mut looked = Pretrained::default();
        for ((path, arch), keys) in users {
            let sha256 = check(path, arch)
                .and_then(|()| checkpoint::file_sha256(path).map_err(|error| error.to_string()));
            match sha256 {
                Ok(sha256) => {
                    looked.hashes.insert(path.to_owned(), sha256);
                }
                Err(fault) => looked.faults.push(format!(
                    "{}: {fault}\nOr start from random weights: {}",
                    keys.join(", "),
                    cleared(&keys)
                )),
            }
        }
        looked
    }

    /// An error that tells all faults where there are some.
    pub fn require(&self) -> anyhow::Result<()> {
        match self.faults.is_empty() {
            true => Ok(()),
            false => Err(exit::wrong_use(self.faults.join("\n\n"))),
        }
    }
}

/// Whether the file may hold weights of this architecture, by its header alone.
fn check(path: &Path, arch: &str) -> Result<(), String> {
    let specs = match checkpoint::safetensors_specs(path) {
        Err(checkpoint::Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            return Err(absent(path, arch));
        }
        specs => specs.map_err(|error| error.to_string())?,
    };
    match checkpoint::other_architecture(&specs, arch) {
        None => Ok(()),
        Some(theirs) => Err(format!(
            "{} holds weights of {theirs}, and `arch` is {arch}: name the file that belongs to it",
            path.display()
        )),
    }
}

/// Says how to get a file that is not there.
fn absent(path: &Path, arch: &str) -> String {
    let hub = HUB.iter().find(|(known, _)| *known == arch);
    let hub = hub.map_or_else(String::new, |(_, name)| {
        format!("\nThe file model.safetensors of https://huggingface.co/{name} does as well.")
    });
    let shown = path.display().to_string();
    let python = run_command::command(&["python", "-c", WRITE, arch, &shown].map(String::from));
    format!(
        "there is no file {shown}, and nothing is downloaded here. Where there is a network, timm writes it:\n  \
         {python}{hub}"
    )
}

fn cleared(keys: &[String]) -> String {
    let words: Vec<String> = keys.iter().map(|key| format!("--set {key}=")).collect();
    words.join(" ")
}
