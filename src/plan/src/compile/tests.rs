use super::*;
use recipe::{Source, parse};

mod models;

fn plan(set: &[&str]) -> Result<Plan, PlanError> {
    let text = "data: {root: d, folds: 2}\nstage1a: {training: {arch: resnest14d}}\nstage1b: {training: {arch: resnest14d}}\nstage2: {training: {arch: resnest14d, seeds: [0, 1]}}\nstage3: {training: {arch: resnest14d}}\n";
    let set: Vec<String> = set.iter().map(|s| (*s).to_owned()).collect();
    compile(
        &parse(
            &Source {
                name: "r".into(),
                text: text.into(),
            },
            &set,
        )
        .unwrap(),
    )
}

#[test]
fn each_job_comes_after_what_it_needs() {
    let plan = plan(&[]).unwrap();
    for (i, job) in plan.jobs.iter().enumerate() {
        for need in &job.needs {
            assert!(
                plan.jobs[..i].iter().any(|earlier| earlier.id == *need),
                "{}",
                job.id
            );
        }
    }
    // labels, 2 x 1a, boxes, 2 x 1b, labels, 4 x 2, 4 x 3, summary
    assert_eq!(plan.jobs.len(), 1 + 2 + 1 + 2 + 1 + 4 + 4 + 1);
}

#[test]
fn a_study_model_takes_the_cnn_of_its_own_fold_and_seed() {
    let plan = plan(&[]).unwrap();
    let job = plan.job("stage3-resnest14d-fold1-seed1").unwrap();
    assert_eq!(job.needs.len(), 2);
    assert_eq!(job.needs[0].as_str(), "stage2-resnest14d-fold1-seed1");
}

#[test]
fn a_changed_setting_changes_the_hashes_of_its_descendants_only() {
    let (before, after) = (
        plan(&[]).unwrap(),
        plan(&["stage2.training.epochs=9"]).unwrap(),
    );
    for (a, b) in before.jobs.iter().zip(&after.jobs) {
        let descends = ["stage2", "stage3", "summary"]
            .iter()
            .any(|prefix| a.id.as_str().starts_with(prefix));
        assert_eq!(a.hash != b.hash, descends, "{}", a.id);
    }
    assert_ne!(before.hash, after.hash);
}

#[test]
fn one_more_seed_leaves_the_other_models_alone() {
    let (before, after) = (
        plan(&[]).unwrap(),
        plan(&["stage2.training.seeds=[0, 1, 2]"]).unwrap(),
    );
    for job in before.jobs.iter().filter(|job| job.kind.is_training()) {
        assert_eq!(
            after.job(job.id.as_str()).unwrap().hash,
            job.hash,
            "{}",
            job.id
        );
    }
}

#[test]
fn a_job_depends_on_the_weights_that_it_starts_from() {
    let compiled = |path: &str, sha256: Option<&str>| {
        let text =
            String::from("data: {root: d}\nstage1a: {training: {pretrained: PATH}}\nstage1b: {}\n");
        let source = Source {
            name: "r".into(),
            text: text.replace("PATH", path),
        };
        let weights = sha256.map(|sha256| (PathBuf::from(path), sha256.to_owned()));
        let files = Files {
            weights: weights.into_iter().collect(),
            inputs: None,
        };
        compile_with(&parse(&source, &[]).unwrap(), &files).unwrap()
    };
    let hashes = |plan: &Plan| {
        plan.jobs
            .iter()
            .map(|job| job.hash.clone())
            .collect::<Vec<_>>()
    };
    let [a, b] = ["one", "two"].map(|sha256| compiled("w", Some(sha256)));
    // The labels are the same; all that follows the localizers is not.
    let differ: Vec<bool> = hashes(&a)
        .iter()
        .zip(hashes(&b))
        .map(|(a, b)| *a != b)
        .collect();
    assert_eq!(differ.iter().position(|differ| *differ), Some(1));
    assert!(differ[1..].iter().all(|differ| *differ));
    assert_eq!(hashes(&a), hashes(&compiled("moved/w", Some("one"))));
    assert_ne!(compiled("w", None).hash, compiled("moved/w", None).hash);
}

#[test]
fn what_is_checked_counts_where_it_decides_what_is_left_out() {
    let hash = |set: &[&str]| plan(set).unwrap().hash;
    assert_eq!(hash(&[]), hash(&["data.check=headers"]));
    let left_out = "data.bad_study=leave_out";
    assert_ne!(hash(&[left_out]), hash(&[left_out, "data.check=headers"]));
}

#[test]
fn workers_do_not_change_the_plan() {
    assert_eq!(
        plan(&[]).unwrap().hash,
        plan(&["data.workers=7"]).unwrap().hash
    );
    assert_eq!(
        plan(&[]).unwrap().hash,
        plan(&["data.cache.dir=c", "data.cache.compress=true"])
            .unwrap()
            .hash
    );
}

#[test]
fn a_cnn_starts_from_the_same_fold_or_is_refused() {
    let set = "stage2.training.start_from=stage1b";
    let compiled = plan(&[set]).unwrap();
    let needs = |job: &str| compiled.job(job).unwrap().needs.clone();
    let start = JobId::new("stage1b-resnest14d-fold1-seed0").unwrap();
    // Seed 1 of stage 2 has no counterpart in stage 1b: it takes the one there is.
    assert!(needs("stage2-resnest14d-fold1-seed0").contains(&start));
    assert!(needs("stage2-resnest14d-fold1-seed1").contains(&start));
    let other = [
        "stage2.training.arch=resnest26d",
        "stage3.training.arch=",
        set,
    ];
    let error = plan(&other).unwrap_err().to_string();
    assert!(
        error.contains("CNN of resnest26d") && error.contains("stage1b"),
        "{error}"
    );
}

#[test]
fn a_stage_without_its_input_is_refused() {
    let error = plan(&["stages=['2']"]).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("stage 2 needs the tables of stage 1b"),
        "{error}"
    );
}
