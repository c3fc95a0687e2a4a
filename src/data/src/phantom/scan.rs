//! The scan of one phantom patient: where the slices lie, what they are called, and what each of them shows.

use super::canvas::{Canvas, Grid};
use super::cohort::{Numbering, StudyPlan};
use super::draw::Draw;
use super::shape::{Bounds, Point};
use super::spine::Spine;
use super::tissue::{AIR, Tissue};
use super::{STUDY_SLICES_SPREAD, SynthOptions};
use crate::geometry::Geometry;

/// A patient and the grid of their scan.
pub(super) struct Scan {
    spine: Spine,
    tissue: Tissue,
    grid: Grid,
    /// Height of each slice in the patient frame, head first, mm.
    heights: Vec<f32>,
    /// The `<n>` of each slice's `<n>.dcm`, in the same order.
    pub numbers: Vec<u32>,
    /// Where the slices lie in the scanner, head first.
    pub geometry: Geometry,
    noise: Draw,
}

/// The rectangle around a fracture in one slice, in pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct FractureBox {
    pub x: f64,
    pub y: f64,
    pub width: f64,
    pub height: f64,
    /// The `<n>` of the slice.
    pub slice_number: u32,
}

/// To a multiple of `step`, so that the decimal strings of a DICOM header are short and exact.
fn rounded(value: f32, step: f64) -> f64 {
    let per_unit = (1.0 / step).round();
    (f64::from(value) * per_unit).round() / per_unit
}

impl Scan {
    /// Study `plan` of the cohort that `options` describe; equal arguments give equal scans.
    pub fn draw(plan: &StudyPlan, options: &SynthOptions) -> Self {
        let mut draw = Draw::for_study(options.seed, plan.index);
        let spine = Spine::draw(&mut draw, plan.fractured);
        let tissue = Tissue::draw(&mut draw);

        let spread = draw.between(1.0 - STUDY_SLICES_SPREAD, 1.0 + STUDY_SLICES_SPREAD);
        let slices = (options.slices as f32 * spread).round().max(1.0) as usize;
        let top = draw.between(14.0, 28.0) * spine.scale;
        let bottom = spine.bottom_of_c7() - draw.between(8.0, 20.0);
        let step = rounded((top - bottom) / slices as f32, 0.001);
        let heights = (0..slices)
            .map(|slice| top - slice as f32 * step as f32)
            .collect();

        let pixel = rounded(draw.between(160.0, 215.0) / options.size as f32, 0.0001);
        let corner = -(options.size as f32 - 1.0) / 2.0 * pixel as f32;
        let origin = Point::new(
            corner + draw.between(-9.0, 9.0),
            corner + draw.between(-4.0, 14.0),
        );
        let position = [
            rounded(origin.x, 0.01),
            rounded(origin.y, 0.01),
            rounded(draw.between(-300.0, 300.0), 0.1),
        ];

        let numbers = numbers(&mut draw, slices, plan.numbering, plan.head_first);
        Self {
            spine,
            tissue,
            grid: Grid {
                origin,
                pixel: pixel as f32,
                size: options.size,
            },
            heights,
            numbers,
            geometry: Geometry {
                origin: position,
                row: [1.0, 0.0, 0.0],
                col: [0.0, 1.0, 0.0],
                spacing: [pixel, pixel],
                step: [0.0, 0.0, -step],
                rows: options.size,
                cols: options.size,
                slices,
            },
            noise: draw,
        }
    }

    /// The HU of every slice, head first, in rows. Noise makes this worth calling once only.
    pub fn slices(&mut self) -> impl Iterator<Item = Vec<i16>> {
        self.heights.iter().map(|&z| {
            let mut canvas = Canvas::new(self.grid, AIR);
            self.tissue.paint(&mut canvas, &self.spine, z);
            let sigma = self.tissue.noise;
            let noisy = |hu: &f32| {
                (hu + sigma * self.noise.noise())
                    .round()
                    .clamp(-1024.0, 3071.0) as i16
            };
            canvas.hu.iter().map(noisy).collect()
        })
    }

    /// The vertebra at every voxel (slice, row, column), head first: 0 none, 1 to 7 = C1 to C7, 8 = T1.
    pub fn labels(&self) -> Vec<u8> {
        let area = self.grid.size * self.grid.size;
        let mut labels = vec![0u8; area * self.heights.len()];
        for (slice, &z) in labels.chunks_exact_mut(area).zip(&self.heights) {
            let frame = self.spine.frame_at(z);
            for (label, vertebra) in (1..)
                .zip(&self.spine.vertebrae)
                .filter(|(_, vertebra)| vertebra.is_at(z))
            {
                for (index, p) in self.grid.within(frame.outer(vertebra.bounds())) {
                    if vertebra.bone(frame.local(p), z).is_solid()
                        && let Some(voxel) = slice.get_mut(index)
                    {
                        *voxel = label;
                    }
                }
            }
        }
        labels
    }

    /// A box around the fracture gaps of each vertebra in each slice that shows them.
    pub fn fracture_boxes(&self) -> Vec<FractureBox> {
        let broken = self
            .spine
            .vertebrae
            .iter()
            .filter(|vertebra| !vertebra.cuts.is_empty());
        let mut boxes = Vec::new();
        for vertebra in broken {
            for (&z, &slice_number) in self.heights.iter().zip(&self.numbers) {
                if !vertebra.is_at(z) {
                    continue;
                }
                let frame = self.spine.frame_at(z);
                let gap = self
                    .grid
                    .within(frame.outer(vertebra.bounds()))
                    .filter(|&(_, p)| {
                        let bone = vertebra.bone(frame.local(p), z);
                        bone.gap < 0.0 && bone.surface < 0.0
                    });
                let hull = gap
                    .map(|(_, p)| Bounds { min: p, max: p })
                    .reduce(Bounds::hull);
                boxes.extend(hull.map(|hull| self.in_pixels(hull, slice_number)));
            }
        }
        boxes.sort_by_key(|found| found.slice_number);
        boxes
    }

    /// A box 3 mm wider than `bounds` on each side, cut off at the edge of the image.
    fn in_pixels(&self, bounds: Bounds, slice_number: u32) -> FractureBox {
        let Bounds { min, max } = bounds.grown(3.0);
        let pixel = |mm: f32, origin: f32| {
            let index =
                f64::from((mm - origin) / self.grid.pixel).clamp(0.0, self.grid.size as f64 - 1.0);
            (index * 100.0).round() / 100.0
        };
        let (x, y) = (
            pixel(min.x, self.grid.origin.x),
            pixel(min.y, self.grid.origin.y),
        );
        let (right, bottom) = (
            pixel(max.x, self.grid.origin.x),
            pixel(max.y, self.grid.origin.y),
        );
        let extent = |from: f64, to: f64| ((to - from) * 100.0).round() / 100.0;
        FractureBox {
            x,
            y,
            width: extent(x, right),
            height: extent(y, bottom),
            slice_number,
        }
    }
}

/// Slice numbers in head-first order.
fn numbers(draw: &mut Draw, slices: usize, numbering: Numbering, head_first: bool) -> Vec<u32> {
    let mut next = match numbering {
        Numbering::Dense => 1,
        Numbering::Offset | Numbering::Sparse => draw.between(2.0, 80.0) as u32,
    };
    let mut numbers = Vec::with_capacity(slices);
    for _ in 0..slices {
        numbers.push(next);
        let skip = numbering == Numbering::Sparse && draw.chance(0.3);
        next += if skip {
            draw.between(2.0, 5.0) as u32
        } else {
            1
        };
    }
    if !head_first {
        numbers.reverse();
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::super::cohort;
    use super::*;

    fn options() -> SynthOptions {
        SynthOptions {
            studies: 8,
            slices: 48,
            size: 64,
            seed: 5,
            ..SynthOptions::default()
        }
    }

    fn scans() -> Vec<(StudyPlan, Scan)> {
        let options = options();
        let plans = cohort::plan(&options).unwrap();
        plans
            .into_iter()
            .map(|plan| (plan.clone(), Scan::draw(&plan, &options)))
            .collect()
    }

    #[test]
    fn every_vertebra_is_in_the_labels_from_head_to_feet() {
        for (plan, scan) in scans() {
            let labels = scan.labels();
            let area = scan.geometry.rows * scan.geometry.cols;
            let middle = |label: u8| {
                let slices = labels.chunks_exact(area).enumerate();
                let with = slices
                    .filter(|(_, slice)| slice.contains(&label))
                    .map(|(index, _)| index);
                let with: Vec<usize> = with.collect();
                assert!(
                    with.len() >= 3,
                    "C{label} of {} is in {} slices",
                    plan.study,
                    with.len()
                );
                with.iter().sum::<usize>() as f64 / with.len() as f64
            };
            let middles: Vec<f64> = (1..=7).map(middle).collect();
            assert!(middles.is_sorted(), "{middles:?}");
        }
    }

    #[test]
    fn labelled_voxels_are_bone() {
        for (_, mut scan) in scans() {
            let labels = scan.labels();
            let hu: Vec<i16> = scan.slices().flatten().collect();
            assert_eq!(hu.len(), labels.len());
            let mean = |inside: bool| {
                let values = hu
                    .iter()
                    .zip(&labels)
                    .filter(|(_, label)| (**label > 0) == inside);
                let values: Vec<f64> = values.map(|(hu, _)| f64::from(*hu)).collect();
                values.iter().sum::<f64>() / values.len() as f64
            };
            assert!(mean(true) > 450.0, "{}", mean(true));
            assert!(mean(false) < 0.0, "{}", mean(false));
        }
    }

    #[test]
    fn only_broken_vertebrae_have_boxes_and_these_lie_in_the_image() {
        for (plan, scan) in scans() {
            let boxes = scan.fracture_boxes();
            assert_eq!(
                boxes.is_empty(),
                !plan.fractured.contains(&true),
                "{}",
                plan.study
            );
            for found in boxes {
                assert!(scan.numbers.contains(&found.slice_number));
                assert!(found.width > 2.0 && found.height > 2.0, "{found:?}");
                assert!(found.x >= 0.0 && found.x + found.width <= 64.0, "{found:?}");
                assert!(
                    found.y >= 0.0 && found.y + found.height <= 64.0,
                    "{found:?}"
                );
            }
        }
    }

    #[test]
    fn numbering_is_of_its_kind() {
        let number =
            |numbering, head_first| numbers(&mut Draw::for_cohort(3), 20, numbering, head_first);
        assert_eq!(number(Numbering::Dense, true), (1..=20).collect::<Vec<_>>());
        assert_eq!(
            number(Numbering::Dense, false),
            (1..=20).rev().collect::<Vec<_>>()
        );
        let offset = number(Numbering::Offset, true);
        assert!(offset[0] > 1 && offset[19] == offset[0] + 19);
        let sparse = number(Numbering::Sparse, true);
        assert!(
            sparse.is_sorted() && sparse[19] > sparse[0] + 19,
            "{sparse:?}"
        );
    }
}
