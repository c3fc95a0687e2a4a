//! What a run's models say of one study that none of them may have seen.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;

use data::StudyUid;
use data::stack::{Appearance, Stack, read_stack};
use data::volume::find_study;
use metrics::LABELS;

use crate::Result;
use crate::boxes::{found_or_all, mean_over_models};
use crate::localizer::locate;
use crate::predict::Models;
use crate::study::{fitted_features, probabilities};

/// A study's probabilities (patient_overall, C1..C7), and where the vertebrae were found.
pub(crate) struct StudyOutcome {
    pub probabilities: [f64; LABELS],
    /// The localizers found no vertebra: the whole study was taken.
    pub uncropped: bool,
}

/// Reads one study and takes it through the localizers and the study models; each a mean over models.
pub(crate) fn predict_study(
    models: &Models,
    images: &Path,
    study: &StudyUid,
) -> Result<StudyOutcome> {
    let header = find_study(images, study)?;
    let appearance = |side: u64| -> Appearance { crate::context::appearance(models.data, side) };

    let mut located = Vec::with_capacity(models.localizers.len());
    // Models of one image size share what was decoded.
    let mut whole = BTreeMap::new();
    for (model, execution, training) in &models.localizers {
        let stack = once(&mut whole, training.image_size, || {
            read_stack(&header, None, appearance(training.image_size))
        })?;
        let side = training.image_size as usize;
        located.push(locate(model, execution, study, stack, side)?);
    }
    let last = header.slice_numbers.len().saturating_sub(1);
    let (found, uncropped) = found_or_all(&mean_over_models(&located));

    let mut sum = [0.0; LABELS];
    let mut cropped = BTreeMap::new();
    for (model, execution, training, settings) in &models.studies {
        let stack = once(&mut cropped, training.image_size, || {
            read_stack(&header, Some(found.bounds), appearance(training.image_size))
        })?;
        let margin = settings.margin as usize;
        let range = (
            found.slice_from.saturating_sub(margin),
            (found.slice_to + margin).min(last),
        );
        let (features, mask) = fitted_features(model, execution, stack, range, settings, training)?;
        let (features, mask) = (features.f_unsqueeze(0)?, mask.f_unsqueeze(0)?);
        let logits = execution.evaluate(|pass| Ok(model.forward(&features, &mask, pass)?))?;
        sum.iter_mut()
            .zip(probabilities(&logits)?)
            .for_each(|(sum, p)| *sum += p);
    }
    let count = models.studies.len().max(1) as f64;
    Ok(StudyOutcome {
        probabilities: sum.map(|sum| sum / count),
        uncropped,
    })
}

/// The stack of this image size, made on first use.
fn once(
    stacks: &mut BTreeMap<u64, Stack>,
    side: u64,
    read: impl FnOnce() -> data::Result<Stack>,
) -> Result<&Stack> {
    Ok(match stacks.entry(side) {
        Entry::Occupied(there) => there.into_mut(),
        Entry::Vacant(free) => free.insert(read()?),
    })
}
