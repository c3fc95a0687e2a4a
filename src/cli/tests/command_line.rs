//! The built program as a user meets it: help, faults and exit codes, plans, phantoms.

mod program;

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use program::Ran;

fn spinectl_in(folder: &Path, words: &[&str]) -> Ran {
    program::spinectl(folder, words).output().unwrap().into()
}

fn spinectl(words: &[&str]) -> Ran {
    spinectl_in(TempDir::new().unwrap().path(), words)
}

const SMALL: &str = "name: small\ndata: {root: d, folds: 2}\n\
    stage1a: {training: {arch: resnest14d, batch: 8, micro_batch: 4}}\n\
    stage1b: {training: {arch: resnest14d}}\n";

fn folder_with_recipe(text: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("spinectl.yaml"), text).unwrap();
    folder
}

#[test]
fn every_command_has_a_help_with_an_example() {
    for command in [
        &["launch"][..],
        &["plan"],
        &["status"],
        &["checkpoint", "ls"],
        &["checkpoint", "verify"],
        &["data", "synth"],
        &["predict"],
        &["completions"],
        &[],
    ] {
        let ran = spinectl(&[command, &["--help"]].concat());
        assert_eq!(ran.code, Some(0), "{command:?}");
        let example = ["spinectl"]
            .iter()
            .chain(command)
            .copied()
            .collect::<Vec<_>>()
            .join(" ");
        assert!(ran.out.contains("Example"), "{command:?}\n{}", ran.out);
        assert!(ran.out.contains(&example), "no `{example}` in\n{}", ran.out);
    }
}

#[test]
fn an_elastic_recipe_takes_the_ranks_over_which_its_batch_divides_and_says_so() {
    let elastic = |bounds: &str| folder_with_recipe(&format!("{SMALL}elastic: {bounds}\n"));
    let folder = elastic("{min: 1, max: 8}");
    let words = ["plan", "--device", "cpu", "--ranks", "3"];
    let ran = spinectl_in(folder.path(), &words);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let said = "stage1a trains on 2 of 3 ranks: the most within `elastic: {min: 1, max: 8}` over which its batch of 8";
    assert_eq!(ran.out.matches(said).count(), 1, "{}", ran.out);
    assert!(ran.out.contains("4 x 2 x 1"), "{}", ran.out);
    let ran = spinectl_in(folder.path(), &[&words[..], &["--json"]].concat());
    let plan: Value = serde_json::from_str(&ran.out).unwrap();
    let job = plan["jobs"].as_array().unwrap().iter();
    let job = job
        .clone()
        .find(|job| job["training"]["stage"] == "stage1a");
    assert_eq!(job.unwrap()["ranks"], 2);
    assert!(
        plan["elastic"][0]
            .as_str()
            .unwrap()
            .contains("2 of 3 ranks")
    );

    for (folder, why) in [
        (
            elastic("{min: 4, max: 8}"),
            "3 ranks are fewer than the recipe allows",
        ),
        (
            elastic("{min: 3, max: 8}"),
            "any number of ranks from 3 to 3",
        ),
        (
            folder_with_recipe(SMALL),
            "a number of ranks that divides 8",
        ),
    ] {
        for command in [&words[..], &["launch", "--device", "cpu", "--ranks", "3"]] {
            let ran = spinectl_in(folder.path(), command);
            assert_eq!(ran.code, Some(2), "{}", ran.err);
            assert!(ran.err.contains(why), "{command:?}: {}", ran.err);
        }
    }
}

#[test]
fn unknown_words_are_wrong_use() {
    for words in [
        &["fly"][..],
        &["launch", "--gpu", "8"],
        &["plan", "--format", "xml"],
        &["plan", "--gpus", "2", "--ranks", "2"],
        &["launch", "--cluster", "kubernetes"],
    ] {
        let ran = spinectl(words);
        assert_eq!(ran.code, Some(2), "{words:?}: {}", ran.err);
    }
}

#[test]
fn all_faults_of_a_recipe_are_told_at_once_with_their_lines() {
    let folder =
        folder_with_recipe("data:\n  root: d\n  fold: 2\nstage1a:\n  training:\n    epochs: -3\n");
    for command in ["plan", "launch"] {
        let ran = spinectl_in(folder.path(), &[command, "--set", "retries=many"]);
        assert_eq!(ran.code, Some(2), "{}", ran.err);
        for part in [
            "3 faults",
            "spinectl.yaml:3:3: data.fold: unknown key",
            "did you mean `folds`?",
            "stage1a.training.epochs",
            "--set retries=many",
        ] {
            assert!(ran.err.contains(part), "no `{part}` in\n{}", ran.err);
        }
    }
}

#[test]
fn a_recipe_that_is_not_there_is_wrong_use() {
    let ran = spinectl(&["plan", "nowhere.yaml"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.err.contains("nowhere.yaml"), "{}", ran.err);
}

#[test]
fn a_launch_without_gpus_says_what_to_type_instead() {
    for words in [&["launch", "--gpus", "8"][..], &["launch"]] {
        let ran = spinectl(words);
        assert_eq!(ran.code, Some(3), "{}", ran.err);
        assert!(ran.err.contains("--device cpu --ranks"), "{}", ran.err);
    }
}

#[test]
fn a_launch_is_refused_before_anything_is_written() {
    let folder = folder_with_recipe(SMALL);
    let cases: [(&[&str], i32, &str); 9] = [
        (&["--gpus", "2", "--device", "cpu"], 2, "exclude each other"),
        (&["--ranks", "2"], 2, "--device cpu --ranks N"),
        (&["--nodes", "2"], 2, "--nodes"),
        (&["--time", "1:00"], 2, "--cluster slurm"),
        (&["--device", "cpu", "--ranks", "3"], 2, "stage1b.training"),
        (&["--device", "cpu", "--ranks", "2"], 4, "data.root"),
        (&["--set", "name=../up", "--device", "cpu"], 2, "--run-dir"),
        (&["--cluster", "slurm", "--gpus", "2"], 2, "--dry-run"),
        (
            &[
                "--cluster",
                "slurm",
                "--gpus",
                "2",
                "--nodes",
                "2",
                "--dry-run",
            ],
            2,
            "--nodes",
        ),
    ];
    for (words, code, part) in cases {
        let ran = spinectl_in(folder.path(), &[&["launch"], words].concat());
        assert_eq!(ran.code, Some(code), "{words:?}: {}", ran.err);
        assert!(ran.err.contains(part), "no `{part}` in\n{}", ran.err);
        assert!(ran.out.is_empty(), "{words:?}: {}", ran.out);
    }
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn a_batch_that_does_not_divide_is_told_for_every_stage() {
    let folder = folder_with_recipe(SMALL);
    let ran = spinectl_in(folder.path(), &["plan", "--ranks", "3"]);
    assert_eq!(ran.code, Some(2));
    for stage in [
        "stage1a.training: a batch of 8",
        "stage1b.training: a batch of 16",
    ] {
        assert!(ran.err.contains(stage), "{}", ran.err);
    }
}

#[test]
fn a_batch_that_does_not_divide_is_told_for_the_models_that_have_it() {
    let folder = folder_with_recipe(SMALL);
    let models = "stage1b.models=[{arch: resnest14d}, {arch: resnest26d, batch: 18}]";
    let words = ["plan", "--ranks", "3", "--set", models, "--stages", "1a,1b"];
    let ran = spinectl_in(folder.path(), &words);
    assert_eq!(ran.code, Some(2));
    let part = "stage1b.models (resnest14d): a batch of 16";
    assert!(ran.err.contains(part), "{}", ran.err);
    assert!(!ran.err.contains("resnest26d"), "{}", ran.err);
}

#[test]
fn an_architecture_that_is_not_there_is_refused_before_the_first_job() {
    let folder = folder_with_recipe(&SMALL.replace("resnest14d}}\n", "resnet14d}}\n"));
    for command in ["plan", "launch"] {
        let ran = spinectl_in(folder.path(), &[command]);
        assert_eq!(ran.code, Some(2), "{}", ran.err);
        let part = "did you mean `resnest14d`?";
        assert!(ran.err.contains(part), "no `{part}` in\n{}", ran.err);
    }
    assert!(!folder.path().join("runs").exists());
}

#[test]
fn a_recipe_extends_one_in_another_folder() {
    let folder = folder_with_recipe("extends: base/small.yaml\nname: own\n");
    fs::create_dir(folder.path().join("base")).unwrap();
    fs::write(folder.path().join("base/small.yaml"), SMALL).unwrap();
    let ran = spinectl_in(folder.path(), &["plan", "--ranks", "2"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out.contains("own: "), "{}", ran.out);
    fs::remove_file(folder.path().join("base/small.yaml")).unwrap();
    let ran = spinectl_in(folder.path(), &["plan", "--ranks", "2"]);
    assert_eq!(ran.code, Some(2));
    let part = "spinectl.yaml:1:10: extends: cannot read base/small.yaml";
    assert!(ran.err.contains(part), "no `{part}` in\n{}", ran.err);
}

#[test]
fn the_plan_as_json_tells_jobs_and_batches() {
    let folder = folder_with_recipe(SMALL);
    for format in [&["--format", "json"][..], &["--json"]] {
        let words = [&["plan", "--ranks", "2", "--stages", "1a"], format].concat();
        let ran = spinectl_in(folder.path(), &words);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        let plan: Value = serde_json::from_str(&ran.out).unwrap();
        let ids: Vec<&str> = plan["jobs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|job| job["id"].as_str().unwrap())
            .collect();
        assert_eq!(
            ids[..3],
            [
                "labels",
                "stage1a-resnest14d-fold0-seed0",
                "stage1a-resnest14d-fold1-seed0"
            ]
        );
        let training = &plan["jobs"][1]["training"];
        assert_eq!(
            [
                &training["batch"],
                &training["micro_batch"],
                &training["accumulation"]
            ],
            [8, 4, 1]
        );
        assert_eq!(plan["jobs"][1]["ranks"], 2);
        assert_eq!(
            plan["jobs"][0]["ranks"], 1,
            "tables are made by one process"
        );
    }
}

#[test]
fn the_plan_as_a_graph_has_each_job_and_need() {
    let folder = folder_with_recipe(SMALL);
    let ran = spinectl_in(folder.path(), &["plan", "--format", "mermaid"]);
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!(lines[0], "flowchart LR");
    assert!(lines.contains(&"    j0[\"labels\"]"));
    assert!(lines.contains(&"    j1 --> j3"), "{}", ran.out);
}

#[test]
fn the_built_in_recipe_has_a_plan_and_a_dry_run() {
    let plan = spinectl(&["plan", "--gpus", "8"]);
    assert_eq!(plan.code, Some(0), "{}", plan.err);
    assert!(plan.out.contains("stage2-seresnext50_32x4d-foldall-seed3"));
    assert!(plan.out.contains("3 x 8 x 2"), "{}", plan.out);

    let folder = TempDir::new().unwrap();
    let dry = spinectl_in(folder.path(), &["launch", "--gpus", "8", "--dry-run"]);
    assert_eq!(dry.code, Some(0), "{}", dry.err);
    assert!(dry.out.starts_with(&plan.out));
    assert!(dry.out.contains("runs/rsna2022"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_slurm_script_calls_the_same_launch() {
    let words = [
        "launch",
        "--cluster",
        "slurm",
        "--dry-run",
        "--gpus",
        "4",
        "--stages",
        "1a",
        "--set",
        "name=a b",
        "--run-dir",
        "my run",
        "--time",
        "12:00:00",
    ];
    let ran = spinectl(&words);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    for part in [
        "#SBATCH --job-name=spinectl-a_b\n",
        "#SBATCH --gpus-per-node=4\n",
        "#SBATCH --time=12:00:00\n",
        " launch --run-dir 'my run' --gpus 4 --stages 1a --set 'name=a b' &\n",
    ] {
        assert!(ran.out.contains(part), "no `{part}` in\n{}", ran.out);
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    // The pipe is closed before the program writes its first byte.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    for words in [&["plan"][..], &["completions", "zsh"]] {
        let ran: Ran = program::spinectl(Path::new("."), words)
            .stdout(writer.try_clone().unwrap())
            .output()
            .unwrap()
            .into();
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{words:?}");
    }
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let ran = spinectl(&["completions", shell]);
        assert_eq!(ran.code, Some(0));
        assert!(ran.out.contains("launch") && ran.out.contains("verify"));
    }
}

#[test]
fn the_status_of_what_is_no_run_is_wrong_use() {
    let folder = TempDir::new().unwrap();
    for path in ["nowhere", "."] {
        let ran = spinectl_in(folder.path(), &["status", path]);
        assert_eq!(ran.code, Some(2), "{}", ran.err);
        assert!(ran.err.contains(path), "{}", ran.err);
    }
}

#[test]
fn a_phantom_is_made_once_and_only_within_its_limits() {
    let folder = TempDir::new().unwrap();
    let words = [
        "data",
        "synth",
        "--out",
        "phantom",
        "--studies",
        "3",
        "--slices",
        "16",
        "--size",
        "32",
        "--seed",
        "5",
    ];
    let made = spinectl_in(folder.path(), &words);
    assert_eq!(made.code, Some(0), "{}", made.err);
    assert!(made.out.contains("made phantom: 3 studies"), "{}", made.out);
    assert!(folder.path().join("phantom/train.csv").is_file());
    let again = spinectl_in(folder.path(), &words);
    assert!(again.out.contains("complete already"), "{}", again.out);

    let other = spinectl_in(
        folder.path(),
        &["data", "synth", "--out", "phantom", "--seed", "6"],
    );
    assert_eq!(other.code, Some(2), "{}", other.err);
    let size = spinectl_in(
        folder.path(),
        &["data", "synth", "--out", "new", "--size", "7"],
    );
    assert_eq!(size.code, Some(2), "{}", size.err);
}
