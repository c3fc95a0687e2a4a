//! Windows of consecutive slices, the samples of stage 1b and 2, and how a study is covered by them in inference.

use std::collections::BTreeMap;
use std::sync::Arc;

use data::StudyUid;
use data::augment::{Augmentation, Strength};
use data::loader::Dataset;
use data::stack::{Stack, Stacks};
use data::targets::VERTEBRAE;
use recipe::{Position, Sequence};
use tch::Device;
use train::HostPixels;

/// Bins of the position embedding, and the bin of a window's first image under `position: window`.
const POSITION_BINS: f32 = 200.0;
const FIRST_WINDOW_BIN: usize = 202;

/// Slices of an image.
pub(crate) const SLICES_PER_IMAGE: usize = 3;

/// What one slice of a study should yield.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SliceTruth {
    pub ratio: [f32; VERTEBRAE],
    /// Zeros in stage 1b.
    pub fracture: [f32; VERTEBRAE],
}

/// The shape of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowShape {
    pub images: usize,
    /// A window starts on every so-many-th slice.
    pub grid: usize,
    pub position: Position,
}

impl WindowShape {
    pub fn of(sequence: &Sequence) -> Self {
        WindowShape {
            images: sequence.images as usize,
            grid: sequence.grid as usize,
            position: sequence.position,
        }
    }

    pub fn slices(&self) -> usize {
        self.images * SLICES_PER_IMAGE
    }

    /// The middle slice of image `i` of a window from `start`.
    pub fn middle(&self, start: usize, i: usize) -> usize {
        start + i * SLICES_PER_IMAGE + 1
    }

    /// Position of each image, in units of 200 bins: relative place in the study (0..1), or number in the window.
    pub fn positions(&self, start: usize, slices: usize) -> Vec<f32> {
        let share = |place: usize, of: usize| place.min(of) as f32 / of.max(1) as f32;
        (0..self.images)
            .map(|i| match self.position {
                Position::Study => share(self.middle(start, i), slices.saturating_sub(1)),
                // Whatever the sample, the published code numbers its images from here on.
                Position::Window => (FIRST_WINDOW_BIN + i) as f32 / POSITION_BINS,
            })
            .collect()
    }
}

/// First slices of windows: every `grid`-th, and the last window that fits. A short study has one window.
pub(crate) fn starts(slices: usize, length: usize, grid: usize) -> Vec<usize> {
    let last = slices.saturating_sub(length);
    let mut all: Vec<usize> = (0..last).step_by(grid.max(1)).collect();
    all.push(last);
    all
}

/// Training windows of studies.
pub struct Windows {
    pub(crate) stacks: Arc<Stacks>,
    pub(crate) samples: Vec<(StudyUid, usize)>,
    pub(crate) truth: BTreeMap<StudyUid, Vec<SliceTruth>>,
    pub(crate) shape: WindowShape,
    pub(crate) strength: Strength,
    pub(crate) seed: u64,
    /// Where samples go.
    pub(crate) device: Device,
}

/// One window.
pub struct WindowSample {
    /// (3 x images, side, side)
    pub pixels: HostPixels,
    /// (images,)
    pub position: Vec<f32>,
    /// Of the middle slice of each image.
    pub truth: Vec<SliceTruth>,
    pub change: Augmentation,
}

impl Windows {
    /// All windows of `studies` on the grid; studies without truth have none.
    pub fn new(
        stacks: Arc<Stacks>,
        studies: &[StudyUid],
        truth: BTreeMap<StudyUid, Vec<SliceTruth>>,
        shape: WindowShape,
        strength: Strength,
        seed: u64,
        device: Device,
    ) -> Self {
        let windows_of = |study: &StudyUid| {
            let slices = truth.get(study).map(Vec::len);
            slices
                .into_iter()
                .flat_map(move |n| starts(n, shape.slices(), shape.grid))
        };
        let samples = studies
            .iter()
            .flat_map(|study| windows_of(study).map(|start| (study.clone(), start)))
            .collect();
        Windows {
            stacks,
            samples,
            truth,
            shape,
            strength,
            seed,
            device,
        }
    }
}

impl Dataset for Windows {
    type Sample = WindowSample;

    fn len(&self) -> usize {
        self.samples.len()
    }

    fn bytes(&self, _: usize) -> usize {
        self.shape.slices() * self.stacks.slice_bytes()
    }

    /// The study and the window's first place in its stack.
    fn id(&self, index: usize) -> String {
        let (study, start) = &self.samples[index];
        format!("{study}/{start}")
    }

    fn load(&self, index: usize, epoch: u64) -> data::Result<WindowSample> {
        let (study, start) = &self.samples[index];
        let stack = self.stacks.get(study)?;
        let truth = self.truth.get(study).map(Vec::as_slice).unwrap_or_default();
        let last = truth.len().saturating_sub(1);
        let of = |i| truth.get(self.shape.middle(*start, i).min(last)).copied();
        Ok(WindowSample {
            pixels: HostPixels::new(window_pixels(&stack, *start, self.shape)?, self.device),
            position: self.shape.positions(*start, stack.slices()),
            truth: (0..self.shape.images)
                .map(|i| of(i).unwrap_or_default())
                .collect(),
            change: Augmentation::draw(&self.strength, self.seed, epoch, index as u64),
        })
    }
}

pub(crate) fn window_pixels(
    stack: &Stack,
    start: usize,
    shape: WindowShape,
) -> data::Result<Vec<u8>> {
    stack.slices_between(start as isize, (start + shape.slices()) as isize)
}

/// Means over windows for each slice; a slice that is no image's middle takes its neighbours' linear interpolation.
pub(crate) struct Cover {
    sum: Vec<[f32; VERTEBRAE]>,
    count: Vec<u32>,
}

impl Cover {
    pub fn new(slices: usize) -> Self {
        Cover {
            sum: vec![[0.0; VERTEBRAE]; slices],
            count: vec![0; slices],
        }
    }

    /// What the window from `start` says of its images: (images, 7).
    pub fn add_window(&mut self, window: WindowShape, start: usize, scores: &[f32]) {
        for (i, scores) in scores.chunks_exact(VERTEBRAE).enumerate() {
            self.add(window.middle(start, i), scores);
        }
    }

    /// What a window says of a slice; past the study's end it is not counted.
    fn add(&mut self, slice: usize, scores: &[f32]) {
        if let (Some(sum), Some(count)) = (self.sum.get_mut(slice), self.count.get_mut(slice)) {
            sum.iter_mut()
                .zip(scores)
                .for_each(|(sum, score)| *sum += score);
            *count += 1;
        }
    }

    /// Clipped to 0..1.
    pub fn scores(&self) -> Vec<[f32; VERTEBRAE]> {
        let seen: Vec<usize> = (0..self.count.len())
            .filter(|i| self.count[*i] > 0)
            .collect();
        let mean = |i: usize| self.sum[i].map(|sum| (sum / self.count[i] as f32).clamp(0.0, 1.0));
        (0..self.count.len())
            .map(|i| {
                let after = seen.partition_point(|s| *s < i);
                let before = seen[..after].last().copied();
                match (before, seen.get(after).copied()) {
                    (_, Some(next)) if next == i => mean(i),
                    (Some(low), Some(high)) => {
                        let weight = (i - low) as f32 / (high - low) as f32;
                        let (a, b) = (mean(low), mean(high));
                        std::array::from_fn(|v| a[v] + (b[v] - a[v]) * weight)
                    }
                    (Some(only), None) | (None, Some(only)) => mean(only),
                    (None, None) => [0.0; VERTEBRAE],
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_stand_on_the_grid_and_at_both_ends() {
        assert_eq!(starts(130, 96, 12), [0, 12, 24, 34]);
        assert_eq!(starts(120, 96, 12), [0, 12, 24]);
        assert_eq!(starts(96, 96, 12), [0]);
        assert_eq!(starts(40, 96, 12), [0]);
    }

    #[test]
    fn positions_are_of_the_middle_slice_or_of_the_image() {
        let shape = WindowShape {
            images: 3,
            grid: 1,
            position: Position::Study,
        };
        assert_eq!(shape.positions(10, 21), [0.55, 0.7, 0.85]);
        let shape = WindowShape {
            position: Position::Window,
            ..shape
        };
        assert_eq!(shape.positions(10, 21), [1.01, 1.015, 1.02]);
    }

    #[test]
    fn a_cover_averages_fills_gaps_and_clips() {
        let mut cover = Cover::new(5);
        cover.add(1, &[0.2; 7]);
        cover.add(1, &[0.4; 7]);
        cover.add(3, &[1.7; 7]);
        cover.add(9, &[9.0; 7]);
        let scores: Vec<f32> = cover.scores().iter().map(|row| row[0]).collect();
        for (got, want) in scores.iter().zip([0.3, 0.3, 0.65, 1.0, 1.0]) {
            assert!((got - want).abs() < 1e-6, "{scores:?}");
        }
    }
}
