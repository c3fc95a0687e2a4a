//! Sharing the studies out over folds, so that each fold has its part of every label.
//!
//! Iterative stratification: K. Sechidis, G. Tsoumakas, I. Vlahavas, "On the Stratification of Multi-Label Data",
//! ECML PKDD 2011, algorithm 1. The rarest label is shared out first, each of its studies to the fold that still lacks
//! most of it. Being segmented counts as one more label: stage 1 learns from the segmented studies alone.

use std::collections::{BTreeMap, BTreeSet};

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::error::{DataError, Result};
use crate::study::StudyUid;
use crate::tables::StudyLabels;

/// C1 to C7, segmented, patient_overall. The last is the union of the first seven: of equally rare traits the first is
/// shared out first, and that must be the vertebra.
const TRAITS: usize = 9;

/// Gives every study of `labels` one of the folds `0..k`, sorted by study.
///
/// The split depends on the set of studies, their labels, `segmented`, `k` and `seed` alone: not on the order of
/// `labels`. Members of `segmented` that have no labels are ignored.
///
/// # Errors
/// [`DataError::Folds`] for fewer than two folds, for fewer studies than folds, and for a study that occurs twice.
pub fn folds(
    labels: &[StudyLabels],
    segmented: &BTreeSet<StudyUid>,
    k: usize,
    seed: u64,
) -> Result<Vec<(StudyUid, usize)>> {
    let refuse = |problem: String, remedy| Err(DataError::Folds { problem, remedy });
    if k < 2 {
        return refuse(format!("{k} folds are not a split"), "ask for two folds or more");
    }
    if labels.len() < k {
        let problem = format!("{} studies do not fill {k} folds", labels.len());
        return refuse(problem, "ask for fewer folds or add studies");
    }
    let mut traits: BTreeMap<&StudyUid, [bool; TRAITS]> = BTreeMap::new();
    for row in labels {
        let mut has = [false; TRAITS];
        let vertebrae = row.vertebrae.into_iter().map(|label| label > 0);
        let values = vertebrae.chain([segmented.contains(&row.study), row.patient_overall > 0]);
        has.iter_mut().zip(values).for_each(|(has, value)| *has = value);
        if traits.insert(&row.study, has).is_some() {
            return refuse(format!("study {} occurs twice", row.study), "keep one row a study");
        }
    }
    // From the sorted map into an order of the seed's: ties are broken by it.
    let mut order: Vec<(&StudyUid, [bool; TRAITS])> = traits.into_iter().collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    let mut split: Vec<(StudyUid, usize)> = stratified(&order, k);
    split.sort();
    Ok(split)
}

/// How many studies a fold still lacks: of each trait, and in all.
#[derive(Clone)]
struct Lack {
    of_trait: [f64; TRAITS],
    in_all: f64,
}

fn stratified(studies: &[(&StudyUid, [bool; TRAITS])], k: usize) -> Vec<(StudyUid, usize)> {
    let share = |count: usize| count as f64 / k as f64;
    let count = |index: usize, of: &[(&StudyUid, [bool; TRAITS])]| of.iter().filter(|(_, has)| has[index]).count();
    let whole = Lack {
        of_trait: std::array::from_fn(|index| share(count(index, studies))),
        in_all: share(studies.len()),
    };
    let mut lacking = vec![whole; k];
    let mut left = studies.to_vec();
    let mut split = Vec::with_capacity(studies.len());
    while !left.is_empty() {
        let counts = (0..TRAITS).map(|index| (count(index, &left), index));
        let rarest = counts.filter(|(count, _)| *count > 0).min().map(|(_, index)| index);
        let (now, later): (Vec<_>, Vec<_>) = left
            .into_iter()
            .partition(|(_, has)| rarest.is_none_or(|index| has[index]));
        for (study, has) in now {
            let fold = neediest(&lacking, rarest);
            split.push((study.clone(), fold));
            if let Some(lack) = lacking.get_mut(fold) {
                lack.in_all -= 1.0;
                lack.of_trait.iter_mut().zip(has).for_each(|(lack, has)| *lack -= f64::from(u8::from(has)));
            }
        }
        left = later;
    }
    split
}

/// The fold that lacks most of a trait (of any study where no trait is given), among these the one that lacks most
/// studies, among these the first.
fn neediest(lacking: &[Lack], rarest: Option<usize>) -> usize {
    let need = |lack: &Lack| (rarest.map_or(0.0, |index| lack.of_trait[index]), lack.in_all);
    let mut best = 0;
    for (fold, lack) in lacking.iter().enumerate() {
        if need(lack) > need(&lacking[best]) {
            best = fold;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The competition's size and prevalences, drawn independently for C1 to C7.
    fn cohort(studies: usize) -> (Vec<StudyLabels>, BTreeSet<StudyUid>) {
        let mut rng = ChaCha8Rng::seed_from_u64(42);
        let mut segmented = BTreeSet::new();
        let labels = (0..studies).map(|index| {
            let study = StudyUid::new(&format!("1.2.3.{index}")).unwrap();
            if index % 23 == 0 {
                segmented.insert(study.clone());
            }
            let vertebrae = [7, 14, 4, 5, 8, 14, 19].map(|percent| u8::from(percent_roll(&mut rng) < percent));
            StudyLabels { study, patient_overall: vertebrae.into_iter().max().unwrap(), vertebrae }
        });
        (labels.collect(), segmented)
    }

    fn percent_roll(rng: &mut ChaCha8Rng) -> u32 {
        rand::Rng::next_u32(rng) % 100
    }

    fn per_fold(split: &[(StudyUid, usize)], k: usize, has: impl Fn(&StudyUid) -> bool) -> Vec<usize> {
        let mut counts = vec![0; k];
        split.iter().filter(|(study, _)| has(study)).for_each(|(_, fold)| counts[*fold] += 1);
        counts
    }

    fn spread(counts: &[usize]) -> usize {
        counts.iter().max().unwrap() - counts.iter().min().unwrap()
    }

    #[test]
    fn folds_are_balanced_in_size_labels_and_segmentations() {
        let (labels, segmented) = cohort(2019);
        let split = folds(&labels, &segmented, 5, 1).unwrap();
        assert!(spread(&per_fold(&split, 5, |_| true)) <= 1);
        assert!(spread(&per_fold(&split, 5, |study| segmented.contains(study))) <= 2);
        for trait_index in 0..8 {
            let positive: BTreeSet<_> = labels
                .iter()
                .filter(|row| if trait_index == 0 { row.patient_overall > 0 } else { row.vertebrae[trait_index - 1] > 0 })
                .map(|row| &row.study)
                .collect();
            let counts = per_fold(&split, 5, |study| positive.contains(study));
            println!("{trait_index}: {counts:?}");
            assert!(spread(&counts) <= 4, "label {trait_index}: {counts:?}");
        }
    }

    #[test]
    fn small_cohorts_have_fractures_and_segmentations_in_each_fold() {
        let (labels, _) = cohort(40);
        let segmented: BTreeSet<_> = labels.iter().step_by(3).map(|row| row.study.clone()).collect();
        let fractured: BTreeSet<_> =
            labels.iter().filter(|row| row.patient_overall > 0).map(|row| row.study.clone()).collect();
        for seed in 0..20 {
            let split = folds(&labels, &segmented, 4, seed).unwrap();
            for of in [&segmented, &fractured] {
                let counts = per_fold(&split, 4, |study| of.contains(study));
                assert!(spread(&counts) <= 2, "seed {seed}: {counts:?} of {}", of.len());
            }
        }
    }

    #[test]
    fn each_study_is_in_one_fold() {
        let (labels, segmented) = cohort(103);
        let split = folds(&labels, &segmented, 5, 7).unwrap();
        let studies: BTreeSet<_> = split.iter().map(|(study, _)| study.clone()).collect();
        assert_eq!(split.len(), 103);
        assert_eq!(studies, labels.iter().map(|row| row.study.clone()).collect());
        assert!(split.iter().all(|(_, fold)| *fold < 5));
    }

    #[test]
    fn the_split_depends_on_the_seed_and_not_on_the_order() {
        let (mut labels, segmented) = cohort(200);
        let split = folds(&labels, &segmented, 5, 3).unwrap();
        labels.reverse();
        labels.swap(5, 90);
        assert_eq!(folds(&labels, &segmented, 5, 3).unwrap(), split);
        assert_ne!(folds(&labels, &segmented, 5, 4).unwrap(), split);
    }

    #[test]
    fn impossible_splits_are_refused() {
        let (labels, segmented) = cohort(4);
        assert!(folds(&labels, &segmented, 1, 0).is_err());
        assert!(folds(&labels, &segmented, 5, 0).is_err());
        let twice = [&labels[..], &labels[..1]].concat();
        let error = folds(&twice, &segmented, 2, 0).unwrap_err().to_string();
        assert!(error.contains("1.2.3.0 occurs twice"), "{error}");
    }
}
