use recipe::{Source, parse};

use super::*;
use crate::{Files, Part, compile_with};

const RECIPE: &str = "data: {root: d, folds: 2}\nstage1a: {training: {arch: resnest14d}}\nstage1b: {training: {arch: resnest14d}}\nstage2: {training: {arch: resnest14d}}\nstage3: {training: {arch: resnest14d}}\n";

fn inputs() -> Inputs {
    let part = |fold| Part {
        fold: Some(fold),
        studies: 6,
        images: format!("images {fold}"),
        segmentations: format!("segmentations {fold}"),
        labels: format!("labels {fold}"),
        ..Part::default()
    };
    Inputs {
        labels: "labels".into(),
        parts: vec![part(0), part(1)],
    }
}

fn plan(set: &[&str], inputs: Option<Inputs>) -> Plan {
    let set: Vec<String> = set.iter().map(|s| (*s).to_owned()).collect();
    let source = Source {
        name: "r".into(),
        text: RECIPE.into(),
    };
    let weights = BTreeMap::new();
    let files = Files { weights, inputs };
    compile_with(&parse(&source, &set).unwrap(), &files).unwrap()
}

fn done(_: &JobId) -> Had {
    Had::Done
}

/// What becomes of the jobs whose names begin so; all the same.
fn of<'c>(changes: &'c [Change], prefix: &str) -> &'c Change {
    let found: Vec<&Change> = changes
        .iter()
        .filter(|change| change.id.as_str().starts_with(prefix))
        .collect();
    assert!(!found.is_empty(), "{prefix}");
    assert!(found.iter().all(|change| change.fate == found[0].fate));
    found[0]
}

#[test]
fn a_changed_label_reruns_who_reads_labels_and_names_the_fold() {
    let mut changed = inputs();
    changed.labels = "other labels".into();
    changed.parts[1].labels = "other".into();
    let changes = diff(&plan(&[], Some(inputs())), &plan(&[], Some(changed)), done);
    for kept in ["stage1a", "study-boxes", "stage1b"] {
        assert_eq!(of(&changes, kept).fate, Fate::Kept, "{kept}");
        assert!(of(&changes, kept).why.is_empty());
    }
    for rerun in ["labels", "slice-labels", "stage2", "stage3", "summary"] {
        let change = of(&changes, rerun);
        assert_eq!(change.fate, Fate::Rerun, "{rerun}");
        assert_eq!(change.why[0], "labels of fold 1 changed", "{rerun}");
    }
    let stage2 = of(&changes, "stage2");
    assert_eq!(stage2.why[1..], ["slice-labels is done again"]);
}

#[test]
fn a_changed_segmentation_or_image_reruns_everything() {
    for change in [
        |part: &mut Part| part.segmentations.push('x'),
        |part: &mut Part| part.images.push('x'),
    ] {
        let mut changed = inputs();
        change(&mut changed.parts[0]);
        let changes = diff(&plan(&[], Some(inputs())), &plan(&[], Some(changed)), done);
        assert!(changes.iter().all(|change| change.fate == Fate::Rerun));
        assert!(of(&changes, "stage1a").why[0].ends_with("of fold 0 changed"));
    }
}

#[test]
fn folds_that_only_the_first_job_knows_hang_everything_on_every_label() {
    let unknown = |labels: &str| Inputs {
        labels: labels.into(),
        parts: vec![Part {
            labels: labels.into(),
            ..Part::default()
        }],
    };
    let (before, after) = (unknown("a"), unknown("b"));
    let changes = diff(&plan(&[], Some(before)), &plan(&[], Some(after)), done);
    assert!(changes.iter().all(|change| change.fate == Fate::Rerun));
    assert_eq!(
        of(&changes, "stage1a").why,
        ["labels of all studies changed"]
    );
}

#[test]
fn a_data_set_that_has_moved_is_the_same() {
    let set = [
        "data.root=elsewhere",
        "data.split=folds.csv",
        "data.exclude=['1.2']",
    ];
    let here = plan(&[], Some(inputs()));
    assert_eq!(plan(&set, Some(inputs())).hash, here.hash);
    assert_ne!(plan(&["data.window=fixed"], Some(inputs())).hash, here.hash);
    // Who has not looked knows no more than the place.
    assert_ne!(plan(&set, None).hash, plan(&[], None).hash);
}

#[test]
fn a_changed_setting_is_named_as_the_recipe_has_it() {
    let (before, after) = (
        plan(&["stage2.training.learning_rate=1e-4"], Some(inputs())),
        plan(
            &[
                "stage2.training.learning_rate=3e-4",
                "stage2.sequence.grid=6",
            ],
            Some(inputs()),
        ),
    );
    let changes = diff(&before, &after, done);
    assert_eq!(of(&changes, "stage1b").fate, Fate::Kept);
    assert_eq!(of(&changes, "slice-labels").fate, Fate::Kept);
    let why = &of(&changes, "stage2").why;
    assert_eq!(
        why[..],
        [
            "stage2.sequence.grid 12 -> 6",
            "stage2.training.learning_rate 0.0001 -> 0.0003"
        ]
    );
    assert_eq!(
        of(&changes, "stage3-resnest14d-fold0").why,
        ["stage2-resnest14d-fold0-seed0 is done again"]
    );
    let seed = diff(&after, &plan(&["seed=7"], Some(inputs())), done);
    assert!(
        of(&seed, "labels")
            .why
            .iter()
            .any(|why| why.ends_with("-> 7"))
    );
}

#[test]
fn jobs_come_and_go_and_what_was_never_begun_is_not_done_again() {
    let before = plan(&["stage2.training.seeds=[0, 1]"], Some(inputs()));
    let after = plan(&["stage2.training.seeds=[1, 2]"], Some(inputs()));
    let had = |id: &JobId| match id.as_str() {
        "summary" => Had::Nothing,
        "stage2-resnest14d-fold0-seed1" => Had::Begun,
        _ => Had::Done,
    };
    let changes = diff(&before, &after, had);
    for (job, fate) in [
        ("stage2-resnest14d-fold0-seed0", Fate::Gone),
        ("stage2-resnest14d-fold0-seed1", Fate::Open),
        ("stage2-resnest14d-fold1-seed1", Fate::Kept),
        ("stage2-resnest14d-fold1-seed2", Fate::New),
        ("summary", Fate::New),
    ] {
        assert_eq!(of(&changes, job).fate, fate, "{job}");
    }
    let why = &of(&changes, "summary").why;
    assert!(
        why.contains(&"it needs stage3-resnest14d-fold1-seed2 now".to_owned())
            && why.contains(&"it needs stage3-resnest14d-fold0-seed0 no more".to_owned()),
        "{why:?}"
    );
}

#[test]
fn a_run_of_other_rules_is_told_as_such() {
    let now = plan(&[], Some(inputs()));
    let mut earlier = now.clone();
    earlier.addresses = 1;
    earlier.inputs = None;
    for job in &mut earlier.jobs {
        job.hash.push('1');
    }
    let changes = diff(&earlier, &now, done);
    assert!(changes.iter().all(|change| change.fate == Fate::Rerun));
    assert!(
        of(&changes, "labels")
            .why
            .iter()
            .any(|why| why.contains("other rules"))
    );
}
