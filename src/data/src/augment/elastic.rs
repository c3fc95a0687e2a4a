//! The elastic distortion: a smooth random field of displacements.

use rand::{Rng, RngExt};

/// `ElasticTransform` without its affine part. There, displacements are noise, uniform in -1..1 for each pixel and
/// direction, smoothed by a Gaussian of `sigma` and multiplied by `alpha`; so each is normal with variance
/// alpha^2 / (12 pi sigma^2) and covariance exp(-r^2 / (4 sigma^2)) at a distance of r.
///
/// Where ours differs: the noise stands on a lattice of sigma / 2 instead of on pixels, with a weight that gives the same
/// variance; by Poisson's formula the covariance is then the same within exp(-4 pi^2), and a field costs some thousand
/// numbers instead of 524,288. The lattice goes on beyond the image (the original mirrors the noise at the border, which
/// doubles the variance there). Lengths are of an image of 512 and grow with the side.
#[derive(Clone, Debug, PartialEq)]
pub struct Elastic {
    /// Standard deviation of the Gaussian, in places.
    sigma: f64,
    /// Weight of the noise, in places.
    weight: f64,
    /// Nodes of the lattice along a side.
    nodes: usize,
    /// (nodes, nodes), x and y: uniform in -1..1.
    noise: Vec<[f32; 2]>,
}

/// The side of the image in which lengths are given, and how many places wide a pixel of it is.
const SIDE: f64 = 512.0;
const PIXEL: f64 = 2.0 / SIDE;

/// Nodes of the lattice for each sigma, and how many sigmas a Gaussian reaches (as in scipy's `gaussian_filter`).
const NODES_PER_SIGMA: f64 = 2.0;
const REACH: f64 = 4.0;

/// Nodes within reach of a place, along an axis.
const TAPS: usize = (2.0 * REACH * NODES_PER_SIGMA) as usize + 1;

/// Steps of the inverse at most; each brings it closer by the field's steepness, which is far below 1.
const STEPS: usize = 60;

impl Elastic {
    /// Both lengths in pixels of an image of 512, positive.
    pub(super) fn draw(rng: &mut impl Rng, alpha: f64, sigma: f64) -> Self {
        let places = sigma * PIXEL;
        let nodes = ((2.0 / places + 2.0 * REACH) * NODES_PER_SIGMA).ceil() as usize + 1;
        let mut uniform = || 2.0 * rng.random::<f32>() - 1.0;
        Elastic {
            sigma: places,
            weight: alpha / (2.0 * std::f64::consts::PI * NODES_PER_SIGMA * sigma) * PIXEL,
            nodes,
            noise: (0..nodes * nodes).map(|_| [uniform(), uniform()]).collect(),
        }
    }

    /// The nodes within reach along an axis: the first one's number and each one's share.
    fn taps(&self, place: f64) -> (isize, [f32; TAPS]) {
        // In sigmas, from the first node.
        let along = (place + 1.0) / self.sigma + REACH;
        let first = (along * NODES_PER_SIGMA).round() as isize - (TAPS / 2) as isize;
        let share = |tap: usize| {
            let distance = along - (first + tap as isize) as f64 / NODES_PER_SIGMA;
            (-0.5 * distance * distance).exp() as f32
        };
        (first, std::array::from_fn(share))
    }

    /// Displacement at a place; beyond the lattice it fades to none.
    pub(super) fn at(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let ((left, columns), (top, rows)) = (self.taps(x), self.taps(y));
        let mut sum = [0.0_f64; 2];
        for (i, row) in within(top, self.nodes, &rows) {
            for (j, column) in within(left, self.nodes, &columns) {
                let [dx, dy] = self.noise[i * self.nodes + j];
                let share = f64::from(row) * f64::from(column);
                sum[0] += share * f64::from(dx);
                sum[1] += share * f64::from(dy);
            }
        }
        (self.weight * sum[0], self.weight * sum[1])
    }

    /// The place whose displacement leads here.
    pub(super) fn shown(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let (mut u, mut v) = (x, y);
        for _ in 0..STEPS {
            let (dx, dy) = self.at((u, v));
            let (next_u, next_v) = (x - dx, y - dy);
            let step = (next_u - u).abs().max((next_v - v).abs());
            (u, v) = (next_u, next_v);
            if step < 1e-9 {
                break;
            }
        }
        (u, v)
    }

    /// The shares of all nodes at the middles of `side` columns.
    pub(super) fn columns(&self, side: usize) -> Columns {
        let mut shares = vec![0.0; self.nodes * side];
        for x in 0..side {
            let (left, taps) = self.taps(super::sampling::place(x, side));
            for (j, share) in within(left, self.nodes, &taps) {
                shares[j * side + x] = share;
            }
        }
        // Outside of what a node reaches its shares are 0.
        let spans = (0..self.nodes)
            .map(|j| {
                let row = &shares[j * side..(j + 1) * side];
                let from = row.iter().position(|s| *s > 0.0).unwrap_or(0);
                let to = row.iter().rposition(|s| *s > 0.0).map_or(from, |i| i + 1);
                (from, to)
            })
            .collect();
        Columns { shares, spans }
    }

    /// Displacements along a row at this height, at the columns' middles: x and y.
    #[inline(always)]
    pub(super) fn row(&self, y: f64, columns: &Columns, dx: &mut [f32], dy: &mut [f32]) {
        let side = dx.len();
        dx.fill(0.0);
        dy.fill(0.0);
        let (top, rows) = self.taps(y);
        for j in 0..self.nodes {
            let (mut wx, mut wy) = (0.0, 0.0);
            for (i, share) in within(top, self.nodes, &rows) {
                let [x, y] = self.noise[i * self.nodes + j];
                wx += share * x;
                wy += share * y;
            }
            let weight = self.weight as f32;
            (wx, wy) = (wx * weight, wy * weight);
            let (from, to) = columns.spans[j];
            let shares = &columns.shares[j * side + from..j * side + to];
            for ((dx, dy), share) in dx[from..to].iter_mut().zip(&mut dy[from..to]).zip(shares) {
                *dx += share * wx;
                *dy += share * wy;
            }
        }
    }
}

/// The shares of each node at each column, and where they are not 0.
pub(super) struct Columns {
    /// (nodes, side)
    shares: Vec<f32>,
    spans: Vec<(usize, usize)>,
}

/// The taps that fall on nodes.
#[inline(always)]
fn within(first: isize, nodes: usize, taps: &[f32; TAPS]) -> impl Iterator<Item = (usize, f32)> {
    let taps = taps.iter().enumerate();
    taps.filter_map(move |(tap, share)| {
        let node = usize::try_from(first + tap as isize).ok()?;
        (node < nodes).then_some((node, *share))
    })
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn fields(count: u64, alpha: f64, sigma: f64) -> Vec<Elastic> {
        (0..count)
            .map(|seed| Elastic::draw(&mut ChaCha8Rng::seed_from_u64(seed), alpha, sigma))
            .collect()
    }

    #[test]
    fn the_field_has_the_covariance_of_smoothed_noise() {
        let (alpha, sigma) = (1.0, 50.0);
        let variance = alpha * alpha / (12.0 * std::f64::consts::PI * sigma * sigma);
        let fields = fields(6000, alpha, sigma);
        // Also off the lattice, at the border and in a corner.
        for from in [(0.013, -0.21), (-1.0, 0.4), (0.99, 0.99)] {
            for distance in [0.0, 20.0, 50.0, 100.0, 200.0] {
                let to = (
                    from.0 - 0.6 * distance * PIXEL,
                    from.1 - 0.8 * distance * PIXEL,
                );
                let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
                for field in &fields {
                    let (a, b) = (field.at(from), field.at(to));
                    xx += a.0 * b.0;
                    yy += a.1 * b.1;
                    xy += a.0 * b.1;
                }
                let covariance = |sum: f64| sum / fields.len() as f64 / (PIXEL * PIXEL) / variance;
                let want = (-distance * distance / (4.0 * sigma * sigma)).exp();
                // Four standard deviations of the mean of 6,000 products of normal values: 0.073.
                for (got, want) in [
                    (covariance(xx), want),
                    (covariance(yy), want),
                    (covariance(xy), 0.0),
                ] {
                    assert!(
                        (got - want).abs() < 0.073,
                        "{from:?} {distance}: {got} {want}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_row_of_the_image_is_the_field_at_its_pixels() {
        let side = 53;
        for field in [&fields(1, 3.0, 50.0)[0], &fields(1, 3.0, 6.0)[0]] {
            let columns = field.columns(side);
            let (mut dx, mut dy) = (vec![9.0; side], vec![9.0; side]);
            for y in [-0.98, 0.0, 0.77] {
                field.row(y, &columns, &mut dx, &mut dy);
                for x in 0..side {
                    let (u, v) = field.at(((2 * x + 1) as f64 / side as f64 - 1.0, y));
                    // 1e-5 of the field's standard deviation and more.
                    assert!((u - f64::from(dx[x])).abs() < 1e-5 * field.weight);
                    assert!((v - f64::from(dy[x])).abs() < 1e-5 * field.weight);
                }
            }
        }
    }

    #[test]
    fn a_field_as_steep_as_the_recipe_allows_is_undone() {
        for field in fields(20, 36.0, 6.0) {
            for place in [(0.0, 0.0), (-0.9, 0.4), (0.7, -1.1)] {
                let (u, v) = field.shown(place);
                let (dx, dy) = field.at((u, v));
                assert!((u + dx - place.0).abs() < 1e-8 && (v + dy - place.1).abs() < 1e-8);
            }
        }
    }
}
