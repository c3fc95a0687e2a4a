//! What a slice model says of every slice of a study, from overlapping windows.

use data::augment::Augmentation;
use data::stack::Stack;
use data::targets::VERTEBRAE;
use nn::{SliceModel, SlicePrediction};
use tch::Tensor;
use train::{Execution, HostBytes, shape};

use crate::Result;
use crate::localizer::host;
use crate::windows::{Cover, WindowShape, starts, window_pixels};

/// Inference windows overlap: a window starts every so-many-th of its length.
const OVERLAP: usize = 6;

/// Windows that go through the network at once in inference.
const CHUNK: usize = 4;

/// Ratios (stage 1b) or fractures (stage 2) of every slice: the mean over the windows that show it, 0..1.
pub(crate) fn slice_scores(
    model: &SliceModel,
    execution: &Execution,
    stack: &Stack,
    window: WindowShape,
) -> Result<Vec<[f32; VERTEBRAE]>> {
    let head = |predicted: SlicePrediction| predicted.fracture.unwrap_or(predicted.ratio);
    scores_of(head, model, execution, stack, window)
}

/// Ratios of every slice, in stage 2 too.
pub(crate) fn slice_ratios(
    model: &SliceModel,
    execution: &Execution,
    stack: &Stack,
    window: WindowShape,
) -> Result<Vec<[f32; VERTEBRAE]>> {
    scores_of(|predicted| predicted.ratio, model, execution, stack, window)
}

fn scores_of(
    head: impl Fn(SlicePrediction) -> Tensor,
    model: &SliceModel,
    execution: &Execution,
    stack: &Stack,
    window: WindowShape,
) -> Result<Vec<[f32; VERTEBRAE]>> {
    let mut cover = Cover::new(stack.slices());
    let all = starts(stack.slices(), window.slices(), window.slices() / OVERLAP);
    let scored = execution.in_parts(&all, CHUNK, |chunk| {
        let bytes = chunk.iter().map(|s| window_pixels(stack, *s, window));
        let bytes = bytes.collect::<data::Result<Vec<Vec<u8>>>>()?;
        let bytes: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
        let positions: Vec<f32> = chunk
            .iter()
            .flat_map(|start| window.positions(*start, stack.slices()))
            .collect();
        let (image, position) = input(execution, &bytes, &positions, None, stack.side)?;
        let predicted = execution.evaluate(|pass| Ok(model.forward(&image, &position, pass)?))?;
        let scores = host(&head(predicted))?; // (windows, images, 7)
        let rows = scores.chunks_exact(window.images * VERTEBRAE);
        let rows = rows.map(<[f32]>::to_vec);
        Ok(chunk.iter().copied().zip(rows).collect())
    })?;
    for (start, rows) in scored {
        for (i, scores) in rows.chunks_exact(VERTEBRAE).enumerate() {
            cover.add(window.middle(start, i), scores);
        }
    }
    Ok(cover.scores())
}

/// Normalised images (B, S, 3, H, W) and positions (B, S) on the device, of B windows with S images each.
pub(crate) fn input(
    execution: &Execution,
    windows: &[impl HostBytes],
    positions: &[f32],
    changes: Option<&[Augmentation]>,
    side: usize,
) -> Result<(Tensor, Tensor)> {
    let images = positions.len() / windows.len().max(1);
    let image = execution.feed(windows, changes, side)?;
    let position = Tensor::f_from_slice(positions)?
        .f_view(shape([windows.len(), images]))?
        .f_to_device(execution.device())?;
    Ok((image, position))
}
