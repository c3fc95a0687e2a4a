//! One patient's cervical spine: the vertebrae stacked along a curved axis.
//!
//! Patient frame, mm: x left, y back, z towards the head, zero at the middle of C1.

use super::draw::Draw;
use super::fracture::{Bone, Cut};
use super::shape::{Bounds, Point};
use super::vertebra::{FORMS, Form, gap_below};

/// A vertebra in its place.
pub(super) struct Vertebra {
    pub form: Form,
    /// Height of its middle.
    pub z: f32,
    /// Empty where it is not broken.
    pub cuts: Vec<Cut>,
}

/// C1 to C7 and T1 of one patient.
pub(super) struct Spine {
    pub vertebrae: Vec<Vertebra>,
    /// Size of the patient beside the mean.
    pub scale: f32,
    /// Depth of the lordosis, mm: how far the middle of the neck stands in front of its ends.
    lordosis: f32,
    /// How far T1 stands behind and to the left of C1, mm.
    lean: Point,
    /// Rotation of C1 and of T1 about the axis, radians.
    turn: [f32; 2],
    /// Where the axis meets the middle of C1, in the patient frame.
    offset: Point,
}

impl Spine {
    /// A new patient; `fractured[v]` breaks vertebra v (0 is C1).
    pub fn draw(draw: &mut Draw, fractured: [bool; 7]) -> Self {
        let scale = draw.between(0.92, 1.08);
        let mut vertebrae: Vec<Vertebra> = Vec::with_capacity(FORMS.len());
        for (level, form) in FORMS.iter().enumerate() {
            let form = form.scaled(scale * draw.between(0.98, 1.02));
            let z = match vertebrae.last() {
                Some(above) => {
                    above.z
                        - above.form.height / 2.0
                        - gap_below(level - 1) * scale
                        - form.height / 2.0
                }
                None => 0.0,
            };
            vertebrae.push(Vertebra {
                form,
                z,
                cuts: Vec::new(),
            });
        }
        let spine = Self {
            scale,
            lordosis: draw.between(2.0, 11.0),
            lean: Point::new(draw.between(-6.0, 6.0), draw.between(-2.0, 10.0)),
            turn: [draw.between(-0.15, 0.15), draw.between(-0.08, 0.08)],
            offset: Point::new(draw.between(-7.0, 7.0), draw.between(-16.0, -8.0)),
            vertebrae,
        };
        spine.broken(draw, fractured)
    }

    fn broken(mut self, draw: &mut Draw, fractured: [bool; 7]) -> Self {
        for (level, (vertebra, broken)) in self.vertebrae.iter_mut().zip(fractured).enumerate() {
            if broken {
                vertebra.cuts = Cut::draw(draw, level, &vertebra.form);
            }
        }
        self
    }

    /// Height of the middle of T1, the lowest vertebra.
    pub fn lowest(&self) -> f32 {
        self.vertebrae.last().map_or(0.0, |vertebra| vertebra.z)
    }

    /// Height of the lower end of C7.
    pub fn bottom_of_c7(&self) -> f32 {
        self.vertebrae
            .get(6)
            .map_or(0.0, |c7| c7.z - c7.form.height / 2.0)
    }

    /// The spinal level at height z as a number: 1.0 in the middle of C1, 7.0 in the middle of C7,
    /// linear between middles and, with the nearest pair's slope, beyond.
    pub fn level_at(&self, z: f32) -> f32 {
        let pairs = self.vertebrae.windows(2).enumerate();
        let mut level = 1.0;
        for (index, pair) in pairs {
            let [above, below] = pair else { continue };
            level = index as f32 + 1.0 + (above.z - z) / (above.z - below.z);
            if z >= below.z {
                break;
            }
        }
        level
    }

    /// The frame of the spine at height z.
    pub fn frame_at(&self, z: f32) -> Frame {
        let along = (z / self.lowest()).clamp(-0.3, 1.2);
        let bend = (std::f32::consts::PI * along).sin();
        let [top, bottom] = self.turn;
        Frame {
            origin: self.offset + self.lean * along + Point::new(0.0, -self.lordosis * bend),
            turn: Point::direction(top + (bottom - top) * along),
        }
    }
}

impl Vertebra {
    /// Height above its middle in half heights.
    pub fn t(&self, z: f32) -> f32 {
        (z - self.z) / (self.form.height / 2.0)
    }

    /// Whether any bone of it is at height z.
    pub fn is_at(&self, z: f32) -> bool {
        (self.form.bottom()..self.form.top()).contains(&self.t(z))
    }

    /// What is at `p` of its own frame, at height z.
    pub fn bone(&self, p: Point, z: f32) -> Bone {
        Bone::at(&self.form, &self.cuts, p, self.t(z))
    }

    /// What its bone does not reach over, displaced fragments included.
    pub fn bounds(&self) -> Bounds {
        let margin = if self.cuts.is_empty() { 0.0 } else { 10.0 };
        self.form.bounds().grown(margin)
    }
}

/// Where the spine's axis crosses a slice, and how the spine is turned there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub origin: Point,
    turn: Point,
}

impl Frame {
    /// A point of the patient frame, in the spine's.
    pub fn local(&self, p: Point) -> Point {
        (p - self.origin).rotated(Point::new(self.turn.x, -self.turn.y))
    }

    /// Bounds in the patient frame of what has these bounds in the spine's.
    pub fn outer(&self, bounds: Bounds) -> Bounds {
        let Bounds { min, max } = bounds;
        let corner = |x, y| Point::new(x, y).rotated(self.turn) + self.origin;
        let corners = [
            corner(max.x, min.y),
            corner(min.x, max.y),
            corner(max.x, max.y),
        ];
        let first = corner(min.x, min.y);
        let first = Bounds {
            min: first,
            max: first,
        };
        corners
            .into_iter()
            .fold(first, |hull, p| hull.hull(Bounds { min: p, max: p }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_run_from_c1_down() {
        let spine = Spine::draw(&mut Draw::for_study(1, 0), [false; 7]);
        for (index, vertebra) in spine.vertebrae.iter().enumerate() {
            assert!((spine.level_at(vertebra.z) - (index + 1) as f32).abs() < 1e-4);
        }
        assert!(spine.level_at(10.0) < 1.0);
        assert!(spine.level_at(spine.lowest() - 10.0) > 8.0);
        assert!(spine.bottom_of_c7() > spine.lowest());
    }

    #[test]
    fn a_frame_goes_there_and_back() {
        let spine = Spine::draw(&mut Draw::for_study(2, 0), [false; 7]);
        let frame = spine.frame_at(-30.0);
        let p = Point::new(12.0, -7.0);
        let point = Bounds { min: p, max: p };
        assert!((frame.local(frame.outer(point).min) - p).length() < 1e-4);
    }
}
