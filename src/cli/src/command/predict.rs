//! `spinectl predict`: the fracture probabilities of studies, by the models of a finished run.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use clap::Args;
use launcher::Outcome;

use crate::progress::{Follower, Show};
use crate::recipe_arguments::Device;
use crate::table::{self, Column};
use crate::{exit, output, report, units};

/// Studies that are shown; all of them are in the file.
const STUDIES_SHOWN: usize = 10;

/// The columns of a study, in the order of the task's labels.
const LABELS: [&str; 8] = ["patient_overall", "C1", "C2", "C3", "C4", "C5", "C6", "C7"];

/// Predict the fractures of studies with the models of a finished run
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  spinectl predict runs/rsna2022 --images rsna-2022/test_images --out submission.csv")]
pub struct Arguments {
    run_dir: PathBuf,

    /// Folder with one folder of DICOM slices a study
    #[arg(long, value_name = "DIR")]
    images: PathBuf,

    /// The file to write: a row for each study and label
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

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
    let (events, follower) = Follower::start(show, None)?;
    let predicted = super::block_on(launcher::predict(
        &arguments.run_dir,
        &arguments.images,
        &arguments.out,
        device.into(),
        events,
    ));
    let seen = follower.end();
    let outcome = predicted??;
    match &outcome {
        Outcome::Done if arguments.json || arguments.quiet => {}
        Outcome::Done => output::print(&done(&arguments.out, &seen.warnings)?)?,
        Outcome::Failed { reason, .. } | Outcome::Lost { reason } => output::say(&format!(
            "prediction failed: {reason}\n{}",
            report::quoted_log(&arguments.run_dir.join("predict.log"))
        )),
        Outcome::Stopped | Outcome::Interrupted { .. } | Outcome::Held { .. } => {
            output::say("prediction was stopped; nothing was written");
        }
    }
    Ok(exit::of(outcome.exit_code()))
}

fn device(asked: Option<Device>) -> anyhow::Result<Device> {
    match asked {
        Some(Device::Cuda) => {
            launcher::gpu::require(1)?;
            Ok(Device::Cuda)
        }
        Some(Device::Cpu) => Ok(Device::Cpu),
        None if launcher::gpu::find().count > 0 => Ok(Device::Cuda),
        None => Ok(Device::Cpu),
    }
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
        // `<StudyInstanceUID>_<label>,<probability>`
        let (uid, label, probability) = line
            .split_once('_')
            .and_then(|(uid, rest)| {
                let (label, probability) = rest.split_once(',')?;
                Some((uid, label, probability.trim().parse::<f64>().ok()?))
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
        let column = LABELS.iter().position(|known| *known == label);
        if let (Some(column), Some(study)) = (column, studies.last_mut())
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
    fn what_is_no_submission_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("submission.csv");
        std::fs::write(&out, "row_id,fractured\n1.2.3,0.5\n").unwrap();
        let error = done(&out, &[]).unwrap_err().to_string();
        assert!(error.contains("1.2.3,0.5"), "{error}");
    }
}
