//! Signed distances in an axial plane, in millimetres: negative inside a shape, zero on its outline.
//!
//! Formulas after I. Quilez, "2D distance functions"; the ellipse's is his first-order approximation.

use std::ops::{Add, Mul, Sub};

/// A point or a direction in the axial plane: x to the patient's left, y to the back (DICOM's LPS), in mm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    pub x: f32,
    pub y: f32,
}

impl Point {
    pub const fn new(x: f32, y: f32) -> Self {
        Self { x, y }
    }

    pub fn dot(self, other: Self) -> f32 {
        self.x * other.x + self.y * other.y
    }

    pub fn length(self) -> f32 {
        self.dot(self).sqrt()
    }

    /// The unit vector at `angle` radians from the x axis.
    pub fn direction(angle: f32) -> Self {
        Self::new(angle.cos(), angle.sin())
    }

    /// This vector turned by the angle whose cosine and sine `turn` holds.
    pub fn rotated(self, turn: Self) -> Self {
        Self::new(
            self.x * turn.x - self.y * turn.y,
            self.x * turn.y + self.y * turn.x,
        )
    }

    /// The same point folded onto the patient's left: shapes symmetric about the midline are described once.
    pub fn left(self) -> Self {
        Self::new(self.x.abs(), self.y)
    }
}

impl Add for Point {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self::new(self.x + other.x, self.y + other.y)
    }
}

impl Sub for Point {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self::new(self.x - other.x, self.y - other.y)
    }
}

impl Mul<f32> for Point {
    type Output = Self;
    fn mul(self, factor: f32) -> Self {
        Self::new(self.x * factor, self.y * factor)
    }
}

/// An ellipse by its centre and half axes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ellipse {
    pub centre: Point,
    pub half: Point,
}

impl Ellipse {
    pub const fn new(x: f32, y: f32, half_x: f32, half_y: f32) -> Self {
        Self {
            centre: Point::new(x, y),
            half: Point::new(half_x, half_y),
        }
    }

    pub fn distance(&self, p: Point) -> f32 {
        let q = p - self.centre;
        let unit = Point::new(q.x / self.half.x, q.y / self.half.y);
        let gradient = Point::new(unit.x / self.half.x, unit.y / self.half.y);
        let (k, g) = (unit.length(), gradient.length());
        if g < 1e-6 {
            -self.half.x.min(self.half.y)
        } else {
            k * (k - 1.0) / g
        }
    }

    /// The ellipse whose outline lies `margin` mm outside this one's.
    pub fn grown(&self, margin: f32) -> Self {
        Self {
            centre: self.centre,
            half: self.half + Point::new(margin, margin),
        }
    }
}

/// A segment from `a` to `b`, rounded with `radius`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Capsule {
    pub a: Point,
    pub b: Point,
    pub radius: f32,
}

impl Capsule {
    pub fn distance(&self, p: Point) -> f32 {
        let (axis, q) = (self.b - self.a, p - self.a);
        let along = (q.dot(axis) / axis.dot(axis).max(1e-6)).clamp(0.0, 1.0);
        (q - axis * along).length() - self.radius
    }
}

/// An axis-aligned rectangle.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub min: Point,
    pub max: Point,
}

impl Bounds {
    pub fn around(centre: Point, half_x: f32, half_y: f32) -> Self {
        let half = Point::new(half_x, half_y);
        Self {
            min: centre - half,
            max: centre + half,
        }
    }

    /// The smallest bounds that hold both.
    pub fn hull(self, other: Self) -> Self {
        Self {
            min: Point::new(self.min.x.min(other.min.x), self.min.y.min(other.min.y)),
            max: Point::new(self.max.x.max(other.max.x), self.max.y.max(other.max.y)),
        }
    }

    /// These bounds, moved outwards by `margin` mm on every side.
    pub fn grown(&self, margin: f32) -> Self {
        let margin = Point::new(margin, margin);
        Self {
            min: self.min - margin,
            max: self.max + margin,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_negative_inside_and_exact_on_the_axes() {
        let ellipse = Ellipse::new(1.0, 2.0, 10.0, 5.0);
        assert!((ellipse.distance(Point::new(11.0, 2.0))).abs() < 1e-5);
        assert!((ellipse.distance(Point::new(1.0, 9.0)) - 2.0).abs() < 1e-5);
        assert_eq!(ellipse.distance(Point::new(1.0, 2.0)), -5.0);

        let capsule = Capsule {
            a: Point::new(0.0, 0.0),
            b: Point::new(10.0, 0.0),
            radius: 2.0,
        };
        assert_eq!(capsule.distance(Point::new(5.0, 3.0)), 1.0);
        assert_eq!(capsule.distance(Point::new(13.0, 0.0)), 1.0);
        assert_eq!(capsule.distance(Point::new(5.0, 0.0)), -2.0);
    }

    #[test]
    fn a_rotation_turns_from_left_to_back() {
        let turned = Point::new(2.0, 0.0).rotated(Point::direction(std::f32::consts::FRAC_PI_2));
        assert!((turned - Point::new(0.0, 2.0)).length() < 1e-6);
    }
}
