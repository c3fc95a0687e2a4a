//! Writing, reading and replacing on a disk that works.

use std::fs::{self, File};

use checkpoint::{
    Checkpoint, Error, State, list, load_safetensors, read, save_safetensors, verify, write,
};

use crate::fixture::{FILES, JOB, PLAN, checkpoint, flip_bit, names, steps};

#[test]
fn nothing_is_written_where_the_job_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let job = folder.path().join("job");
    write(&job.join("checkpoints"), &checkpoint(200, 1000)).unwrap_err();
    assert!(!job.exists(), "made anew");
}

#[test]
fn what_is_written_is_read_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("checkpoints");
    let original = checkpoint(200, 1000);

    let written = write(&root, &original).unwrap();
    assert_eq!(written.path, root.join("step-00000200"));
    assert!(!written.reused);
    assert_eq!(names(&root), ["step-00000200"]);
    assert_eq!(names(&written.path), FILES);
    let on_disk: u64 = FILES
        .iter()
        .map(|f| fs::metadata(written.path.join(f)).unwrap().len())
        .sum();
    assert_eq!(written.bytes, on_disk);

    assert_eq!(read(&written.path, Some(PLAN)).unwrap(), original);

    let manifest = verify(&written.path).unwrap();
    assert_eq!((manifest.step, manifest.world_size), (200, 2));
    assert_eq!(
        (manifest.job.as_str(), manifest.plan_hash.as_str()),
        (JOB, PLAN)
    );
    let entry = &list(&root).unwrap()[0];
    assert_eq!((entry.step, entry.bytes), (200, on_disk));
    assert_eq!(entry.state, State::Complete(manifest));
}

#[test]
fn the_model_is_a_safetensors_file_that_others_read() {
    let folder = tempfile::tempdir().unwrap();
    let original = checkpoint(1, 100);
    let path = write(folder.path(), &original)
        .unwrap()
        .path
        .join("model.safetensors");
    let bytes = fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.len(), original.model.len());
    for tensor in &original.model {
        let found = file.tensor(&tensor.name).unwrap();
        assert_eq!(
            (found.shape(), found.data()),
            (&tensor.shape[..], &tensor.bytes[..])
        );
    }
}

#[test]
fn a_plain_safetensors_file_goes_out_and_in() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let original = checkpoint(1, 100).model;
    let bytes = save_safetensors(&path, &original).unwrap();
    assert_eq!(bytes, fs::metadata(&path).unwrap().len());
    assert_eq!(load_safetensors(&path).unwrap(), original);
}

#[test]
fn a_step_that_is_there_is_left_and_a_broken_one_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let original = checkpoint(5, 50);
    let first = write(folder.path(), &original).unwrap();
    let again = write(folder.path(), &checkpoint(5, 60)).unwrap();
    assert!(again.reused);
    assert_eq!((&again.path, again.bytes), (&first.path, first.bytes));
    assert_eq!(read(&first.path, None).unwrap(), original);

    flip_bit(&first.path.join("optimizer.safetensors"), 100);
    assert!(!write(folder.path(), &original).unwrap().reused);
    assert_eq!(read(&first.path, None).unwrap(), original);
    assert_eq!(names(folder.path()), ["step-00000005"]);

    let mut other = checkpoint(5, 70);
    other.meta.plan_hash = "plan-beef".into();
    assert!(!write(folder.path(), &other).unwrap().reused);
    assert_eq!(read(&first.path, Some("plan-beef")).unwrap(), other);
    assert_eq!(names(folder.path()), ["step-00000005"]);
}

#[test]
fn a_checkpoint_of_another_plan_is_refused_with_both_hashes() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), &checkpoint(1, 4)).unwrap().path;
    let error = read(&path, Some("plan-beef")).unwrap_err();
    assert!(matches!(error, Error::PlanMismatch { .. }));
    let text = error.to_string();
    assert!(text.contains(PLAN) && text.contains("plan-beef"), "{text}");
}

#[test]
fn the_leftovers_of_a_dead_writer_go_at_the_next_write() {
    let folder = tempfile::tempdir().unwrap();
    let stale = folder.path().join(".tmp-step-00000007-12345");
    fs::create_dir(&stale).unwrap();
    fs::write(stale.join("model.safetensors"), "half").unwrap();
    assert_eq!(steps(folder.path()), [0; 0]);
    write(folder.path(), &checkpoint(8, 4)).unwrap();
    assert_eq!(names(folder.path()), ["step-00000008"]);
}

#[test]
fn a_second_writer_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let other = File::open(folder.path()).unwrap();
    other.lock().unwrap();
    assert!(matches!(
        write(folder.path(), &checkpoint(1, 4)),
        Err(Error::Busy { .. })
    ));
    drop(other);
    write(folder.path(), &checkpoint(1, 4)).unwrap();
}

#[test]
fn tensors_that_cannot_be_saved_are_named_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("checkpoints");
    let refuse = |change: &dyn Fn(&mut Checkpoint), reason: &str| {
        let mut bad = checkpoint(1, 4);
        change(&mut bad);
        let error = write(&root, &bad).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    };
    refuse(
        &|c| c.model[1].bytes.truncate(5),
        "`backbone.conv1.weight` cannot be saved: 5 bytes do not fill f32 [4]",
    );
    refuse(
        &|c| c.model[1].shape = vec![usize::MAX, 8],
        "do not fill f32",
    );
    refuse(
        &|c| c.model[0].name = "__metadata__".into(),
        "keeps this name",
    );
    refuse(
        &|c| c.optimizer.push(c.optimizer[0].clone()),
        "two tensors have this name",
    );
    assert!(!root.exists());
}
