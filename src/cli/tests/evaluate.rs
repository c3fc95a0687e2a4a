//! `spinectl evaluate` and the leakage gate, on a run whose ranks hand over prepared tables.

#[expect(dead_code, reason = "these launches end by themselves")]
mod fake_run;
mod program;

use std::fs;
use std::path::{Path, PathBuf};

use data::StudyUid;
use data::csv_table::{Row, write_table};
use data::ledger::{Segment, Writer};
use data::stage_tables::{LeftOut, LocatedSlice, SliceScores, SliceTargets};
use data::tables::{
    Prediction, SliceLabels, StudyBox, StudyFold, StudyLabels, StudyPrediction, VERTEBRAE,
};
use serde_json::Value;
use tempfile::TempDir;

use fake_run::spinectl;
use program::Ran;

const RECIPE: &str = "name: small\ndevice: cpu\nretries: 0\ndata: {root: ., folds: 2}\n\
    stage1a: {training: {arch: resnest14d}}\nstage1b: {training: {arch: resnest14d}}\n\
    stage2: {training: {arch: resnest14d}}\nstage3: {training: {arch: resnest14d}}\n\
    folds: [0, 1, all]\n";

/// Puts what is prepared for the job into the run directory; a job that nothing is prepared for fails.
const HANDS_OVER: &str = r#"cp -r "${0%/*}/made/$job/." "$run_dir/""#;

const STUDIES: u32 = 12;
const SLICES: u32 = 6;
const RUN: &str = "runs/small";

fn uid(study: u32) -> StudyUid {
    StudyUid::new(&format!("1.2.{study}")).unwrap()
}

/// Studies 2k and 2k + 1 are of different patients; 0 and 2 are of one.
fn patient(study: u32) -> String {
    format!("PAT-{}", if study == 2 { 0 } else { study })
}

fn fold(study: u32) -> u32 {
    study % 2
}

fn is_fractured(study: u32) -> bool {
    study.is_multiple_of(3)
}

fn labels(study: u32) -> [u8; VERTEBRAE] {
    let mut labels = [0; VERTEBRAE];
    if is_fractured(study) {
        labels[study as usize % VERTEBRAE] = 1;
    }
    labels
}

/// Right about every label: 70 % sure of patient_overall, 80 % of each vertebra.
fn probabilities(study: u32) -> [f64; 8] {
    let mut truth = vec![u8::from(is_fractured(study))];
    truth.extend(labels(study));
    std::array::from_fn(|label| {
        let (yes, no) = if label == 0 { (0.7, 0.3) } else { (0.8, 0.2) };
        if truth[label] > 0 { yes } else { no }
    })
}

/// A run in `runs/small` of a folder, made by a launch.
struct Run {
    folder: TempDir,
}

impl Run {
    /// Prepares everything; `spoil` changes it, and then it is launched.
    fn launched(spoil: impl FnOnce(&Run)) -> (Self, Ran) {
        let folder = fake_run::folder(HANDS_OVER);
        fs::write(folder.path().join("spinectl.yaml"), RECIPE).unwrap();
        let run = Run { folder };
        run.prepare();
        spoil(&run);
        let ran = run.spinectl(&["launch", "--ranks", "1", "-q"]);
        (run, ran)
    }

    fn whole() -> Self {
        let (run, ran) = Self::launched(|_| {});
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        run
    }

    fn path(&self, place: &str) -> PathBuf {
        self.folder.path().join(place)
    }

    fn spinectl(&self, words: &[&str]) -> Ran {
        spinectl(self.folder.path(), words)
    }

    fn evaluate(&self) -> Ran {
        self.spinectl(&["evaluate", RUN])
    }

    /// Replaces text in a file of the run; it must be there.
    fn change(&self, place: &str, from: &str, to: &str) {
        let path = self.path(RUN).join(place);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "no {from:?} in {text}");
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
    }

    fn made<R: Row>(&self, job: &str, place: &str, rows: impl IntoIterator<Item = R>) {
        let path = self.path("made").join(job).join(place);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        write_table(&path, &rows.into_iter().collect::<Vec<R>>()).unwrap();
    }

    fn prepare(&self) {
        self.write_labels(patient);
        let all = || 0..STUDIES;
        let slices = || all().flat_map(|study| (1..=SLICES).map(move |slice| (study, slice)));
        let of_fold = |number: u32| slices().filter(move |(study, _)| fold(*study) == number);

        let split = all().map(|study| StudyFold {
            study: uid(study),
            fold: fold(study),
        });
        self.made("labels", "tables/folds.csv", split);
        self.made::<LeftOut>("labels", "tables/left_out.csv", []);
        // Studies 0 to 3 are segmented: vertebrae on slices 2 to 5.
        let targets = slices()
            .filter(|(study, _)| *study < 4)
            .map(|(study, slice)| {
                let has_box = (2..=5).contains(&slice);
                SliceTargets {
                    study: uid(study),
                    slice_number: slice,
                    bounds: if has_box {
                        [0.25, 0.25, 0.75, 0.75]
                    } else {
                        [0.0; 4]
                    },
                    has_box,
                    ratio: [if has_box { 0.5 } else { 0.0 }; VERTEBRAE],
                }
            });
        self.made("labels", "tables/slice_targets.csv", targets);

        for number in [0, 1] {
            let job = |stage: &str| format!("{stage}-resnest14d-fold{number}-seed0");
            let place = |stage: &str| format!("jobs/{}/out_of_fold.csv", job(stage));
            let located = of_fold(number).map(|(study, slice)| LocatedSlice {
                study: uid(study),
                slice_number: slice,
                bounds: [0.25, 0.25, 0.75, 0.75],
                has_box: 0.9,
                fold: Some(number),
            });
            self.made(&job("stage1a"), &place("stage1a"), located);
            for stage in ["stage1b", "stage2"] {
                let scores = of_fold(number).map(|(study, slice)| SliceScores {
                    study: uid(study),
                    slice_number: slice,
                    scores: labels(study).map(|label| 0.05 + 0.6 * f32::from(label)),
                    fold: Some(number),
                });
                self.made(&job(stage), &place(stage), scores);
            }
            let predicted = all().filter(|study| fold(*study) == number);
            let predicted = predicted.map(|study| StudyPrediction {
                study: uid(study),
                fold: number,
                probabilities: probabilities(study),
            });
            self.made(&job("stage3"), &place("stage3"), predicted);
            for stage in ["stage1a", "stage1b", "stage2", "stage3"] {
                let trained_on = all().filter(|study| fold(*study) != number);
                let samples = trained_on.map(|study| format!("1.2.{study}/7")).collect();
                self.ledger(
                    &self
                        .path("made")
                        .join(job(stage))
                        .join("jobs")
                        .join(job(stage)),
                    samples,
                );
            }
        }
        // Models of all studies predict none of them.
        for stage in ["stage2", "stage3"] {
            let job = format!("{stage}-resnest14d-foldall-seed0");
            let samples = all().map(|study| format!("1.2.{study}/7")).collect();
            self.ledger(
                &self.path("made").join(&job).join("jobs").join(&job),
                samples,
            );
        }
        // The box reaches from the middle to the right edge: half of the truth, and as much beside it.
        let boxes = all().map(|study| StudyBox {
            study: uid(study),
            x0: 0.5,
            y0: 0.25,
            x1: 1.0,
            y1: 0.75,
            slice_from: 0,
            slice_to: 4,
            slice_max: SLICES - 1,
            fold: fold(study),
        });
        self.made("study-boxes", "tables/study_boxes.csv", boxes);
        // Every ratio is 0.6: 0.1 off where there is bone, 0.6 where there is none.
        let slice_labels = slices().map(|(study, slice)| SliceLabels {
            study: uid(study),
            slice_number: slice,
            ratio: [0.6; VERTEBRAE],
            fracture: labels(study).map(|label| 0.6 * f32::from(label)),
            fold: fold(study),
        });
        self.made("slice-labels", "tables/slice_labels.csv", slice_labels);
        let rows = all().flat_map(|study| (0..8).map(move |label| (study, label)));
        let rows = rows.map(|(study, label)| Prediction {
            study: uid(study),
            label,
            fractured: probabilities(study)[label],
        });
        self.made("summary", "tables/predictions.csv", rows);
    }

    /// train.csv; a written row has no patient, so the column is put in behind.
    fn write_labels(&self, patient: impl Fn(u32) -> String) {
        let mut text = StudyLabels::columns().join(",") + ",PatientID\n";
        for study in 0..STUDIES {
            let row = StudyLabels {
                study: uid(study),
                patient_overall: u8::from(is_fractured(study)),
                vertebrae: labels(study),
                patient: None,
            };
            text += &format!("{},{}\n", row.write().join(","), patient(study));
        }
        fs::write(self.path("train.csv"), text).unwrap();
    }

    fn ledger(&self, folder: &Path, samples: Vec<String>) {
        fs::create_dir_all(folder).unwrap();
        let segment = Segment {
            job: "hash".into(),
            seed: 0,
            world_size: 1,
            batch: 1,
            after: 0,
            updates_per_epoch: 1,
            total_updates: 1,
            samples,
        };
        Writer::open(&folder.join("ledger.jsonl"), segment).unwrap();
    }
}

fn said(ran: &Ran, parts: &[&str]) {
    for part in parts {
        assert!(ran.err.contains(part), "no {part:?} in\n{}", ran.err);
    }
    assert!(
        !ran.err.contains("PAT-"),
        "patients are never shown: {}",
        ran.err
    );
}

fn close(value: &Value, expected: f64) {
    let value = value
        .as_f64()
        .unwrap_or_else(|| panic!("{value} is no number"));
    assert!((value - expected).abs() < 1e-6, "{value} {expected}");
}

#[test]
fn a_whole_run_has_its_metrics_its_page_and_its_baselines() {
    let run = Run::whole();
    let ran = run.spinectl(&["evaluate", RUN, "--json", "--resamples", "200"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let found: Value = serde_json::from_str(&ran.out).unwrap();
    let file = fs::read_to_string(run.path(RUN).join("evaluation/evaluation.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&file).unwrap(), found);
    assert_eq!(found["missing"], Value::Array(vec![]));
    assert_eq!(found["unchecked"], Value::Array(vec![]));
    assert_eq!(found["drawn"], "patients");

    let of = |stage: &str, metric: &str| &found["stages"][stage]["overall"][metric];
    let (overall, vertebra) = (-0.7f64.ln(), -0.8f64.ln());
    // One vertebra of every third study is fractured, and what is fractured counts twice.
    let fractured = (14.0 * overall + 8.0 * vertebra) / 22.0;
    let loss = (fractured + 2.0 * (overall + vertebra) / 2.0) / 3.0;
    close(&of("stage3", "competition_loss")["value"], loss);
    let interval = &of("stage3", "competition_loss")["interval"];
    let [low, high] = ["low", "high"].map(|end| interval[end].as_f64().unwrap());
    assert!(low < loss && loss < high, "{interval}");
    close(&of("stage3", "auc_overall")["value"], 1.0);
    close(&of("stage3", "brier_overall")["value"], 0.09);
    close(&of("stage1a", "study_box_iou")["value"], 1.0 / 3.0);
    // Truth 1 to 4, found 0 to 4; the constant is the truth.
    close(&of("stage1a", "slice_range_error")["value"], 0.5);
    close(&of("stage1a", "study_box_iou")["baseline"], 1.0);
    close(
        &of("stage1b", "ratio_mae")["value"],
        (4.0 * 0.1 + 2.0 * 0.6) / 6.0,
    );
    close(&of("stage2", "fracture_mae")["value"], 0.05);
    assert_eq!(found["stages"]["stage1a"]["studies"], 4);
    for number in ["0", "1"] {
        let fold = &found["stages"]["stage3"]["folds"][number];
        assert_eq!(fold["studies"], 6);
        close(&fold["metrics"]["competition_loss"]["value"], loss);
    }
    let labels = found["labels"].as_array().unwrap();
    assert_eq!(labels.len(), 8);
    close(&labels[0]["metrics"]["log_loss"]["value"], overall);
    close(&labels[1]["metrics"]["log_loss"]["value"], vertebra);
    close(&labels[0]["metrics"]["calibration_error"]["value"], 0.3);
    // Both folds have two fractured studies of six.
    let prevalence = -(1.0 / 3.0 * (1.0f64 / 3.0).ln() + 2.0 / 3.0 * (2.0f64 / 3.0).ln());
    close(&labels[0]["metrics"]["log_loss"]["baseline"], prevalence);
    // C2 has no fracture: no area, no curve.
    assert_eq!(labels[2]["positives"], 0);
    assert!(labels[2]["metrics"]["auc"]["value"].is_null());

    let page = fs::read_to_string(run.path(RUN).join("evaluation/report.html")).unwrap();
    for part in [
        "0.2960",
        "0.3333",
        "ROC",
        "Calibration",
        "1.2.11",
        "Vertebra ratios of study 1.2.",
    ] {
        assert!(page.contains(part), "no {part:?} in the page");
    }
    assert!(
        !page.contains("PAT-") && !page.contains("http"),
        "only studies, and no network"
    );

    let again = run.spinectl(&["evaluate", RUN, "--out", "elsewhere", "--resamples", "200"]);
    assert_eq!(again.code, Some(0), "{}", again.err);
    for part in [
        "stage3.competition_loss",
        "0.2960",
        "stage1b.ratio_mae",
        "patient_overall",
    ] {
        assert!(again.out.contains(part), "no {part:?} in\n{}", again.out);
    }
    let same = fs::read_to_string(run.path("elsewhere/evaluation.json")).unwrap();
    assert_eq!(same, file, "the same seed gives the same intervals");
}

/// Plants a leak in a finished run: evaluate and the next launch refuse it by name.
fn is_refused(plant: impl FnOnce(&Run), parts: &[&str]) {
    let run = Run::whole();
    plant(&run);
    let launch = ["launch", "--ranks", "1", "-q"];
    for words in [&["evaluate", RUN][..], &launch] {
        let ran = run.spinectl(words);
        assert_eq!(ran.code, Some(4), "{words:?}: {}", ran.err);
        said(&ran, parts);
    }
    assert!(!run.path(RUN).join("evaluation").exists());
}

#[test]
fn a_patient_in_two_folds_is_refused() {
    is_refused(
        |run| run.write_labels(|study| patient(if study == 5 { 4 } else { study })),
        &[
            "folds.csv",
            "study 1.2.5 is in fold 1",
            "study 1.2.4 of the same patient in fold 0",
        ],
    );
}

#[test]
fn a_study_moved_to_another_fold_of_the_split_is_refused() {
    // Models of fold 1 hold it out no more: they may have seen it.
    is_refused(
        |run| run.change("tables/folds.csv", "1.2.5,1", "1.2.5,0"),
        &[
            "study 1.2.5 is predicted by a model that holds out fold 1",
            "split has it in fold 0",
        ],
    );
}

#[test]
fn a_row_of_a_model_that_was_trained_on_the_study_is_refused_in_every_stage() {
    for stage in ["stage1a", "stage1b", "stage2", "stage3"] {
        let from = format!("jobs/{stage}-resnest14d-fold1-seed0/out_of_fold.csv");
        let to = format!("jobs/{stage}-resnest14d-fold0-seed0/out_of_fold.csv");
        is_refused(
            |run| {
                let rows = fs::read_to_string(run.path(RUN).join(&from)).unwrap();
                let row = rows
                    .lines()
                    .find(|line| line.starts_with("1.2.7,"))
                    .unwrap();
                let path = run.path(RUN).join(&to);
                let table = fs::read_to_string(&path).unwrap();
                fs::write(&path, format!("{table}{row}\n")).unwrap();
            },
            &[
                &to,
                "study 1.2.7",
                "holds out fold 0",
                "split has it in fold 1",
            ],
        );
    }
}

#[test]
fn a_table_of_a_model_of_all_studies_is_refused() {
    for stage in ["stage2", "stage3"] {
        let from = format!("jobs/{stage}-resnest14d-fold1-seed0/out_of_fold.csv");
        let to = format!("jobs/{stage}-resnest14d-foldall-seed0/out_of_fold.csv");
        is_refused(
            |run| {
                let [from, to] = [&from, &to].map(|place| run.path(RUN).join(place));
                fs::copy(from, to).unwrap();
            },
            &[
                "6 leaks",
                &to,
                &format!(
                    "study 1.2.7 is predicted by {stage}-resnest14d-foldall-seed0, which holds no fold out"
                ),
            ],
        );
    }
}

#[test]
fn a_run_of_models_of_all_studies_alone_says_that_it_cannot_be_judged() {
    let (run, ran) = Run::launched(|run| {
        let recipe = RECIPE.replace("[0, 1, all]", "[all]");
        fs::write(run.path("spinectl.yaml"), recipe).unwrap();
    });
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let ran = run.evaluate();
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    for part in [
        "stage1b.ratio_mae",
        "missing: stage2: its models are trained on every study",
        "missing: stage3: its models are trained on every study",
        "--folds 0,1",
    ] {
        assert!(ran.out.contains(part), "no {part:?} in\n{}", ran.out);
    }
    assert!(!ran.out.contains("stage3.competition_loss"), "{}", ran.out);
}

#[test]
fn a_row_of_a_merged_table_that_states_another_fold_is_refused() {
    is_refused(
        |run| run.change("tables/study_boxes.csv", "0,4,5,0\n", "0,4,5,1\n"),
        &[
            "study_boxes.csv",
            "study 1.2.0",
            "holds out fold 1",
            "split has it in fold 0",
        ],
    );
    is_refused(
        |run| {
            let path = run.path(RUN).join("tables/slice_labels.csv");
            let text = fs::read_to_string(&path).unwrap();
            let moved = |line: &str| match line.strip_prefix("1.2.3,4,") {
                Some(_) => format!("{}0\n", line.strip_suffix('1').unwrap()),
                None => format!("{line}\n"),
            };
            fs::write(&path, text.lines().map(moved).collect::<String>()).unwrap();
        },
        &[
            "slice_labels.csv",
            "study 1.2.3",
            "holds out fold 0",
            "split has it in fold 1",
        ],
    );
}

#[test]
fn a_study_that_the_ledger_names_is_refused() {
    let job = "stage2-resnest14d-fold0-seed0";
    is_refused(
        |run| {
            let folder = run.path(RUN).join("jobs").join(job);
            run.ledger(&folder, vec!["1.2.1/0".into(), "1.2.4/12".into()]);
        },
        &[
            &format!("study 1.2.4 is predicted by {job}"),
            "ledger",
            "out_of_fold.csv",
        ],
    );
}

#[test]
fn a_split_with_a_patient_in_two_folds_is_refused_before_anything_is_started() {
    let (run, ran) = Run::launched(|run| {
        let rows = (0..STUDIES).map(|study| StudyFold {
            study: uid(study),
            fold: study / 2 % 2,
        });
        write_table(&run.path("split.csv"), &rows.collect::<Vec<_>>()).unwrap();
        fs::write(
            run.path("spinectl.yaml"),
            RECIPE.replace("folds: 2", "folds: 2, split: split.csv"),
        )
        .unwrap();
    });
    let parts = [
        "split.csv",
        "study 1.2.2 is in fold 1",
        "study 1.2.0 of the same patient",
    ];
    assert_eq!(ran.code, Some(4), "{}", ran.err);
    said(&ran, &parts);
    assert!(!run.path(RUN).exists());
    let ran = run.spinectl(&["plan"]);
    assert_eq!(ran.code, Some(4), "{}", ran.err);
    said(&ran, &parts);
}

#[test]
fn weights_of_another_fold_are_refused() {
    let features = "\"features\": \"stage2-resnest14d-fold";
    for (other, words) in [
        ("1", "which holds out fold 1"),
        ("all", "which is trained on every study"),
    ] {
        let run = Run::whole();
        run.change(
            "plan.json",
            &format!("{features}0"),
            &format!("{features}{other}"),
        );
        let ran = run.evaluate();
        assert_eq!(ran.code, Some(4), "{}", ran.err);
        said(
            &ran,
            &[
                "stage3-resnest14d-fold0-seed0 holds out fold 0",
                &format!("stage2-resnest14d-fold{other}-seed0, {words}"),
            ],
        );
    }
}

#[test]
fn changed_predictions_are_refused() {
    let run = Run::whole();
    run.change("tables/predictions.csv", "1.2.4_C6,0.2", "1.2.4_C6,0.9");
    let ran = run.evaluate();
    assert_eq!(ran.code, Some(4), "{}", ran.err);
    said(
        &ran,
        &["predictions.csv", "study 1.2.4, C6", "it is 0.9", "is 0.2"],
    );
}

#[test]
fn tables_of_an_earlier_version_are_evaluated() {
    let run = Run::whole();
    for stage in ["stage1a", "stage1b", "stage2"] {
        for fold in [0, 1] {
            let job = run
                .path(RUN)
                .join(format!("jobs/{stage}-resnest14d-fold{fold}-seed0"));
            let path = job.join("out_of_fold.csv");
            let text = fs::read_to_string(&path).unwrap();
            let cut = |line: &str| line.rsplit_once(',').unwrap().0.to_owned() + "\n";
            fs::write(&path, text.lines().map(cut).collect::<String>()).unwrap();
            fs::remove_file(job.join("ledger.jsonl")).unwrap();
        }
    }
    let ran = run.evaluate();
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out.contains("stage2.fracture_mae"), "{}", ran.out);
    let unchecked: Vec<&str> = ran
        .out
        .lines()
        .filter(|line| line.starts_with("not checked for leaks: "))
        .collect();
    assert_eq!(unchecked.len(), 6, "stage 3 has its ledgers\n{}", ran.out);
    let first = "stage1a-resnest14d-fold0-seed0 has no ledger.jsonl";
    assert!(unchecked[0].contains(first), "{}", unchecked[0]);
    let page = fs::read_to_string(run.path(RUN).join("evaluation/report.html")).unwrap();
    assert!(page.contains(first) && !page.contains("not finished"));
}

#[test]
fn a_damaged_table_is_named_with_line_and_column() {
    let run = Run::whole();
    let job = "jobs/stage3-resnest14d-fold1-seed0/out_of_fold.csv";
    run.change(job, "1.2.3,1,0.7", "1.2.3,1,1.8");
    let ran = run.evaluate();
    assert_eq!(ran.code, Some(4), "{}", ran.err);
    said(&ran, &[job, "line 3, column patient_overall", "1.8"]);
    fs::remove_file(run.path(RUN).join(job)).unwrap();
    let ran = run.evaluate();
    assert_eq!(ran.code, Some(4), "{}", ran.err);
    said(&ran, &["cannot open", job]);
}

#[test]
fn a_run_that_is_half_done_is_evaluated_as_far_as_it_is() {
    let job = "stage2-resnest14d-fold1-seed0";
    let (run, ran) = Run::launched(|run| fs::remove_dir_all(run.path("made").join(job)).unwrap());
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    let ran = run.evaluate();
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    for part in [
        "stage1a.study_box_iou",
        "stage2.fracture_mae",
        "missing: stage2: 1 of 2",
        job,
        "missing: stage3: ",
    ] {
        assert!(ran.out.contains(part), "no {part:?} in\n{}", ran.out);
    }
    let page = fs::read_to_string(run.path(RUN).join("evaluation/report.html")).unwrap();
    assert!(page.contains("not finished") && page.contains(job));

    let (run, _) = Run::launched(|run| fs::remove_dir_all(run.path("made/labels")).unwrap());
    let ran = run.evaluate();
    assert_eq!(ran.code, Some(2), "{}", ran.err);
    said(&ran, &["no split yet", "launch it to go on"]);
}

#[test]
fn another_data_set_is_found_out() {
    let run = Run::whole();
    fs::remove_file(run.path("train.csv")).unwrap();
    let ran = run.evaluate();
    assert_eq!(ran.code, Some(4), "{}", ran.err);
    said(&ran, &["train.csv", "--data DIR"]);
    fs::create_dir(run.path("other")).unwrap();
    let header = StudyLabels::columns().join(",");
    fs::write(
        run.path("other/train.csv"),
        header + "\n1.2.0,0,0,0,0,0,0,0,0\n",
    )
    .unwrap();
    let ran = run.spinectl(&["evaluate", RUN, "--data", "other"]);
    assert_eq!(ran.code, Some(4), "{}", ran.err);
    said(&ran, &["study 1.2.1", "not the data set"]);
}
