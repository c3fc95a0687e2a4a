//! Errors of stage 1: boxes as x0, y0, x1, y1, and ranges of slices with both ends.

/// Intersection over union of two boxes, 0..1.
pub fn intersection_over_union(a: [f64; 4], b: [f64; 4]) -> f64 {
    let area = |r: [f64; 4]| (r[2] - r[0]).max(0.0) * (r[3] - r[1]).max(0.0);
    let inner = area([
        a[0].max(b[0]),
        a[1].max(b[1]),
        a[2].min(b[2]),
        a[3].min(b[3]),
    ]);
    let outer = area(a) + area(b) - inner;
    if outer > 0.0 { inner / outer } else { 0.0 }
}

/// Slices by which the ends of a range are off, mean of the two ends.
pub fn range_error(found: (u32, u32), truth: (u32, u32)) -> f64 {
    f64::from(found.0.abs_diff(truth.0) + found.1.abs_diff(truth.1)) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlap_of_boxes() {
        let a = [0.0, 0.0, 0.5, 1.0];
        assert_eq!(intersection_over_union(a, a), 1.0);
        assert_eq!(intersection_over_union(a, [0.5, 0.0, 1.0, 1.0]), 0.0);
        assert!((intersection_over_union(a, [0.25, 0.0, 0.75, 1.0]) - 1.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn both_ends_of_a_range_count() {
        assert_eq!(range_error((3, 10), (3, 10)), 0.0);
        assert_eq!(range_error((5, 10), (3, 11)), 1.5);
    }
}
