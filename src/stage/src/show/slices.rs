//! The slices of held-out studies: curves along the neck, and the scores behind precision and recall.

use data::stage_tables::SliceScores;
use data::targets::VERTEBRAE;
use metrics::ScoreCounts;
use nn::SliceHeads;

use super::canvas::Colour;
use super::curves::{Panel, curves};
use super::{Canvas, Shows};
use crate::context::Context;
use crate::slice_scores::ByVertebra;
use crate::windows::SliceTruth;

/// Area and line of the ratios, and of the fractures.
const RATIO: (Colour, Colour) = ([190, 215, 245], [30, 100, 200]);
const FRACTURE: (Colour, Colour) = ([250, 200, 190], [200, 40, 30]);

/// A target counts as positive from here on: in stage 1b half of the vertebra's largest area; in stage 2 a fractured vertebra, of which
/// stage 1b's prediction has half of that.
const POSITIVE: f32 = 0.5;

/// A study's slices.
pub(crate) struct Study<'a> {
    /// What the model says of them: ratios (stage 1b) or fractures (stage 2).
    pub rows: &'a [SliceScores],
    /// The ratios beside the fractures.
    pub ratio: Option<&'a [[f32; VERTEBRAE]]>,
    /// What it should say.
    pub target: &'a [SliceTruth],
}

/// What a model says of studies.
pub(crate) struct Studies<'a> {
    pub heads: SliceHeads,
    pub studies: Vec<Study<'a>>,
}

impl Studies<'_> {
    pub fn show(&self, context: &Context, step: u64, set: &str) {
        let name = match self.heads {
            SliceHeads::Ratio => "vertebra",
            SliceHeads::Fracture => "fracture",
        };
        let of = |target: &SliceTruth| match self.heads {
            SliceHeads::Ratio => target.ratio,
            SliceHeads::Fracture => target.fracture,
        };
        let slices = self.studies.iter();
        let slices = slices.flat_map(|study| study.rows.iter().zip(study.target));
        let scored = slices.flat_map(|(row, target)| row.scores.into_iter().zip(of(target)));
        let counts = ScoreCounts::of(scored.map(|(p, y)| (f64::from(p), y >= POSITIVE)));
        context.scores(step, set, name, counts);

        for (number, study) in self.studies.iter().take(context.pictures()).enumerate() {
            let Some((first, last)) = study.rows.first().zip(study.rows.last()) else {
                continue;
            };
            let key = match self.heads {
                SliceHeads::Ratio => "area: true ratio, line: the predicted one",
                SliceHeads::Fracture => {
                    "blue: ratio, red: fracture; lines: predicted, areas: targets (stage 1b's ratio, and that times the \
                     study's label)"
                }
            };
            let shows = Shows {
                of: format!("study {}", first.study),
                what: format!(
                    "slices {} to {}, head on the left, C1 on top; {key}",
                    first.slice_number, last.slice_number
                ),
            };
            let name = format!("curves/{set}/{number}");
            context.picture(step, &name, shows, || Ok(study.curves()));
        }
    }
}

impl Study<'_> {
    fn curves(&self) -> Canvas {
        let scores: ByVertebra = self.rows.iter().map(|row| row.scores).collect();
        let ratios: ByVertebra = self.target.iter().map(|target| target.ratio).collect();
        let fractures: ByVertebra = self.target.iter().map(|target| target.fracture).collect();
        let panel = |truth, predicted, (area, line)| Panel {
            truth,
            predicted,
            area,
            line,
        };
        match self.ratio {
            None => curves(&[panel(&ratios, &scores, RATIO)]),
            Some(ratio) => curves(&[
                panel(&ratios, ratio, RATIO),
                panel(&fractures, &scores, FRACTURE),
            ]),
        }
    }
}
