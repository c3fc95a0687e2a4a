//! Weights that cross folds: a model that starts from, or builds on, one that was trained on what it holds out itself.

use std::collections::BTreeMap;

use crate::{Fold, JobId, JobKind, JobSpec, Plan, TrainStage};

/// A job takes weights from one that holds out another fold, or nothing: it would predict studies that those weights have seen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{job} {} and takes the weights of {from}, which {}", in_words(Some(*fold)), in_words(*held_out))]
pub struct WeightsLeak {
    pub job: JobId,
    pub fold: Fold,
    pub from: JobId,
    /// What the other one holds out; none where it is no training job of the plan.
    pub held_out: Option<Fold>,
}

fn in_words(fold: Option<Fold>) -> String {
    match fold {
        Some(Fold::HeldOut(fold)) => format!("holds out fold {fold}"),
        Some(Fold::All) => "is trained on every study".to_owned(),
        None => "is no training job of the plan".to_owned(),
    }
}

/// All of them, in the plan's order. A compiled plan has none; one that was written or changed by hand may.
pub fn weights_across_folds(plan: &Plan) -> Vec<WeightsLeak> {
    let fold = |job: &JobSpec| match &job.kind {
        JobKind::Train { fold, .. } => Some((job.id.clone(), *fold)),
        _ => None,
    };
    let folds: BTreeMap<JobId, Fold> = plan.jobs.iter().filter_map(fold).collect();
    let mut leaks = Vec::new();
    for job in &plan.jobs {
        let JobKind::Train {
            fold, start, stage, ..
        } = &job.kind
        else {
            continue;
        };
        let features = match stage {
            TrainStage::Stage3 { features, .. } => Some(features),
            _ => None,
        };
        for from in start.iter().chain(features) {
            let held_out = folds.get(from).copied();
            // What holds nothing out predicts nothing out of fold: it may build on any model.
            let leaks_nothing = match held_out {
                Some(_) if *fold == Fold::All => true,
                held_out => held_out == Some(*fold),
            };
            if !leaks_nothing {
                leaks.push(WeightsLeak {
                    job: job.id.clone(),
                    fold: *fold,
                    from: from.clone(),
                    held_out,
                });
            }
        }
    }
    leaks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile;

    fn plan() -> Plan {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/demo.yaml");
        let recipe = recipe::load(std::path::Path::new(path), &[]).unwrap();
        compile(&recipe).unwrap()
    }

    #[test]
    fn a_compiled_plan_keeps_weights_in_their_fold() {
        assert_eq!(weights_across_folds(&plan()), []);
    }

    #[test]
    fn a_cnn_of_another_fold_is_named() {
        let other = |id: &JobId| JobId::new(&id.as_str().replace("fold0", "fold1")).unwrap();
        let mut plan = plan();
        for job in &mut plan.jobs {
            let JobKind::Train { stage, start, .. } = &mut job.kind else {
                continue;
            };
            match (job.id.as_str(), stage) {
                ("stage3-resnest14d-fold0-seed0", TrainStage::Stage3 { features, .. }) => {
                    *features = other(features);
                }
                ("stage2-resnest14d-fold0-seed0", _) => *start = start.as_ref().map(other),
                _ => {}
            }
        }
        let leaks: Vec<String> = weights_across_folds(&plan)
            .iter()
            .map(WeightsLeak::to_string)
            .collect();
        assert_eq!(
            leaks,
            [
                "stage2-resnest14d-fold0-seed0 holds out fold 0 and takes the weights of \
                 stage1b-resnest14d-fold1-seed0, which holds out fold 1",
                "stage3-resnest14d-fold0-seed0 holds out fold 0 and takes the weights of \
                 stage2-resnest14d-fold1-seed0, which holds out fold 1",
            ]
        );
        plan.jobs
            .retain(|job| !job.id.as_str().starts_with("stage1b"));
        let gone = weights_across_folds(&plan);
        assert!(
            gone.iter()
                .any(|leak| leak.to_string().contains("no training job")),
            "{gone:?}"
        );
    }
}
