//! `spinectl data check`: whether a training can use a data set, before it tries.

mod html;

use std::path::PathBuf;

use clap::Args;
use data::StudyUid;
use data::check::{CheckOptions, CheckReport, Severity, StudyCheck, check};
use data::data_set::DataSet;
use serde::Serialize;

use super::progress::Progress;
use crate::table::{self, Column};
use crate::{exit, output, units};

/// Read a whole data set as a training would, and say what would stop or spoil one
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  spinectl data check rsna-2022
  spinectl data check rsna-2022 --html report.html --exclude 1.2.826.0.1.3680043.20574
  spinectl data check rsna-2022 --headers-only --json > report.json

The folder holds train_images/, and where there are labels train.csv, segmentations/ and train_bounding_boxes.csv.
Warnings are what a training copes with; errors stop it. Exit code 4 where there are errors.")]
pub struct Arguments {
    /// The data set's folder: data.root of a recipe
    root: PathBuf,

    /// Read only the headers: quick, but damaged pixels stay undetected
    #[arg(long)]
    headers_only: bool,

    /// A study to leave out; may be repeated
    #[arg(long, value_name = "UID")]
    exclude: Vec<StudyUid>,

    /// Write a page with an axial and a mid-sagittal picture of each study that has a problem
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// Studies read at once [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,

    /// List the sound studies too
    #[arg(long)]
    all: bool,

    /// Print the report as JSON, with all studies
    #[arg(long)]
    json: bool,
}

/// A report with its counts, as `--json` prints it.
#[derive(Serialize)]
struct Summary<'a> {
    ok: usize,
    warnings: usize,
    errors: usize,
    problems: &'a [data::check::Problem],
    studies: Vec<Rated<'a>>,
}

#[derive(Serialize)]
struct Rated<'a> {
    severity: Severity,
    #[serde(flatten)]
    check: &'a StudyCheck,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    let data_set = DataSet::new(&arguments.root);
    let options = CheckOptions {
        headers_only: arguments.headers_only,
        exclude: arguments.exclude.iter().cloned().collect(),
        pictures: arguments.html.is_some(),
    };
    let progress = Progress::new();
    let read = || check(&data_set, &options, &|done, total| progress.at(done, total));
    let report = super::with_jobs(arguments.jobs, read)??;
    progress.end();

    if let Some(path) = &arguments.html {
        html::write(path, &arguments.root, &report)?;
        output::say(&format!("wrote {}", path.display()));
    }
    match arguments.json {
        true => output::print_json(&summary(&report))?,
        false => output::print(&in_words(&report, arguments.all))?,
    }
    Ok(match report.severity() {
        Severity::Error => exit::BAD_DATA,
        Severity::Ok | Severity::Warning => exit::DONE,
    })
}

fn summary(report: &CheckReport) -> Summary<'_> {
    let rated = |check| Rated {
        severity: StudyCheck::severity(check),
        check,
    };
    Summary {
        ok: report.count(Severity::Ok),
        warnings: report.count(Severity::Warning),
        errors: report.count(Severity::Error),
        problems: &report.problems,
        studies: report.studies.iter().map(rated).collect(),
    }
}

/// The word for it.
fn state(severity: Severity) -> &'static str {
    match severity {
        Severity::Ok => "ok",
        Severity::Warning => "warning",
        Severity::Error => "ERROR",
    }
}

/// `300 x 512 x 512`.
fn shape(check: &StudyCheck) -> Option<String> {
    let [slices, rows, cols] = check.shape?;
    Some(format!("{slices} x {rows} x {cols}"))
}

/// `0.80 x 0.40 x 0.40`.
fn spacing(check: &StudyCheck) -> Option<String> {
    let [slices, rows, cols] = check.spacing?;
    Some(format!("{slices:.2} x {rows:.2} x {cols:.2}"))
}

/// `2 errors, 1 warning, 45 ok`, of studies.
fn counts(report: &CheckReport) -> String {
    let of = |severity| report.count(severity);
    format!(
        "{}: {} with errors, {} with warnings, {} ok",
        units::count(report.studies.len(), "study", "studies"),
        of(Severity::Error),
        of(Severity::Warning),
        of(Severity::Ok)
    )
}

fn in_words(report: &CheckReport, all: bool) -> String {
    let mut text = String::new();
    let listed: Vec<&StudyCheck> = report
        .studies
        .iter()
        .filter(|check| all || check.severity() > Severity::Ok)
        .collect();
    if !listed.is_empty() {
        let mut table = table::new(&[
            Column::Text("study"),
            Column::Text("state"),
            Column::Number("slices x rows x columns"),
            Column::Number("spacing (mm)"),
            Column::Text("segmented"),
        ]);
        for check in &listed {
            table.add_row([
                check.study.to_string(),
                state(check.severity()).to_owned(),
                table::or_dash(shape(check)),
                table::or_dash(spacing(check)),
                table::or_dash(check.segmented.map(|_| "yes")),
            ]);
        }
        text.push_str(&table.trim_fmt());
        text.push_str("\n\n");
    }
    for problem in &report.problems {
        text.push_str(&format!(
            "{}: {}\n",
            state(problem.severity),
            problem.message
        ));
    }
    for check in listed {
        for problem in &check.problems {
            let state = state(problem.severity);
            text.push_str(&format!("{state}: {}: {}\n", check.study, problem.message));
        }
    }
    text.push_str(&counts(report));
    text
}
