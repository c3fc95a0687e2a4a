//! Boxes follow the image: where a change shows an upright box.

use super::Augmentation;

/// Points along each edge of a box: a distortion bends edges.
const POINTS: usize = 32;

impl Augmentation {
    /// Where a box (x0, y0, x1, y1 as shares of the side, 0..1) lies after the change: the smallest upright box around
    /// what the image still shows of it. None where nothing is left. Holes do not count.
    pub fn move_box(&self, bounds: [f64; 4]) -> Option<[f64; 4]> {
        let [x0, y0, x1, y1] = bounds.map(|share| 2.0 * share - 1.0);
        let corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)];
        let moved = (0..4).flat_map(|edge| {
            let ((ax, ay), (bx, by)) = (corners[edge], corners[(edge + 1) % 4]);
            (0..POINTS).map(move |i| {
                let t = i as f64 / POINTS as f64;
                self.shown((ax + (bx - ax) * t, ay + (by - ay) * t))
            })
        });
        let mut outline: Vec<(f64, f64)> = moved.collect();
        for side in [Side::Left, Side::Right, Side::Top, Side::Bottom] {
            outline = side.cut(&outline);
        }
        let least = |of: fn(&(f64, f64)) -> f64| outline.iter().map(of).fold(f64::MAX, f64::min);
        let most = |of: fn(&(f64, f64)) -> f64| outline.iter().map(of).fold(f64::MIN, f64::max);
        let hull = [least(|p| p.0), least(|p| p.1), most(|p| p.0), most(|p| p.1)];
        (hull[2] > hull[0] && hull[3] > hull[1])
            .then(|| hull.map(|v| ((v + 1.0) / 2.0).clamp(0.0, 1.0)))
    }
}

/// A border of the image.
#[derive(Clone, Copy)]
enum Side {
    Left,
    Right,
    Top,
    Bottom,
}

impl Side {
    /// How far inside of this border a point lies.
    fn depth(self, (x, y): (f64, f64)) -> f64 {
        match self {
            Side::Left => x + 1.0,
            Side::Right => 1.0 - x,
            Side::Top => y + 1.0,
            Side::Bottom => 1.0 - y,
        }
    }

    /// The part of an outline inside of this border (Sutherland and Hodgman, 1974).
    fn cut(self, outline: &[(f64, f64)]) -> Vec<(f64, f64)> {
        let mut kept = Vec::with_capacity(outline.len() + 2);
        for (i, b) in outline.iter().enumerate() {
            let a = outline[(i + outline.len() - 1) % outline.len()];
            let (before, now) = (self.depth(a), self.depth(*b));
            if (before < 0.0) != (now < 0.0) {
                let t = before / (before - now);
                kept.push((a.0 + (b.0 - a.0) * t, a.1 + (b.1 - a.1) * t));
            }
            if now >= 0.0 {
                kept.push(*b);
            }
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Affine, Distortion, Grid};
    use super::*;

    fn near(got: Option<[f64; 4]>, want: [f64; 4]) {
        let got = got.expect("a box is left");
        for (g, w) in got.iter().zip(want) {
            assert!((g - w).abs() < 1e-9, "{got:?} for {want:?}");
        }
    }

    fn mapped(map: [[f64; 3]; 2]) -> Augmentation {
        Augmentation {
            map: Affine(map),
            ..Augmentation::NONE
        }
    }

    #[test]
    fn a_mirrored_and_a_shifted_box() {
        let mirrored = mapped([[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]);
        near(
            mirrored.move_box([0.1, 0.2, 0.4, 0.6]),
            [0.6, 0.2, 0.9, 0.6],
        );
        let shifted = mapped([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]);
        near(shifted.move_box([0.4, 0.2, 0.8, 0.6]), [0.9, 0.2, 1.0, 0.6]);
        assert_eq!(
            shifted.move_box([0.6, 0.2, 0.9, 0.6]),
            None,
            "moved out of the image"
        );
    }

    #[test]
    fn only_what_the_image_shows_of_a_turned_box_counts() {
        // The upper left quarter turned by 45 degrees about the middle of the image, then shifted by a quarter of the side:
        // a diamond whose widest part lies beyond the left border. What is left is a triangle, as high as it is wide twice.
        let s = 0.5_f64.sqrt();
        let turned = mapped([[s, s, -0.5], [-s, s, 0.0]]);
        near(
            turned.move_box([0.0, 0.0, 0.5, 0.5]),
            [0.0, 0.25, 0.25, 0.75],
        );
    }

    #[test]
    fn a_grid_moves_the_sides_of_a_box_by_its_axes() {
        // The first half of x shows 1.2 of itself, so what was at 0.6 is at 0.5.
        let bent = Augmentation {
            distortion: Distortion::Grid(Grid::new(&[1.2, 0.9], &[1.0])),
            ..Augmentation::NONE
        };
        near(bent.move_box([0.3, 0.1, 0.6, 0.7]), [0.25, 0.1, 0.5, 0.7]);
    }
}
