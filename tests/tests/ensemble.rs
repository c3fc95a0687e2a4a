//! Several models a stage, some of them trained on every study, from their labels to a submission.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;
use spinectl_tests::{launch_arguments, phantom, spinectl};

/// Two models of stage 2, each with fold 0 held out and with nothing held out.
const TWO: [&str; 4] = [
    "--folds=0,all",
    "--set=stage2.models=[{arch: resnest14d}, {arch: resnest26d, start_from: random}]",
    "--set=stage3.training.arch=",
    "--set=checkpoint.keep_best={study_box_iou: max, ratio_mae: min, fracture_mae: min, competition_loss: min}",
];

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn models_of_all_studies_predict_and_are_judged_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let (data, run) = (phantom(folder.path()), folder.path().join("run"));
    let launch = launch_arguments(&data, &run, 2, &TWO);
    let ended = spinectl(&launch);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");

    for stage in ["stage2", "stage3"] {
        for arch in ["resnest14d", "resnest26d"] {
            let job = |fold: &str| run.join(format!("jobs/{stage}-{arch}-fold{fold}-seed0"));
            assert!(job("0").join("out_of_fold.csv").is_file());
            let all = job("all");
            assert!(!all.join("out_of_fold.csv").exists(), "{}", all.display());
            assert_eq!(
                json(&all.join("metrics.json")),
                Value::Object([].into_iter().collect())
            );
            // Its ledger names studies of both folds.
            let ledger = fs::read_to_string(all.join("ledger.jsonl")).unwrap();
            let split = fs::read_to_string(run.join("tables/folds.csv")).unwrap();
            let folds: BTreeSet<&str> = split
                .lines()
                .filter_map(|line| line.split_once(','))
                .filter(|(study, _)| ledger.contains(&format!("\"{study}")))
                .map(|(_, fold)| fold)
                .collect();
            assert_eq!(folds, BTreeSet::from(["0", "1"]));
        }
    }
    let summary = json(&run.join("summary.json"));
    assert!(
        summary["stage3"]["competition_loss"].is_number(),
        "{summary}"
    );
    let predictions = fs::read_to_string(run.join("tables/predictions.csv")).unwrap();
    assert_eq!(
        predictions.lines().count(),
        1 + 6 * 8,
        "half of the studies are out of fold"
    );

    let run = run.to_str().unwrap();
    let evaluated = spinectl(["evaluate", run, "--json"]);
    assert_eq!(evaluated.status.code(), Some(0), "{evaluated:?}");
    let found: Value = serde_json::from_slice(&evaluated.stdout).unwrap();
    assert_eq!(found["stages"]["stage3"]["studies"], 6, "{found}");
    assert_eq!(found["missing"], Value::Array(Vec::new()));

    let [images, out] = [
        data.join("train_images"),
        folder.path().join("submission.csv"),
    ];
    let predicted = spinectl([
        "predict",
        run,
        "--device=cpu",
        "--images",
        images.to_str().unwrap(),
        "--out",
        out.to_str().unwrap(),
    ]);
    assert_eq!(predicted.status.code(), Some(0), "{predicted:?}");
    assert_eq!(fs::read_to_string(out).unwrap().lines().count(), 1 + 12 * 8);
}
