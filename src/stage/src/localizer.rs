//! Stage 1a: boxes of the vertebrae in single slices.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use data::StudyUid;
use data::augment::{Augmentation, Strength};
use data::csv_table::write_table;
use data::loader::Dataset;
use data::stack::{Stack, Stacks};
use data::stage_tables::{LocatedSlice, SliceTargets};
use data::targets::union;
use metrics::{ScoreCounts, intersection_over_union};
use nn::{Localizer, Pass};
use recipe::{BoxLoss, Fold};
use tch::{Device, Tensor};
use train::{Execution, HostPixels, Losses, Task, full, host, progress, shape, strength};

use crate::Result;
use crate::boxes::found_or_all;
use crate::context::{Cohort, Context, Fit, backbone, image_at};
use crate::losses::localizer_loss;
use crate::show::{SHEET_IMAGES, Shows, Tile, sheet, spread, tiles};
use crate::windows::SLICES_PER_IMAGE;

/// Images that go through the network at once in inference.
const CHUNK: usize = 64;

/// Colours of boxes in pictures.
const TRUE_BOX: [u8; 3] = [60, 220, 60];
const FOUND_BOX: [u8; 3] = [240, 60, 60];

/// Study, place in its stack, target.
type Sample = (StudyUid, usize, SliceTargets);

/// Slices of segmented studies with their boxes.
pub struct Slices {
    stacks: Arc<Stacks>,
    /// Those of a study follow one another.
    samples: Vec<Sample>,
    strength: Strength,
    seed: u64,
    /// Where samples go.
    device: Device,
}

/// One slice: three adjacent ones as channels.
pub struct SliceSample {
    /// (3, side, side)
    pixels: HostPixels,
    change: Augmentation,
    /// x0, y0, x1, y1 in the changed image.
    bounds: [f32; 4],
    has_box: bool,
}

impl Dataset for Slices {
    type Sample = SliceSample;

    fn len(&self) -> usize {
        self.samples.len()
    }

    fn bytes(&self, _: usize) -> usize {
        SLICES_PER_IMAGE * self.stacks.slice_bytes()
    }

    /// The study and the place in its stack, head first.
    fn id(&self, index: usize) -> String {
        let (study, place, _) = &self.samples[index];
        format!("{study}/{place}")
    }

    fn load(&self, index: usize, epoch: u64) -> data::Result<SliceSample> {
        let (study, place, target) = &self.samples[index];
        let stack = self.stacks.get(study)?;
        let change = Augmentation::draw(&self.strength, self.seed, epoch, index as u64);
        let moved = target
            .has_box
            .then(|| change.move_box(target.bounds.map(f64::from)))
            .flatten();
        Ok(SliceSample {
            pixels: HostPixels::new(image_at(&stack, *place)?, self.device),
            change,
            bounds: moved.unwrap_or_default().map(|v| v as f32),
            has_box: moved.is_some(),
        })
    }
}

/// The model of one fold and seed, and what it learns from.
pub struct Stage1a<'a> {
    context: &'a Context<'a>,
    execution: &'a Execution,
    model: Localizer,
    data: Arc<Slices>,
    box_loss: BoxLoss,
    side: usize,
    fold: Fold,
    /// Held-out segmented studies, with the boxes of their slices.
    truth: BTreeMap<StudyUid, Vec<SliceTargets>>,
    held_out: Vec<StudyUid>,
    stacks: Arc<Stacks>,
}

impl<'a> Stage1a<'a> {
    pub fn new(
        context: &'a Context<'a>,
        cohort: &Cohort,
        fit: Fit<'a>,
        box_loss: BoxLoss,
    ) -> Result<Self> {
        let Fit {
            store,
            training,
            execution,
            fold,
            seed,
        } = fit;
        let mut by_study = context.slice_targets()?;
        let held_out = cohort.held_out(fold);
        let mut samples = Vec::new();
        for study in cohort.training(fold) {
            let rows = by_study.get(&study).into_iter().flatten();
            samples.extend(
                rows.enumerate()
                    .map(|(place, row)| (study.clone(), place, row.clone())),
            );
        }
        by_study.retain(|study, _| held_out.contains(study));
        let stacks = Arc::new(context.stacks(training.image_size, None)?);
        let model = Localizer::new(&store.root(), &backbone(training))?;
        execution.lay_out(store)?;
        Ok(Stage1a {
            context,
            execution,
            model,
            data: Arc::new(Slices {
                stacks: Arc::clone(&stacks),
                samples,
                strength: strength(&training.augment),
                seed,
                device: context.device,
            }),
            box_loss,
            side: training.image_size as usize,
            fold,
            truth: by_study,
            held_out,
            stacks,
        })
    }

    /// What the model says of every slice of the held-out studies, as jobs/<job>/out_of_fold.csv.
    pub fn out_of_fold(&self, job: &str, step: u64) -> Result<BTreeMap<String, f64>> {
        let rows = self.predict("out-of-fold boxes", &self.held_out)?;
        let metrics = self.metrics(&rows);
        self.show(step, "out_of_fold", &rows);
        let mut rows: Vec<LocatedSlice> = rows.into_iter().flatten().collect();
        let fold = self.fold.held_out().map(|fold| fold as u32);
        rows.iter_mut().for_each(|row| row.fold = fold);
        if self.context.group.rank() == 0 {
            write_table(&self.context.place.out_of_fold(job), &rows)?;
        }
        Ok(metrics)
    }

    fn predict(&self, what: &str, studies: &[StudyUid]) -> Result<Vec<Vec<LocatedSlice>>> {
        self.context.over_studies(what, studies, |study| {
            let stack = self.stacks.get(study)?;
            self.context.report_warnings(&self.stacks);
            locate(&self.model, self.execution, study, &stack, self.side)
        })
    }

    /// Lets people see true and predicted boxes of studies that have them.
    fn show(&self, step: u64, set: &str, predicted: &[Vec<LocatedSlice>]) {
        let labelled = predicted.iter().filter_map(|rows| {
            let truth = self.truth.get(&rows.first()?.study)?;
            Some((rows, truth))
        });
        let studies: Vec<_> = labelled.collect();
        let slices = studies
            .iter()
            .flat_map(|(rows, truth)| rows.iter().zip(*truth));
        let scored = slices.map(|(row, truth)| (f64::from(row.has_box), truth.has_box));
        let counts = ScoreCounts::of(scored);
        self.context.scores(step, set, "has_box", counts);

        for (number, (rows, truth)) in studies.iter().take(self.context.pictures()).enumerate() {
            let Some((first, last)) = rows.first().zip(rows.last()) else {
                continue;
            };
            let shows = Shows {
                of: format!("study {}", first.study),
                what: format!(
                    "slices from {} to {}; green: the vertebrae's true box, red: the predicted one",
                    first.slice_number, last.slice_number
                ),
            };
            let name = format!("boxes/{set}/{number}");
            self.context.picture(step, &name, shows, || {
                let stack = self.stacks.get(&first.study)?;
                let places = spread(rows.len(), SHEET_IMAGES);
                let tiles = places.map(|place| {
                    let from = place as isize;
                    let slice = stack.slices_between(from, from + 1)?;
                    let mut tile = Tile::gray(&slice, stack.side);
                    let there = truth.get(place).filter(|truth| truth.has_box);
                    tile.boxes
                        .extend(there.map(|truth| (truth.bounds, TRUE_BOX)));
                    let found = rows.get(place).filter(|row| row.has_box > 0.5);
                    tile.boxes.extend(found.map(|row| (row.bounds, FOUND_BOX)));
                    progress::went_on();
                    Ok(tile)
                });
                Ok(sheet(&tiles.collect::<Result<Vec<_>>>()?))
            });
        }
    }

    /// Mean IoU of the study boxes, and the share of slices whose `has_box` is right.
    fn metrics(&self, predicted: &[Vec<LocatedSlice>]) -> BTreeMap<String, f64> {
        let (mut ious, mut right, mut slices) = (Vec::new(), 0, 0);
        for rows in predicted {
            let Some(truth) = rows.first().and_then(|row| self.truth.get(&row.study)) else {
                continue;
            };
            slices += rows.len();
            right += rows
                .iter()
                .zip(truth)
                .filter(|(row, t)| (row.has_box > 0.5) == t.has_box)
                .count();
            let boxes = truth
                .iter()
                .filter(|t| t.has_box)
                .map(|t| t.bounds.map(f64::from));
            if let Some(truth) = union(boxes) {
                ious.push(intersection_over_union(truth, found_or_all(rows).0.bounds));
            }
        }
        let mean = |sum: f64, n: usize| sum / n.max(1) as f64;
        BTreeMap::from([
            ("study_box_iou".into(), mean(ious.iter().sum(), ious.len())),
            ("has_box_accuracy".into(), mean(right as f64, slices)),
        ])
    }
}

/// Boxes of every slice of a study; of no fold.
pub(crate) fn locate(
    model: &Localizer,
    execution: &Execution,
    study: &StudyUid,
    stack: &Stack,
    side: usize,
) -> Result<Vec<LocatedSlice>> {
    let _no_grad = tch::no_grad_guard();
    let places: Vec<usize> = (0..stack.slices()).collect();
    execution.in_parts(&places, CHUNK, |chunk| {
        let images = chunk.iter().map(|place| image_at(stack, *place));
        let images = images.collect::<data::Result<Vec<Vec<u8>>>>()?;
        let mut images: Vec<&[u8]> = images.iter().map(Vec::as_slice).collect();
        execution.fill_up(&mut images);
        let image = execution.feed(&images, None, side)?.f_flatten(0, 1)?;
        let located = execution.evaluate(|pass| Ok(model.forward(&image, pass)?))?;
        let bounds = host(&located.bounds.f_view(-1)?)?;
        let has_box = host(&full(&located.has_box)?.f_sigmoid()?)?;
        let rows = chunk.iter().zip(bounds.chunks_exact(4)).zip(has_box);
        let rows = rows.map(|((place, bounds), has_box)| LocatedSlice {
            study: study.clone(),
            slice_number: stack.slice_numbers[*place],
            bounds: [bounds[0], bounds[1], bounds[2], bounds[3]],
            has_box,
            fold: None,
        });
        Ok(rows.collect())
    })
}

impl Task for Stage1a<'_> {
    type Data = Slices;

    fn data(&self) -> &Arc<Slices> {
        &self.data
    }

    fn loss(&self, samples: Vec<SliceSample>) -> Result<Losses> {
        self.context.report_warnings(&self.stacks);
        let device = self.context.device;
        let pixels: Vec<&HostPixels> = samples.iter().map(|s| &s.pixels).collect();
        let changes: Vec<Augmentation> = samples.iter().map(|s| s.change.clone()).collect();
        let image = self.execution.feed(&pixels, Some(&changes), self.side)?;
        let image = image.f_flatten(0, 1)?;
        let bounds: Vec<f32> = samples.iter().flat_map(|s| s.bounds).collect();
        let bounds = Tensor::f_from_slice(&bounds)?
            .f_view(shape([samples.len(), 4]))?
            .f_to_device(device)?;
        let has_box: Vec<f32> = samples
            .iter()
            .map(|s| f32::from(u8::from(s.has_box)))
            .collect();
        let has_box = Tensor::f_from_slice(&has_box)?.f_to_device(device)?;

        let forward = |pass: &Pass| Ok(self.model.forward(&image, pass)?);
        let located = self.execution.train(forward)?;
        localizer_loss(&located, &bounds, &has_box, self.box_loss)
    }

    fn evaluate(&self, step: u64) -> Result<BTreeMap<String, f64>> {
        let labelled: Vec<StudyUid> = self.truth.keys().cloned().collect();
        let rows = self.predict("evaluation", &labelled)?;
        self.show(step, "held_out", &rows);
        Ok(self.metrics(&rows))
    }

    /// Of few studies: each is read for it, while the other ranks wait.
    fn show_inputs(&self, step: u64, epoch: u64) {
        let studies = by_study(&self.data.samples);
        let chosen = spread(studies.len(), self.context.pictures());
        for (number, study) in chosen.enumerate() {
            let samples = &studies[study];
            let shows = Shows {
                of: format!("study {}", self.data.samples[samples.start].0),
                what: "slices as augmented, three each as red, green, blue; green frame: the vertebrae's true box"
                    .to_owned(),
            };
            let name = format!("inputs/{number}");
            self.context.picture(step, &name, shows, || {
                let shown = spread(samples.len(), SHEET_IMAGES);
                let drawn = shown.map(|place| {
                    let sample = self.data.load(samples.start + place, epoch)?;
                    let changes = [sample.change];
                    let image =
                        self.execution
                            .feed(&[&sample.pixels], Some(&changes), self.side)?;
                    let mut tiles = tiles(&image, self.side)?;
                    if let Some(tile) = tiles.first_mut().filter(|_| sample.has_box) {
                        tile.boxes.push((sample.bounds, TRUE_BOX));
                    }
                    progress::went_on();
                    Ok(tiles)
                });
                let drawn: Vec<Vec<Tile>> = drawn.collect::<Result<_>>()?;
                Ok(sheet(&drawn.concat()))
            });
        }
    }
}

/// Where the samples of each study are.
fn by_study(samples: &[Sample]) -> Vec<Range<usize>> {
    let mut end = 0;
    let of_studies = samples.chunk_by(|(one, ..), (next, ..)| one == next);
    let ranges = of_studies.map(|of_study| {
        let start = end;
        end += of_study.len();
        start..end
    });
    ranges.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_study_with_many_slices_is_chosen_once() {
        let sample = |study: &str, place| {
            let study = StudyUid::new(study).unwrap();
            let target = SliceTargets {
                study: study.clone(),
                slice_number: 1,
                bounds: [0.0; 4],
                has_box: false,
                ratio: [0.0; 7],
            };
            (study, place, target)
        };
        let mut samples = vec![sample("1.2", 0)];
        samples.extend((0..9).map(|place| sample("1.3", place)));
        samples.extend([sample("1.4", 0), sample("1.4", 1)]);
        let studies = by_study(&samples);
        assert_eq!(studies, [0..1, 1..10, 10..12]);
        let chosen: Vec<usize> = spread(studies.len(), 2).collect();
        assert_eq!(chosen, [0, 1]);
    }
}
