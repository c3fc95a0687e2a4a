//! What a slice model says of every slice of a study, from overlapping windows.

use data::augment::Augmentation;
use data::stack::Stack;
use data::targets::VERTEBRAE;
use nn::SliceModel;
use tch::Tensor;
use train::{Execution, HostBytes, host, shape};

use crate::Result;
use crate::windows::{Cover, WindowShape, starts, window_pixels};

/// Inference windows overlap: a window starts every so-many-th of its length.
const OVERLAP: usize = 6;

/// Windows that go through the network at once in inference.
const CHUNK: usize = 4;

/// C1 to C7 of every slice of a study, 0..1.
pub(crate) type ByVertebra = Vec<[f32; VERTEBRAE]>;

/// What a slice model says of a study, by its heads.
pub(crate) struct ByHead {
    pub ratio: ByVertebra,
    /// Stage 2 only.
    pub fracture: Option<ByVertebra>,
}

impl ByHead {
    /// What the stage is for: ratios (1b) or fractures (2).
    pub fn into_scores(self) -> ByVertebra {
        self.fracture.unwrap_or(self.ratio)
    }
}

/// What a model says of every slice: the mean over the windows that show it.
pub(crate) fn slice_scores(
    model: &SliceModel,
    execution: &Execution,
    stack: &Stack,
    window: WindowShape,
) -> Result<ByHead> {
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
        let ratios = windows_of(&predicted.ratio, window)?;
        let fractures = match &predicted.fracture {
            Some(fracture) => windows_of(fracture, window)?
                .into_iter()
                .map(Some)
                .collect(),
            None => vec![None; ratios.len()],
        };
        let heads = ratios.into_iter().zip(fractures);
        Ok(chunk.iter().copied().zip(heads).collect())
    })?;
    let mut ratio = Cover::new(stack.slices());
    let mut fracture: Option<Cover> = None;
    for (start, (ratios, fractures)) in scored {
        ratio.add_window(window, start, &ratios);
        if let Some(fractures) = fractures {
            let cover = fracture.get_or_insert_with(|| Cover::new(stack.slices()));
            cover.add_window(window, start, &fractures);
        }
    }
    Ok(ByHead {
        ratio: ratio.scores(),
        fracture: fracture.map(|cover| cover.scores()),
    })
}

/// A head's (windows, images, 7) on the host, window by window.
fn windows_of(head: &Tensor, window: WindowShape) -> Result<Vec<Vec<f32>>> {
    let values = host(head)?;
    let windows = values.chunks_exact(window.images * VERTEBRAE);
    Ok(windows.map(<[f32]>::to_vec).collect())
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
