//! Affine maps of places in an image.

/// (x, y) -> (a x + b y + c, d x + e y + f), as `[[a, b, c], [d, e, f]]`; places as in [`super`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affine(pub [[f64; 3]; 2]);

impl Affine {
    /// Leaves every place where it is.
    pub const IDENTITY: Affine = Affine([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]);

    /// Along the axes; a negative factor mirrors.
    pub const fn scale(x: f64, y: f64) -> Self {
        Affine([[x, 0.0, 0.0], [0.0, y, 0.0]])
    }

    /// Scaled and turned about the middle (radians, counter-clockwise as seen: y points down), then shifted by shares of
    /// the side. OpenCV's `getRotationMatrix2D` about the middle.
    pub fn shift_scale_rotate([dx, dy]: [f64; 2], scale: f64, angle: f64) -> Self {
        let (sin, cos) = angle.sin_cos();
        // The side is 2 wide.
        Affine([
            [scale * cos, scale * sin, 2.0 * dx],
            [-scale * sin, scale * cos, 2.0 * dy],
        ])
    }

    /// `first`, then this.
    pub fn after(&self, first: &Affine) -> Self {
        let [[p, q, r], [s, t, u]] = first.0;
        Affine(
            self.0
                .map(|[a, b, c]| [a * p + b * s, a * q + b * t, a * r + b * u + c]),
        )
    }

    /// Where a place goes.
    #[inline(always)]
    pub fn apply(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let [[a, b, c], [d, e, f]] = self.0;
        (a * x + b * y + c, d * x + e * y + f)
    }

    /// How an area grows; negative where the map mirrors.
    pub fn determinant(&self) -> f64 {
        let [[a, b, _], [d, e, _]] = self.0;
        a * e - b * d
    }

    /// The map back. The determinant is not 0: no change scales by 0.
    pub fn inverse(&self) -> Self {
        let [[a, b, c], [d, e, f]] = self.0;
        let det = self.determinant();
        let (ia, ib, id, ie) = (e / det, -b / det, -d / det, a / det);
        Affine([[ia, ib, -(ia * c + ib * f)], [id, ie, -(id * c + ie * f)]])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_undone_and_follow_each_other() {
        let turn = Affine::shift_scale_rotate([0.1, -0.2], 1.2, 0.3);
        let mirror = Affine::scale(-1.0, 1.0);
        let both = turn.after(&mirror);
        let place = (0.3, -0.8);
        assert_eq!(both.apply(place), turn.apply(mirror.apply(place)));
        let (x, y) = both.inverse().apply(both.apply(place));
        assert!((x - 0.3).abs() < 1e-12 && (y + 0.8).abs() < 1e-12);
        assert!((both.determinant() + 1.44).abs() < 1e-12);
    }

    /// cv2.getRotationMatrix2D((w / 2 - 0.5, h / 2 - 0.5), 20, 1.1) with dx w and dy h added to its last column, from its
    /// formula in pixels: alpha = s cos, beta = s sin, [[alpha, beta, (1 - alpha) cx - beta cy], [-beta, alpha, ...]].
    #[test]
    fn shift_scale_rotate_is_opencvs_matrix() {
        let (n, s, angle, shift) = (512.0, 1.1, 20_f64.to_radians(), [0.13, -0.07]);
        let c = n / 2.0 - 0.5;
        let (alpha, beta) = (s * angle.cos(), s * angle.sin());
        let pixels = Affine([
            [alpha, beta, (1.0 - alpha) * c - beta * c + shift[0] * n],
            [-beta, alpha, beta * c + (1.0 - alpha) * c + shift[1] * n],
        ]);
        let ours = Affine::shift_scale_rotate(shift, s, angle);
        let place = |pixel: f64| (2.0 * pixel + 1.0) / n - 1.0;
        for (x, y) in [(0.0, 0.0), (511.0, 3.0), (100.0, 400.0)] {
            let (u, v) = pixels.apply((x, y));
            let (p, q) = ours.apply((place(x), place(y)));
            assert!((p - place(u)).abs() < 1e-12 && (q - place(v)).abs() < 1e-12);
        }
    }
}
