//! What a run's models say of one study that none of them may have seen.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use data::StudyUid;
use data::predicted::{SliceBox, StudyDetails};
use data::stack::{Appearance, Stack, read_stack};
use data::stage_tables::LocatedSlice;
use data::tables;
use data::volume::find_study;
use metrics::LABELS;

use crate::Result;
use crate::boxes::{found_or_all, mean_over_models};
use crate::localizer::locate;
use crate::predict::{Models, Request};
use crate::study::{fitted_features, probabilities};

/// Reads one study and takes it through the localizers and the study models; each a mean over models, and over the study and
/// its mirror image where `request` asks for it. No label names a side, so the mirror image's count as they are.
///
/// # Errors
/// [`TrainError::Data`](train::TrainError::Data) where the study cannot be read.
pub(crate) fn predict_study(
    models: &Models,
    request: Request,
    study: &StudyUid,
) -> Result<([f64; LABELS], StudyDetails)> {
    let header = find_study(request.images, study)?;
    let appearance = |side: u64| -> Appearance { crate::context::appearance(models.data, side) };

    let mut located = Vec::with_capacity(models.localizers.len());
    // Models of one image size share what was decoded.
    let mut whole = BTreeMap::new();
    for (model, execution, training) in &models.localizers {
        let views = once(&mut whole, training.image_size, || {
            let stack = read_stack(&header, None, appearance(training.image_size))?;
            views_of(stack, request.flip)
        })?;
        let side = training.image_size as usize;
        located.push(locate(model, execution, study, &views.plain, side)?);
        if let Some(mirrored) = &views.mirrored {
            let mut rows = locate(model, execution, study, mirrored, side)?;
            rows.iter_mut().for_each(mirror_back);
            located.push(rows);
        }
    }
    // Of the stage 1a pictures only the boxes are needed from here on.
    drop(whole);
    let slices = mean_over_models(&located);
    let last = header.slice_numbers.len().saturating_sub(1);
    let (found, uncropped) = found_or_all(&slices);

    let mut sum = [0.0; LABELS];
    let mut count = 0.0;
    let mut cropped = BTreeMap::new();
    for (model, execution, training, settings) in &models.studies {
        let views = once(&mut cropped, training.image_size, || {
            let crop = Some(found.bounds);
            let stack = read_stack(&header, crop, appearance(training.image_size))?;
            views_of(stack, request.flip)
        })?;
        let margin = settings.margin as usize;
        let range = (
            found.slice_from.saturating_sub(margin),
            found.slice_to.saturating_add(margin).min(last),
        );
        for stack in std::iter::once(&views.plain).chain(&views.mirrored) {
            let (features, mask) =
                fitted_features(model, execution, stack, range, settings, training)?;
            let (features, mask) = (features.f_unsqueeze(0)?, mask.f_unsqueeze(0)?);
            let logits = execution.evaluate(|pass| Ok(model.forward(&features, &mask, pass)?))?;
            sum.iter_mut()
                .zip(probabilities(&logits)?)
                .for_each(|(sum, p)| *sum += p);
            count += 1.0;
        }
    }
    let mean = sum.map(|sum| sum / f64::max(count, 1.0));
    let mut warnings: Vec<String> = header.findings.iter().map(ToString::to_string).collect();
    if uncropped {
        warnings.push("no vertebra was found; all of it was taken".into());
    }
    let details = StudyDetails {
        study: study.clone(),
        models: models.names.clone(),
        flip: request.flip,
        probabilities: tables::LABELS
            .map(str::to_owned)
            .into_iter()
            .zip(mean)
            .collect(),
        bounds: found.bounds,
        slices: [found.slice_from, found.slice_to],
        boxes: slices.iter().map(slice_box).collect(),
        warnings,
    };
    Ok((mean, details))
}

fn slice_box(slice: &LocatedSlice) -> SliceBox {
    SliceBox {
        slice_number: slice.slice_number,
        bounds: slice.bounds,
        has_box: slice.has_box,
    }
}

/// From the mirror image's columns to the study's.
fn mirror_back(slice: &mut LocatedSlice) {
    let [x0, y0, x1, y1] = slice.bounds;
    slice.bounds = [1.0 - x1, y0, 1.0 - x0, y1];
}

/// A study as the models see it.
struct Views {
    plain: Stack,
    mirrored: Option<Stack>,
}

fn views_of(plain: Stack, flip: bool) -> data::Result<Views> {
    let mirrored = flip.then(|| plain.mirrored()).transpose()?;
    Ok(Views { plain, mirrored })
}

/// The views of this image size, made on first use.
fn once(
    made: &mut BTreeMap<u64, Views>,
    side: u64,
    make: impl FnOnce() -> data::Result<Views>,
) -> Result<&Views> {
    Ok(match made.entry(side) {
        Entry::Occupied(there) => there.into_mut(),
        Entry::Vacant(free) => free.insert(make()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_comes_back_from_the_mirror_and_keeps_its_order() {
        let mut slice = LocatedSlice {
            study: StudyUid::new("1.2.3").unwrap(),
            slice_number: 1,
            bounds: [0.125, 0.25, 0.5, 0.75],
            has_box: 0.9,
            fold: None,
        };
        mirror_back(&mut slice);
        assert_eq!(slice.bounds, [0.5, 0.25, 0.875, 0.75]);
        mirror_back(&mut slice);
        assert_eq!(slice.bounds, [0.125, 0.25, 0.5, 0.75]);
    }
}
