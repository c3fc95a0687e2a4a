//! Fractures: planes that part a vertebra, leave a gap and displace what lies beyond.

use std::f32::consts::FRAC_PI_2;

use super::draw::Draw;
use super::shape::Point;
use super::vertebra::Form;

/// Which part of the vertebra a cut goes through.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    /// All of it (C1's ring).
    Whole,
    /// In front of the canal.
    Body,
    /// The arch and its processes.
    Arch,
}

/// One fracture plane, steep enough to be a line in every axial slice that it crosses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    part: Part,
    /// Where the plane crosses the vertebra at half height.
    origin: Point,
    /// Unit normal; the fragment is on its positive side.
    normal: Point,
    /// How far the plane moves along its normal from half height to the top, mm.
    drift: f32,
    half_gap: f32,
    /// Displacement of the fragment, mm.
    shift: Point,
    /// The heights t between which the vertebra is broken.
    low: f32,
    high: f32,
    /// y that divides body and arch.
    divide: f32,
}

/// Width of a gap, mm. The narrowest is 8 % of a crop of 80 mm, still 4 pixels of one resized to 48.
const GAP: [f32; 2] = [6.5, 9.0];
/// The same in C1, where there is little bone to be parted.
const RING_GAP: [f32; 2] = [8.0, 10.5];

impl Cut {
    /// The planes of a new fracture of vertebra `level` (0 is C1).
    pub fn draw(draw: &mut Draw, level: usize, form: &Form) -> Vec<Self> {
        let side = draw.sign();
        let Some(body) = form.body else {
            return vec![Self::of_ring(draw, side, form)];
        };
        let mut cuts = vec![Self::of_body(draw, side, form, body)];
        if draw.chance(0.6) {
            cuts.push(if level >= 5 {
                Self::of_spinous_process(draw, form)
            } else {
                Self::of_lamina(draw, side, form)
            });
        }
        cuts
    }

    /// Jefferson's fracture of C1: the ring bursts in front and behind, the lateral mass moves out.
    fn of_ring(draw: &mut Draw, side: f32, form: &Form) -> Self {
        let origin = Point::new(side * draw.between(3.0, 6.0), form.canal.centre.y);
        let normal = Point::direction(draw.between(-0.25, 0.25)) * side;
        Self::through(draw, Part::Whole, form, origin, normal)
    }

    /// The body splits lengthwise, or its front breaks off.
    fn of_body(draw: &mut Draw, side: f32, form: &Form, half: Point) -> Self {
        let (origin, normal) = if draw.chance(0.65) {
            let origin = Point::new(side * draw.between(0.0, 0.2) * half.x, 0.0);
            (origin, Point::direction(draw.between(-0.6, 0.6)) * side)
        } else {
            let origin = Point::new(0.0, draw.between(-0.3, 0.1) * half.y);
            (origin, Point::direction(draw.between(-1.9, -1.25)))
        };
        Self::through(draw, Part::Body, form, origin, normal)
    }

    /// The arch breaks on one side of the midline.
    fn of_lamina(draw: &mut Draw, side: f32, form: &Form) -> Self {
        let origin = Point::new(side * form.canal.half.x * 0.6, form.back_of_canal());
        let normal = Point::direction(draw.between(0.0, 0.5));
        let normal = Point::new(side * normal.x, normal.y);
        Self::through(draw, Part::Arch, form, origin, normal)
    }

    /// Clay-shoveler's fracture: the tip of the spinous process breaks off.
    fn of_spinous_process(draw: &mut Draw, form: &Form) -> Self {
        let origin = Point::new(0.0, form.back_of_canal() + draw.between(9.0, 13.0));
        let normal = Point::direction(FRAC_PI_2 + draw.between(-0.3, 0.3));
        Self::through(draw, Part::Arch, form, origin, normal)
    }

    fn through(draw: &mut Draw, part: Part, form: &Form, origin: Point, normal: Point) -> Self {
        let [narrow, wide] = if part == Part::Whole { RING_GAP } else { GAP };
        let gap = draw.between(narrow, wide);
        let along = Point::new(-normal.y, normal.x);
        let shift = normal * (gap * draw.between(0.5, 0.8))
            + along * (draw.sign() * draw.between(1.5, 4.0));
        Self {
            part,
            origin,
            normal,
            drift: draw.between(-1.5, 1.5),
            half_gap: gap / 2.0,
            shift,
            low: form.bottom() + draw.between(0.0, 0.25),
            high: 1.0 - draw.between(0.0, 0.3),
            divide: form.back_of_body(),
        }
    }

    /// Signed distance to this cut's gap, and where the bone now at `p` was before the fracture;
    /// nothing where the cut does not reach.
    fn displaced(&self, p: Point, t: f32) -> Option<(f32, Point)> {
        let reached = match self.part {
            Part::Whole => true,
            Part::Body => p.y < self.divide,
            Part::Arch => p.y >= self.divide,
        };
        if !reached || t < self.low || t > self.high {
            return None;
        }
        let beyond = (p - self.origin).dot(self.normal) - self.drift * t;
        let before = if beyond > self.half_gap {
            p - self.shift
        } else {
            p
        };
        Some((beyond.abs() - self.half_gap, before))
    }
}

/// What is at a point of a vertebra that may be broken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bone {
    /// Signed distance to the surface of the bone, the broken faces not counted: where the cortex is.
    pub surface: f32,
    /// Signed distance to the gaps; infinite without one.
    pub gap: f32,
}

impl Bone {
    /// At `p` and height `t` of a vertebra of this form, broken by `cuts`.
    pub fn at(form: &Form, cuts: &[Cut], p: Point, t: f32) -> Self {
        let mut gap = f32::INFINITY;
        let mut before = p;
        for cut in cuts {
            if let Some((distance, moved)) = cut.displaced(p, t) {
                gap = gap.min(distance);
                before = before + (moved - p);
            }
        }
        Self {
            surface: form.distance(before, t),
            gap,
        }
    }

    /// Whether there is bone, rather than gap or other tissue.
    pub fn is_solid(&self) -> bool {
        self.surface < 0.0 && self.gap >= 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::super::vertebra::FORMS;
    use super::*;

    #[test]
    fn every_fracture_opens_a_gap_through_most_of_its_vertebra() {
        for (level, form) in FORMS.iter().enumerate().take(7) {
            for seed in 0..8 {
                let cuts = Cut::draw(&mut Draw::for_study(seed, level), level, form);
                let open = |t: f32| {
                    let points = (-40..=40)
                        .flat_map(|x| (-20..=70).map(move |y| Point::new(x as f32, y as f32)));
                    points
                        .filter(|&p| {
                            let bone = Bone::at(form, &cuts, p, t);
                            form.distance(p, t) < 0.0 && bone.gap < 0.0
                        })
                        .count()
                };
                let broken = (-6..=6)
                    .filter(|step| open(*step as f32 / 8.0) >= 30)
                    .count();
                assert!(
                    broken >= 10,
                    "C{} of seed {seed}: a gap in only {broken} of 13 heights",
                    level + 1
                );
            }
        }
    }

    #[test]
    fn bone_in_the_gap_is_gone_and_the_fragment_is_displaced() {
        let form = &FORMS[4];
        let cut = Cut {
            part: Part::Body,
            origin: Point::new(0.0, 0.0),
            normal: Point::new(1.0, 0.0),
            drift: 0.0,
            half_gap: 3.0,
            shift: Point::new(4.0, 0.0),
            low: -1.0,
            high: 1.0,
            divide: form.back_of_body(),
        };
        let at = |x: f32| Bone::at(form, &[cut], Point::new(x, 0.0), 0.0);
        assert!(!at(0.0).is_solid(), "the gap");
        assert!(at(-5.0).is_solid() && at(5.0).is_solid(), "both fragments");
        let edge = form.body.unwrap().x;
        assert!(
            at(edge + 2.0).is_solid(),
            "the right fragment reaches further out"
        );
        assert!(!at(-edge - 2.0).is_solid(), "the other stays");
    }
}
