//! All geometry of a change as one map, for single places and for every pixel of an image.

use super::elastic::Columns;
use super::{Affine, Augmentation, Distortion};

/// The middle of pixel `i` of `side`.
#[inline(always)]
pub(super) fn place(i: usize, side: usize) -> f64 {
    (2 * i + 1) as f64 / side as f64 - 1.0
}

impl Augmentation {
    /// Whether every pixel stays where it is: nothing to interpolate.
    pub fn keeps_places(&self) -> bool {
        self.map == Affine::IDENTITY && self.distortion == Distortion::None
    }

    /// Which place of the original image a place of the changed one shows.
    pub fn source(&self, place: (f64, f64)) -> (f64, f64) {
        self.map.inverse().apply(self.distortion.source(place))
    }

    /// Where a place of the original image is shown: the inverse of [`Self::source`].
    pub fn shown(&self, place: (f64, f64)) -> (f64, f64) {
        self.distortion.shown(self.map.apply(place))
    }

    /// The sampling grid (side, side, 2) of an image: for each pixel of the changed one, x and y of the place that it
    /// shows, as libtorch's `grid_sampler` takes them with `align_corners = false`.
    pub fn sampling_grid(&self, side: usize) -> Vec<f32> {
        let sampling = Sampling::new(self, side);
        let mut row = Row::new(side);
        let mut grid = Vec::with_capacity(side * side * 2);
        for y in 0..side {
            sampling.row(y, &mut row);
            grid.extend(row.x.iter().zip(&row.y).flat_map(|(x, y)| [*x, *y]));
        }
        grid
    }

    /// First and last pixel (excluded) of each hole along x and y: pixels whose middle lies in it.
    pub fn holes_in_pixels(&self, side: usize) -> impl Iterator<Item = [usize; 4]> + '_ {
        let pixel = move |share: f64| ((share * side as f64).round().max(0.0) as usize).min(side);
        let holes = self.holes.iter().map(move |hole| hole.map(pixel));
        holes.filter(|[x0, y0, x1, y1]| x0 < x1 && y0 < y1)
    }
}

/// What the rows of a sampling grid have in common.
pub(super) struct Sampling<'a> {
    back: Affine,
    side: usize,
    /// The places that columns show after the affine map.
    columns: Vec<f64>,
    bend: Bend<'a>,
}

enum Bend<'a> {
    /// Columns stay columns, rows rows.
    Axes(&'a Distortion),
    Field(&'a super::Elastic, Columns),
}

/// One row of a sampling grid; on the way there it holds displacements.
pub(super) struct Row {
    pub x: Vec<f32>,
    pub y: Vec<f32>,
}

impl Row {
    pub fn new(side: usize) -> Self {
        Row {
            x: vec![0.0; side],
            y: vec![0.0; side],
        }
    }
}

impl<'a> Sampling<'a> {
    pub fn new(change: &'a Augmentation, side: usize) -> Self {
        let bend = match &change.distortion {
            Distortion::Elastic(field) => Bend::Field(field, field.columns(side)),
            axes => Bend::Axes(axes),
        };
        let column = |x| match &bend {
            Bend::Axes(axes) => axes.source((place(x, side), 0.0)).0,
            Bend::Field(..) => place(x, side),
        };
        Sampling {
            back: change.map.inverse(),
            side,
            columns: (0..side).map(column).collect(),
            bend,
        }
    }

    /// The places that the pixels of row `y` show.
    #[inline(always)]
    pub fn row(&self, y: usize, row: &mut Row) {
        let y = place(y, self.side);
        match &self.bend {
            Bend::Axes(axes) => {
                let y = axes.source((0.0, y)).1;
                let each = row.x.iter_mut().zip(&mut row.y).zip(&self.columns);
                for ((out_x, out_y), x) in each {
                    let (u, v) = self.back.apply((*x, y));
                    (*out_x, *out_y) = (u as f32, v as f32);
                }
            }
            Bend::Field(field, columns) => {
                field.row(y, columns, &mut row.x, &mut row.y);
                let each = row.x.iter_mut().zip(&mut row.y).zip(&self.columns);
                for ((out_x, out_y), x) in each {
                    let (u, v) = self
                        .back
                        .apply((x + f64::from(*out_x), y + f64::from(*out_y)));
                    (*out_x, *out_y) = (u as f32, v as f32);
                }
            }
        }
    }
}
