//! Sharing the studies out over folds, so that each fold has its part of every label.
//!
//! Iterative stratification: K. Sechidis, G. Tsoumakas, I. Vlahavas, "On the Stratification of Multi-Label Data",
//! ECML PKDD 2011, algorithm 1. The rarest label is shared out first, each of its studies to the fold that still lacks
//! most of it. Being segmented counts as one more label: stage 1 learns from the segmented studies alone. Swaps then even
//! out what is left.

use std::collections::{BTreeMap, BTreeSet};

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::error::{DataError, Result};
use crate::study::StudyUid;
use crate::tables::{StudyFold, StudyLabels};

/// C1 to C7, segmented, patient_overall. The last is the union of the first seven: of equally rare traits the first is
/// shared out first, and that must be the vertebra.
const TRAITS: usize = 9;

/// Evening out takes time with the square of the number of folds.
const MAX_FOLDS: usize = 50;

/// Gives every study of `labels` one of the folds `0..k`, sorted by study. Studies of one patient get the same, and count
/// as one: with the union of their traits.
///
/// The split depends on the set of studies, their labels, `segmented`, `k` and `seed` alone: not on the order of
/// `labels`. Members of `segmented` that have no labels are ignored.
///
/// # Errors
/// [`DataError::Folds`] for fewer than 2 or more than 50 folds, for fewer patients than folds, and for a study that occurs twice.
pub fn folds(
    labels: &[StudyLabels],
    segmented: &BTreeSet<StudyUid>,
    k: usize,
    seed: u64,
) -> Result<Vec<StudyFold>> {
    let refuse = |problem: String, remedy| Err(DataError::Folds { problem, remedy });
    if !(2..=MAX_FOLDS).contains(&k) {
        let problem = format!("{k} is not a number of folds");
        return refuse(problem, "ask for 2 to 50");
    }
    // The first study of a patient, by name, stands for all of them.
    let mut studies: BTreeMap<&StudyUid, &StudyLabels> = BTreeMap::new();
    for row in labels {
        if studies.insert(&row.study, row).is_some() {
            return refuse(
                format!("study {} occurs twice", row.study),
                "keep one row a study",
            );
        }
    }
    let mut first_of: BTreeMap<&str, &StudyUid> = BTreeMap::new();
    let mut patients: BTreeMap<&StudyUid, Vec<&StudyUid>> = BTreeMap::new();
    let mut traits: BTreeMap<&StudyUid, Traits> = BTreeMap::new();
    for (study, row) in studies {
        let first = match &row.patient {
            Some(patient) => *first_of.entry(patient).or_insert(study),
            None => study,
        };
        patients.entry(first).or_default().push(study);
        let has = traits.entry(first).or_insert([false; TRAITS]);
        let vertebrae = row.vertebrae.into_iter().map(|label| label > 0);
        let values = vertebrae.chain([segmented.contains(&row.study), row.patient_overall > 0]);
        has.iter_mut()
            .zip(values)
            .for_each(|(has, value)| *has |= value);
    }
    if patients.len() < k {
        let problem = format!("{} patients do not fill {k} folds", patients.len());
        return refuse(problem, "ask for fewer folds or add studies");
    }
    // From the sorted map into an order of the seed's: ties are broken by it.
    let mut order: Vec<(&StudyUid, Traits)> = traits.into_iter().collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    let mut members = stratified(&order, k);
    even_out(&mut members);
    let split = (0..).zip(members).flat_map(|(fold, members)| {
        let firsts = members.into_values().flatten();
        let studies = firsts.flat_map(|first| patients.get(first).into_iter().flatten());
        let rows = studies.map(move |study| StudyFold {
            study: (*study).clone(),
            fold,
        });
        rows.collect::<Vec<_>>()
    });
    let mut split: Vec<StudyFold> = split.collect();
    split.sort_by(|a, b| a.study.cmp(&b.study));
    Ok(split)
}

/// Which of the traits a study has.
type Traits = [bool; TRAITS];

/// The studies of one fold, by their traits.
type Members<'a> = BTreeMap<Traits, Vec<&'a StudyUid>>;

/// How many studies a fold still lacks: of each trait, and in all.
#[derive(Clone)]
struct Lack {
    of_trait: [f64; TRAITS],
    in_all: f64,
}

/// Sechidis' algorithm 1. Ties that remain go to the earlier fold and are decided by the order of `studies`.
fn stratified<'a>(studies: &[(&'a StudyUid, Traits)], k: usize) -> Vec<Members<'a>> {
    let share = |count: usize| count as f64 / k as f64;
    let count =
        |index: usize, of: &[(&StudyUid, Traits)]| of.iter().filter(|(_, has)| has[index]).count();
    let whole = Lack {
        of_trait: std::array::from_fn(|index| share(count(index, studies))),
        in_all: share(studies.len()),
    };
    let mut folds = vec![(whole, Members::new()); k];
    let mut left = studies.to_vec();
    while !left.is_empty() {
        let counts = (0..TRAITS).map(|index| (count(index, &left), index));
        let rarest = counts
            .filter(|(count, _)| *count > 0)
            .min()
            .map(|(_, index)| index);
        let (now, later): (Vec<_>, Vec<_>) = left
            .into_iter()
            .partition(|(_, has)| rarest.is_none_or(|index| has[index]));
        for (study, has) in now {
            let need = |lack: &Lack| {
                (
                    rarest.map_or(0.0, |index| lack.of_trait[index]),
                    lack.in_all,
                )
            };
            let neediest = folds.iter_mut().reduce(|best, next| {
                if need(&next.0) > need(&best.0) {
                    next
                } else {
                    best
                }
            });
            if let Some((lack, members)) = neediest {
                lack.in_all -= 1.0;
                lack.of_trait
                    .iter_mut()
                    .zip(has)
                    .for_each(|(lack, has)| *lack -= f64::from(u8::from(has)));
                members.entry(has).or_default().push(study);
            }
        }
        left = later;
    }
    folds.into_iter().map(|(_, members)| members).collect()
}

/// Swaps studies between folds as long as that evens out a trait: algorithm 1 never takes back what it has given, and
/// may leave the commonest traits uneven. Sizes of folds stay; each swap lowers the sum of squares of the counts.
fn even_out(folds: &mut [Members<'_>]) {
    while let Some([(fold, has), (other_fold, other_has)]) = best_swap(folds) {
        let mut take = |fold: usize, has: &Traits| folds.get_mut(fold)?.get_mut(has)?.pop();
        let pair = (take(fold, &has), take(other_fold, &other_has));
        for (study, fold, has) in [(pair.0, other_fold, has), (pair.1, fold, other_has)] {
            if let (Some(study), Some(members)) = (study, folds.get_mut(fold)) {
                members.entry(has).or_default().push(study);
            }
        }
    }
}

/// The swap of two studies, each by its fold and traits, that evens out most; nothing where none does.
fn best_swap(folds: &[Members<'_>]) -> Option<[(usize, Traits); 2]> {
    let counts = folds.iter().map(|members| {
        std::array::from_fn::<i64, TRAITS, _>(|index| {
            let with = members.iter().filter(|(has, _)| has[index]);
            with.map(|(_, studies)| studies.len() as i64).sum()
        })
    });
    let counts: Vec<[i64; TRAITS]> = counts.collect();
    let present = |fold: usize| {
        folds[fold]
            .iter()
            .filter(|(_, studies)| !studies.is_empty())
            .map(|(has, _)| *has)
    };
    let pairs = (0..folds.len()).flat_map(|a| (a + 1..folds.len()).map(move |b| (a, b)));
    let swaps = pairs.flat_map(|(a, b)| {
        present(a).flat_map(move |has| present(b).map(move |other| [(a, has), (b, other)]))
    });
    let change = |[(a, has), (b, other)]: &[(usize, Traits); 2]| -> i64 {
        let one = |index: usize| {
            // Fold a's count of this trait grows by `step`, fold b's falls by it.
            let step = i64::from(other[index]) - i64::from(has[index]);
            2 * step * (counts[*a][index] - counts[*b][index]) + 2 * step * step
        };
        (0..TRAITS).map(one).sum()
    };
    swaps
        .map(|swap| (change(&swap), swap))
        .min_by_key(|(change, _)| *change)
        .filter(|(change, _)| *change < 0)
        .map(|(_, swap)| swap)
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
            let vertebrae =
                [7, 14, 4, 5, 8, 14, 19].map(|percent| u8::from(percent_roll(&mut rng) < percent));
            StudyLabels {
                study,
                patient_overall: vertebrae.into_iter().max().unwrap(),
                vertebrae,
                patient: None,
            }
        });
        (labels.collect(), segmented)
    }

    fn percent_roll(rng: &mut ChaCha8Rng) -> u32 {
        rand::Rng::next_u32(rng) % 100
    }

    fn per_fold(split: &[StudyFold], k: usize, has: impl Fn(&StudyUid) -> bool) -> Vec<usize> {
        let mut counts = vec![0; k];
        split
            .iter()
            .filter(|row| has(&row.study))
            .for_each(|row| counts[row.fold as usize] += 1);
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
        assert!(spread(&per_fold(&split, 5, |study| segmented.contains(study))) <= 1);
        for trait_index in 0..8 {
            let positive: BTreeSet<_> = labels
                .iter()
                .filter(|row| {
                    if trait_index == 0 {
                        row.patient_overall > 0
                    } else {
                        row.vertebrae[trait_index - 1] > 0
                    }
                })
                .map(|row| &row.study)
                .collect();
            let counts = per_fold(&split, 5, |study| positive.contains(study));
            assert!(spread(&counts) <= 1, "label {trait_index}: {counts:?}");
        }
    }

    #[test]
    fn small_cohorts_have_fractures_and_segmentations_in_each_fold() {
        let (labels, _) = cohort(40);
        let segmented: BTreeSet<_> = labels
            .iter()
            .step_by(3)
            .map(|row| row.study.clone())
            .collect();
        let fractured: BTreeSet<_> = labels
            .iter()
            .filter(|row| row.patient_overall > 0)
            .map(|row| row.study.clone())
            .collect();
        for seed in 0..20 {
            let split = folds(&labels, &segmented, 4, seed).unwrap();
            for of in [&segmented, &fractured] {
                let counts = per_fold(&split, 4, |study| of.contains(study));
                assert!(
                    spread(&counts) <= 2,
                    "seed {seed}: {counts:?} of {}",
                    of.len()
                );
            }
        }
    }

    #[test]
    fn each_study_is_in_one_fold() {
        let (labels, segmented) = cohort(103);
        let split = folds(&labels, &segmented, 5, 7).unwrap();
        let studies: BTreeSet<_> = split.iter().map(|row| row.study.clone()).collect();
        assert_eq!(split.len(), 103);
        assert_eq!(
            studies,
            labels.iter().map(|row| row.study.clone()).collect()
        );
        assert!(split.iter().all(|row| row.fold < 5));
    }

    #[test]
    fn a_patient_is_in_one_fold() {
        let (mut labels, segmented) = cohort(150);
        for (index, row) in labels.iter_mut().enumerate() {
            row.patient = (index % 3 > 0).then(|| format!("P{}", index / 7));
        }
        let split = folds(&labels, &segmented, 5, 2).unwrap();
        assert_eq!(split.len(), 150);
        let fold_of: BTreeMap<_, _> = split.iter().map(|row| (&row.study, row.fold)).collect();
        let mut of_patient: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
        for row in &labels {
            if let Some(patient) = &row.patient {
                of_patient
                    .entry(patient)
                    .or_default()
                    .insert(fold_of[&row.study]);
            }
        }
        assert!(of_patient.len() > 20 && of_patient.values().all(|folds| folds.len() == 1));
        let spread = spread(&per_fold(&split, 5, |_| true));
        assert!(spread <= 12, "{spread}");
        let one = labels.iter_mut();
        one.for_each(|row| row.patient = Some("P".into()));
        let error = folds(&labels, &segmented, 2, 0).unwrap_err().to_string();
        assert!(error.contains("1 patients"), "{error}");
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
        assert!(folds(&labels, &segmented, 51, 0).is_err());
        assert!(folds(&labels, &segmented, 5, 0).is_err());
        let twice = [&labels[..], &labels[..1]].concat();
        let error = folds(&twice, &segmented, 2, 0).unwrap_err().to_string();
        assert!(error.contains("1.2.3.0 occurs twice"), "{error}");
    }
}
