//! Recipe -> plan: which jobs there are and what each waits for.

use std::collections::BTreeMap;
use std::path::PathBuf;

use recipe::{Recipe, StartFrom, Training};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::{Fold, JobId, JobKind, JobSpec, Plan, TrainStage};

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

/// SHA-256 of files that a recipe names, by their paths as it writes them.
pub type FileHashes = BTreeMap<PathBuf, String>;

/// Compiles a recipe into its graph of jobs, in an order in which they can run.
pub fn compile(recipe: &Recipe) -> Result<Plan, PlanError> {
    compile_with(recipe, &FileHashes::new())
}

/// As [`compile`]; a job that starts from a file's weights depends on the file's contents where `files` has its hash,
/// else on its path.
pub fn compile_with(recipe: &Recipe, files: &FileHashes) -> Result<Plan, PlanError> {
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

fn train_id(stage: &str, arch: &str, fold: u64, seed: u64) -> Result<JobId, PlanError> {
    JobId::new(&format!("{stage}-{arch}-fold{fold}-seed{seed}"))
        .ok_or_else(|| PlanError::Name(arch.to_owned()))
}

struct Graph<'a> {
    recipe: &'a Recipe,
    files: &'a FileHashes,
    jobs: Vec<JobSpec>,
}

impl Graph<'_> {
    fn add(&mut self, id: &str, needs: &[JobId], kind: JobKind) -> Result<JobId, PlanError> {
        let id = JobId::new(id).ok_or_else(|| PlanError::Name(id.to_owned()))?;
        let hash = self.hash(&id, needs, &kind)?;
        self.jobs.push(JobSpec {
            id: id.clone(),
            hash,
            needs: needs.to_vec(),
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
        self.files.get(training.pretrained.as_ref()?).cloned()
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

    /// What a job's outcome depends on: its settings, the data settings, the seed, its inputs.
    fn hash(&self, id: &JobId, needs: &[JobId], kind: &JobKind) -> Result<String, PlanError> {
        #[derive(Serialize)]
        struct Content<'a> {
            kind: &'a JobKind,
            data: &'a recipe::Data,
            seed: u64,
            inputs: Vec<&'a str>,
        }
        // Worker threads, memory and the cache change the speed, not the outcome. How much is read beforehand decides which
        // studies are left out, where bad ones are.
        let data = recipe::Data {
            workers: 0,
            memory_mb: 0,
            prefetch_mb: 0,
            check: match self.recipe.data.bad_study {
                recipe::BadStudy::Stop => recipe::Check::Headers,
                recipe::BadStudy::LeaveOut => self.recipe.data.check,
            },
            cache: recipe::Cache::default(),
            ..self.recipe.data.clone()
        };
        // Other seeds are other jobs, and how often a model is evaluated does not change it, nor where it is trained.
        let mut kind = kind.clone();
        if let JobKind::Train {
            training,
            pretrained_sha256,
            ..
        } = &mut kind
        {
            training.seeds.clear();
            training.evaluate_every = 0;
            training.gpus = recipe::Gpus::All;
            // The same weights in another place are the same weights.
            if pretrained_sha256.is_some() {
                training.pretrained = None;
            }
        }
        let content = Content {
            kind: &kind,
            data: &data,
            seed: self.recipe.seed,
            inputs: self
                .jobs
                .iter()
                .filter(|job| needs.contains(&job.id))
                .map(|job| job.hash.as_str())
                .collect(),
        };
        let json = serde_json::to_vec(&content).map_err(|source| PlanError::Hash {
            job: id.to_string(),
            source,
        })?;
        Ok(digest([json.as_slice()]))
    }
}

fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests;
