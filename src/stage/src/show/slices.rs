//! The slices of held-out studies: curves along the neck, and the scores behind precision and recall.

use data::stage_tables::SliceScores;
use data::targets::VERTEBRAE;
use metrics::ScoreCounts;
use nn::SliceHeads;

use super::canvas::Colour;
use super::curves::{Panel, curves};
use crate::Result;
use crate::context::Context;
use crate::windows::SliceTruth;

/// Area and line of the ratios, and of the fractures.
const RATIO: (Colour, Colour) = ([190, 215, 245], [30, 100, 200]);
const FRACTURE: (Colour, Colour) = ([250, 200, 190], [200, 40, 30]);

/// A target counts as positive from here on: half of the vertebra's largest area, in stage 2 times the study's label.
const POSITIVE: f32 = 0.5;

type Scores = Vec<[f32; VERTEBRAE]>;

/// What a model says of studies, each with its truth.
pub(crate) struct Studies<'a> {
    pub heads: SliceHeads,
    pub studies: Vec<(&'a [SliceScores], &'a [SliceTruth])>,
}

impl Studies<'_> {
    /// `ratios`: what the model says of the place-th study's ratios, where it scores fractures.
    pub fn show(
        &self,
        context: &Context,
        step: u64,
        set: &str,
        ratios: impl Fn(usize) -> Result<Scores>,
    ) {
        let name = match self.heads {
            SliceHeads::Ratio => "vertebra",
            SliceHeads::Fracture => "fracture",
        };
        let of = |truth: &SliceTruth| match self.heads {
            SliceHeads::Ratio => truth.ratio,
            SliceHeads::Fracture => truth.fracture,
        };
        let slices = self
            .studies
            .iter()
            .flat_map(|(rows, truth)| rows.iter().zip(*truth));
        let scored = slices.flat_map(|(row, truth)| row.scores.into_iter().zip(of(truth)));
        let counts = ScoreCounts::of(scored.map(|(p, y)| (f64::from(p), y >= POSITIVE)));
        context.scores(step, set, name, counts);

        for (number, (rows, truth)) in self.studies.iter().take(context.pictures()).enumerate() {
            let Some(((first, last), _)) = rows.first().zip(rows.last()).zip(truth.first()) else {
                continue;
            };
            let caption = format!(
                "study {}, slices {} to {}, head on the left; C1 on top. Area: truth, line: prediction; blue: ratio, red: fracture",
                first.study, first.slice_number, last.slice_number
            );
            let name = format!("curves/{set}/{number}");
            context.picture(step, &name, caption, || {
                let scores: Scores = rows.iter().map(|row| row.scores).collect();
                let (ratio, fracture) = match self.heads {
                    SliceHeads::Ratio => (scores, Vec::new()),
                    SliceHeads::Fracture => (ratios(number)?, scores),
                };
                let true_ratio: Scores = truth.iter().map(|truth| truth.ratio).collect();
                let true_fracture: Scores = truth.iter().map(|truth| truth.fracture).collect();
                let panel = |truth, predicted, (area, line)| Panel {
                    truth,
                    predicted,
                    area,
                    line,
                };
                Ok(curves(&[
                    panel(&true_ratio, &ratio, RATIO),
                    panel(&true_fracture, &fracture, FRACTURE),
                ]))
            });
        }
    }
}
