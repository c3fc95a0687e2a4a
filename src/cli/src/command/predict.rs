//! `spinectl predict`: the fracture probabilities of studies, by the models of a finished run.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use clap::Args;
use data::predicted::{PredictionReport, StudyOutcome, report_path};
use data::tables::LABELS;
use launcher::{Outcome, Prediction};

use crate::progress::{Follower, Show};
use crate::recipe_arguments::Device;
use crate::table::{self, Column};
use crate::{exit, output, report, units};

/// Studies that are shown; all of them are in the file.
const STUDIES_SHOWN: usize = 10;

/// Predict the fractures of studies with the models of a finished run
#[derive(Debug, Args)]
#[command(after_help = "\
Takes all localizers and study models of the run together, over folds, seeds and architectures: each probability is \
their mean. Studies need no labels; any name of letters, digits, dots, hyphens and underscores will do for a folder.

A study that cannot be read does not stop the others: it has no rows, and the end of the output and FILE.report.json, \
beside the submission, say why. The exit code is 4 then, and also where no study could be read; 0 where all were.

Examples:
  spinectl predict runs/rsna2022 --images rsna-2022/test_images --out submission.csv
  spinectl predict runs/rsna2022 --images ct --out ct.csv --details ct-details --flip")]
pub struct Arguments {
    run_dir: PathBuf,

    /// Folder with one folder of DICOM slices, or one NIfTI volume, a study
    #[arg(long, value_name = "DIR")]
    images: PathBuf,

    /// The file to write: a row for each study and label
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// Write a JSON file of each study into this folder: boxes of its slices, curves of its vertebrae, probabilities.
    /// Takes stages 1b and 2 too, and longer (docs/predictions.md)
    #[arg(long, value_name = "DIR")]
    details: Option<PathBuf>,

    /// Predict each study's mirror image too, and take the mean: twice the time. No label names a side
    #[arg(long)]
    flip: bool,

    /// Where to compute [default: cuda where there is a GPU, else cpu]
    #[arg(long, value_enum)]
    device: Option<Device>,

    /// Show only warnings and failures
    #[arg(long, short)]
    quiet: bool,

    /// Print every event as a line of JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    let show = match (arguments.json, arguments.quiet) {
        (true, _) => Show::Json,
        (_, true) => Show::Quiet,
        _ => Show::Progress,
    };
    let device = device(arguments.device)?;
    let (events, follower) = Follower::start(show, None, None)?;
    let asked = Prediction {
        run_dir: &arguments.run_dir,
        images: &arguments.images,
        out: &arguments.out,
        details: arguments.details.as_deref(),
        flip: arguments.flip,
        device: device.into(),
    };
    let predicted = super::block_on(launcher::predict(asked, events));
    let seen = follower.end();
    let outcome = predicted??;
    match &outcome {
        Outcome::Done => {
            let failed = failed(&arguments.out)?;
            if !arguments.json && !arguments.quiet {
                output::print(&done(&arguments.out, &seen.warnings)?)?;
            }
            if !failed.is_empty() {
                output::say(&failures(&failed));
                return Ok(exit::BAD_DATA);
            }
        }
        Outcome::Failed { reason, .. } | Outcome::Lost { reason } => output::say(&format!(
            "prediction failed: {reason}\n{}",
            report::quoted_log(&arguments.run_dir.join("predict.log"))
        )),
        Outcome::Stopped | Outcome::Interrupted { .. } | Outcome::Held { .. } => {
            output::say("prediction was stopped; no submission was written");
        }
    }
    Ok(exit::of(outcome.exit_code()))
}

fn device(asked: Option<Device>) -> anyhow::Result<Device> {
    match asked {
        Some(Device::Cuda) => {
            launcher::gpu::find().require(1)?;
            Ok(Device::Cuda)
        }
        Some(Device::Cpu) => Ok(Device::Cpu),
        None if launcher::gpu::find().count > 0 => Ok(Device::Cuda),
        None => Ok(Device::Cpu),
    }
}

/// The studies that have no rows, by the report beside the submission.
fn failed(out: &Path) -> anyhow::Result<Vec<StudyOutcome>> {
    let path = report_path(out);
    let broken =
        |error: std::io::Error| anyhow::anyhow!("cannot read back {}: {error}", path.display());
    let text = std::fs::read_to_string(&path).map_err(broken)?;
    let report: PredictionReport =
        serde_json::from_str(&text).map_err(|error| broken(error.into()))?;
    let studies = report.studies.into_iter();
    Ok(studies.filter(|study| study.failure.is_some()).collect())
}

/// Each study that was left out, and why. Names of folders and files may hold anything, and stand in both.
fn failures(failed: &[StudyOutcome]) -> String {
    let mut text = format!(
        "{} left out:",
        units::count(failed.len(), "study", "studies")
    );
    for study in failed {
        let reason = study.failure.as_deref().unwrap_or_default();
        text.push_str("\n  ");
        output::push_printable(&mut text, &format!("{}: {reason}", study.study));
    }
    text
}

/// The first rows of what was written, and the warnings once more.
fn done(out: &Path, warnings: &[String]) -> anyhow::Result<String> {
    let (shown, studies) = read_studies(out)?;
    let mut columns = vec![Column::Text("study")];
    columns.extend(LABELS.map(|label| {
        Column::Number(match label {
            "patient_overall" => "overall",
            vertebra => vertebra,
        })
    }));
    let mut table = table::new(&columns);
    for study in &shown {
        let mut row = vec![study.uid.clone()];
        row.extend(
            study
                .probabilities
                .map(|p| table::or_dash(p.map(|p| format!("{p:.3}")))),
        );
        table.add_row(row);
    }
    let more = match studies.saturating_sub(shown.len()) {
        0 => String::new(),
        more => format!("\nand {more} more"),
    };
    let mut text = format!(
        "{}{more}\n\nwrote {}: {}",
        table.trim_fmt(),
        out.display(),
        units::count(studies, "study", "studies")
    );
    for warning in warnings {
        text.push_str(&format!("\nwarning: {warning}"));
    }
    Ok(text)
}

struct Study {
    uid: String,
    probabilities: [Option<f64>; LABELS.len()],
}

/// The first studies of a submission, and how many there are in all.
fn read_studies(path: &Path) -> anyhow::Result<(Vec<Study>, usize)> {
    let broken = |reason: String| anyhow::anyhow!("cannot read back {}: {reason}", path.display());
    let file = File::open(path).map_err(|error| broken(error.to_string()))?;
    let mut studies: Vec<Study> = Vec::new();
    let mut count = 0;
    let mut newest = String::new();
    for line in BufReader::new(file).lines().skip(1) {
        let line = line.map_err(|error| broken(error.to_string()))?;
        // `<StudyInstanceUID>_<label>,<probability>`. The label is told from the end: a study's name may have an underscore.
        let (uid, column, probability) = line
            .split_once(',')
            .and_then(|(row, probability)| {
                let (column, uid) = LABELS.iter().enumerate().find_map(|(column, label)| {
                    Some((column, row.strip_suffix(label)?.strip_suffix('_')?))
                })?;
                Some((uid, column, probability.trim().parse::<f64>().ok()?))
            })
            .ok_or_else(|| broken(format!("`{line:.120}` is not a row of a submission")))?;
        if uid != newest {
            count += 1;
            uid.clone_into(&mut newest);
            if studies.len() < STUDIES_SHOWN {
                studies.push(Study {
                    uid: uid.to_owned(),
                    probabilities: [None; LABELS.len()],
                });
            }
        }
        if let Some(study) = studies.last_mut()
            && study.uid == uid
            && let Some(cell) = study.probabilities.get_mut(column)
        {
            *cell = Some(probability);
        }
    }
    Ok((studies, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn studies_are_counted_and_the_first_are_shown() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("submission.csv");
        let mut text = String::from("row_id,fractured\n");
        for study in 0..12 {
            for label in LABELS {
                text.push_str(&format!("1.2.{study}_{label},0.25\n"));
            }
        }
        std::fs::write(&out, text).unwrap();
        let shown = done(&out, &["one slice was left out".into()]).unwrap();
        assert!(
            shown.contains("1.2.9") && !shown.contains("1.2.10"),
            "{shown}"
        );
        assert!(shown.contains("and 2 more") && shown.contains("12 studies"));
        assert_eq!(shown.matches("0.250").count(), 10 * 8);
        assert!(shown.ends_with("warning: one slice was left out"));
    }

    #[test]
    fn a_study_may_have_an_underscore_in_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("submission.csv");
        let text = "row_id,fractured\nneck_1_patient_overall,0.5\nneck_1_C1,0.25\nneck_2_C1,0.75\n";
        std::fs::write(&out, text).unwrap();
        let (studies, count) = read_studies(&out).unwrap();
        assert_eq!(count, 2);
        assert_eq!(studies[0].uid, "neck_1");
        assert_eq!(studies[0].probabilities[..2], [Some(0.5), Some(0.25)]);
        assert_eq!(studies[1].uid, "neck_2");
    }

    #[test]
    fn studies_that_were_left_out_are_told_with_their_reasons() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("submission.csv");
        assert!(failed(&out).is_err(), "no report");
        let ended = |study: &str, failure: Option<&str>| StudyOutcome {
            study: study.into(),
            failure: failure.map(str::to_owned),
            warnings: Vec::new(),
        };
        let report = PredictionReport {
            studies: vec![
                ended("good", None),
                ended("bad\u{1b}[2J", Some("\u{1b}[2J holds\nno slice")),
            ],
            ..PredictionReport::default()
        };
        data::predicted::write_json(&report_path(&out), &report).unwrap();
        let text = failures(&failed(&out).unwrap());
        let told = "1 study left out:\n  bad\\x1b[2J: \\x1b[2J holds\\x0ano slice";
        assert_eq!(text, told);
    }

    #[test]
    fn what_is_no_submission_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("submission.csv");
        std::fs::write(&out, "row_id,fractured\n1.2.3,0.5\n").unwrap();
        let error = done(&out, &[]).unwrap_err().to_string();
        assert!(error.contains("1.2.3,0.5"), "{error}");
    }
}
