//! Recipe -> plan: which jobs there are and what each waits for.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::address::{self, digest};
use crate::{Fold, Inputs, JobId, JobKind, JobSpec, Plan, TrainStage};
use recipe::{Recipe, StartFrom, Training};

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
        fold: u64,
    },
    #[error("`{0}` cannot be part of a job's name: write the architecture's name as timm does")]
    Name(String),
    #[error(
        "stage3.training.arch is {stage3}, but no stage 2 model of that architecture is trained \
         (stage2.training.arch is {stage2}): stage 3 takes over stage 2's CNN, so write the same"
    )]
    FeatureArch { stage3: String, stage2: String },
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
    let every_fold: Vec<u64> = (0..recipe.data.folds).collect();
    let runs = |stage: &str| recipe.stages.iter().any(|chosen| chosen == stage);

    let labels = graph.add("labels", &[], JobKind::Labels)?;
    // The jobs that nothing else waits for yet.
    let mut last = vec![labels.clone()];

    let mut boxes = None;
    if let Some(stage) = recipe.stage1a.as_ref().filter(|_| runs("1a")) {
        let of = |_, _| {
            Ok(TrainStage::Stage1a {
                box_loss: stage.box_loss,
            })
        };
        let models = graph.train(
            &stage.training,
            &every_fold,
            std::slice::from_ref(&labels),
            of,
        )?;
        let merged = graph.add("study-boxes", &models, JobKind::StudyBoxes)?;
        last = vec![merged.clone()];
        boxes = Some(merged);
    }

    let mut ratios = None;
    if let Some(stage) = recipe.stage1b.as_ref().filter(|_| runs("1b")) {
        let needs = needed(&boxes, "1b", "1a")?;
        let of = |_, _| {
            Ok(TrainStage::Stage1b {
                sequence: stage.sequence.clone(),
                crop: stage.crop,
            })
        };
        let models = graph.train(&stage.training, &every_fold, &[needs], of)?;
        let merged = graph.add("slice-labels", &models, JobKind::SliceLabels)?;
        last = vec![merged.clone()];
        ratios = Some(merged);
    }

    let mut features = None;
    if let Some(stage) = recipe.stage2.as_ref().filter(|_| runs("2")) {
        let needs = needed(&ratios, "2", "1b")?;
        let of = |_, _| {
            Ok(TrainStage::Stage2 {
                sequence: stage.sequence.clone(),
            })
        };
        last = graph.train(&stage.training, &recipe.folds, &[needs], of)?;
        features = Some(stage);
    }

    if let Some(stage) = recipe.stage3.as_ref().filter(|_| runs("3")) {
        let Some(stage2) = features else {
            return Err(PlanError::MissingStage {
                stage: "3",
                needs: "2",
            });
        };
        if stage.training.arch != stage2.training.arch {
            return Err(PlanError::FeatureArch {
                stage3: stage.training.arch.clone(),
                stage2: stage2.training.arch.clone(),
            });
        }
        // One study model for each stage-2 model: its seeds are stage 2's.
        let training = Training {
            seeds: stage2.training.seeds.clone(),
            ..stage.training.clone()
        };
        let of = |fold, seed| {
            let features = train_id("stage2", &stage2.training.arch, fold, seed)?;
            Ok(TrainStage::Stage3 {
                study: stage.study.clone(),
                features,
            })
        };
        last = graph.train(&training, &recipe.folds, &[], of)?;
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

fn train_id(stage: &str, arch: &str, fold: u64, seed: u64) -> Result<JobId, PlanError> {
    JobId::new(&format!("{stage}-{arch}-fold{fold}-seed{seed}"))
        .ok_or_else(|| PlanError::Name(arch.to_owned()))
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

    /// One job for each fold and seed; stage 3 also needs the model that it takes its CNN from.
    fn train(
        &mut self,
        training: &Training,
        folds: &[u64],
        needs: &[JobId],
        stage: impl Fn(u64, u64) -> Result<TrainStage, PlanError>,
    ) -> Result<Vec<JobId>, PlanError> {
        let mut ids = Vec::new();
        for &fold in folds {
            for &seed in &training.seeds {
                let stage = stage(fold, seed)?;
                let id = train_id(stage.name(), &training.arch, fold, seed)?;
                let mut needs = needs.to_vec();
                if let TrainStage::Stage3 { features, .. } = &stage {
                    needs.push(features.clone());
                }
                let start = self.start(training, fold, seed)?;
                needs.extend(start.clone());
                let kind = JobKind::Train {
                    stage,
                    fold: Fold(fold),
                    seed,
                    training: Box::new(training.clone()),
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

    /// The model of the same fold, and of the same seed where there is one, that the weights start from.
    fn start(&self, training: &Training, fold: u64, seed: u64) -> Result<Option<JobId>, PlanError> {
        let stage = match training.start_from {
            StartFrom::Random => return Ok(None),
            StartFrom::Stage1a => "stage1a",
            StartFrom::Stage1b => "stage1b",
        };
        let same = train_id(stage, &training.arch, fold, seed)?;
        let any = format!("{stage}-{}-fold{fold}-", training.arch);
        let mut ids = self.jobs.iter().map(|job| &job.id);
        let found = ids.clone().find(|id| **id == same);
        let found = found.or_else(|| ids.find(|id| id.as_str().starts_with(&any)));
        found.cloned().map(Some).ok_or(PlanError::NoStart {
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
