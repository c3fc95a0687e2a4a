//! Whether the data set of a recipe is there, by a look at a few studies; `spinectl data check` reads them all.

use std::path::PathBuf;

use data::data_set::DataSet;
use data::volume::{find_study, studies_below};
use recipe::Recipe;

use super::check::{About, Check};

/// Studies whose headers are read.
const STUDIES: usize = 3;

pub fn checks(recipe: &Recipe) -> Vec<Check> {
    let checks = vec![layout(recipe), studies(recipe)];
    checks
        .into_iter()
        .map(|check| check.about(About::Data))
        .collect()
}

fn layout(recipe: &Recipe) -> Check {
    let data_set = DataSet::new(&recipe.data.root);
    let missing = |path: PathBuf| {
        Check::fail(
            "data set",
            format!("{} is not there", path.display()),
            "`--set data.root=DIR` with a folder in Kaggle's layout, or make one to try with `spinectl data synth`",
        )
    };
    if !data_set.root().is_dir() {
        return missing(data_set.root().to_owned());
    }
    if !data_set.images().is_dir() {
        return missing(data_set.images());
    }
    if !data_set.labels().is_file() {
        return missing(data_set.labels());
    }
    if !data_set.segmentations().is_dir() {
        return Check::warn(
            "data set",
            format!("{} is not there", data_set.segmentations().display()),
            "stage 1a and 1b learn from it: without it they have nothing to learn",
        );
    }
    Check::ok(
        "data set",
        format!("{} has what a training reads", data_set.root().display()),
    )
}

fn studies(recipe: &Recipe) -> Check {
    let name = "studies";
    let images = DataSet::new(&recipe.data.root).images();
    let remedy = format!(
        "`spinectl data check {}` reads all of them",
        recipe.data.root.display()
    );
    let found = match studies_below(&images) {
        Ok(found) => found,
        Err(error) => return Check::fail(name, error.to_string(), "see the check of the data set"),
    };
    let used = |study: &&data::StudyUid| {
        !recipe
            .data
            .exclude
            .iter()
            .any(|excluded| excluded == study.as_str())
    };
    let first: Vec<_> = found.iter().filter(used).take(STUDIES).collect();
    if first.is_empty() {
        return Check::fail(name, format!("{} holds none", images.display()), remedy);
    }
    for study in &first {
        let read = find_study(&images, study).and_then(|header| {
            // The middle slice: its pixels too.
            let middle = header.geometry.slices / 2;
            header.read_slices(middle..middle + 1).map(|_| ())
        });
        if let Err(error) = read {
            return Check::fail(name, error.to_string(), remedy);
        }
    }
    Check::ok(
        name,
        format!(
            "{} there; the first {} can be read",
            found.len(),
            first.len()
        ),
    )
}
