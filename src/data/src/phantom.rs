//! Phantom data sets: synthetic neck CTs, some fractured, on disk as the competition's are. For tests, demos and
//! benchmarks; anatomically plausible enough to learn from, of no real patient.
//!
//! A data set is a function of its options alone: equal options give equal bytes, on any number of threads. While one
//! is being made its folder holds `phantom.partial.json`; when it is complete that file gives way to `phantom.json`.

mod canvas;
mod cohort;
mod draw;
mod folder;
mod fracture;
mod scan;
mod shape;
mod spine;
mod tissue;
mod vertebra;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::dicom::write::{SliceToWrite, write_ct_slice};
use crate::error::{DataError, Result};
use crate::nifti::write::{Layout, write_nifti_u8};
use crate::tables::{FractureBox, StudyLabels, write_table};

use cohort::StudyPlan;
use folder::{Folder, Opened};
use scan::Scan;

/// How far a study's number of slices may be from the mean, as a share of it.
const STUDY_SLICES_SPREAD: f32 = 0.2;

/// What to make.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SynthOptions {
    /// The data set's folder: new, empty, or begun with the same options.
    #[serde(skip)]
    pub out: PathBuf,
    /// Number of studies, 1 to 100,000.
    pub studies: usize,
    /// Mean number of slices a study, 16 to 1,000; studies have up to 20 % more or less.
    pub slices: usize,
    /// Rows, and columns, of a slice: 32 to 1,024.
    pub size: usize,
    /// Names the random numbers, and is a part of the UIDs.
    pub seed: u64,
    /// Share of studies with a segmentation, 0 to 1.
    pub segmented: f64,
    /// Share of studies with a fracture, 0 to 1.
    pub fractured: f64,
}

impl Default for SynthOptions {
    /// 60 studies of about 64 slices of 128 x 128; 48 % are fractured, as in the competition, and 40 % segmented.
    fn default() -> Self {
        Self {
            out: PathBuf::new(),
            studies: 60,
            slices: 64,
            size: 128,
            seed: 0,
            segmented: 0.4,
            fractured: 0.48,
        }
    }
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SynthSummary {
    /// Studies in all.
    pub studies: usize,
    /// Slices in all.
    pub slices: usize,
    /// Studies with a fracture.
    pub fractured: usize,
    /// Studies with a segmentation.
    pub segmented: usize,
    /// Rows of train_bounding_boxes.csv.
    pub boxes: usize,
    /// Whether all of it was there already, so that nothing was written.
    #[serde(skip)]
    pub already_complete: bool,
}

/// Makes the data set `options` describe, studies in parallel on rayon's threads; `progress` is told
/// (studies done, studies in all) after each, from any of them.
///
/// Completes what an interrupted call with the same options left, and does nothing where it is complete.
///
/// # Errors
/// [`DataError::PhantomOption`] for an option out of range; [`DataError::PhantomFolder`] where the folder holds anything
/// but a phantom of the same options, or another process is writing it; [`DataError::Io`].
pub fn synthesize(
    options: &SynthOptions,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<SynthSummary> {
    check(options)?;
    let folder = match Folder::open(options)? {
        Opened::Complete(summary) => return Ok(summary),
        Opened::Begun(folder) => folder,
    };
    let plans = cohort::plan(options)?;
    let done = AtomicUsize::new(0);
    let written = plans.par_iter().map(|plan| {
        let study = write_study(plan, options)?;
        progress(done.fetch_add(1, Ordering::Relaxed) + 1, plans.len());
        Ok(study)
    });
    let written: Vec<WrittenStudy> = written.collect::<Result<_>>()?;

    write_tables(&options.out, &plans, &written)?;
    let summary = SynthSummary {
        studies: plans.len(),
        slices: written.iter().map(|study| study.slices).sum(),
        fractured: plans
            .iter()
            .filter(|plan| plan.fractured.contains(&true))
            .count(),
        segmented: plans.iter().filter(|plan| plan.segmented).count(),
        boxes: written.iter().map(|study| study.boxes.len()).sum(),
        already_complete: false,
    };
    folder.complete(options, &summary)?;
    Ok(summary)
}

fn check(options: &SynthOptions) -> Result<()> {
    let within = |option, found: usize, range: std::ops::RangeInclusive<usize>, expected| {
        let error = || DataError::PhantomOption {
            option,
            found: found.to_string(),
            expected,
        };
        range.contains(&found).then_some(()).ok_or_else(error)
    };
    within("studies", options.studies, 1..=100_000, "1 to 100000")?;
    within("slices", options.slices, 16..=1000, "16 to 1000")?;
    within("size", options.size, 32..=1024, "32 to 1024 pixels")?;
    for (option, share) in [
        ("segmented", options.segmented),
        ("fractured", options.fractured),
    ] {
        if !(0.0..=1.0).contains(&share) {
            let found = share.to_string();
            return Err(DataError::PhantomOption {
                option,
                found,
                expected: "a share from 0 to 1",
            });
        }
    }
    Ok(())
}

/// What the tables say of a study.
struct WrittenStudy {
    slices: usize,
    boxes: Vec<scan::FractureBox>,
}

/// Writes a study's files, unless a call before this one did.
fn write_study(plan: &StudyPlan, options: &SynthOptions) -> Result<WrittenStudy> {
    let mut scan = Scan::draw(plan, options);
    let images = options.out.join(folder::IMAGES);
    let finished = images.join(plan.study.as_str());
    if !finished.exists() {
        if plan.segmented {
            write_segmentation(plan, &scan, &options.out)?;
        }
        // A study's folder has its name once it is whole.
        let partial = images.join(format!("{}{}", folder::PARTIAL_STUDY, plan.study));
        fs::create_dir(&partial).map_err(DataError::io("create", &partial))?;
        write_slices(plan, &mut scan, &partial)?;
        fs::rename(&partial, &finished).map_err(DataError::io("rename", &partial))?;
    }
    let boxes = if plan.boxed {
        scan.fracture_boxes()
    } else {
        Vec::new()
    };
    Ok(WrittenStudy {
        slices: scan.numbers.len(),
        boxes,
    })
}

fn write_slices(plan: &StudyPlan, scan: &mut Scan, folder: &Path) -> Result<()> {
    let series_uid = format!("{}.1", plan.study);
    let geometry = scan.geometry;
    let numbers = scan.numbers.clone();
    // Both kinds of stored values that scanners write.
    let (signed, rescale_intercept) = if plan.index.is_multiple_of(2) {
        (true, 0)
    } else {
        (false, -1024)
    };
    let side = geometry.rows as u16; // at most 1,024: `check`
    for (index, (hu, number)) in scan.slices().zip(numbers).enumerate() {
        write_ct_slice(
            &folder.join(format!("{number}.dcm")),
            &SliceToWrite {
                study: &plan.study,
                series_uid: &series_uid,
                sop_instance_uid: &format!("{series_uid}.{number}"),
                instance_number: number,
                position: geometry.voxel_to_lps().apply([0.0, 0.0, index as f64]),
                orientation: [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
                pixel_spacing: geometry.spacing,
                slice_thickness: geometry.slice_spacing(),
                rows: side,
                cols: side,
                hu: &hu,
                signed,
                rescale_intercept,
            },
        )?;
    }
    Ok(())
}

fn write_tables(out: &Path, plans: &[StudyPlan], written: &[WrittenStudy]) -> Result<()> {
    let labels = plans.iter().map(|plan| StudyLabels {
        study: plan.study.clone(),
        patient_overall: plan.fractured.contains(&true).into(),
        vertebrae: plan.fractured.map(u8::from),
        patient: None,
    });
    write_table(&out.join("train.csv"), &labels.collect::<Vec<_>>())?;
    let boxes = plans.iter().zip(written).flat_map(|(plan, study)| {
        study.boxes.iter().map(|found| FractureBox {
            study: plan.study.clone(),
            x: found.x,
            y: found.y,
            width: found.width,
            height: found.height,
            slice_number: found.slice_number,
        })
    });
    write_table(
        &out.join("train_bounding_boxes.csv"),
        &boxes.collect::<Vec<_>>(),
    )
}

fn write_segmentation(plan: &StudyPlan, scan: &Scan, out: &Path) -> Result<()> {
    let path = out
        .join(folder::SEGMENTATIONS)
        .join(format!("{}.nii", plan.study));
    write_nifti_u8(&path, &scan.geometry, &scan.labels(), Layout::Kaggle)
}

/// Whether `root` is a data set that this module made.
pub fn is_phantom(root: &Path) -> bool {
    root.join(folder::COMPLETE).is_file()
}
