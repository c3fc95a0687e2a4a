//! How much a training job takes through its network: from the size of the data set where that is known, else the competition's.

use crate::{Cost, Fold, JobKind, Plan, TrainStage};

/// Images of an inference window overlap so often: `OVERLAP` of the stages' windows.
const OVERLAP: f64 = 6.0;
/// Slices of an image.
const SLICES_PER_IMAGE: f64 = 3.0;
/// FLOPs of an image where the architecture's are not known: about a ResNet-50's.
const FLOPS: f64 = 1e10;

/// The competition's data set: studies, slices of one, and how many of them are segmented.
const STUDIES: f64 = 2019.0;
const SLICES: f64 = 300.0;
const SEGMENTED: f64 = 87.0;

/// The studies of a fold.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Share {
    fold: u64,
    studies: f64,
    slices: f64,
    segmented: f64,
    segmented_slices: f64,
}

/// What a job takes through its network.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Volume {
    /// Samples of all its epochs.
    pub samples: f64,
    /// Images of these, forward and backward; in stage 3 of the sequence alone.
    pub trained: f64,
    /// Images forward only: evaluations, out-of-fold tables, and in stage 3 the features.
    pub inferred: f64,
    /// Studies whose features it holds.
    pub held: f64,
}

/// The studies by fold.
fn shares(plan: &Plan) -> Vec<Share> {
    let folds = plan.data.folds.max(1);
    let evenly = |studies: f64, slices: f64, segmented: f64, segmented_slices: f64| {
        let part = |of: f64| of / folds as f64;
        let share = |fold| Share {
            fold,
            studies: part(studies),
            slices: part(slices),
            segmented: part(segmented),
            segmented_slices: part(segmented_slices),
        };
        (0..folds).map(share).collect()
    };
    let Some(inputs) = &plan.inputs else {
        return evenly(STUDIES, STUDIES * SLICES, SEGMENTED, SEGMENTED * SLICES);
    };
    let sum = |of: fn(&crate::Part) -> u64| inputs.parts.iter().map(of).sum::<u64>() as f64;
    let known = inputs.parts.iter().map(|part| {
        let fold = part.fold?;
        Some(Share {
            fold,
            studies: part.studies as f64,
            slices: part.slices as f64,
            segmented: part.segmented as f64,
            segmented_slices: part.segmented_slices as f64,
        })
    });
    known.collect::<Option<Vec<Share>>>().unwrap_or_else(|| {
        evenly(
            sum(|part| part.studies),
            sum(|part| part.slices),
            sum(|part| part.segmented),
            sum(|part| part.segmented_slices),
        )
    })
}

/// Slices of the whole data set.
pub(crate) fn slices(plan: &Plan) -> f64 {
    shares(plan).iter().map(|share| share.slices).sum()
}

fn holds_out(fold: Fold, share: &Share) -> bool {
    fold.held_out() == Some(share.fold)
}

/// What a training job takes through its network; nothing for jobs on tables.
pub(crate) fn volume(plan: &Plan, kind: &JobKind) -> Volume {
    let JobKind::Train {
        stage,
        fold,
        training,
        ..
    } = kind
    else {
        return Volume::default();
    };
    let shares = shares(plan);
    let sum = |held_out: bool, of: fn(&Share) -> f64| -> f64 {
        let chosen = shares
            .iter()
            .filter(|share| holds_out(*fold, share) == held_out);
        chosen.map(of).sum()
    };
    let epochs = training.epochs as f64;
    // One always ends a job.
    let evaluations = (epochs / training.evaluate_every.max(1) as f64).ceil();
    match stage {
        TrainStage::Stage1a { .. } => {
            let trained = sum(false, |share| share.segmented_slices) * epochs;
            Volume {
                samples: trained,
                trained,
                inferred: sum(true, |share| share.slices)
                    + evaluations * sum(true, |share| share.segmented_slices),
                held: 0.0,
            }
        }
        TrainStage::Stage1b { sequence, .. } | TrainStage::Stage2 { sequence } => {
            let segmented = matches!(stage, TrainStage::Stage1b { .. });
            // Studies, and slices of each.
            let of = |held_out, labelled| match labelled {
                true => mean_of(
                    sum(held_out, |share| share.segmented),
                    sum(held_out, |share| share.segmented_slices),
                ),
                false => mean_of(
                    sum(held_out, |share| share.studies),
                    sum(held_out, |share| share.slices),
                ),
            };
            let length = sequence.images as f64 * SLICES_PER_IMAGE;
            let covered =
                |(studies, slices): (f64, f64), grid: f64| studies * windows(slices, length, grid);
            let stride = (length / OVERLAP).max(1.0);
            let samples = covered(of(false, segmented), sequence.grid as f64) * epochs;
            let inferred = covered(of(true, false), stride)
                + evaluations * covered(of(true, segmented), stride);
            Volume {
                samples,
                trained: samples * sequence.images as f64,
                inferred: inferred * sequence.images as f64,
                held: 0.0,
            }
        }
        TrainStage::Stage3 { study, .. } => {
            let images = |held_out| sum(held_out, |share| share.slices) / SLICES_PER_IMAGE;
            let samples = sum(false, |share| share.studies) * epochs;
            Volume {
                samples,
                trained: samples * study.max_images as f64,
                inferred: images(false) + images(true),
                held: sum(false, |share| share.studies) + sum(true, |share| share.studies),
            }
        }
    }
}

/// Studies, and the mean slices of one.
fn mean_of(studies: f64, slices: f64) -> (f64, f64) {
    match studies > 0.0 {
        true => (studies, slices / studies),
        false => (0.0, 0.0),
    }
}

/// Windows of a study: one on every `grid`-th slice, and the last that fits.
fn windows(slices: f64, length: f64, grid: f64) -> f64 {
    ((slices - length) / grid.max(1.0)).ceil().max(0.0) + 1.0
}

/// Floating-point operations of an image: in an update, and forward alone.
pub(crate) fn flops_per_image(kind: &JobKind) -> (f64, f64) {
    let JobKind::Train {
        stage, training, ..
    } = kind
    else {
        return (0.0, 0.0);
    };
    let unknown = Cost {
        forward_flops_per_image: FLOPS,
        ..Cost::default()
    };
    let cost = crate::cost(kind).unwrap_or(unknown);
    let forward = cost.forward_flops_per_image;
    let update = match stage {
        TrainStage::Stage3 { .. } => 3.0 * cost.rnn_flops_per_image,
        // Backward is twice forward; blocks that keep no activations run once more.
        _ if training.numerics.gradient_checkpointing => 4.0 * forward,
        _ => 3.0 * forward,
    };
    (update, forward)
}

/// Floating-point operations of a job from its beginning to its end.
pub(crate) fn flops(plan: &Plan, kind: &JobKind) -> f64 {
    let Volume {
        trained, inferred, ..
    } = volume(plan, kind);
    let (update, forward) = flops_per_image(kind);
    trained * update + inferred * forward
}

#[cfg(test)]
mod tests;
