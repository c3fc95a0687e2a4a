//! One axial slice being painted: shapes in millimetres onto pixels in Hounsfield units (HU).

use super::shape::{Bounds, Point};

/// The in-plane grid of a scan, in the patient frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    /// Centre of the pixel in row 0, column 0.
    pub origin: Point,
    /// Side of a pixel, mm.
    pub pixel: f32,
    /// Rows, and columns.
    pub size: usize,
}

impl Grid {
    pub fn at(&self, row: usize, column: usize) -> Point {
        self.origin + Point::new(column as f32, row as f32) * self.pixel
    }

    /// The pixels within bounds, with the middle of each: (index in row-major order, centre).
    pub fn within(self, bounds: Bounds) -> impl Iterator<Item = (usize, Point)> {
        let last = self.size as f32;
        // A saturating cast: what lies outside the image becomes an empty range at its edge.
        let from =
            |low: f32, origin: f32| ((low - origin) / self.pixel).ceil().clamp(0.0, last) as usize;
        let until = |high: f32, origin: f32| {
            ((high - origin) / self.pixel + 1.0)
                .floor()
                .clamp(0.0, last) as usize
        };
        let columns = from(bounds.min.x, self.origin.x)..until(bounds.max.x, self.origin.x);
        let rows = from(bounds.min.y, self.origin.y)..until(bounds.max.y, self.origin.y);
        rows.flat_map(move |row| {
            columns
                .clone()
                .map(move |column| (row * self.size + column, self.at(row, column)))
        })
    }
}

/// HU of one slice.
pub(super) struct Canvas {
    pub grid: Grid,
    pub hu: Vec<f32>,
}

impl Canvas {
    /// A slice of one density.
    pub fn new(grid: Grid, hu: f32) -> Self {
        Self {
            grid,
            hu: vec![hu; grid.size * grid.size],
        }
    }

    /// Paints where `distance` is negative, blending pixels that the outline crosses.
    pub fn fill(&mut self, bounds: Bounds, hu: f32, distance: impl Fn(Point) -> f32) {
        self.paint(bounds, |p| (distance(p), hu));
    }

    /// As `fill`, with a density that varies: the shader gives (signed distance, HU).
    pub fn paint(&mut self, bounds: Bounds, shader: impl Fn(Point) -> (f32, f32)) {
        let blur = self.grid.pixel.max(0.6);
        for (index, p) in self.grid.within(bounds.grown(blur)) {
            let (distance, hu) = shader(p);
            let share = (0.5 - distance / blur).clamp(0.0, 1.0);
            if let Some(value) = self.hu.get_mut(index).filter(|_| share > 0.0) {
                *value += (hu - *value) * share;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::shape::Ellipse;
    use super::*;

    const GRID: Grid = Grid {
        origin: Point::new(-7.5, -7.5),
        pixel: 1.0,
        size: 16,
    };

    #[test]
    fn a_disk_has_its_area_and_its_density() {
        let mut canvas = Canvas::new(GRID, -1000.0);
        let disk = Ellipse::new(0.5, 0.5, 5.0, 5.0);
        canvas.fill(Bounds::around(disk.centre, 5.0, 5.0), 100.0, |p| {
            disk.distance(p)
        });
        let area: f32 = canvas.hu.iter().map(|hu| (hu + 1000.0) / 1100.0).sum();
        assert!((area - 25.0 * std::f32::consts::PI).abs() < 1.5, "{area}");
        assert_eq!(canvas.hu[8 * 16 + 8], 100.0);
        assert_eq!(canvas.hu[0], -1000.0);
    }

    #[test]
    fn shapes_may_lie_outside_the_image() {
        let everywhere = Bounds::around(Point::new(0.0, 0.0), 1e9, 1e9);
        assert_eq!(GRID.within(everywhere).count(), 256);
        let elsewhere = Bounds::around(Point::new(-500.0, 800.0), 5.0, 5.0);
        assert_eq!(GRID.within(elsewhere).count(), 0);
    }
}
