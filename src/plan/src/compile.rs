//! Recipe -> plan: which jobs there are and what each waits for.

use std::collections::BTreeMap;
use std::path::PathBuf;

use recipe::{Recipe, StageModel, StartFrom, Training};

use crate::address::{self, digest};
use crate::{Fold, Inputs, JobId, JobKind, JobSpec, Plan, TrainStage};

/// A recipe that is valid in itself but makes no graph.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error(
        "stage {stage} needs the tables of stage {needs}, which this recipe does not run: \
         add stage {needs} to `stages`; in a run directory that has them already they are not run again"
    )]
    MissingStage {
        stage: &'static str,
        needs: &'static str,
    },
    #[error(
        "start_from: {stage} asks for a CNN of {arch} that {stage} trains on fold {fold}, and there is none: train \
         {stage} with that arch, or start from random weights"
    )]
    NoStart {
        stage: &'static str,
        arch: String,
        fold: Fold,
    },
    #[error("`{0}` cannot be part of a job's name: write the architecture's name as timm does")]
    Name(String),
    #[error(
        "stage 3's {model} takes over a CNN of stage 2, and there is none of that name, architecture and seeds: stage 2 has \
         {stage2}"
    )]
    Features { model: String, stage2: String },
    #[error("cannot hash job {job}: {source}")]
    Hash {
        job: String,
        #[source]
        source: serde_json::Error,
    },
}

/// What is known of the files that a recipe names.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// SHA-256 of files of weights, by their paths as the recipe writes them.
    pub weights: BTreeMap<PathBuf, String>,
    /// What the data set holds; none where nobody has looked.
    pub inputs: Option<Inputs>,
}

/// Compiles a recipe into its graph of jobs, in an order in which they can run.
pub fn compile(recipe: &Recipe) -> Result<Plan, PlanError> {
    compile_with(recipe, &Files::default())
}

/// As [`compile`]; a job depends on the contents of what it reads where `files` knows them, else on the paths.
pub fn compile_with(recipe: &Recipe, files: &Files) -> Result<Plan, PlanError> {
    let mut graph = Graph {
        recipe,
        files,
        jobs: Vec::new(),
    };
    let every_fold: Vec<Fold> = (0..recipe.data.folds).map(Fold::HeldOut).collect();
    let runs = |stage: &str| recipe.stages.iter().any(|chosen| chosen == stage);

    let labels = graph.add("labels", &[], JobKind::Labels)?;
    // The jobs that nothing else waits for yet.
    let mut last = vec![labels.clone()];

    let mut boxes = None;
    if let Some(stage) = recipe.stage1a.as_ref().filter(|_| runs("1a")) {
        let of = |_: &str, _, _| {
            Ok(TrainStage::Stage1a {
                box_loss: stage.box_loss,
            })
        };
        let needs = std::slice::from_ref(&labels);
        let models = graph.train(&recipe.models("1a"), &every_fold, needs, of)?;
        let merged = graph.add("study-boxes", &models, JobKind::StudyBoxes)?;
        last = vec![merged.clone()];
        boxes = Some(merged);
    }

    let mut ratios = None;
    if let Some(stage) = recipe.stage1b.as_ref().filter(|_| runs("1b")) {
        let needs = needed(&boxes, "1b", "1a")?;
        let of = |_: &str, _, _| {
            Ok(TrainStage::Stage1b {
                sequence: stage.sequence.clone(),
                crop: stage.crop,
            })
        };
        let models = graph.train(&recipe.models("1b"), &every_fold, &[needs], of)?;
        let merged = graph.add("slice-labels", &models, JobKind::SliceLabels)?;
        last = vec![merged.clone()];
        ratios = Some(merged);
    }

    if let Some(stage) = recipe.stage2.as_ref().filter(|_| runs("2")) {
        let needs = needed(&ratios, "2", "1b")?;
        let of = |_: &str, _, _| {
            Ok(TrainStage::Stage2 {
                sequence: stage.sequence.clone(),
            })
        };
        last = graph.train(&recipe.models("2"), &recipe.folds, &[needs], of)?;
    }

    if let Some(stage) = recipe.stage3.as_ref().filter(|_| runs("3")) {
        if recipe.stage2.is_none() || !runs("2") {
            return Err(PlanError::MissingStage {
                stage: "3",
                needs: "2",
            });
        }
        let models = recipe.models("3");
        check_features(&models, &recipe.models("2"))?;
        let of = |model: &str, fold, seed| {
            let features = train_id("stage2", model, fold, seed)?;
            Ok(TrainStage::Stage3 {
                study: stage.study.clone(),
                features,
            })
        };
        let studies = graph.train(&models, &recipe.folds, &[], of)?;
        // Stage 3's own list of models may leave some CNNs out.
        let is_needed = |id: &JobId| graph.jobs.iter().any(|job| job.needs.contains(id));
        last.retain(|id| !is_needed(id));
        last.extend(studies);
    }
    graph.add("summary", &last, JobKind::Summary)?;

    let jobs = graph.jobs;
    let hash = digest(jobs.iter().map(|job| job.hash.as_bytes()));
    Ok(Plan {
        name: recipe.name.clone(),
        hash,
        addresses: address::ADDRESSES,
        inputs: files.inputs.clone(),
        data: recipe.data.clone(),
        checkpoint: recipe.checkpoint.clone(),
        private: recipe.private,
        logs: recipe.logs.clone(),
        tensorboard: recipe.tensorboard.clone(),
        seed: recipe.seed,
        retries: recipe.retries,
        back_off: recipe.back_off,
        stall_timeout: recipe.stall_timeout,
        replica_check: recipe.replica_check,
        elastic: recipe.elastic,
        jobs,
    })
}

fn needed(
    job: &Option<JobId>,
    stage: &'static str,
    needs: &'static str,
) -> Result<JobId, PlanError> {
    job.clone().ok_or(PlanError::MissingStage { stage, needs })
}

fn train_id(stage: &str, model: &str, fold: Fold, seed: u64) -> Result<JobId, PlanError> {
    JobId::new(&format!("{stage}-{model}-fold{fold}-seed{seed}"))
        .ok_or_else(|| PlanError::Name(model.to_owned()))
}

/// Whether each model of stage 3 has the one of stage 2 whose CNN it takes over.
fn check_features(models: &[StageModel], below: &[StageModel]) -> Result<(), PlanError> {
    let has_cnn = |model: &&StageModel| {
        below.iter().any(|cnn| {
            let same = cnn.label == model.label && cnn.training.arch == model.training.arch;
            same && cnn.training.seeds == model.training.seeds
        })
    };
    match models.iter().find(|model| !has_cnn(model)) {
        None => Ok(()),
        Some(model) => {
            let below: Vec<&str> = below.iter().map(|cnn| cnn.label).collect();
            Err(PlanError::Features {
                model: model.label.to_owned(),
                stage2: below.join(", "),
            })
        }
    }
}

struct Graph<'a> {
    recipe: &'a Recipe,
    files: &'a Files,
    jobs: Vec<JobSpec>,
}

impl Graph<'_> {
    fn add(&mut self, id: &str, needs: &[JobId], kind: JobKind) -> Result<JobId, PlanError> {
        let id = JobId::new(id).ok_or_else(|| PlanError::Name(id.to_owned()))?;
        // Every job reads the tables of the first: where that one is done again and others are kept, none reads an old table.
        let mut needs = needs.to_vec();
        let labels = self.jobs.first().map(|labels| labels.id.clone());
        needs.extend(labels.filter(|labels| !needs.contains(labels)));
        let hash = self.hash(&id, &needs, &kind)?;
        self.jobs.push(JobSpec {
            id: id.clone(),
            hash,
            needs,
            kind,
        });
        Ok(id)
    }

    /// One job for each model, fold and seed; stage 3 also needs the model that it takes its CNN from.
    fn train(
        &mut self,
        models: &[StageModel],
        folds: &[Fold],
        needs: &[JobId],
        stage: impl Fn(&str, Fold, u64) -> Result<TrainStage, PlanError>,
    ) -> Result<Vec<JobId>, PlanError> {
        let mut ids = Vec::new();
        for StageModel {
            label, training, ..
        } in models
        {
            let every = |fold: Fold| training.seeds.iter().map(move |seed| (fold, *seed));
            for (fold, seed) in folds.iter().copied().flat_map(every) {
                let stage = stage(label, fold, seed)?;
                let id = train_id(stage.name(), label, fold, seed)?;
                let mut needs = needs.to_vec();
                if let TrainStage::Stage3 { features, .. } = &stage {
                    needs.push(features.clone());
                }
                let start = self.start(label, training, fold, seed)?;
                needs.extend(start.clone());
                let kind = JobKind::Train {
                    stage,
                    fold,
                    seed,
                    training: Box::new((*training).clone()),
                    start,
                    pretrained_sha256: self.pretrained(training),
                };
                ids.push(self.add(id.as_str(), &needs, kind)?);
            }
        }
        Ok(ids)
    }

    /// The hash of the file that the weights start from.
    fn pretrained(&self, training: &Training) -> Option<String> {
        self.files
            .weights
            .get(training.pretrained.as_ref()?)
            .cloned()
    }

    /// The model that the weights start from: of the same architecture and fold, and where there are several rather the one of
    /// the same name and seed. What holds nothing out may start from any fold, and does from the first.
    fn start(
        &self,
        label: &str,
        training: &Training,
        fold: Fold,
        seed: u64,
    ) -> Result<Option<JobId>, PlanError> {
        let stage = match training.start_from {
            StartFrom::Random => return Ok(None),
            StartFrom::Stage1a => "stage1a",
            StartFrom::Stage1b => "stage1b",
        };
        let fits = |job: &&JobSpec| match &job.kind {
            JobKind::Train {
                stage: of,
                fold: held_out,
                training: theirs,
                ..
            } => {
                let same_fold = fold == Fold::All || *held_out == fold;
                of.name() == stage && theirs.arch == training.arch && same_fold
            }
            _ => false,
        };
        let differs = |job: &&JobSpec| {
            let same_seed = matches!(&job.kind, JobKind::Train { seed: of, .. } if *of == seed);
            (job.model() != Some(label), !same_seed)
        };
        let found = self.jobs.iter().filter(fits).min_by_key(differs);
        found
            .map(|job| Some(job.id.clone()))
            .ok_or(PlanError::NoStart {
                stage,
                arch: training.arch.clone(),
                fold,
            })
    }

    /// What a job's outcome depends on: its settings, the seed, what it reads of the data set, the jobs that it needs.
    fn hash(&self, id: &JobId, needs: &[JobId], kind: &JobKind) -> Result<String, PlanError> {
        let needed = self.jobs.iter().filter(|job| needs.contains(&job.id));
        let job = address::Job {
            kind,
            seed: self.recipe.seed,
            data: &self.recipe.data,
            inputs: self.files.inputs.as_ref(),
            needs: needed.collect(),
        };
        address::address(&job).map_err(|source| PlanError::Hash {
            job: id.to_string(),
            source,
        })
    }
}

#[cfg(test)]
mod tests;
