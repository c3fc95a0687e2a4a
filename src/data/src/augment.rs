//! Random changes of an image sequence: one set of parameters for a whole sample, drawn from (seed, epoch, sample)
//! alone, so that every world size sees the same. The drawing is here; the pixels are changed on the device.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How strong the changes may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Strength {
    /// Probability of a mirror image.
    pub flip: f64,
    /// Contrast and brightness change by up to this share.
    pub contrast: f64,
    /// Shift by up to this share of the side.
    pub shift: f64,
    /// Scale by up to this share.
    pub scale: f64,
    /// Rotation by up to so many degrees.
    pub rotate: f64,
    /// Probability of each of contrast, geometry and cut-out.
    pub probability: f64,
    /// Holes cut out, each up to 10 % of the side.
    pub cutout: usize,
}

/// A 2 x 3 affine map of image coordinates in -1..1: (x, y) -> (a x + b y + c, d x + e y + f).
pub type Affine = [[f64; 3]; 2];

/// The changes of one sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Augmentation {
    /// From a place in the original image to its place in the changed one.
    pub map: Affine,
    /// Pixels become `contrast * pixel + brightness`, in units of the pixel range.
    pub contrast: f64,
    pub brightness: f64,
    /// x0, y0, x1, y1 of each hole, as shares of the side.
    pub holes: Vec<[f64; 4]>,
}

impl Augmentation {
    /// No change.
    pub const NONE: Augmentation = Augmentation {
        map: [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]],
        contrast: 1.0,
        brightness: 0.0,
        holes: Vec::new(),
    };

    /// Draws the changes of a sample in an epoch.
    pub fn draw(strength: &Strength, seed: u64, epoch: u64, sample: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ epoch.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        rng.set_stream(sample);
        let mut happens = |p: f64| rng.random::<f64>() < p;
        let (flip, contrast, geometry, cutout) = (
            happens(strength.flip),
            happens(strength.probability),
            happens(strength.probability),
            happens(strength.probability),
        );
        // Every value is drawn whether it is used or not: one probability does not shift the others' randomness.
        let mut within = |limit: f64| limit * (2.0 * rng.random::<f64>() - 1.0);
        let (gain, offset) = (within(strength.contrast), within(strength.contrast));
        let (dx, dy) = (within(strength.shift), within(strength.shift));
        let (scale, angle) = (within(strength.scale), within(strength.rotate).to_radians());

        let mirror = if flip { -1.0 } else { 1.0 };
        let map = match geometry {
            true => {
                let (sin, cos) = angle.sin_cos();
                let s = 1.0 + scale;
                // Mirror, then scale and rotate, then shift (the side is 2 wide in these coordinates).
                [
                    [mirror * s * cos, -s * sin, 2.0 * dx],
                    [mirror * s * sin, s * cos, 2.0 * dy],
                ]
            }
            false => [[mirror, 0.0, 0.0], [0.0, 1.0, 0.0]],
        };
        let holes = (0..strength.cutout)
            .map(|_| {
                let (x, y) = (rng.random::<f64>(), rng.random::<f64>());
                let (w, h) = (0.1 * rng.random::<f64>(), 0.1 * rng.random::<f64>());
                [x, y, (x + w).min(1.0), (y + h).min(1.0)]
            })
            .collect();
        Augmentation {
            map,
            contrast: if contrast { 1.0 + gain } else { 1.0 },
            brightness: if contrast { offset } else { 0.0 },
            holes: if cutout { holes } else { Vec::new() },
        }
    }

    /// From a place in the changed image to the place in the original that it shows: what a sampling grid needs.
    pub fn sampling(&self) -> Affine {
        let [[a, b, c], [d, e, f]] = self.map;
        let det = a * e - b * d;
        // |det| = scale^2 > 0, since scale is above 1 - 0.9.
        let (ia, ib, id, ie) = (e / det, -b / det, -d / det, a / det);
        [[ia, ib, -(ia * c + ib * f)], [id, ie, -(id * c + ie * f)]]
    }

    /// Where a box (shares of the side, 0..1) lies after the change: the smallest upright box around its corners, cut
    /// to the image. None where nothing is left.
    pub fn move_box(&self, bounds: [f64; 4]) -> Option<[f64; 4]> {
        let [x0, y0, x1, y1] = bounds.map(|share| 2.0 * share - 1.0);
        let [[a, b, c], [d, e, f]] = self.map;
        let corners = [(x0, y0), (x1, y0), (x0, y1), (x1, y1)]
            .map(|(x, y)| (a * x + b * y + c, d * x + e * y + f));
        let share = |v: f64| ((v + 1.0) / 2.0).clamp(0.0, 1.0);
        let least =
            |of: fn(&(f64, f64)) -> f64| share(corners.iter().map(of).fold(f64::MAX, f64::min));
        let most =
            |of: fn(&(f64, f64)) -> f64| share(corners.iter().map(of).fold(f64::MIN, f64::max));
        let moved = [least(|p| p.0), least(|p| p.1), most(|p| p.0), most(|p| p.1)];
        (moved[2] > moved[0] && moved[3] > moved[1]).then_some(moved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRONG: Strength = Strength {
        flip: 0.5,
        contrast: 0.2,
        shift: 0.2,
        scale: 0.2,
        rotate: 20.0,
        probability: 0.75,
        cutout: 8,
    };

    #[test]
    fn the_same_sample_is_changed_alike_and_others_are_not() {
        let draw = |epoch, sample| Augmentation::draw(&STRONG, 3, epoch, sample);
        assert_eq!(draw(1, 5), draw(1, 5));
        assert_ne!(draw(1, 5), draw(1, 6));
        assert_ne!(draw(1, 5), draw(2, 5));
    }

    #[test]
    fn no_strength_is_no_change() {
        let none = Strength {
            flip: 0.0,
            probability: 0.0,
            ..STRONG
        };
        assert_eq!(Augmentation::draw(&none, 1, 2, 3), Augmentation::NONE);
    }

    #[test]
    fn sampling_undoes_the_map() {
        for sample in 0..50 {
            let change = Augmentation::draw(&STRONG, 0, 0, sample);
            let apply = |[[a, b, c], [d, e, f]]: Affine, (x, y): (f64, f64)| {
                (a * x + b * y + c, d * x + e * y + f)
            };
            let (x, y) = apply(change.sampling(), apply(change.map, (0.3, -0.8)));
            assert!((x - 0.3).abs() < 1e-12 && (y + 0.8).abs() < 1e-12);
        }
    }

    #[test]
    fn boxes_follow_the_image() {
        let mirrored = Augmentation {
            map: [[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]],
            ..Augmentation::NONE
        };
        let moved = mirrored.move_box([0.1, 0.2, 0.4, 0.6]).unwrap();
        for (got, want) in moved.iter().zip([0.6, 0.2, 0.9, 0.6]) {
            assert!((got - want).abs() < 1e-12);
        }
        let shifted = Augmentation {
            map: [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]],
            ..Augmentation::NONE
        };
        assert_eq!(
            shifted.move_box([0.6, 0.2, 0.9, 0.6]),
            None,
            "moved out of the image"
        );
    }
}
