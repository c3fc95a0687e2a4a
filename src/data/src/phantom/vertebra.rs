//! The shape of the vertebrae C1 to T1: a signed distance for each, in mm, in the vertebra's own frame.
//!
//! Frame: origin on the spine's axis (the middle of the body; for C1 the middle of the dens), x left, y back,
//! t = height above the vertebra's middle in half heights, so that the body spans -1..1. Proportions follow the
//! anatomy (C1 has no body, C2 a dens, transverse foramina in C1 to C6, bifid processes above, a long one in C7);
//! what grows from C3 to C6 is exaggerated, so that a small network can tell one level from the next.

use super::shape::{Bounds, Capsule, Ellipse, Point};

/// The dimensions of one vertebra, in mm.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    /// Height of the body, the dens not counted.
    pub height: f32,
    /// Half width and half depth of the body; C1 has none.
    pub body: Option<Point>,
    /// Height of the dens above the body.
    dens: f32,
    /// The hole that holds the spinal cord.
    pub canal: Ellipse,
    /// Thickness of the arch around the canal.
    arch: f32,
    /// The articular pillar on the left side.
    pillar: Ellipse,
    /// How far the transverse processes reach from the midline.
    reach: f32,
    /// Radius of the transverse foramina; 0 for none.
    foramen: f32,
    /// Length of the spinous process behind the arch.
    spinous: f32,
    /// How far each of the two tips of the spinous process stands from the midline; 0 for a single tip.
    bifid: f32,
    /// Radius of the spinous process.
    spinous_radius: f32,
}

/// C2 to T1 are the same plan at different sizes.
const fn typical(
    height: f32,
    body: Point,
    reach: f32,
    foramen: f32,
    spinous: f32,
    bifid: f32,
) -> Form {
    let canal_half = Point::new(11.0, 7.5);
    Form {
        height,
        body: Some(body),
        dens: 0.0,
        canal: Ellipse {
            centre: Point::new(0.0, body.y + canal_half.y - 0.5),
            half: canal_half,
        },
        arch: 4.0,
        pillar: Ellipse::new(body.x + 7.0, body.y + 3.0, 5.5, 5.0),
        reach,
        foramen,
        spinous,
        bifid,
        spinous_radius: 3.0,
    }
}

/// C1 to C7 and T1.
pub(super) const FORMS: [Form; 8] = [
    Form {
        height: 15.0,
        body: None,
        dens: 0.0,
        canal: Ellipse::new(0.0, 6.0, 14.0, 15.0),
        arch: 5.0,
        pillar: Ellipse::new(18.5, 1.0, 7.0, 10.0),
        reach: 37.0,
        foramen: 3.6,
        spinous: 1.5,
        bifid: 0.0,
        spinous_radius: 3.0,
    },
    Form {
        dens: 14.0,
        arch: 5.0,
        spinous_radius: 4.5,
        ..typical(19.0, Point::new(10.5, 8.5), 27.0, 3.0, 13.0, 7.5)
    },
    typical(14.0, Point::new(8.5, 7.2), 24.0, 3.8, 9.0, 5.0),
    typical(14.0, Point::new(9.8, 7.8), 26.0, 3.3, 13.0, 3.5),
    typical(14.5, Point::new(11.2, 8.4), 28.0, 2.7, 18.0, 2.0),
    typical(15.0, Point::new(12.7, 9.0), 30.0, 2.0, 24.0, 0.0),
    Form {
        spinous_radius: 4.0,
        ..typical(16.5, Point::new(14.5, 9.8), 34.0, 0.0, 34.0, 0.0)
    },
    Form {
        spinous_radius: 3.5,
        ..typical(18.0, Point::new(15.5, 10.8), 37.0, 0.0, 36.0, 0.0)
    },
];

/// Height between two bodies, mm; between C1 and C2 there is no disc and less room.
pub(super) const fn gap_below(level: usize) -> f32 {
    if level == 0 { 1.5 } else { 3.0 }
}

impl Form {
    /// This vertebra in a patient `scale` times as large.
    pub fn scaled(&self, scale: f32) -> Self {
        let ellipse = |e: Ellipse| Ellipse {
            centre: e.centre * scale,
            half: e.half * scale,
        };
        Self {
            height: self.height * scale,
            body: self.body.map(|half| half * scale),
            dens: self.dens * scale,
            canal: ellipse(self.canal),
            arch: self.arch * scale,
            pillar: ellipse(self.pillar),
            reach: self.reach * scale,
            foramen: self.foramen * scale,
            spinous: self.spinous * scale,
            bifid: self.bifid * scale,
            spinous_radius: self.spinous_radius * scale,
        }
    }

    /// The t at which the vertebra ends above: 1, and more with a dens.
    pub fn top(&self) -> f32 {
        1.0 + 2.0 * self.dens / self.height
    }

    /// The t at which it ends below: the spinous process hangs lower than the body.
    pub fn bottom(&self) -> f32 {
        if self.body.is_some() { -1.25 } else { -1.0 }
    }

    /// y of the back of the body; for C1, which has none, of the middle of its ring.
    pub fn back_of_body(&self) -> f32 {
        self.body.map_or(self.canal.centre.y, |half| half.y)
    }

    /// y of the back of the canal, where the arch begins.
    pub fn back_of_canal(&self) -> f32 {
        self.canal.centre.y + self.canal.half.y
    }

    /// What no part of the vertebra reaches over, at any height.
    pub fn bounds(&self) -> Bounds {
        let front = self.body.map_or(
            self.canal.half.y + self.arch - self.canal.centre.y,
            |half| half.y,
        );
        let arch_back = self.back_of_canal() + self.arch;
        let back = arch_back + self.spinous + self.spinous_radius;
        Bounds {
            min: Point::new(-self.reach, -front),
            max: Point::new(self.reach, back),
        }
    }

    /// Signed distance to the bone at height `t`; infinite where there is none at that height.
    pub fn distance(&self, p: Point, t: f32) -> f32 {
        let p = p.left();
        let canal = self.canal.distance(p);
        let mut bone = f32::INFINITY;
        let mut add = |part: f32, low: f32, high: f32| {
            // The end faces count as surface too, so that they get a cortex.
            let end = (low - t).max(t - high) * self.height / 2.0;
            if end < 0.0 {
                bone = bone.min(part.max(end));
            }
        };
        if let Some(half) = self.body {
            let waist = 0.92 + 0.08 * t * t;
            let body = Ellipse {
                centre: Point::new(0.0, 0.0),
                half: half * waist,
            };
            add(body.distance(p).max(-canal), -1.0, 1.0);
        }
        if self.dens > 0.0 {
            let dens = Ellipse::new(0.0, -0.5, self.dens * 0.42, self.dens * 0.4);
            add(dens.distance(p), 0.9, self.top());
        }
        add(
            self.canal.grown(self.arch).distance(p).max(-canal),
            -0.9,
            0.75,
        );
        add(self.pillar.distance(p).max(-canal), -1.0, 1.0);
        add(self.transverse(p), -0.6, 0.65);
        add(self.spinous(p, t), self.bottom(), 0.6);
        bone
    }

    /// The transverse process with its foramen.
    fn transverse(&self, p: Point) -> f32 {
        let root = self.pillar.centre.x - self.pillar.half.x * 0.5;
        let radius = (self.foramen + 2.2).max(4.2);
        let y = self.pillar.centre.y - 5.0;
        let process = Capsule {
            a: Point::new(root, y),
            b: Point::new(self.reach - radius, y + 1.0),
            radius,
        };
        if self.foramen == 0.0 {
            return process.distance(p);
        }
        let x = if self.body.is_some() {
            self.pillar.centre.x
        } else {
            self.reach - radius - 1.0
        };
        let foramen = (p - Point::new(x, y)).length() - self.foramen;
        process.distance(p).max(-foramen)
    }

    /// The spinous process: shorter above than below, as it slopes down.
    fn spinous(&self, p: Point, t: f32) -> f32 {
        let root = self.back_of_canal() + self.arch * 0.5;
        let length = (self.arch * 0.5 + self.spinous) * (0.85 - 0.5 * t).clamp(0.35, 1.0);
        let tip = Point::new(0.0, root + length);
        let radius = self.spinous_radius;
        if self.bifid == 0.0 {
            return Capsule {
                a: Point::new(0.0, root),
                b: tip,
                radius,
            }
            .distance(p);
        }
        let fork = Point::new(0.0, root + length * 0.45);
        let shaft = Capsule {
            a: Point::new(0.0, root),
            b: fork,
            radius,
        };
        let prong = Capsule {
            a: fork,
            b: tip + Point::new(self.bifid, 0.0),
            radius: radius * 0.8,
        };
        shaft.distance(p).min(prong.distance(p))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_have_their_landmarks() {
        let [c1, c2, c3, .., c6, c7, _t1] = &FORMS;
        let axis = Point::new(0.0, 0.0);
        assert!(c1.distance(axis, 0.0) > 3.0, "C1 is a ring without a body");
        assert!(
            c2.distance(axis, 1.5) < -3.0,
            "the dens stands above C2's body"
        );
        assert!(c3.distance(axis, 1.5) > 100.0, "C3 has none");
        for (form, has_foramen) in [(c3, true), (c6, true), (c7, false)] {
            let foramen = Point::new(form.pillar.centre.x, form.pillar.centre.y - 5.0);
            let process = form.transverse(foramen);
            assert_eq!(process > 0.0, has_foramen, "{process}");
        }
        for form in &FORMS {
            assert!(
                form.distance(form.canal.centre, 0.0) > 5.0,
                "the canal is open"
            );
        }
    }

    #[test]
    fn bounds_hold_the_whole_vertebra() {
        for form in &FORMS {
            let bounds = form.bounds();
            for step in 0..=40 {
                let t = form.bottom() + (form.top() - form.bottom()) * step as f32 / 40.0;
                for i in -60..=60 {
                    for j in -40..=80 {
                        let p = Point::new(i as f32, j as f32);
                        let within = (bounds.min.x..=bounds.max.x).contains(&p.x)
                            && (bounds.min.y..=bounds.max.y).contains(&p.y);
                        assert!(
                            within || form.distance(p, t) >= 0.0,
                            "{p:?} at {t} is outside {bounds:?}"
                        );
                    }
                }
            }
        }
    }
}
