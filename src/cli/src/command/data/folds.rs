//! `spinectl data folds`: the split by patient, written once, and how even it is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use clap::Args;
use data::StudyUid;
use data::data_set::DataSet;
use data::folds::folds;
use data::tables::{LABELS, StudyFold, StudyLabels, read_table, write_table};
use serde::Serialize;

use crate::table::{self, Column};
use crate::{exit, output, units};

/// Split a data set into folds by patient, evenly on the eight labels and on the segmented studies
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  spinectl data folds rsna-2022 --out folds.csv --folds 5 --seed 2022
  spinectl launch --set data.split=folds.csv --set data.root=rsna-2022 --gpus 8 --run-dir runs/first

The table is written once: where it is there already it is shown, and never replaced by another. Equal options give an
equal split. Studies of one patient stay together where train.csv has a column PatientID; else each study is one patient.")]
pub struct Arguments {
    /// The data set's folder: data.root of a recipe
    root: PathBuf,

    /// The table to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// Number of folds
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = clap::value_parser!(u64).range(2..=50))]
    folds: u64,

    /// Another seed, another split
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,

    /// A study to leave out; may be repeated
    #[arg(long, value_name = "UID")]
    exclude: Vec<StudyUid>,

    /// Print the shares as JSON
    #[arg(long)]
    json: bool,
}

/// What one fold holds: studies, and of them those with each trait.
#[derive(Debug, Default, Serialize)]
struct Share {
    fold: u32,
    studies: usize,
    segmented: usize,
    /// By label.
    fractured: BTreeMap<&'static str, usize>,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    let data_set = DataSet::new(&arguments.root);
    let mut labels: Vec<StudyLabels> = read_table(&data_set.labels())?;
    labels.retain(|row| !arguments.exclude.contains(&row.study));
    let mut segmented = BTreeSet::new();
    for row in &labels {
        if data_set.segmentation(&row.study)?.is_some() {
            segmented.insert(row.study.clone());
        }
    }
    let split = folds(
        &labels,
        &segmented,
        arguments.folds as usize,
        arguments.seed,
    )?;

    let out = &arguments.out;
    let was_there = out.exists();
    if was_there {
        let there: Vec<StudyFold> = read_table(out)?;
        if there != split {
            return Err(exit::wrong_use(format!(
                "{} holds another split than these options give: models that were trained by it would be tested on what they \
                 have seen. Write to another file, or delete this one first",
                out.display()
            )));
        }
    } else {
        write_table(out, &split)?;
    }
    let shares = shares(&split, &labels, &segmented);
    if arguments.json {
        output::print_json(&shares)?;
        return Ok(exit::DONE);
    }
    let wrote = if was_there {
        "is there already"
    } else {
        "written"
    };
    output::print(&format!(
        "{}\n\n{} {wrote}: {} in {}",
        rendered(&shares),
        out.display(),
        units::count(split.len(), "study", "studies"),
        units::count(arguments.folds as usize, "fold", "folds")
    ))?;
    Ok(exit::DONE)
}

fn shares(
    split: &[StudyFold],
    labels: &[StudyLabels],
    segmented: &BTreeSet<StudyUid>,
) -> Vec<Share> {
    let by_study: BTreeMap<&StudyUid, &StudyLabels> =
        labels.iter().map(|row| (&row.study, row)).collect();
    let mut shares: BTreeMap<u32, Share> = BTreeMap::new();
    for row in split {
        let share = shares.entry(row.fold).or_insert_with(|| Share {
            fold: row.fold,
            fractured: LABELS.map(|label| (label, 0)).into(),
            ..Share::default()
        });
        share.studies += 1;
        share.segmented += usize::from(segmented.contains(&row.study));
        let flags = by_study.get(&row.study).map(|row| row.all());
        for (label, flag) in LABELS.into_iter().zip(flags.unwrap_or_default()) {
            *share.fractured.entry(label).or_default() += usize::from(flag);
        }
    }
    shares.into_values().collect()
}

/// A row a fold: each label's number of studies, and their share of the fold.
fn rendered(shares: &[Share]) -> String {
    let columns: Vec<Column> = ["fold", "studies", "segmented"]
        .into_iter()
        .chain(LABELS)
        .map(Column::Number)
        .collect();
    let mut table = table::new(&columns);
    for share in shares {
        let of = |count: usize| {
            let percent = 100.0 * count as f64 / share.studies.max(1) as f64;
            format!("{count} ({percent:.1} %)")
        };
        let mut row = vec![
            share.fold.to_string(),
            share.studies.to_string(),
            of(share.segmented),
        ];
        row.extend(LABELS.map(|label| of(share.fractured.get(label).copied().unwrap_or(0))));
        table.add_row(row);
    }
    table.trim_fmt()
}
