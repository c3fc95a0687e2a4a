//! What a run's models say of one study that none of them may have seen.

use data::StudyUid;
use data::predicted::{Curve, DETAILS_VERSION, SliceDetails, StudyDetails};
use data::stage_tables::LocatedSlice;
use data::tables;
use data::targets::VERTEBRAE;
use data::volume::{StudyHeader, find_study};
use metrics::LABELS;
use nn::SliceHeads;

use crate::Result;
use crate::boxes::{Found, found_or_all, mean_over_models};
use crate::ensemble::Models;
use crate::localizer::locate;
use crate::predict::Request;
use crate::slice_scores::slice_scores;
use crate::study::{fitted_features, probabilities};
use crate::views::Views;

/// One study.
pub(crate) struct Predicted {
    /// In the order of the task's labels.
    pub probabilities: [f64; LABELS],
    pub details: StudyDetails,
    /// The details' warnings with the files that they concern, whose names may be anybody's.
    pub warnings: Vec<String>,
}

/// Reads one study and takes it through all models. Everything is a mean over the models of its stage, and over the study
/// and its mirror image where `request` asks for it: no label names a side, so the mirror image's count as they are.
///
/// # Errors
/// [`TrainError::Data`](train::TrainError::Data) where the study cannot be read.
pub(crate) fn predict_study(
    models: &Models,
    request: Request,
    study: &StudyUid,
) -> Result<Predicted> {
    let header = find_study(request.images, study)?;
    let mut whole = Views::new(models.data, &header, None, request.flip);
    let located = located(models, study, &mut whole)?;
    let (found, uncropped) = found_or_all(&located);
    let mut cropped = Views::new(models.data, &header, Some(found.bounds), request.flip);
    let ratio = mean_scores(models, SliceHeads::Ratio, &mut whole, &mut cropped)?;
    let fracture = mean_scores(models, SliceHeads::Fracture, &mut whole, &mut cropped)?;
    // Nobody looks at the whole image from here on.
    drop(whole);
    let probabilities = study_probabilities(models, &header, &found, &mut cropped)?;

    let labels = tables::LABELS.map(str::to_owned);
    let vertebrae = labels.iter().skip(1).enumerate().map(|(v, name)| {
        let of = |scores: &[[f32; VERTEBRAE]]| scores.iter().map(|slice| slice[v]).collect();
        let curve = Curve {
            ratio: of(&ratio),
            fracture: of(&fracture),
        };
        (name.clone(), curve)
    });
    let findings = || header.findings.iter();
    let missed = uncropped.then(|| "no vertebra was found; all of it was taken".to_owned());
    let details = StudyDetails {
        format_version: DETAILS_VERSION,
        study: study.clone(),
        models: models.names.clone(),
        flip: request.flip,
        bounds: found.bounds,
        slice_range: [found.slice_from, found.slice_to],
        slices: slices(&located, &header),
        curves: vertebrae.collect(),
        probabilities: labels.into_iter().zip(probabilities).collect(),
        warnings: findings()
            .map(|finding| finding.kind.to_string())
            .chain(missed.clone())
            .collect(),
    };
    Ok(Predicted {
        probabilities,
        details,
        warnings: findings().map(ToString::to_string).chain(missed).collect(),
    })
}

/// The boxes of every slice.
fn located(models: &Models, study: &StudyUid, whole: &mut Views) -> Result<Vec<LocatedSlice>> {
    let mut all = Vec::with_capacity(models.localizers.len());
    for member in &models.localizers {
        let side = member.training.image_size;
        for (stack, mirrored) in whole.at(side)? {
            let (model, execution) = (&member.model, &member.execution);
            let mut rows = locate(model, execution, study, stack, side as usize)?;
            if mirrored {
                rows.iter_mut().for_each(mirror_back);
            }
            all.push(rows);
        }
    }
    Ok(mean_over_models(&all))
}

/// From the mirror image's columns to the study's.
fn mirror_back(slice: &mut LocatedSlice) {
    let [x0, y0, x1, y1] = slice.bounds;
    slice.bounds = [1.0 - x1, y0, 1.0 - x0, y1];
}

/// What stage 1b or stage 2 says of every slice; empty without such models.
fn mean_scores<'a>(
    models: &Models,
    heads: SliceHeads,
    whole: &mut Views<'a>,
    cropped: &mut Views<'a>,
) -> Result<Vec<[f32; VERTEBRAE]>> {
    let mut sum: Vec<[f32; VERTEBRAE]> = Vec::new();
    let mut count = 0.0;
    for slices in models.slices.iter().filter(|slices| slices.heads == heads) {
        let member = &slices.member;
        let views = if slices.crop {
            &mut *cropped
        } else {
            &mut *whole
        };
        for (stack, _) in views.at(member.training.image_size)? {
            let scores = slice_scores(&member.model, &member.execution, stack, slices.window)?;
            let scores = scores.into_scores();
            sum.resize(scores.len(), [0.0; VERTEBRAE]);
            for (sum, score) in sum.iter_mut().flatten().zip(scores.iter().flatten()) {
                *sum += score;
            }
            count += 1.0;
        }
    }
    Ok(sum
        .into_iter()
        .map(|slice| slice.map(|sum| sum / count))
        .collect())
}

/// The labels' probabilities, by the study models.
fn study_probabilities(
    models: &Models,
    header: &StudyHeader,
    found: &Found,
    cropped: &mut Views,
) -> Result<[f64; LABELS]> {
    let last = header.slice_numbers.len().saturating_sub(1);
    let mut sum = [0.0; LABELS];
    let mut count = 0.0;
    for (member, settings) in &models.studies {
        let (model, execution, training) = (&member.model, &member.execution, member.training);
        let margin = settings.margin as usize;
        let range = (
            found.slice_from.saturating_sub(margin),
            found.slice_to.saturating_add(margin).min(last),
        );
        for (stack, _) in cropped.at(training.image_size)? {
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
    Ok(sum.map(|sum| sum / count))
}

fn slices(located: &[LocatedSlice], header: &StudyHeader) -> Vec<SliceDetails> {
    let slices = located.iter().zip(&header.depths);
    slices
        .map(|(slice, depth)| SliceDetails {
            slice_number: slice.slice_number,
            position_mm: *depth,
            bounds: slice.bounds,
            has_box: slice.has_box,
        })
        .collect()
}

#[cfg(test)]
mod tests;
