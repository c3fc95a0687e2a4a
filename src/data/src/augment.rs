//! Random changes of an image sequence: one set of parameters for a whole sample, drawn from (seed, epoch, sample)
//! alone, so that every world size sees the same.
//!
//! Places in an image are (x, y) in -1..1, from edge to edge: pixel i of n has its middle at (2 i + 1) / n - 1, which is
//! libtorch's `align_corners = false`. The changes, in the order of the published pipeline (albumentations 1.2.1's
//! formulas but for what is said here; docs/decisions/0021):
//!
//! 1. mirror: x -> -x.
//! 2. shift, scale, rotate about the middle, `ShiftScaleRotate`: x -> s R(angle) x + 2 (dx, dy), s = 1 + scale, a
//!    positive angle counter-clockwise as seen.
//! 3. one of two distortions: `GridDistortion` ([`Grid`]) or `ElasticTransform` without its affine part ([`Elastic`]).
//! 4. contrast, `RandomContrast`: pixel -> min(gain x pixel, white), gain = 1 + contrast.
//! 5. cut-out, `Cutout`: squares of a tenth of the side around random middles are black; cut at every border (the
//!    original moves a hole that crosses the upper or left one inwards instead).
//!
//! Steps 1 to 3 are one map ([`Augmentation::source`]) and cost one bilinear interpolation, where the original has one
//! for each and rounds to 8 bits in between; contrast comes after it, not before. What lies outside the image is black,
//! also where the original mirrors the border (its distortions do).

mod affine;
#[cfg(target_arch = "x86_64")]
mod avx2;
mod distortion;
mod elastic;
mod outline;
mod render;
mod sampling;
mod taps;

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub use affine::Affine;
pub use distortion::{Distortion, Grid};
pub use elastic::Elastic;
pub use render::{Normalization, Renderer, Sample};

/// Side of a hole, as a share of the image's side.
const HOLE: f64 = 0.1;

/// How strong the changes may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Strength {
    /// Probability of a mirror image.
    pub flip: f64,
    /// Contrast changes by up to this share.
    pub contrast: f64,
    /// Shift by up to this share of the side.
    pub shift: f64,
    /// Scale by up to this share, below 1.
    pub scale: f64,
    /// Rotation by up to so many degrees.
    pub rotate: f64,
    /// Probability of each of contrast, shift with scale and rotation, and cut-out.
    pub probability: f64,
    /// Holes cut out, each 10 % of the side.
    pub cutout: usize,
    /// Probability of a distortion: by a grid or elastic, with equal odds.
    pub distortion: f64,
    /// Cells of the distorting grid along a side.
    pub grid_steps: usize,
    /// Each cell grows or shrinks by up to this share, below 1.
    pub grid_limit: f64,
    /// How far the elastic field moves, in pixels of an image of 512 (see [`Elastic`]).
    pub elastic_alpha: f64,
    /// How smooth the elastic field is, in pixels of an image of 512.
    pub elastic_sigma: f64,
}

impl Strength {
    /// The published pipeline's, of its stage 2.
    pub const PUBLISHED: Strength = Strength {
        flip: 0.5,
        contrast: 0.2,
        shift: 0.2,
        scale: 0.2,
        rotate: 20.0,
        probability: 0.75,
        cutout: 8,
        distortion: 0.5,
        grid_steps: 5,
        grid_limit: 0.05,
        elastic_alpha: 1.0,
        elastic_sigma: 50.0,
    };
}

/// The changes of one sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Augmentation {
    /// From a place in the original image to its place before the distortion.
    pub map: Affine,
    /// What is done after that.
    pub distortion: Distortion,
    /// Pixels are multiplied by it and cut at white.
    pub gain: f64,
    /// x0, y0, x1, y1 of each hole, as shares of the side, in the changed image.
    pub holes: Vec<[f64; 4]>,
}

impl Augmentation {
    /// No change.
    pub const NONE: Augmentation = Augmentation {
        map: Affine::IDENTITY,
        distortion: Distortion::None,
        gain: 1.0,
        holes: Vec::new(),
    };

    /// Draws the changes of a sample in an epoch.
    pub fn draw(strength: &Strength, seed: u64, epoch: u64, sample: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ epoch.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        rng.set_stream(sample);
        let rng = &mut rng;
        let mut happens = |p: f64| rng.random::<f64>() < p;
        let flip = happens(strength.flip);
        let contrast = happens(strength.probability);
        let geometry = happens(strength.probability);
        let distortion = happens(strength.distortion);
        let elastic = happens(0.5);
        let cutout = happens(strength.probability);
        // Every value is drawn whether it is used or not: one probability does not shift the others' randomness.
        let gain = 1.0 + within(rng, strength.contrast);
        let shift = [within(rng, strength.shift), within(rng, strength.shift)];
        let scale = 1.0 + within(rng, strength.scale);
        let angle = within(rng, strength.rotate).to_radians();
        let holes = (0..strength.cutout)
            .map(|_| hole(rng.random(), rng.random()))
            .collect();
        // A distortion draws as many values as it needs, so it comes last.
        let distortion = match (distortion, elastic) {
            (false, _) => Distortion::None,
            (true, false) => Distortion::grid(rng, strength.grid_steps, strength.grid_limit),
            (true, true) => {
                Distortion::elastic(rng, strength.elastic_alpha, strength.elastic_sigma)
            }
        };

        let mirror = Affine::scale(if flip { -1.0 } else { 1.0 }, 1.0);
        Augmentation {
            map: match geometry {
                true => Affine::shift_scale_rotate(shift, scale, angle).after(&mirror),
                false => mirror,
            },
            distortion,
            gain: if contrast { gain } else { 1.0 },
            holes: if cutout { holes } else { Vec::new() },
        }
    }
}

/// Uniform in -limit..limit.
fn within(rng: &mut impl Rng, limit: f64) -> f64 {
    limit * (2.0 * rng.random::<f64>() - 1.0)
}

/// The hole around (x, y), shares of the side, cut to the image.
fn hole(x: f64, y: f64) -> [f64; 4] {
    let half = HOLE / 2.0;
    [x - half, y - half, x + half, y + half].map(|v| v.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLISHED: Strength = Strength::PUBLISHED;

    fn drawn(strength: &Strength) -> Vec<Augmentation> {
        (0..2000)
            .map(|sample| Augmentation::draw(strength, 11, 4, sample))
            .collect()
    }

    fn share(drawn: &[Augmentation], of: impl Fn(&Augmentation) -> bool) -> f64 {
        drawn.iter().filter(|change| of(change)).count() as f64 / drawn.len() as f64
    }

    #[test]
    fn the_same_sample_is_changed_alike_and_others_are_not() {
        let draw = |seed, epoch, sample| Augmentation::draw(&PUBLISHED, seed, epoch, sample);
        for sample in 0..20 {
            assert_eq!(draw(3, 1, sample), draw(3, 1, sample));
            assert_ne!(draw(3, 1, sample), draw(3, 1, sample + 1));
            assert_ne!(draw(3, 1, sample), draw(3, 2, sample));
            assert_ne!(draw(3, 1, sample), draw(4, 1, sample));
        }
    }

    #[test]
    fn no_strength_is_no_change() {
        let none = Strength {
            flip: 0.0,
            probability: 0.0,
            distortion: 0.0,
            ..PUBLISHED
        };
        assert_eq!(Augmentation::draw(&none, 1, 2, 3), Augmentation::NONE);
        // Nor are changes of no size, which happen with certainty.
        let still = Strength {
            flip: 0.0,
            contrast: 0.0,
            shift: 0.0,
            scale: 0.0,
            rotate: 0.0,
            probability: 1.0,
            cutout: 0,
            distortion: 1.0,
            grid_limit: 0.0,
            elastic_alpha: 0.0,
            ..PUBLISHED
        };
        for sample in 0..10 {
            assert_eq!(Augmentation::draw(&still, 1, 2, sample), Augmentation::NONE);
        }
    }

    #[test]
    fn each_change_happens_as_often_as_the_pipeline_says() {
        let drawn = drawn(&PUBLISHED);
        // Three standard deviations of 2,000 draws: 0.034 at most.
        let near = |got: f64, want: f64| assert!((got - want).abs() < 0.034, "{got} for {want}");
        near(share(&drawn, |c| c.map.determinant() < 0.0), 0.5);
        near(share(&drawn, |c| c.gain != 1.0), 0.75);
        near(share(&drawn, |c| c.map.determinant().abs() != 1.0), 0.75);
        near(share(&drawn, |c| c.holes.len() == 8), 0.75);
        near(
            share(&drawn, |c| matches!(c.distortion, Distortion::Grid(_))),
            0.25,
        );
        near(
            share(&drawn, |c| matches!(c.distortion, Distortion::Elastic(_))),
            0.25,
        );
    }

    #[test]
    fn values_fill_their_ranges() {
        let drawn = drawn(&Strength {
            probability: 1.0,
            ..PUBLISHED
        });
        // (least, most) that is drawn, and the ends of the range.
        let ranges = |of: &dyn Fn(&Augmentation) -> f64, low: f64, high: f64| {
            let least = drawn.iter().map(of).fold(f64::MAX, f64::min);
            let most = drawn.iter().map(of).fold(f64::MIN, f64::max);
            let slack = 0.01 * (high - low);
            assert!(
                low - 1e-9 <= least && least < low + slack,
                "{least} for {low}"
            );
            assert!(
                high - slack < most && most <= high + 1e-9,
                "{most} for {high}"
            );
        };
        ranges(&|c| c.gain, 0.8, 1.2);
        ranges(&|c| c.map.determinant().abs().sqrt(), 0.8, 1.2);
        ranges(&|c| c.map.0[0][2], -0.4, 0.4);
        ranges(&|c| c.map.0[1][2], -0.4, 0.4);
        ranges(
            &|c| f64::atan2(c.map.0[0][1], c.map.0[1][1]).to_degrees(),
            -20.0,
            20.0,
        );
        ranges(&|c| c.holes[0][2], 0.05, 1.0);
    }

    #[test]
    fn holes_are_a_tenth_of_the_side_and_cut_at_every_border() {
        for (at, want) in [
            ((0.5, 0.3), [0.45, 0.25, 0.55, 0.35]),
            ((0.01, 0.98), [0.0, 0.93, 0.06, 1.0]),
        ] {
            for (got, want) in hole(at.0, at.1).iter().zip(want) {
                assert!((got - want).abs() < 1e-12);
            }
        }
    }
}
