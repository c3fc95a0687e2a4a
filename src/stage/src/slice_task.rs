//! Stage 1b and 2: what every slice of a window shows (vertebra ratios), and what of it is fractured.

use std::collections::BTreeMap;
use std::sync::Arc;

use data::StudyUid;
use data::csv_table::{read_table, write_table};
use data::loader::Dataset;
use data::stack::Stacks;
use data::stage_tables::{SliceScores, SliceTargets};
use data::tables::SliceLabels;
use data::targets::VERTEBRAE;
use nn::{Pass, SliceHeads, SliceModel};
use recipe::{Fold, Sequence};
use serde::{Deserialize, Serialize};
use tch::Tensor;
use train::{Execution, HostPixels, Losses, Task, shape, strength};

use crate::Result;
use crate::context::{Cohort, Context, Fit, backbone};
use crate::losses::slice_loss;
use crate::show::{Shows, Studies, Study, sheet, spread, tiles};
use crate::slice_scores::{ByHead, ByVertebra, input, slice_scores};
use crate::windows::{SliceTruth, WindowSample, WindowShape, Windows};

/// What the model says of a study, its slices head first.
#[derive(Serialize, Deserialize)]
struct Predicted {
    /// What the stage is for.
    rows: Vec<SliceScores>,
    /// Beside it in stage 2.
    ratio: Option<ByVertebra>,
}

/// The model of one fold and seed, and what it learns from.
pub struct SliceTask<'a> {
    context: &'a Context<'a>,
    execution: &'a Execution,
    model: SliceModel,
    heads: SliceHeads,
    data: Arc<Windows>,
    side: usize,
    fold: Fold,
    held_out: Vec<StudyUid>,
    /// Held-out studies with labels.
    truth: BTreeMap<StudyUid, Vec<SliceTruth>>,
    stacks: Arc<Stacks>,
}

impl<'a> SliceTask<'a> {
    /// Stage 1b, from slice_targets.csv: the segmented studies.
    pub fn stage1b(
        context: &'a Context<'a>,
        cohort: &Cohort,
        fit: Fit<'a>,
        sequence: &Sequence,
        crop: bool,
    ) -> Result<Self> {
        let truth_of = |row: SliceTargets| SliceTruth {
            ratio: row.ratio,
            ..SliceTruth::default()
        };
        let targets = context.slice_targets()?.into_iter();
        let truth = targets
            .map(|(study, rows)| (study, rows.into_iter().map(truth_of).collect()))
            .collect();
        let heads = SliceHeads::Ratio;
        Self::new(context, cohort, fit, (sequence, crop), heads, truth)
    }

    /// Stage 2, from slice_labels.csv: all studies, cropped.
    pub fn stage2(
        context: &'a Context<'a>,
        cohort: &Cohort,
        fit: Fit<'a>,
        sequence: &Sequence,
    ) -> Result<Self> {
        let truth = slice_labels(context)?;
        let heads = SliceHeads::Fracture;
        Self::new(context, cohort, fit, (sequence, true), heads, truth)
    }

    fn new(
        context: &'a Context<'a>,
        cohort: &Cohort,
        fit: Fit<'a>,
        (sequence, crop): (&Sequence, bool),
        heads: SliceHeads,
        mut truth: BTreeMap<StudyUid, Vec<SliceTruth>>,
    ) -> Result<Self> {
        let Fit {
            store,
            training,
            execution,
            fold,
            seed,
        } = fit;
        let boxes = crop.then(|| context.study_boxes()).transpose()?;
        let stacks = Arc::new(context.stacks(training.image_size, boxes.as_ref())?);
        let hidden = sequence.lstm_hidden.map(|n| n as i64);
        let held_out = cohort.held_out(fold);
        let studies = cohort.training(fold);
        let mut seen = truth.clone();
        seen.retain(|study, _| studies.contains(study));
        truth.retain(|study, _| held_out.contains(study));
        let data = Windows::new(
            Arc::clone(&stacks),
            &studies,
            seen,
            WindowShape::of(sequence),
            strength(&training.augment),
            seed,
            context.device,
        );
        let model = SliceModel::new(&store.root(), &backbone(training), hidden, heads)?;
        execution.lay_out(store)?;
        Ok(SliceTask {
            context,
            execution,
            model,
            heads,
            data: Arc::new(data),
            side: training.image_size as usize,
            fold,
            held_out,
            truth,
            stacks,
        })
    }

    /// What the model says of every slice of the held-out studies, as jobs/<job>/out_of_fold.csv.
    pub fn out_of_fold(&self, job: &str, step: u64) -> Result<BTreeMap<String, f64>> {
        let predicted = self.predict("out-of-fold slices", &self.held_out)?;
        let metrics = self.metrics(&predicted);
        self.show(step, "out_of_fold", &predicted);
        let rows = predicted.into_iter().flat_map(|study| study.rows);
        let rows: Vec<SliceScores> = rows.collect();
        if self.context.group.rank() == 0 {
            write_table(&self.context.place.out_of_fold(job), &rows)?;
        }
        Ok(metrics)
    }

    fn predict(&self, what: &str, studies: &[StudyUid]) -> Result<Vec<Predicted>> {
        self.context.over_studies(what, studies, |study| {
            let stack = self.stacks.get(study)?;
            self.context.report_warnings(&self.stacks);
            let predicted = slice_scores(&self.model, self.execution, &stack, self.data.shape)?;
            let (ratio, scores) = match predicted {
                ByHead {
                    ratio,
                    fracture: Some(fracture),
                } => (Some(ratio), fracture),
                ByHead { ratio, .. } => (None, ratio),
            };
            let rows = stack
                .slice_numbers
                .iter()
                .zip(scores)
                .map(|(slice_number, scores)| SliceScores {
                    study: study.clone(),
                    slice_number: *slice_number,
                    scores,
                    fold: self.fold.held_out().map(|fold| fold as u32),
                });
            let rows = rows.collect();
            Ok(Predicted { rows, ratio })
        })
    }

    /// Lets people see what the model says of studies with labels.
    fn show(&self, step: u64, set: &str, predicted: &[Predicted]) {
        let labelled = predicted.iter().filter_map(|Predicted { rows, ratio }| {
            Some(Study {
                rows,
                ratio: ratio.as_deref(),
                target: self.truth.get(&rows.first()?.study)?,
            })
        });
        let shown = Studies {
            heads: self.heads,
            studies: labelled.collect(),
        };
        shown.show(self.context, step, set);
    }

    /// Mean absolute error of the scores on held-out studies with labels.
    fn metrics(&self, predicted: &[Predicted]) -> BTreeMap<String, f64> {
        let (mut sum, mut count) = (0.0, 0usize);
        for Predicted { rows, .. } in predicted {
            let Some(truth) = rows.first().and_then(|row| self.truth.get(&row.study)) else {
                continue;
            };
            for (row, truth) in rows.iter().zip(truth) {
                let truth = match self.heads {
                    SliceHeads::Ratio => truth.ratio,
                    SliceHeads::Fracture => truth.fracture,
                };
                let errors = row
                    .scores
                    .iter()
                    .zip(truth)
                    .map(|(a, b)| f64::from((a - b).abs()));
                sum += errors.sum::<f64>();
                count += VERTEBRAE;
            }
        }
        let name = match self.heads {
            SliceHeads::Ratio => "ratio_mae",
            SliceHeads::Fracture => "fracture_mae",
        };
        BTreeMap::from([(name.into(), sum / count.max(1) as f64)])
    }
}

/// slice_labels.csv by study, slices in order.
pub(crate) fn slice_labels(context: &Context) -> Result<BTreeMap<StudyUid, Vec<SliceTruth>>> {
    let mut truth: BTreeMap<StudyUid, Vec<SliceTruth>> = BTreeMap::new();
    for row in read_table::<SliceLabels>(&context.place.table("slice_labels"))? {
        let slice = SliceTruth {
            ratio: row.ratio,
            fracture: row.fracture,
        };
        truth.entry(row.study).or_default().push(slice);
    }
    Ok(truth)
}

impl Task for SliceTask<'_> {
    type Data = Windows;

    fn data(&self) -> &Arc<Windows> {
        &self.data
    }

    fn loss(&self, samples: Vec<WindowSample>) -> Result<Losses> {
        self.context.report_warnings(&self.stacks);
        let device = self.context.device;
        let images = self.data.shape.images;
        let pixels: Vec<&HostPixels> = samples.iter().map(|s| &s.pixels).collect();
        let changes: Vec<_> = samples.iter().map(|s| s.change.clone()).collect();
        let positions: Vec<f32> = samples
            .iter()
            .flat_map(|s| s.position.iter().copied())
            .collect();
        let (image, position) = input(
            self.execution,
            &pixels,
            &positions,
            Some(&changes),
            self.side,
        )?;
        let target = |of: fn(&SliceTruth) -> [f32; VERTEBRAE]| -> Result<Tensor> {
            let values: Vec<f32> = samples.iter().flat_map(|s| &s.truth).flat_map(of).collect();
            let size = shape([samples.len(), images, VERTEBRAE]);
            Ok(Tensor::f_from_slice(&values)?
                .f_view(size)?
                .f_to_device(device)?)
        };

        let forward = |pass: &Pass| Ok(self.model.forward(&image, &position, pass)?);
        let predicted = self.execution.train(forward)?;
        slice_loss(
            &predicted,
            &target(|t| t.ratio)?,
            Some(&target(|t| t.fracture)?),
        )
    }

    fn evaluate(&self, step: u64) -> Result<BTreeMap<String, f64>> {
        if self.fold == Fold::All {
            return Ok(BTreeMap::new());
        }
        let labelled: Vec<StudyUid> = self.truth.keys().cloned().collect();
        let predicted = self.predict("evaluation", &labelled)?;
        self.show(step, "held_out", &predicted);
        Ok(self.metrics(&predicted))
    }

    fn show_inputs(&self, step: u64, epoch: u64) {
        let samples = spread(self.data.len(), self.context.pictures());
        for (number, index) in samples.enumerate() {
            let (study, start) = &self.data.samples[index];
            let shows = Shows {
                of: format!("study {study}"),
                what: format!(
                    "the window's images from place {start} of its stack on, as augmented, three slices each as red, green, blue"
                ),
            };
            let name = format!("inputs/{number}");
            self.context.picture(step, &name, shows, || {
                let sample = self.data.load(index, epoch)?;
                let changes = [sample.change];
                let image = self
                    .execution
                    .feed(&[&sample.pixels], Some(&changes), self.side)?;
                Ok(sheet(&tiles(&image, self.side)?))
            });
        }
    }
}
