//! `spinectl checkpoint` on runs, jobs and folders, whole and broken.

mod program;

use std::fs;
use std::path::{Path, PathBuf};

use checkpoint::{Checkpoint, Meta};
use serde_json::Value;
use tempfile::TempDir;

use program::Ran;

fn spinectl(folder: &Path, words: &[&str]) -> Ran {
    let words = [&["checkpoint"], words].concat();
    program::spinectl(folder, &words).output().unwrap().into()
}

/// A run's directory with two checkpoints of one job; the folder of each.
fn two_checkpoints(run: &Path) -> [PathBuf; 2] {
    let root = run.join("jobs/labels/checkpoints");
    fs::create_dir_all(&root).unwrap();
    [1, 2].map(|step| {
        let checkpoint = Checkpoint {
            step,
            model: Vec::new(),
            optimizer: Vec::new(),
            trainer: serde_json::json!({"step": step}),
            meta: Meta {
                plan_hash: "p".into(),
                job: "labels".into(),
                world_size: 1,
            },
        };
        checkpoint::write(&root, &checkpoint).unwrap().path
    })
}

#[test]
fn checkpoints_are_found_from_run_job_and_folder() {
    let run = TempDir::new().unwrap();
    let folders = two_checkpoints(run.path());
    for (path, steps) in [
        (run.path(), &[1, 2][..]),
        (&run.path().join("jobs/labels"), &[1, 2]),
        (&run.path().join("jobs/labels/checkpoints"), &[1, 2]),
        (&folders[1], &[2]),
    ] {
        for command in ["ls", "verify"] {
            let ran = spinectl(Path::new("."), &[command, path.to_str().unwrap(), "--json"]);
            assert_eq!(ran.code, Some(0), "{}", ran.err);
            let rows: Vec<Value> = serde_json::from_str(&ran.out).unwrap();
            let found: Vec<u64> = rows
                .iter()
                .map(|row| row["step"].as_u64().unwrap())
                .collect();
            assert_eq!(found, steps, "{command} {}", path.display());
            assert!(rows.iter().all(|row| row.get("fault").is_none()));
        }
    }
}

#[test]
fn a_broken_checkpoint_is_named_with_its_file() {
    let run = TempDir::new().unwrap();
    let folders = two_checkpoints(run.path());
    // The same size, another content: only the hash can tell.
    let file = folders[0].join("trainer.json");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace('1', "7")).unwrap();
    let path = run.path().to_str().unwrap();

    let ran = spinectl(Path::new("."), &["verify", path]);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(
        ran.err.contains("1 of 2 checkpoints are broken"),
        "{}",
        ran.err
    );
    assert!(ran.err.contains("step-00000001: trainer.json has changed"));
    assert!(ran.out.contains("valid") && ran.out.contains("broken"));

    fs::remove_file(&file).unwrap();
    let ran = spinectl(Path::new("."), &["ls", path]);
    assert_eq!(ran.code, Some(0));
    assert!(
        ran.out.contains("broken") && ran.out.contains("complete"),
        "{}",
        ran.out
    );
}

#[test]
fn what_holds_no_checkpoints_is_wrong_use() {
    let folder = TempDir::new().unwrap();
    for command in ["ls", "verify"] {
        for path in [".", "nowhere", "step-00000001"] {
            let ran = spinectl(folder.path(), &[command, path]);
            assert_eq!(ran.code, Some(2), "{}", ran.err);
        }
    }
}
