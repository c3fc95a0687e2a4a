//! Metrics that can be computed again with studies counted several times, and their bootstrap intervals.

use serde::Serialize;

use crate::bootstrap::{Interval, Resamples, interval};
use crate::roc::Ranked;

/// A metric over rows (studies): what it is made of, row by row.
#[derive(Clone, Debug)]
pub enum Quantity {
    /// Sum of values and how many there were, of each row; the mean is over all values of all rows.
    Mean(Vec<(f64, f64)>),
    /// Area under the ROC curve of a score of each row.
    Area(Ranked),
}

impl Quantity {
    /// One value a row.
    pub fn mean(values: impl IntoIterator<Item = f64>) -> Self {
        Quantity::Mean(values.into_iter().map(|value| (value, 1.0)).collect())
    }

    pub fn area(scored: &[(f64, bool)]) -> Self {
        Quantity::Area(Ranked::new(scored))
    }

    /// Its value where row i counts `weights[i]` times; none where it has none.
    pub fn value(&self, weights: &[u32]) -> Option<f64> {
        match self {
            Quantity::Mean(rows) => {
                let (mut sum, mut count) = (0.0, 0.0);
                for ((row_sum, row_count), weight) in rows.iter().zip(weights) {
                    let weight = f64::from(*weight);
                    sum += weight * row_sum;
                    count += weight * row_count;
                }
                (count > 0.0).then(|| sum / count)
            }
            Quantity::Area(ranked) => ranked.area(weights),
        }
    }
}

/// How intervals are made.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bootstrap {
    pub resamples: usize,
    pub seed: u64,
    /// The share of resampled values that an interval holds, such as 0.95.
    pub level: f64,
}

/// A value and its interval, each where there is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Estimate {
    pub value: Option<f64>,
    pub interval: Option<Interval>,
}

/// Every quantity over the same rows, with intervals from the same draws. `clusters` as for [`Resamples::new`]. Draws in
/// which a quantity has no value (one class only) are left out of its interval.
pub fn estimates(
    quantities: &[&Quantity],
    clusters: &[usize],
    bootstrap: &Bootstrap,
) -> Vec<Estimate> {
    let once = vec![1; clusters.len()];
    let mut drawn: Vec<Vec<f64>> = vec![Vec::with_capacity(bootstrap.resamples); quantities.len()];
    for weights in Resamples::new(clusters.to_vec(), bootstrap.resamples, bootstrap.seed) {
        for (values, quantity) in drawn.iter_mut().zip(quantities) {
            values.extend(quantity.value(&weights));
        }
    }
    let intervals = drawn.into_iter();
    quantities
        .iter()
        .zip(intervals.map(|values| interval(values, bootstrap.level)))
        .map(|(quantity, interval)| Estimate {
            value: quantity.value(&once),
            interval,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOTSTRAP: Bootstrap = Bootstrap {
        resamples: 1000,
        seed: 1,
        level: 0.95,
    };

    #[test]
    fn a_mean_is_over_values_and_not_over_rows() {
        let quantity = Quantity::Mean(vec![(3.0, 1.0), (1.0, 4.0), (0.0, 0.0)]);
        assert_eq!(quantity.value(&[1, 1, 1]), Some(0.8));
        assert_eq!(quantity.value(&[2, 1, 9]), Some(7.0 / 6.0));
        assert_eq!(quantity.value(&[0, 0, 1]), None);
    }

    #[test]
    fn intervals_hold_the_value_and_are_wider_where_patients_have_several_studies() {
        // 100 studies; the first half is easy.
        let scored: Vec<(f64, bool)> = (0..100)
            .map(|i| {
                (
                    f64::from((i * 29) % 100) / 100.0 + f64::from(i % 3) * 0.2,
                    i % 3 == 2,
                )
            })
            .collect();
        let area = Quantity::area(&scored);
        let share = Quantity::mean(scored.iter().map(|(p, _)| *p));
        let alone: Vec<usize> = (0..100).collect();
        let found = estimates(&[&area, &share], &alone, &BOOTSTRAP);
        for estimate in &found {
            let (value, held) = (estimate.value.unwrap(), estimate.interval.unwrap());
            assert!(held.low < value && value < held.high, "{estimate:?}");
        }
        assert_eq!(found, estimates(&[&area, &share], &alone, &BOOTSTRAP));
        // Ten patients whose ten studies are all alike: ten independent values instead of a hundred.
        let alike = Quantity::mean((0..100).map(|i| f64::from(i / 10 % 2)));
        let width = |clusters: Vec<usize>| {
            let held = estimates(&[&alike], &clusters, &BOOTSTRAP)[0]
                .interval
                .unwrap();
            held.high - held.low
        };
        let (by_study, by_patient) = (width(alone), width((0..100).map(|i| i / 10).collect()));
        assert!(by_patient > 2.0 * by_study, "{by_patient} {by_study}");
    }

    #[test]
    fn what_has_no_value_has_no_interval() {
        let area = Quantity::area(&[(0.5, true), (0.6, true)]);
        let found = estimates(&[&area], &[0, 1], &BOOTSTRAP);
        assert_eq!(found, [Estimate::default()]);
        assert_eq!(estimates(&[&area], &[], &BOOTSTRAP), [Estimate::default()]);
    }
}
