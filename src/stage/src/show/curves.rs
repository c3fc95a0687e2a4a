//! The write-up's vertebra curves: what is true and what a model says along a study, one strip a vertebra.

use data::targets::VERTEBRAE;

use super::canvas::{Canvas, Colour};

/// Rows of a strip, and between two.
const STRIP: usize = 48;
const GAP: usize = 6;
/// Columns of the picture, whatever the number of slices.
const WIDTH: usize = 480;
const BACKGROUND: Colour = [255; 3];
const AXIS: Colour = [200; 3];

/// One quantity of every slice: the truth as an area, the prediction as a line.
pub(crate) struct Panel<'a> {
    pub truth: &'a [[f32; VERTEBRAE]],
    pub predicted: &'a [[f32; VERTEBRAE]],
    pub area: Colour,
    pub line: Colour,
}

/// C1 on top, the head on the left; 0 at the bottom of a strip, 1 at its top.
pub(crate) fn curves(panels: &[Panel]) -> Canvas {
    let mut canvas = Canvas::new(WIDTH, VERTEBRAE * (STRIP + GAP), BACKGROUND);
    for vertebra in 0..VERTEBRAE {
        let bottom = ((vertebra + 1) * (STRIP + GAP) - GAP) as i64 - 1;
        let height = |value: f32| bottom - (value.clamp(0.0, 1.0) * (STRIP - 1) as f32) as i64;
        // Areas first: no line is hidden by one.
        for panel in panels {
            for x in 0..WIDTH {
                let value = at(panel.truth, vertebra, x);
                if value > 0.0 {
                    canvas.column(x as i64, (height(value), bottom), panel.area);
                }
            }
        }
        for x in 0..WIDTH {
            canvas.set(x as i64, bottom + 1, AXIS);
        }
        for panel in panels.iter().filter(|panel| !panel.predicted.is_empty()) {
            let mut before = None;
            for x in 0..WIDTH {
                let y = height(at(panel.predicted, vertebra, x));
                let from = before.replace(y).unwrap_or(y);
                canvas.column(x as i64, (y.min(from), y.max(from)), panel.line);
            }
        }
    }
    canvas
}

/// The value of the slice that stands at column `x`; 0 where there is none.
fn at(values: &[[f32; VERTEBRAE]], vertebra: usize, x: usize) -> f32 {
    values
        .get(x * values.len() / WIDTH)
        .map_or(0.0, |slice| slice[vertebra])
}

#[cfg(test)]
mod tests {
    use super::*;

    const AREA: Colour = [1; 3];
    const LINE: Colour = [2; 3];

    #[test]
    fn the_truth_is_an_area_and_the_prediction_a_line_over_it() {
        let mut truth = vec![[0.0; VERTEBRAE]; 4];
        truth[1][2] = 1.0;
        let predicted = vec![[0.5; VERTEBRAE]; 4];
        let canvas = curves(&[Panel {
            truth: &truth,
            predicted: &predicted,
            area: AREA,
            line: LINE,
        }]);
        assert_eq!(canvas.size(), (480, 7 * 54));
        // C3 is the third strip, rows 108 to 155; the second of four slices has columns 120 to 239.
        for (x, y, colour) in [
            (120, 108, AREA),
            (239, 155, AREA),
            (119, 120, BACKGROUND),
            (240, 120, BACKGROUND),
            (180, 107, BACKGROUND),
            (180, 132, LINE),
            (10, 132, LINE),
            (10, 24, LINE),
            (180, 50, BACKGROUND),
            (180, 48, AXIS),
        ] {
            assert_eq!(canvas.at(x, y), colour, "{x} {y}");
        }
    }
}
