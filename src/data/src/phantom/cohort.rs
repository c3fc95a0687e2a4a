//! Who is in the phantom cohort: which studies are fractured where, segmented, boxed, and how their slices are numbered.
//!
//! Decided for the cohort as a whole, so that a small one is balanced too.

use super::SynthOptions;
use super::draw::Draw;
use crate::error::Result;
use crate::study::StudyUid;

/// How a study's slices are numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Numbering {
    /// 1, 2, 3, ...
    Dense,
    /// As `Dense`, from a number above 1.
    Offset,
    /// As `Offset`, with numbers left out.
    Sparse,
}

/// What is decided about a study before it is drawn.
#[derive(Clone, Debug)]
pub(super) struct StudyPlan {
    pub index: usize,
    pub study: StudyUid,
    /// C1 to C7.
    pub fractured: [bool; 7],
    pub segmented: bool,
    /// Whether its fractures are in train_bounding_boxes.csv.
    pub boxed: bool,
    pub numbering: Numbering,
    /// Whether numbers count from head to feet.
    pub head_first: bool,
}

/// The root of all UIDs made here; the seed and the study's number follow.
const UID_ROOT: &str = "1.2.826.0.1.3680043.9.7777";

/// Share of studies with a fracture of C1 to C7 in the competition's training data, per cent.
const PREVALENCE: [usize; 7] = [7, 14, 4, 5, 8, 14, 19];

/// Vertebrae that break in the first, second, ... fractured study, over and over: 1.5 on average, as in the competition.
const FRACTURES: [usize; 6] = [1, 2, 1, 1, 3, 1];

/// The studies, by index.
pub(super) fn plan(options: &SynthOptions) -> Result<Vec<StudyPlan>> {
    let mut draw = Draw::for_cohort(options.seed);
    let ranks = |draw: &mut Draw| {
        let mut ranks: Vec<usize> = (0..options.studies).collect();
        draw.shuffle(&mut ranks);
        ranks
    };
    let (by_fracture, by_segment, by_scan) = (ranks(&mut draw), ranks(&mut draw), ranks(&mut draw));
    let count = |share: f64| (share * options.studies as f64).round() as usize;
    let (fractured_studies, segmented_studies) =
        (count(options.fractured), count(options.segmented));
    let fractures = fractures(&mut draw, fractured_studies);

    let plans = by_fracture
        .into_iter()
        .zip(by_segment)
        .zip(by_scan)
        .enumerate();
    plans
        .map(|(index, ((fracture_rank, segment_rank), scan_rank))| {
            Ok(StudyPlan {
                index,
                study: StudyUid::new(&format!("{UID_ROOT}.{}.{}", options.seed, index + 1))?,
                fractured: fractures.get(fracture_rank).copied().unwrap_or_default(),
                segmented: segment_rank < segmented_studies,
                boxed: fracture_rank < fractured_studies && fracture_rank % 2 == 0,
                numbering: match scan_rank % 4 {
                    0 | 1 => Numbering::Dense,
                    2 => Numbering::Offset,
                    _ => Numbering::Sparse,
                },
                // The other bits of the rank: each kind of numbering runs both ways.
                head_first: (scan_rank + scan_rank / 4).is_multiple_of(2),
            })
        })
        .collect()
}

/// Which vertebrae break in each of `studies` fractured studies: drawn from a bag that holds each vertebra as often as
/// its prevalence asks, no study the same one twice.
fn fractures(draw: &mut Draw, studies: usize) -> Vec<[bool; 7]> {
    let mut wanted: Vec<usize> = FRACTURES.iter().copied().cycle().take(studies).collect();
    let mut bag = quotas(wanted.iter().sum());
    // Studies with the most fractures draw first, while all vertebrae are still in the bag.
    wanted.sort_by_key(|&count| std::cmp::Reverse(count));
    let mut broken = vec![[false; 7]; studies];
    for (study, count) in broken.iter_mut().zip(wanted) {
        for _ in 0..count {
            if let Some(vertebra) = draw_from(draw, &bag, study) {
                study[vertebra] = true;
                bag[vertebra] -= 1;
            }
        }
    }
    draw.shuffle(&mut broken);
    broken
}

/// A vertebra from the bag that `taken` does not have yet.
fn draw_from(draw: &mut Draw, bag: &[usize; 7], taken: &[bool; 7]) -> Option<usize> {
    let free = (0..7).filter(|&vertebra| !taken[vertebra]);
    let tickets: Vec<usize> = free
        .flat_map(|vertebra| std::iter::repeat_n(vertebra, bag[vertebra]))
        .collect();
    let ticket = draw.between(0.0, tickets.len() as f32) as usize;
    tickets.get(ticket).copied()
}

/// `total` fractures shared out over C1 to C7 by prevalence: at least one each where there are seven,
/// the rest by largest remainders.
fn quotas(total: usize) -> [usize; 7] {
    let sum: usize = PREVALENCE.iter().sum();
    let mut quotas = PREVALENCE.map(|share| (total * share / sum).max(usize::from(total >= 7)));
    let mut by_remainder: Vec<usize> = (0..7).collect();
    by_remainder.sort_by_key(|&vertebra| std::cmp::Reverse(total * PREVALENCE[vertebra] % sum));
    let missing = total.saturating_sub(quotas.iter().sum());
    for &vertebra in by_remainder.iter().cycle().take(missing) {
        quotas[vertebra] += 1;
    }
    quotas
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn cohort(studies: usize) -> Vec<StudyPlan> {
        plan(&SynthOptions {
            studies,
            seed: 11,
            ..SynthOptions::default()
        })
        .unwrap()
    }

    #[test]
    fn prevalence_is_the_competitions() {
        let cohort = cohort(2000);
        let share = |of: &dyn Fn(&StudyPlan) -> bool| {
            cohort.iter().filter(|plan| of(plan)).count() as f64 / 2000.0
        };
        assert_eq!(share(&|plan| plan.fractured.contains(&true)), 0.48);
        assert_eq!(share(&|plan| plan.segmented), 0.4);
        for (vertebra, percent) in PREVALENCE.into_iter().enumerate() {
            let found = share(&|plan| plan.fractured[vertebra]);
            assert!(
                (found - percent as f64 / 100.0).abs() < 0.01,
                "C{}: {found}",
                vertebra + 1
            );
        }
        assert!(
            cohort
                .iter()
                .all(|plan| !plan.boxed || plan.fractured.contains(&true))
        );
    }

    #[test]
    fn a_small_cohort_has_every_kind() {
        let cohort = cohort(20);
        for vertebra in 0..7 {
            assert!(
                cohort.iter().any(|plan| plan.fractured[vertebra]),
                "C{}",
                vertebra + 1
            );
        }
        let kinds: Vec<_> = cohort
            .iter()
            .map(|plan| (plan.numbering, plan.head_first))
            .collect();
        for numbering in [Numbering::Dense, Numbering::Offset, Numbering::Sparse] {
            assert!(
                kinds.contains(&(numbering, true)) && kinds.contains(&(numbering, false)),
                "{numbering:?}"
            );
        }
        let uids: BTreeSet<_> = cohort.iter().map(|plan| plan.study.clone()).collect();
        assert_eq!(uids.len(), 20);
    }

    #[test]
    fn one_to_three_vertebrae_break() {
        for plan in cohort(200)
            .iter()
            .filter(|plan| plan.fractured.contains(&true))
        {
            let broken = plan.fractured.iter().filter(|broken| **broken).count();
            assert!((1..=3).contains(&broken));
        }
    }
}
