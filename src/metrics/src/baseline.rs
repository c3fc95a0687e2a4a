//! What a constant reaches that knows no more than a fold's models may.

use std::collections::BTreeMap;

/// For each fold that occurs, the mean of all rows of the other folds; none where there are no others.
pub fn means_of_other_folds<const N: usize>(
    rows: impl IntoIterator<Item = (u32, [f64; N])>,
) -> BTreeMap<u32, [f64; N]> {
    let mut sums: BTreeMap<u32, ([f64; N], f64)> = BTreeMap::new();
    for (fold, row) in rows {
        let (sum, count) = sums.entry(fold).or_insert(([0.0; N], 0.0));
        add(sum, &row);
        *count += 1.0;
    }
    let of_others = |fold: u32| {
        let (mut total, mut number) = ([0.0; N], 0.0);
        for (_, (sum, count)) in sums.iter().filter(|(other, _)| **other != fold) {
            add(&mut total, sum);
            number += count;
        }
        (number > 0.0).then(|| (fold, total.map(|sum| sum / number)))
    };
    sums.keys().filter_map(|fold| of_others(*fold)).collect()
}

fn add<const N: usize>(sum: &mut [f64; N], row: &[f64; N]) {
    sum.iter_mut()
        .zip(row)
        .for_each(|(sum, value)| *sum += value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fold_never_counts_towards_its_own_constant() {
        let rows = [
            (0, [1.0, 0.0]),
            (1, [2.0, 4.0]),
            (1, [4.0, 4.0]),
            (2, [6.0, 1.0]),
        ];
        let means = means_of_other_folds(rows);
        assert_eq!(means[&0], [4.0, 3.0]);
        assert_eq!(means[&1], [3.5, 0.5]);
        assert_eq!(means.len(), 3);
        assert!(means_of_other_folds([(0, [1.0])]).is_empty());
    }
}
