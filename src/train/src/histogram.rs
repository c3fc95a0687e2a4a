//! How the values of a tensor are spread, for people to look at.

use event::Histogram;
use tch::{Kind, Tensor};

use crate::Result;

/// As many as TensorBoard draws.
const BINS: i64 = 30;

/// Even bins from the smallest value to the largest; values that are not finite are left out.
pub(crate) fn of(tensor: &Tensor, step: u64, name: String) -> Result<Histogram> {
    let _no_grad = tch::no_grad_guard();
    let values = tensor.f_detach()?.f_to_kind(Kind::Float)?.f_reshape([-1])?;
    let values = values.f_masked_select(&values.f_isfinite()?)?;
    let (mut low, mut high) = (0.0, 0.0);
    if values.numel() > 0 {
        low = values.f_min()?.f_double_value(&[])?;
        high = values.f_max()?.f_double_value(&[])?;
    }
    // All values the same: they lie in the middle of bins that are as narrow as f32 tells them apart.
    if low == high {
        let beside = f64::from(f32::EPSILON) * low.abs().max(1.0) * BINS as f64;
        (low, high) = (low - beside, high + beside);
    }
    let place = values.f_to_kind(Kind::Double)?.f_sub_scalar(low)?;
    let place = place.f_mul_scalar(BINS as f64 / (high - low))?;
    let bins = place.f_to_kind(Kind::Int64)?.f_clamp(0, BINS - 1)?;
    let counts = bins.f_bincount::<Tensor>(None, BINS)?;
    let width = (high - low) / BINS as f64;
    Ok(Histogram {
        step,
        name,
        edges: (0..=BINS).map(|bin| low + width * bin as f64).collect(),
        counts: Vec::<i64>::try_from(counts)?
            .into_iter()
            .map(i64::unsigned_abs)
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finite_value_is_counted_where_it_lies() {
        let values = [-3.0f32, -2.95, 0.05, 2.95, 3.0, f32::NAN, f32::INFINITY];
        let found = of(&Tensor::from_slice(&values), 7, "weights/a".into()).unwrap();
        assert_eq!((found.step, found.name.as_str()), (7, "weights/a"));
        assert_eq!((found.edges.len(), found.counts.len()), (31, 30));
        assert_eq!((found.edges[0], found.edges[30]), (-3.0, 3.0));
        let mut expected = [0; 30];
        (expected[0], expected[15], expected[29]) = (2, 1, 2);
        assert_eq!(found.counts, expected);
    }

    #[test]
    fn equal_values_and_none_have_bins_too() {
        let found = of(&Tensor::from_slice(&[5.0f32; 4]), 1, "a".into()).unwrap();
        assert_eq!(found.counts.iter().sum::<u64>(), 4);
        assert!(found.edges[0] < 5.0 && found.edges[30] > 5.0);
        let none = of(&Tensor::from_slice(&[] as &[f32]), 1, "a".into()).unwrap();
        assert_eq!(none.counts, [0; 30]);
    }
}
