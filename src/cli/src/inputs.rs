//! What a recipe's data set holds: looked at before a plan is made, so that a job depends on what it reads and not on where that lies.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use data::StudyUid;
use data::csv_table::read_table;
use data::data_set::DataSet;
use data::fingerprint::{ImageFiles, digest_of, image_files, labels_digest};
use data::folds::folds;
use data::tables::{StudyFold, StudyLabels};
use plan::{Inputs, Part, Plan};
use rayon::prelude::*;
use recipe::{BadStudy, Recipe};

use crate::exit::{self, fault};
use crate::pretrained::Pretrained;

/// A study, as files.
struct Study<'a> {
    labels: &'a StudyLabels,
    images: ImageFiles,
    /// SHA-256 of its segmentation.
    segmentation: Option<String>,
}

/// The files that a recipe names, its data set among them.
///
/// # Errors
/// What is there and cannot be read.
pub fn files(recipe: &Recipe, pretrained: &Pretrained) -> anyhow::Result<plan::Files> {
    Ok(plan::Files {
        weights: pretrained.hashes.clone(),
        inputs: look(recipe)?,
    })
}

/// None where the data set, or the file of `data.split`, is not there: a plan can be shown without them, and who needs them says so.
/// Segmentations are read to their end; of images, names and sizes are looked at.
fn look(recipe: &Recipe) -> anyhow::Result<Option<Inputs>> {
    let settings = &recipe.data;
    let data_set = DataSet::new(&settings.root);
    let split = settings.split.as_deref();
    if !data_set.labels().is_file() || split.is_some_and(|path| !path.is_file()) {
        return Ok(None);
    }
    let excluded = settings.exclude.iter().map(|uid| StudyUid::new(uid));
    let excluded = excluded.collect::<data::Result<BTreeSet<_>>>()?;
    let mut labels = read_table::<StudyLabels>(&data_set.labels())?;
    labels.retain(|row| !excluded.contains(&row.study));
    labels.sort_by(|a, b| a.study.cmp(&b.study));
    let studies = labels.par_iter().map(|row| study(&data_set, row));
    let studies = studies.collect::<anyhow::Result<Vec<_>>>()?;
    let folds = folds_of(recipe, &labels, &studies)?;
    let mut by_fold: BTreeMap<Option<u64>, Vec<&Study>> = BTreeMap::new();
    for study in &studies {
        let fold = folds.get(&study.labels.study).copied();
        by_fold.entry(fold).or_default().push(study);
    }
    Ok(Some(Inputs {
        labels: labels_digest(&labels),
        parts: by_fold.into_iter().map(part).collect(),
    }))
}

fn study<'a>(data_set: &DataSet, labels: &'a StudyLabels) -> anyhow::Result<Study<'a>> {
    // One that is there twice is a fault of that study, told by the first job with the others'.
    let segmentation = data_set.segmentation(&labels.study).unwrap_or_default();
    let segmentation = segmentation.map(|path| checkpoint::file_sha256(&path));
    Ok(Study {
        labels,
        images: image_files(&data_set.images(), &labels.study)?,
        segmentation: segmentation.transpose()?,
    })
}

/// The fold of each study, as the first job will have it. Empty where that depends on which studies it can read, or where it refuses
/// to split them.
fn folds_of(
    recipe: &Recipe,
    labels: &[StudyLabels],
    studies: &[Study],
) -> anyhow::Result<BTreeMap<StudyUid, u64>> {
    let rows: Vec<StudyFold> = match (&recipe.data.split, recipe.data.bad_study) {
        (Some(path), _) => read_table(path)?,
        (None, BadStudy::LeaveOut) => Vec::new(),
        (None, BadStudy::Stop) => {
            let segmented = studies.iter().filter(|study| study.segmentation.is_some());
            let segmented = segmented.map(|study| study.labels.study.clone()).collect();
            let count = usize::try_from(recipe.data.folds).unwrap_or(usize::MAX);
            folds(labels, &segmented, count, recipe.seed).unwrap_or_default()
        }
    };
    let folds = rows.into_iter().map(|row| (row.study, u64::from(row.fold)));
    Ok(folds.collect())
}

fn part((fold, studies): (Option<u64>, Vec<&Study>)) -> Part {
    let is_segmented = |study: &&Study| study.segmentation.is_some();
    let segmented: Vec<&Study> = studies.iter().copied().filter(is_segmented).collect();
    let slices = |of: &[&Study]| -> u64 { of.iter().map(|study| study.images.count).sum() };
    let digest = |of: &dyn Fn(&Study) -> String| {
        digest_of(studies.iter().map(|study| (&study.labels.study, of(study))))
    };
    Part {
        fold,
        studies: studies.len() as u64,
        slices: slices(&studies),
        segmented: segmented.len() as u64,
        segmented_slices: slices(&segmented),
        images: digest(&|study| study.images.digest.clone()),
        segmentations: digest(&|study| study.segmentation.clone().unwrap_or_default()),
        labels: labels_digest(studies.iter().map(|study| study.labels)),
    }
}

/// Refuses to go on with a run whose jobs this launch could not tell apart: nothing of it is done again for a reason that is none.
pub fn may_go_on(plan: &Plan, run_dir: &Path) -> anyhow::Result<()> {
    let file = run_dir.join("plan.json");
    match file.is_file() {
        true => may_follow(&plan::read(&file)?, plan, run_dir),
        false => Ok(()),
    }
}

/// As [`may_go_on`], with the run's own plan.
pub fn may_follow(earlier: &Plan, plan: &Plan, run_dir: &Path) -> anyhow::Result<()> {
    let run = run_dir.display();
    if earlier.addresses != plan.addresses {
        return Err(exit::wrong_use(format!(
            "{run} was begun by a version of spinectl that tells jobs apart by other rules (its plan has addresses {}, this version's \
             have {}): go on with it by that version, or launch into another --run-dir. Nothing in it was changed; it can be shown, \
             evaluated and predicted with as before",
            earlier.addresses, plan.addresses
        )));
    }
    if earlier.inputs.is_some() && plan.inputs.is_none() {
        return Err(fault(
            exit::BAD_DATA,
            format!(
                "{run} was begun with a data set in {}, and now train.csv, or the file of data.split, is not there: bring it back, or \
                 write --set data.root=DIR where it has moved",
                earlier.data.root.display()
            ),
        ));
    }
    Ok(())
}
