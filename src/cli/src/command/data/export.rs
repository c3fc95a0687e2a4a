//! `spinectl data export`: a study's Hounsfield units as a NIfTI volume, for any viewer.

use std::path::{Path, PathBuf};

use clap::Args;
use data::volume::{Finding, export_nifti, study_header};
use serde::Serialize;

use crate::{exit, output, units};

/// Write a study's Hounsfield units to a NIfTI volume, with its place in the patient
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  spinectl data export rsna-2022/train_images/1.2.826.0.1.3680043.6200 --out ct.nii.gz
  spinectl data export scans/s0011 --out ct.nii

Slices are in the order in which models see them, head first; the affine says where they lie, so viewers show the volume
where a segmentation of the study lies too. What was noticed about the series is said on stderr.")]
pub struct Arguments {
    /// The folder of DICOM slices, or a NIfTI image
    study: PathBuf,

    /// The file to write: .nii, or .nii.gz for a compressed one
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// Print what was written as JSON
    #[arg(long)]
    json: bool,
}

/// The volume that was written.
#[derive(Serialize)]
struct Written<'a> {
    path: &'a Path,
    /// (slices, rows, columns)
    shape: [usize; 3],
    /// Between slices, rows and columns, mm.
    spacing: [f64; 3],
    findings: &'a [Finding],
}

pub fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    let name = arguments.out.to_string_lossy();
    if ![".nii", ".nii.gz"]
        .iter()
        .any(|ending| name.ends_with(ending))
    {
        return Err(exit::wrong_use(format!(
            "{name} ends neither in .nii nor in .nii.gz: name the NIfTI file to write"
        )));
    }
    let header = study_header(&arguments.study)?;
    let inside = |place: &Path| {
        let resolved = |path: &Path| path.canonicalize().ok();
        let folder = match arguments.out.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let out = resolved(&arguments.out).or_else(|| resolved(folder));
        out.zip(resolved(place))
            .is_some_and(|(out, place)| out.starts_with(place))
    };
    if inside(&arguments.study) || header.files().iter().any(|file| inside(file)) {
        return Err(exit::wrong_use(format!(
            "{name} would lie in the study itself, or replace its file: name another place"
        )));
    }
    for finding in &header.findings {
        output::say(&format!("note: {finding}"));
    }
    export_nifti(&header, &arguments.out)?;
    let g = &header.geometry;
    if arguments.json {
        output::print_json(&Written {
            path: &arguments.out,
            shape: g.shape(),
            spacing: [g.slice_spacing(), g.spacing[0], g.spacing[1]],
            findings: &header.findings,
        })?;
        return Ok(exit::DONE);
    }
    output::print(&format!(
        "wrote {name}: {} of {} x {} voxels, {:.3} x {:.3} x {:.3} mm",
        units::count(g.slices, "slice", "slices"),
        g.rows,
        g.cols,
        g.slice_spacing(),
        g.spacing[0],
        g.spacing[1]
    ))?;
    Ok(exit::DONE)
}
