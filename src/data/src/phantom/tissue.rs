//! Everything around the vertebrae: soft tissue, airway, skull, jaw, ribs, lungs, the table, and the bone's densities.
//!
//! `level` is the spinal level as a number (1.0 the middle of C1, 8.0 of T1; less than 1 is the skull).
//! Shapes stand in the spine's frame where they follow the spine, in the patient's where they do not.

use super::canvas::Canvas;
use super::draw::Draw;
use super::fracture::Bone;
use super::shape::{Bounds, Capsule, Ellipse, Point};
use super::spine::{Frame, Spine};

/// HU of air.
pub(super) const AIR: f32 = -1000.0;
const LUNG: f32 = -850.0;
const FAT: f32 = -95.0;
const FLUID: f32 = 12.0;
const CORD: f32 = 42.0;
const BRAIN: f32 = 34.0;
const DISC: f32 = 95.0;
const CARTILAGE: f32 = 190.0;
const FOAM: f32 = -820.0;
const SHELL: f32 = 150.0;

/// The level at which the skull ends, just above C1.
const BASE_OF_SKULL: f32 = 0.5;

/// One patient's densities and build.
pub(super) struct Tissue {
    muscle: f32,
    cortical: f32,
    trabecular: f32,
    /// What fills a fracture gap: blood, fat, sometimes gas.
    gap: f32,
    /// Thickness of the fat under the skin, mm.
    fat: f32,
    /// Half width of the neck beside the mean.
    girth: f32,
    /// y of the table's top, mm behind the neck.
    table: f32,
    /// Standard deviation of the noise, HU.
    pub noise: f32,
}

impl Tissue {
    pub fn draw(draw: &mut Draw) -> Self {
        Self {
            muscle: draw.between(42.0, 62.0),
            cortical: draw.between(900.0, 1200.0),
            trabecular: draw.between(360.0, 480.0),
            gap: draw.between(-400.0, 0.0),
            fat: draw.between(3.0, 9.0),
            girth: draw.between(0.92, 1.1),
            table: draw.between(76.0, 84.0),
            noise: draw.between(14.0, 30.0),
        }
    }

    /// HU of bone at a signed distance to its surface: a dense shell around a spongy middle.
    fn bone(&self, surface: f32) -> f32 {
        const CORTEX: f32 = 1.6;
        let depth = (-surface - CORTEX).clamp(0.0, 1.0);
        self.cortical + (self.trabecular - self.cortical) * depth
    }

    /// Paints the whole slice at height z of the patient frame.
    pub fn paint(&self, canvas: &mut Canvas, spine: &Spine, z: f32) {
        let level = spine.level_at(z);
        let frame = spine.frame_at(z);
        self.paint_table(canvas);
        self.paint_outline(canvas, level);
        if level < BASE_OF_SKULL {
            self.paint_skull(canvas, &frame);
        } else {
            self.paint_muscles(canvas, &frame);
        }
        self.paint_front(canvas, &frame, level);
        if level > 6.8 {
            self.paint_chest(canvas, &frame, level);
        }
        paint_in_frame(canvas, &frame, &Ellipse::new(0.0, 15.5, 10.0, 7.0), FLUID);
        paint_in_frame(canvas, &frame, &Ellipse::new(0.0, 15.5, 6.5, 4.0), CORD);
        self.paint_discs(canvas, spine, &frame, z);
        self.paint_vertebrae(canvas, spine, &frame, z);
    }

    fn paint_table(&self, canvas: &mut Canvas) {
        let top = |p: Point| self.table - p.x * p.x / 900.0 - p.y;
        let bounds = Bounds {
            min: Point::new(-300.0, self.table - 100.0),
            max: Point::new(300.0, self.table + 12.0),
        };
        canvas.paint(bounds, |p| {
            let depth = -top(p);
            let hu = if (2.0..10.0).contains(&depth) {
                FOAM
            } else {
                SHELL
            };
            ((-depth).max(depth - 12.0), hu)
        });
    }

    /// Skin, the fat below it and the bulk of the muscles; wider at the head and at the shoulders.
    fn paint_outline(&self, canvas: &mut Canvas, level: f32) {
        let at = |knots: &[(f32, f32)]| interpolate(knots, level);
        let half_x = at(&[
            (0.0, 76.0),
            (2.0, 68.0),
            (4.0, 58.0),
            (6.3, 62.0),
            (7.3, 95.0),
            (8.5, 140.0),
        ]);
        let half_y = at(&[
            (0.0, 92.0),
            (2.0, 76.0),
            (4.0, 60.0),
            (6.3, 60.0),
            (8.5, 70.0),
        ]);
        let y = at(&[(0.0, -18.0), (2.0, -12.0), (4.0, 0.0), (8.5, 2.0)]);
        let outline = Ellipse::new(0.0, y, half_x * self.girth, half_y * self.girth);
        let bounds = Bounds::around(outline.centre, outline.half.x, outline.half.y);
        canvas.paint(bounds, |p| {
            let distance = outline.distance(p);
            let hu = match -distance {
                ..1.5 => self.muscle - 20.0,
                depth if depth < 1.5 + self.fat => FAT,
                _ => self.muscle,
            };
            (distance, hu)
        });
    }

    /// Muscles around the spine, each in a thin sheath of fat.
    fn paint_muscles(&self, canvas: &mut Canvas, frame: &Frame) {
        for (muscle, hu) in [
            (Ellipse::new(17.0, 34.0, 13.0, 15.0), self.muscle + 6.0),
            (Ellipse::new(34.0, 22.0, 11.0, 15.0), self.muscle + 2.0),
            (Ellipse::new(42.0, -6.0, 8.0, 13.0), self.muscle + 4.0),
            (Ellipse::new(10.0, -13.0, 8.0, 4.0), self.muscle),
            (Ellipse::new(28.0, -14.0, 4.5, 4.5), self.muscle + 40.0), // carotid artery
            (Ellipse::new(33.0, -8.0, 5.5, 4.5), self.muscle + 25.0),  // jugular vein
        ] {
            paint_both_sides(canvas, frame, &muscle.grown(1.5), FAT + 40.0);
            paint_both_sides(canvas, frame, &muscle, hu);
        }
    }

    /// The base of the skull with the condyles that C1 carries, and the brain above it.
    fn paint_skull(&self, canvas: &mut Canvas, frame: &Frame) {
        let vault = Ellipse::new(0.0, 12.0, 60.0, 52.0);
        let bounds = Bounds::around(vault.centre, vault.half.x, vault.half.y);
        let bounds = frame.outer(bounds);
        canvas.paint(bounds, |p| {
            let local = frame.local(p);
            let distance = vault.distance(local);
            (
                distance,
                if distance > -7.0 {
                    self.bone(distance.max(-7.0 - distance))
                } else {
                    BRAIN
                },
            )
        });
        let condyles = Ellipse::new(18.0, 1.0, 8.0, 11.0);
        let petrous = Ellipse::new(38.0, -4.0, 19.0, 9.0);
        let clivus = Ellipse::new(0.0, -17.0, 16.0, 7.0);
        for bone in [condyles, petrous, clivus] {
            let bounds = frame.outer(Bounds::around(
                Point::new(0.0, bone.centre.y),
                60.0,
                bone.half.y,
            ));
            canvas.paint(bounds, |p| {
                let distance = bone.distance(frame.local(p).left());
                (distance, self.bone(distance))
            });
        }
    }

    /// Jaw, throat, hyoid bone, larynx and windpipe: what tells the levels apart from in front.
    fn paint_front(&self, canvas: &mut Canvas, frame: &Frame, level: f32) {
        if (0.3..3.4).contains(&level) {
            let jaw = Ellipse::new(0.0, -48.0, 44.0, 40.0);
            let bounds = frame.outer(Bounds::around(jaw.centre, jaw.half.x, jaw.half.y));
            canvas.paint(bounds, |p| {
                let local = frame.local(p);
                let distance = jaw.distance(local);
                let shell = distance.max(-7.0 - distance).max(local.y + 34.0);
                (shell, self.bone(shell))
            });
        }
        let cartilage = |canvas: &mut Canvas, shape: Capsule, hu: f32| {
            let bounds = frame.outer(Bounds::around(Point::new(0.0, -35.0), 30.0, 20.0));
            canvas.fill(bounds, hu, |p| shape.distance(frame.local(p).left()));
        };
        if (3.0..3.5).contains(&level) {
            let hyoid = Capsule {
                a: Point::new(0.0, -46.0),
                b: Point::new(19.0, -30.0),
                radius: 2.2,
            };
            cartilage(canvas, hyoid, self.trabecular);
        }
        if (4.0..5.6).contains(&level) {
            let thyroid = Capsule {
                a: Point::new(0.0, -48.0),
                b: Point::new(16.0, -26.0),
                radius: 1.8,
            };
            cartilage(canvas, thyroid, CARTILAGE);
        }
        let airway = match level {
            ..3.0 => Ellipse::new(0.0, -25.0, 14.0, 5.0),
            ..4.2 => Ellipse::new(0.0, -29.0, 10.0, 8.0),
            ..5.6 => Ellipse::new(0.0, -33.0, 4.0, 9.0),
            _ => Ellipse::new(0.0, -31.0, 8.5, 8.5),
        };
        if level > 5.6 {
            paint_in_frame(canvas, frame, &airway.grown(2.5), CARTILAGE - 60.0);
        }
        paint_in_frame(canvas, frame, &airway, AIR);
    }

    /// The first ribs and the tips of the lungs.
    fn paint_chest(&self, canvas: &mut Canvas, frame: &Frame, level: f32) {
        if level > 7.7 {
            let depth = ((level - 7.7) / 0.8).min(1.0);
            let lung = Ellipse::new(50.0, 4.0, 24.0 * depth + 2.0, 26.0 * depth + 2.0);
            paint_both_sides(canvas, frame, &lung, LUNG);
        }
        if (7.6..8.35).contains(&level) {
            let rib = Capsule {
                a: Point::new(25.0, 6.0),
                b: Point::new(58.0, 16.0),
                radius: 4.5,
            };
            let bounds = frame.outer(Bounds::around(Point::new(0.0, 11.0), 64.0, 12.0));
            canvas.paint(bounds, |p| {
                let distance = rib.distance(frame.local(p).left());
                (distance, self.bone(distance))
            });
        }
    }

    fn paint_discs(&self, canvas: &mut Canvas, spine: &Spine, frame: &Frame, z: f32) {
        for pair in spine.vertebrae.windows(2) {
            let [above, below] = pair else { continue };
            let between = above.t(z) < -1.0 && below.t(z) > 1.0;
            if let Some(half) = above.form.body.filter(|_| between) {
                paint_in_frame(canvas, frame, &Ellipse::new(0.0, 0.0, half.x, half.y), DISC);
            }
        }
    }

    fn paint_vertebrae(&self, canvas: &mut Canvas, spine: &Spine, frame: &Frame, z: f32) {
        for vertebra in spine.vertebrae.iter().filter(|vertebra| vertebra.is_at(z)) {
            let bounds = frame.outer(vertebra.bounds());
            canvas.paint(bounds, |p| {
                let Bone { surface, .. } = vertebra.bone(frame.local(p), z);
                (surface, self.bone(surface))
            });
            if !vertebra.cuts.is_empty() {
                canvas.paint(bounds, |p| {
                    let Bone { surface, gap } = vertebra.bone(frame.local(p), z);
                    (gap.max(surface), self.gap)
                });
            }
        }
    }
}

fn paint_in_frame(canvas: &mut Canvas, frame: &Frame, shape: &Ellipse, hu: f32) {
    let bounds = frame.outer(Bounds::around(shape.centre, shape.half.x, shape.half.y));
    canvas.fill(bounds, hu, |p| shape.distance(frame.local(p)));
}

/// Paints a shape of the left side and its mirror image.
fn paint_both_sides(canvas: &mut Canvas, frame: &Frame, shape: &Ellipse, hu: f32) {
    for side in [-1.0, 1.0] {
        let centre = Point::new(side * shape.centre.x, shape.centre.y);
        paint_in_frame(canvas, frame, &Ellipse { centre, ..*shape }, hu);
    }
}

/// Piecewise linear through knots (x, y) of increasing x; constant outside them.
fn interpolate(knots: &[(f32, f32)], x: f32) -> f32 {
    let mut previous: Option<(f32, f32)> = None;
    for &(knot, value) in knots {
        if x <= knot {
            return previous.map_or(value, |(x0, y0)| y0 + (value - y0) * (x - x0) / (knot - x0));
        }
        previous = Some((knot, value));
    }
    previous.map_or(0.0, |(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpolation_meets_its_knots_and_stays_flat_outside() {
        let knots = [(1.0, 10.0), (2.0, 20.0), (4.0, 0.0)];
        let values = [0.0, 1.0, 1.5, 2.0, 3.0, 4.0, 9.0].map(|x| interpolate(&knots, x));
        assert_eq!(values, [10.0, 10.0, 15.0, 20.0, 10.0, 0.0, 0.0]);
    }

    #[test]
    fn bone_is_denser_at_its_surface() {
        let tissue = Tissue::draw(&mut Draw::for_study(0, 0));
        assert_eq!(tissue.bone(-0.5), tissue.cortical);
        assert_eq!(tissue.bone(-8.0), tissue.trabecular);
        assert!(tissue.cortical > tissue.trabecular + 300.0);
    }
}
