//! The cache that `spinectl data cache build` fills is the one that ranks read.

use std::collections::BTreeSet;
use std::fs;

use spinectl_tests::{cache, launch_arguments, phantom, root, spinectl};

#[test]
fn a_training_after_a_build_makes_no_entry() {
    let folder = tempfile::tempdir().unwrap();
    let data = phantom(folder.path());
    let launch = launch_arguments(&data, &folder.path().join("run"), 2, &["--stages=1a"]);
    let entries = || -> BTreeSet<_> {
        let entries = fs::read_dir(cache(&data).join("entries")).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect()
    };
    // The recipe and what is laid over it, without what only a launch takes.
    let recipe = root().join("configs/demo.yaml").display().to_string();
    let mut build = vec!["data".into(), "cache".into(), "build".into(), recipe];
    let sets = launch.iter().filter(|word| word.starts_with("--set="));
    build.extend(sets.cloned());
    build.push("--stages=1a".into());
    let built = spinectl(&build);
    assert_eq!(built.status.code(), Some(0), "{built:?}");
    let before = entries();
    assert_eq!(before.len(), 12);

    let ended = spinectl(&launch);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert_eq!(entries(), before);
}
