use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::{Recipe, RecipeError, Source, load, parse, to_yaml};

const BASE: &str = "\
name: base
data: {root: d, folds: 3, exclude: [a, b]}
stage2:
  training: {epochs: 4, augment: {flip: 0.1, rotate: 5}}
  models: [{arch: resnest14d}, {arch: resnest26d}]
stage3: {}
";

/// Files by name, below a folder of their own.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn read(folder: &TempDir, set: &[&str]) -> Result<Recipe, RecipeError> {
    let set: Vec<String> = set.iter().map(|s| (*s).to_owned()).collect();
    load(&folder.path().join("own/r.yaml"), &set)
}

#[test]
fn sections_are_merged_and_lists_replaced() {
    let own = "\
extends: ../base.yaml
name: own
data: {exclude: [c]}
stage2:
  training: {augment: {flip: 0.2}}
  models: [{arch: resnest50d}]
";
    let folder = folder(&[("base.yaml", BASE), ("own/r.yaml", own)]);
    let recipe = read(&folder, &["stage2.training.epochs=9"]).unwrap();
    assert_eq!((recipe.name.as_str(), recipe.data.folds), ("own", 3));
    assert_eq!(recipe.data.root, PathBuf::from("d"));
    assert_eq!(recipe.data.exclude, ["c"]);
    let models = recipe.models("2");
    assert_eq!((models.len(), models[0].label), (1, "resnest50d"));
    let training = models[0].training;
    assert_eq!(training.epochs, 9);
    assert_eq!((training.augment.flip, training.augment.rotate), (0.2, 5.0));
    assert!(recipe.stage3.is_some());

    // What is resolved stands on its own.
    let source = Source {
        name: "resolved".into(),
        text: to_yaml(&recipe).unwrap(),
    };
    assert_eq!(parse(&source, &[]).unwrap(), recipe);
}

#[test]
fn nothing_takes_a_key_of_the_extended_file_away() {
    let own = "extends: ../base.yaml\nstage2:\n  models:\nstage3:\n";
    let folder = folder(&[("base.yaml", BASE), ("own/r.yaml", own)]);
    let recipe = read(&folder, &[]).unwrap();
    assert_eq!(recipe.models("2")[0].path, "stage2.training");
    assert_eq!(recipe.stages, ["2"]);
}

#[test]
fn a_chain_goes_from_folder_to_folder() {
    let middle = "extends: ../base.yaml\nseed: 5\nretries: 7\n";
    let own = "extends: ../more/middle.yaml\nretries: 1\n";
    let folder = folder(&[
        ("base.yaml", BASE),
        ("more/middle.yaml", middle),
        ("own/r.yaml", own),
    ]);
    let recipe = read(&folder, &[]).unwrap();
    assert_eq!(
        (recipe.name.as_str(), recipe.seed, recipe.retries),
        ("base", 5, 1)
    );
}

#[test]
fn a_fault_is_told_in_the_file_where_its_value_stands() {
    let base = BASE.replace("epochs: 4", "epochs: many");
    let own = "extends: ../base.yaml\nstage2: {training: {batch: 0}}\n";
    let folder = folder(&[("base.yaml", &base), ("own/r.yaml", own)]);
    let error = read(&folder, &["retries=-1"]).unwrap_err().to_string();
    for part in [
        "base.yaml:4:22: stage2.training.epochs: expected a whole number",
        "    4 |   training: {epochs: many",
        "r.yaml:2:28: stage2.training.batch",
        "    2 | stage2: {training: {batch: 0}}",
        "--set retries=-1: retries",
    ] {
        assert!(error.contains(part), "no {part:?} in {error}");
    }
    fs::write(folder.path().join("base.yaml"), "data: [").unwrap();
    let error = read(&folder, &[]).unwrap_err().to_string();
    assert!(error.contains("base.yaml: not valid YAML"), "{error}");
}

#[test]
fn circles_and_missing_files_are_refused_with_the_chain() {
    let files = [
        ("own/r.yaml", "name: x\nextends: ../b.yaml\n"),
        ("b.yaml", "extends: own/../own/r.yaml\n"),
    ];
    let circle = folder(&files);
    let error = read(&circle, &[]).unwrap_err().to_string();
    for part in [
        "b.yaml:1:10: extends",
        "in a circle",
        "own/r.yaml -> ",
        "own/../b.yaml -> ",
    ] {
        assert!(error.contains(part), "no {part:?} in {error}");
    }
    let itself = folder(&[("own/r.yaml", "extends: r.yaml\n")]);
    assert!(
        read(&itself, &[])
            .unwrap_err()
            .to_string()
            .contains("in a circle")
    );

    let missing = folder(&[files[0], ("b.yaml", "extends: c.yaml\n")]);
    let error = read(&missing, &[]).unwrap_err().to_string();
    for part in [
        "b.yaml:1:10: extends: cannot read",
        "c.yaml",
        "own/r.yaml -> ",
    ] {
        assert!(error.contains(part), "no {part:?} in {error}");
    }
}

#[test]
fn only_a_file_extends_a_file() {
    let folder = folder(&[("own/r.yaml", "extends: [a.yaml]\n")]);
    let error = read(&folder, &[]).unwrap_err().to_string();
    assert!(
        error.contains("r.yaml:1:10: extends: expected a file, found a list"),
        "{error}"
    );

    fs::write(folder.path().join("own/r.yaml"), BASE).unwrap();
    let error = read(&folder, &["extends=a.yaml"]).unwrap_err().to_string();
    assert!(
        error.contains("--set extends=a.yaml: extends: only a recipe in a file"),
        "{error}"
    );
    let text = Source {
        name: "text".into(),
        text: format!("extends: a.yaml\n{BASE}"),
    };
    let error = parse(&text, &[]).unwrap_err().to_string();
    assert!(
        error.contains("text:1:10: extends: only a recipe in a file"),
        "{error}"
    );
}
