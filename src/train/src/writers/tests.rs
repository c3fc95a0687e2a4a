use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use event::Phase;
use recipe::Checkpointing;

use super::*;
use crate::testing::on_ranks;

#[derive(Default)]
struct Warnings(RefCell<Vec<String>>);

impl Report for Warnings {
    fn report(&self, kind: EventKind) {
        if let EventKind::Warning { message } = kind {
            self.0.borrow_mut().push(message);
        }
    }

    fn at(&self, _: Phase, _: u64, _: u64) {}
}

fn place(root: &Path, shards: Shards) -> CheckpointPlace {
    CheckpointPlace {
        root: root.to_owned(),
        job: "job".into(),
        hash: "hash".into(),
        settings: Checkpointing {
            shards,
            ..Checkpointing::default()
        },
        patience: Duration::from_secs(60),
    }
}

/// What a rank writes, of the model and of the optimizer, by number; and its warnings.
type Agreed = (Result<[Vec<usize>; 2]>, Vec<String>);

/// What each rank comes to with tensors of these bytes.
fn agreed(roots: &[&Path], shards: Shards, sizes: [Vec<usize>; 2]) -> Vec<Agreed> {
    on_ranks(roots.len(), |group| {
        let warnings = Warnings::default();
        let place = place(roots[group.rank()], shards);
        let writers = Writers::agree(&place, &sizes, group, Device::Cpu, &warnings);
        let own = writers.map(|writers| {
            if !writers.writes() {
                return Default::default();
            }
            let [model, optimizer] = &sizes;
            [
                writers.own_of_model(0..model.len()).collect(),
                writers.own_of_optimizer(0..optimizer.len()).collect(),
            ]
        });
        (own, warnings.0.into_inner())
    })
}

#[test]
fn each_tensor_has_one_writer_and_small_states_have_rank_0() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("checkpoints");
    let roots = [root.as_path(); 3];
    let small = [vec![5, 1, 3], vec![2, 4, 4, 0]];
    for (shards, large, writers) in [
        (Shards::Off, true, 1),
        (Shards::Auto, false, 1),
        (Shards::Auto, true, 3),
        (Shards::On, false, 3),
    ] {
        let sizes = match large {
            true => small
                .clone()
                .map(|s| s.iter().map(|n| n * LARGE / 19 + n).collect()),
            false => small.clone(),
        };
        let all = agreed(&roots, shards, sizes);
        let mut seen = BTreeSet::new();
        let mut wrote = 0;
        for (own, warnings) in all {
            assert!(warnings.is_empty(), "{warnings:?}");
            let [model, optimizer] = own.unwrap();
            wrote += usize::from(!(model.is_empty() && optimizer.is_empty()));
            for tensor in model.into_iter().map(|i| (0, i)) {
                assert!(seen.insert(tensor), "{tensor:?} has two writers");
            }
            for tensor in optimizer.into_iter().map(|i| (1, i)) {
                assert!(seen.insert(tensor), "{tensor:?} has two writers");
            }
        }
        assert_eq!((seen.len(), wrote), (7, writers), "{shards:?}, {large}");
    }
    assert_eq!(
        std::fs::read_dir(&root).unwrap().count(),
        0,
        "no mark stays"
    );
}

#[test]
fn ranks_that_do_not_see_the_folder_are_named() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [here, there] = folders.each_ref().map(tempfile::TempDir::path);
    let roots = [here, here, there];
    for (own, _) in agreed(&roots, Shards::On, [vec![1], vec![1]]) {
        let error = own.unwrap_err();
        assert_eq!(error.class(), event::FailureClass::Setup);
        let text = error.to_string();
        assert!(
            text.contains("on rank 2 is not") && text.contains("checkpoint.shards: off"),
            "{text}"
        );
    }
    let all = agreed(&roots, Shards::Auto, [vec![LARGE], vec![1]]);
    for (rank, (own, warnings)) in all.into_iter().enumerate() {
        let [model, optimizer] = own.unwrap();
        // Rank 0 alone writes, and says why.
        assert_eq!(
            (model.len(), optimizer.len()),
            if rank == 0 { (1, 1) } else { (0, 0) }
        );
        assert_eq!(warnings.len(), usize::from(rank == 0), "{warnings:?}");
    }
}
