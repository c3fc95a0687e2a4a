//! What a segmentation says of each slice: the tight box of the cervical vertebrae, and how much of each it shows.

/// C1..C7.
pub const VERTEBRAE: usize = 7;

/// Labels of one slice, derived from a segmentation.
#[derive(Clone, Debug, PartialEq)]
pub struct SliceTarget {
    /// x0, y0, x1, y1 of the voxels of classes 1..7, as shares of the image's width and height; none where there are
    /// no such voxels.
    pub bounds: Option<[f64; 4]>,
    /// For each vertebra: its voxels in this slice / the most that any slice of the study has of it.
    pub ratio: [f64; VERTEBRAE],
}

/// Targets of every slice of a label volume (slices, rows, columns).
pub fn slice_targets(labels: &[u8], rows: usize, cols: usize) -> Vec<SliceTarget> {
    let slices: Vec<(Option<[f64; 4]>, [usize; VERTEBRAE])> = labels
        .chunks_exact((rows * cols).max(1))
        .map(|slice| (bounds(slice, rows, cols), counts(slice)))
        .collect();
    let most: [usize; VERTEBRAE] =
        std::array::from_fn(|v| slices.iter().map(|(_, count)| count[v]).max().unwrap_or(0));
    let ratio = |count: usize, most: usize| count as f64 / most.max(1) as f64;
    slices
        .into_iter()
        .map(|(bounds, count)| SliceTarget {
            bounds,
            ratio: std::array::from_fn(|v| ratio(count[v], most[v])),
        })
        .collect()
}

/// The union of boxes; none of none.
pub fn union(boxes: impl IntoIterator<Item = [f64; 4]>) -> Option<[f64; 4]> {
    boxes.into_iter().reduce(|a, b| {
        [
            a[0].min(b[0]),
            a[1].min(b[1]),
            a[2].max(b[2]),
            a[3].max(b[3]),
        ]
    })
}

fn vertebra(label: u8) -> Option<usize> {
    (1..=VERTEBRAE as u8)
        .contains(&label)
        .then(|| usize::from(label) - 1)
}

fn counts(slice: &[u8]) -> [usize; VERTEBRAE] {
    let mut count = [0; VERTEBRAE];
    for v in slice.iter().filter_map(|label| vertebra(*label)) {
        count[v] += 1;
    }
    count
}

fn bounds(slice: &[u8], rows: usize, cols: usize) -> Option<[f64; 4]> {
    let side =
        |from: usize, to: usize, n: usize| (from as f64 / n as f64, (to + 1) as f64 / n as f64);
    let (mut x, mut y) = ((usize::MAX, 0), (usize::MAX, 0));
    for (row, line) in slice.chunks_exact(cols).enumerate() {
        for (col, _) in line
            .iter()
            .enumerate()
            .filter(|(_, label)| vertebra(**label).is_some())
        {
            x = (x.0.min(col), x.1.max(col));
            y = (y.0.min(row), y.1.max(row));
        }
    }
    (x.0 != usize::MAX).then(|| {
        let ((x0, x1), (y0, y1)) = (side(x.0, x.1, cols), side(y.0, y.1, rows));
        [x0, y0, x1, y1]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_are_tight_and_leave_the_thoracic_spine_out() {
        // Two slices of 2 x 4: C1 in columns 1..3 of row 0; then C1 at one voxel beside T1 (8).
        let labels = [0, 1, 1, 0, 0, 0, 0, 0, /**/ 0, 0, 0, 8, 0, 0, 1, 0];
        let targets = slice_targets(&labels, 2, 4);
        assert_eq!(targets[0].bounds, Some([0.25, 0.0, 0.75, 0.5]));
        assert_eq!(targets[1].bounds, Some([0.5, 0.5, 0.75, 1.0]));
        assert_eq!((targets[0].ratio[0], targets[1].ratio[0]), (1.0, 0.5));
        assert_eq!(targets[0].ratio[1..], [0.0; 6]);
    }

    #[test]
    fn a_slice_without_vertebrae_has_no_box() {
        assert_eq!(slice_targets(&[0, 8, 9, 0], 2, 2)[0].bounds, None);
    }

    #[test]
    fn the_union_holds_both_boxes() {
        let boxes = [[0.0, 0.0, 0.5, 1.0], [0.4, 0.5, 0.9, 0.8]];
        assert_eq!(union(boxes), Some([0.0, 0.0, 0.9, 1.0]));
        assert_eq!(union([]), None);
    }
}
