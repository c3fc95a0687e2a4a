//! Which checkpoints stay when the older ones are deleted.

use std::path::PathBuf;

use checkpoint::{Retention, newest_valid, newest_valid_of, retain, write};

use crate::fixture::{PLAN, checkpoint, flip_bit, names, steps};

fn keep(keep_last: usize, keep_best: Option<u64>) -> Retention {
    Retention {
        keep_last,
        keep_best,
        ..Retention::default()
    }
}

#[test]
fn retain_keeps_the_last_and_the_best() {
    let folder = tempfile::tempdir().unwrap();
    for step in [100, 200, 300, 400, 500] {
        write(folder.path(), &checkpoint(step, 4)).unwrap();
    }
    let removed = retain(folder.path(), PLAN, &keep(2, Some(200))).unwrap();
    assert_eq!(steps(folder.path()), [200, 400, 500]);
    assert_eq!(
        removed,
        [300, 100].map(|s| folder.path().join(format!("step-{s:08}")))
    );
    assert_eq!(
        retain(folder.path(), PLAN, &keep(2, Some(200))).unwrap(),
        Vec::<PathBuf>::new()
    );
    retain(folder.path(), PLAN, &keep(0, None)).unwrap();
    assert_eq!(
        steps(folder.path()),
        [500],
        "the last one stays whatever is asked"
    );
    assert_eq!(names(folder.path()), ["step-00000500"]);
}

#[test]
fn retain_never_gives_up_the_last_good_one_for_broken_ones() {
    let folder = tempfile::tempdir().unwrap();
    for step in [100, 200, 300, 400] {
        write(folder.path(), &checkpoint(step, 40)).unwrap();
    }
    // Right sizes, wrong bytes: only a full verification tells.
    for step in [300, 400] {
        flip_bit(
            &folder
                .path()
                .join(format!("step-{step:08}/model.safetensors")),
            90,
        );
    }
    retain(folder.path(), PLAN, &keep(1, None)).unwrap();
    assert_eq!(steps(folder.path()), [200, 300, 400]);
    assert_eq!(newest_valid(folder.path()).unwrap().unwrap().step, 200);

    flip_bit(&folder.path().join("step-00000200/model.safetensors"), 90);
    retain(folder.path(), PLAN, &keep(1, None)).unwrap();
    assert_eq!(
        steps(folder.path()),
        [200, 300, 400],
        "with none valid, none goes"
    );
}

#[test]
fn checkpoints_of_another_plan_neither_count_nor_go() {
    let folder = tempfile::tempdir().unwrap();
    for (step, plan) in [(100, PLAN), (200, PLAN), (300, PLAN), (500, "plan-beef")] {
        let mut of_plan = checkpoint(step, 4);
        of_plan.meta.plan_hash = plan.into();
        write(folder.path(), &of_plan).unwrap();
    }
    assert_eq!(newest_valid(folder.path()).unwrap().unwrap().step, 500);
    let found = newest_valid_of(folder.path(), PLAN).unwrap().unwrap();
    assert_eq!((found.step, found.steps_lost()), (300, 0));
    assert_eq!(newest_valid_of(folder.path(), "plan-cafe").unwrap(), None);

    retain(folder.path(), PLAN, &keep(1, None)).unwrap();
    assert_eq!(steps(folder.path()), [300, 500]);
}

#[test]
fn every_so_many_steps_one_is_kept_for_good() {
    let folder = tempfile::tempdir().unwrap();
    let retention = Retention {
        keep_last: 1,
        keep_every: 200,
        keep_best: Some(300),
    };
    for step in (100..=900).step_by(100) {
        write(folder.path(), &checkpoint(step, 4)).unwrap();
        retain(folder.path(), PLAN, &retention).unwrap();
    }
    assert_eq!(steps(folder.path()), [200, 300, 400, 600, 800, 900]);
    // What is kept for good is no reason to give up the last one that is valid.
    for step in [600, 800, 900] {
        let model = format!("step-{step:08}/model.safetensors");
        flip_bit(&folder.path().join(model), 90);
    }
    let keep_one = keep(1, None);
    retain(folder.path(), PLAN, &keep_one).unwrap();
    assert_eq!(steps(folder.path()), [400, 600, 800, 900]);
    assert_eq!(newest_valid(folder.path()).unwrap().unwrap().step, 400);
}
