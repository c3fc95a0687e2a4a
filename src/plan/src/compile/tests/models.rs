//! Several models a stage, and the fold `all`.

use std::path::PathBuf;

use super::*;
use crate::weights_across_folds;

/// Two models of stage 1b and 2 beside one localizer; stage 2 and 3 hold out each of two folds, and nothing.
fn several(set: &[&str]) -> Result<Plan, PlanError> {
    let text = "\
data: {root: d, folds: 2}
folds: [0, 1, all]
stage1a: {training: {arch: resnest14d}}
stage1b: {models: [{arch: resnest14d}, {arch: resnest26d, seeds: [0, 1]}]}
stage2:
  training: {start_from: stage1b, seeds: [0, 1]}
  models: [{arch: resnest14d}, {arch: resnest26d, image_size: 256}]
stage3: {}
";
    let set: Vec<String> = set.iter().map(|s| (*s).to_owned()).collect();
    let source = Source {
        name: "r".into(),
        text: text.into(),
    };
    compile(&parse(&source, &set).unwrap())
}

fn ids(plan: &Plan, stage: &str) -> Vec<String> {
    let ids = plan.jobs.iter().map(|job| job.id.to_string());
    ids.filter(|id| id.starts_with(stage)).collect()
}

#[test]
fn each_model_has_a_job_for_each_fold_and_seed() {
    let plan = several(&[]).unwrap();
    let count = |stage| ids(&plan, stage).len();
    // Stage 1 holds out each fold, and never nothing: its tables are out of fold.
    assert_eq!((count("stage1a-"), count("stage1b-")), (2, 2 + 4));
    assert_eq!((count("stage2-"), count("stage3-")), (2 * 3 * 2, 2 * 3 * 2));
    for id in [
        "stage2-resnest26d-fold1-seed1",
        "stage3-resnest14d-foldall-seed0",
    ] {
        assert!(
            plan.job(id).is_some(),
            "no {id} in {:?}",
            ids(&plan, "stage")
        );
    }
    assert!(!ids(&plan, "stage1").iter().any(|id| id.contains("all")));
    let merged = &plan.job("slice-labels").unwrap().needs;
    assert_eq!(merged.len(), 6, "the mean over all models");
    let summary = &plan.job("summary").unwrap().needs;
    assert_eq!(summary.len(), 12);
}

#[test]
fn a_job_has_its_own_models_settings() {
    let plan = several(&[]).unwrap();
    let side = |id: &str| plan.job(id).unwrap().kind.training().unwrap().image_size;
    assert_eq!(side("stage2-resnest14d-fold0-seed0"), 512);
    assert_eq!(side("stage2-resnest26d-fold0-seed0"), 256);
    let features = |id: &str| match &plan.job(id).unwrap().kind {
        JobKind::Train {
            stage: TrainStage::Stage3 { features, .. },
            ..
        } => features.to_string(),
        other => panic!("{other:?}"),
    };
    for end in ["resnest26d-fold1-seed1", "resnest14d-foldall-seed0"] {
        assert_eq!(features(&format!("stage3-{end}")), format!("stage2-{end}"));
    }
    let model = |id: &str| plan.job(id).unwrap().model().map(str::to_owned);
    assert_eq!(
        model("stage2-resnest26d-foldall-seed1").as_deref(),
        Some("resnest26d")
    );
    assert_eq!(model("labels"), None);
}

#[test]
fn the_summary_waits_for_models_that_stage_3_leaves_out() {
    let plan = several(&["stage3.models=[{arch: resnest26d}]"]).unwrap();
    assert_eq!(ids(&plan, "stage3").len(), 6);
    let summary = &plan.job("summary").unwrap().needs;
    let has = |id: &str| summary.iter().any(|need| need.as_str() == id);
    assert!(has("stage2-resnest14d-fold0-seed0") && !has("stage2-resnest26d-fold0-seed0"));
    assert!(has("stage3-resnest26d-foldall-seed1"));
    assert_eq!(summary.len(), 12);
}

#[test]
fn weights_come_from_the_same_model_fold_and_seed() {
    let plan = several(&[]).unwrap();
    assert_eq!(weights_across_folds(&plan), []);
    let start = |id: &str| match &plan.job(id).unwrap().kind {
        JobKind::Train { start, .. } => start.as_ref().unwrap().to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        start("stage2-resnest26d-fold1-seed1"),
        "stage1b-resnest26d-fold1-seed1"
    );
    // There is no second seed of that one, and what holds nothing out has no fold.
    assert_eq!(
        start("stage2-resnest14d-fold1-seed1"),
        "stage1b-resnest14d-fold1-seed0"
    );
    assert_eq!(
        start("stage2-resnest26d-foldall-seed1"),
        "stage1b-resnest26d-fold0-seed1"
    );
    let named = several(&[
        "stage1b.models=[{arch: resnest14d}, {arch: resnest26d}, {arch: resnest26d, name: b}]",
        "stage2.models.1.name=b",
    ]);
    let named = named.unwrap();
    let needs = &named.job("stage2-b-fold0-seed1").unwrap().needs;
    assert!(
        needs
            .iter()
            .any(|id| id.as_str() == "stage1b-b-fold0-seed0"),
        "{needs:?}"
    );
}

#[test]
fn one_more_model_or_fold_leaves_the_others_alone() {
    let before = several(&["folds=[0]", "stage2.models=[{arch: resnest14d}]"]).unwrap();
    let after = several(&[]).unwrap();
    for job in before.jobs.iter().filter(|job| job.kind.is_training()) {
        assert_eq!(
            after.job(job.id.as_str()).unwrap().hash,
            job.hash,
            "{}",
            job.id
        );
    }
    // A list of one model is that model.
    let listed = several(&[
        "stage1b.models=[{arch: resnest14d}]",
        "stage2.training.start_from=random",
    ]);
    let plain = several(&[
        "stage1b.models=",
        "stage1b.training.arch=resnest14d",
        "stage2.training.start_from=random",
    ]);
    assert_eq!(listed.unwrap(), plain.unwrap());
}

#[test]
fn a_held_out_fold_that_builds_on_a_model_of_all_studies_is_a_leak() {
    let mut plan = several(&[]).unwrap();
    for job in &mut plan.jobs {
        if let JobKind::Train {
            stage: TrainStage::Stage3 { features, .. },
            ..
        } = &mut job.kind
            && job.id.as_str() == "stage3-resnest14d-fold1-seed0"
        {
            *features = JobId::new("stage2-resnest14d-foldall-seed0").unwrap();
        }
    }
    let leaks: Vec<String> = weights_across_folds(&plan)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        leaks,
        [
            "stage3-resnest14d-fold1-seed0 holds out fold 1 and takes the weights of stage2-resnest14d-foldall-seed0, which is \
             trained on every study"
        ]
    );
    plan.jobs
        .retain(|job| job.id.as_str() != "stage2-resnest26d-foldall-seed0");
    let leaks: Vec<String> = weights_across_folds(&plan)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(
        leaks[1].starts_with(
            "stage3-resnest26d-foldall-seed0 is trained on every study and takes the weights of"
        ) && leaks[1].ends_with("which is no training job of the plan"),
        "{leaks:?}"
    );
}

#[test]
fn a_plan_reads_back_with_its_folds() {
    let plan = several(&[]).unwrap();
    let json = serde_json::to_string(&plan).unwrap();
    assert!(json.contains("\"fold\":0") && json.contains("\"fold\":\"all\""));
    assert_eq!(serde_json::from_str::<Plan>(&json).unwrap(), plan);
}

fn config(name: &str, set: &[&str]) -> Plan {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs")).join(name);
    let set: Vec<String> = set.iter().map(|s| (*s).to_owned()).collect();
    compile(&recipe::load(&path, &set).unwrap()).unwrap()
}

#[test]
fn the_published_recipe_trains_ten_models_on_every_study() {
    let plan = config("rsna2022.yaml", &[]);
    let of = |prefix: &str| ids(&plan, prefix).len();
    assert_eq!(
        (
            of("stage1a-efficientnet_b1-"),
            of("stage1b-resnest50d-"),
            of("stage1b-efficientnetv2_rw_m-")
        ),
        (15, 15, 15)
    );
    for stage in ["stage2", "stage3"] {
        assert_eq!(of(&format!("{stage}-resnest50d-foldall-seed")), 6);
        assert_eq!(of(&format!("{stage}-seresnext50_32x4d-foldall-seed")), 4);
        assert_eq!(of(stage), 10);
    }
    let folds = config("rsna2022.yaml", &["folds=[0, 1, 2, 3, 4, all]"]);
    assert_eq!(ids(&folds, "stage2").len(), 60);
    for job in &plan.jobs {
        let same = folds.job(job.id.as_str()).unwrap();
        assert!(
            same.hash == job.hash || job.kind == JobKind::Summary,
            "{}",
            job.id
        );
    }
}

#[test]
fn the_small_recipe_trains_one_model_of_each_stage_on_one_gpu() {
    let plan = config("rsna2022-small.yaml", &[]);
    assert_eq!(plan.name, "rsna2022-small");
    assert_eq!(ids(&plan, "stage1a").len(), 5);
    assert_eq!(ids(&plan, "stage1b").len(), 5);
    assert_eq!(ids(&plan, "stage2"), ["stage2-resnest50d-fold0-seed0"]);
    assert_eq!(ids(&plan, "stage3"), ["stage3-resnest50d-fold0-seed0"]);
    for job in plan.jobs.iter().filter(|job| job.kind.is_training()) {
        let training = job.kind.training().unwrap();
        assert!(crate::spread(training, 1, None).is_ok(), "{}", job.id);
    }
}
