//! Distortions: maps of places that bend lines. The grid's is here, the elastic one in a file of its own.

use rand::Rng;

use super::{Elastic, within};

/// What a distorted image shows where.
#[derive(Clone, Debug, PartialEq)]
pub enum Distortion {
    None,
    Grid(Grid),
    Elastic(Elastic),
}

impl Distortion {
    /// A grid of `steps` x `steps` cells, each row and column of which grows or shrinks by up to `limit` (below 1).
    pub(super) fn grid(rng: &mut impl Rng, steps: usize, limit: f64) -> Self {
        if limit <= 0.0 || steps == 0 {
            return Distortion::None;
        }
        let mut factors = || -> Vec<f64> { (0..steps).map(|_| 1.0 + within(rng, limit)).collect() };
        let (columns, rows) = (factors(), factors());
        Distortion::Grid(Grid::new(&columns, &rows))
    }

    /// An elastic field of this strength and smoothness, in pixels of an image of 512.
    pub(super) fn elastic(rng: &mut impl Rng, alpha: f64, sigma: f64) -> Self {
        if alpha <= 0.0 || sigma <= 0.0 {
            return Distortion::None;
        }
        Distortion::Elastic(Elastic::draw(rng, alpha, sigma))
    }

    /// Which place of the undistorted image a place of the distorted one shows.
    pub fn source(&self, place: (f64, f64)) -> (f64, f64) {
        match self {
            Distortion::None => place,
            Distortion::Grid(grid) => (grid.x.source(place.0), grid.y.source(place.1)),
            Distortion::Elastic(field) => {
                let (dx, dy) = field.at(place);
                (place.0 + dx, place.1 + dy)
            }
        }
    }

    /// Where a place of the undistorted image is shown: the inverse of [`Self::source`].
    pub fn shown(&self, place: (f64, f64)) -> (f64, f64) {
        match self {
            Distortion::None => place,
            Distortion::Grid(grid) => (grid.x.shown(place.0), grid.y.shown(place.1)),
            Distortion::Elastic(field) => field.shown(place),
        }
    }
}

/// `GridDistortion`: columns and rows of equal width show strips of the image that are `factor` as wide, from the left
/// and upper edge on; the right and lower edge move.
///
/// Where ours differs: the axes are continuous and divide any side evenly. The original cuts a side of n into steps of
/// n / steps pixels rounded down, shows the first and last source pixel of a strip twice (`linspace` with its end), and
/// squeezes all that is left of the image into the pixels that the division leaves over.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    pub(super) x: Axis,
    pub(super) y: Axis,
}

impl Grid {
    /// The factor of each column and of each row, positive; at least one of each.
    pub fn new(columns: &[f64], rows: &[f64]) -> Self {
        Grid {
            x: Axis::new(columns),
            y: Axis::new(rows),
        }
    }
}

/// A continuous map of -1..1 of equal, straight pieces; beyond its ends it goes on as its end pieces do.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Axis {
    /// What the ends of the pieces show; rising.
    knots: Vec<f64>,
}

impl Axis {
    fn new(factors: &[f64]) -> Self {
        let piece = 2.0 / factors.len() as f64;
        let mut knots = vec![-1.0];
        let mut at = -1.0;
        for factor in factors {
            at += piece * factor;
            knots.push(at);
        }
        Axis { knots }
    }

    fn pieces(&self) -> usize {
        self.knots.len() - 1
    }

    pub fn source(&self, shown: f64) -> f64 {
        let along = (shown + 1.0) / 2.0 * self.pieces() as f64;
        let piece = (along.max(0.0) as usize).min(self.pieces() - 1);
        let (from, to) = (self.knots[piece], self.knots[piece + 1]);
        from + (to - from) * (along - piece as f64)
    }

    fn shown(&self, source: f64) -> f64 {
        let inner = &self.knots[1..self.pieces()];
        let piece = inner.partition_point(|knot| *knot <= source);
        let (from, to) = (self.knots[piece], self.knots[piece + 1]);
        let along = piece as f64 + (source - from) / (to - from);
        along / self.pieces() as f64 * 2.0 - 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// albumentations 1.2.1, `grid_distortion`, one axis, in pixels.
    fn original(side: usize, steps: usize, factors: &[f64]) -> Vec<f64> {
        let step = side / steps;
        let mut map = vec![0.0; side];
        let mut before = 0.0;
        for (i, factor) in factors.iter().enumerate() {
            let (start, mut end) = (i * step, i * step + step);
            let mut now = before + step as f64 * factor;
            if end > side {
                (end, now) = (side, side as f64);
            }
            let last = (end - start).saturating_sub(1).max(1) as f64;
            for (j, value) in map[start..end].iter_mut().enumerate() {
                *value = before + (now - before) * j as f64 / last;
            }
            before = now;
        }
        map
    }

    #[test]
    fn an_axis_is_the_originals_within_a_pixel_and_a_half() {
        // Six factors: the original draws one more than there are steps, for the pixels that are left over.
        let factors = [1.05, 0.96, 1.0, 0.95, 1.02, 1.01];
        let axis = Axis::new(&factors[..5]);
        let whole = 512 / 5 * 5;
        for (i, want) in original(512, 5, &factors)[..whole].iter().enumerate() {
            let place = (2 * i + 1) as f64 / 512.0 - 1.0;
            let got = (axis.source(place) + 1.0) / 2.0 * 512.0 - 0.5;
            assert!((got - want).abs() < 1.5, "pixel {i}: {got} for {want}");
        }
    }

    #[test]
    fn pieces_are_straight_and_start_at_the_edge() {
        let axis = Axis::new(&[0.5, 1.5, 1.0, 1.2]);
        for (shown, want) in [
            (-1.0, -1.0),
            (-0.75, -0.875),
            (-0.5, -0.75),
            (0.0, 0.0),
            (0.25, 0.25),
            (1.0, 1.1),
            (1.5, 1.7),
            (-2.0, -1.5),
        ] {
            assert!((axis.source(shown) - want).abs() < 1e-12, "{shown}");
        }
    }

    #[test]
    fn an_axis_is_undone_inside_and_out() {
        for factors in [&[0.5, 1.5, 1.0, 1.2][..], &[1.3]] {
            let axis = Axis::new(factors);
            for i in -30..=30 {
                let place = f64::from(i) / 20.0;
                assert!((axis.shown(axis.source(place)) - place).abs() < 1e-12);
            }
        }
    }
}
