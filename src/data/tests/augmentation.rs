//! Augmentation against a naive reference of its formulas: one map after another, in pixels, in f64.

use data::augment::{
    Affine, Augmentation, Distortion, Grid, Normalization, Renderer, Sample, Strength,
};

const PUBLISHED: Strength = Strength::PUBLISHED;

/// An elastic field that moves pixels of an image of 512 by 6.5 on average instead of by 0.003.
const BENDING: Strength = Strength {
    distortion: 1.0,
    elastic_alpha: 2000.0,
    ..PUBLISHED
};

/// What is done to a sample, as the pipeline names it.
#[derive(Clone, Default)]
struct Steps {
    mirror: bool,
    /// dx, dy, scale, angle in degrees.
    turn: Option<[f64; 4]>,
    /// Factors of columns and of rows.
    grid: Option<(Vec<f64>, Vec<f64>)>,
    elastic: Option<Distortion>,
    gain: Option<f64>,
    /// x0, y0, x1, y1 in pixels.
    holes: Vec<[usize; 4]>,
}

impl Steps {
    fn change(&self, side: usize) -> Augmentation {
        let mirror = Affine::scale(if self.mirror { -1.0 } else { 1.0 }, 1.0);
        let turn = |[dx, dy, scale, angle]: [f64; 4]| {
            Affine::shift_scale_rotate([dx, dy], scale, angle.to_radians()).after(&mirror)
        };
        let grid = |(x, y): &(Vec<f64>, Vec<f64>)| Distortion::Grid(Grid::new(x, y));
        Augmentation {
            map: self.turn.map_or(mirror, turn),
            distortion: (self.grid.as_ref().map(grid))
                .or(self.elastic.clone())
                .unwrap_or(Distortion::None),
            gain: self.gain.unwrap_or(1.0),
            holes: (self.holes.iter())
                .map(|hole| hole.map(|v| v as f64 / side as f64))
                .collect(),
        }
    }

    /// The pixel at (x, y) of the changed image, in 0..1, from the original by taking back one step after another.
    fn reference(&self, image: &[u8], side: usize, x: usize, y: usize) -> f64 {
        let inside =
            |[x0, y0, x1, y1]: &[usize; 4]| (*x0..*x1).contains(&x) && (*y0..*y1).contains(&y);
        if self.holes.iter().any(inside) {
            return 0.0;
        }
        let n = side as f64;
        let (mut u, mut v) = (x as f64, y as f64);
        if let Some((columns, rows)) = &self.grid {
            (u, v) = (strip(u, n, columns), strip(v, n, rows));
        }
        if let Some(field) = &self.elastic {
            // The field itself is tested where it is made; here, that it moves pixels as it says.
            let place = |pixel: f64| (2.0 * pixel + 1.0) / n - 1.0;
            let (p, q) = field.source((place(u), place(v)));
            (u, v) = (u + (p - place(u)) * n / 2.0, v + (q - place(v)) * n / 2.0);
        }
        if let Some([dx, dy, scale, angle]) = self.turn {
            let middle = n / 2.0 - 0.5;
            let (sin, cos) = angle.to_radians().sin_cos();
            let (p, q) = (u - dx * n - middle, v - dy * n - middle);
            // OpenCV turns by [[cos, sin], [-sin, cos]]: back is its transpose.
            u = (cos * p - sin * q) / scale + middle;
            v = (sin * p + cos * q) / scale + middle;
        }
        if self.mirror {
            u = n - 1.0 - u;
        }
        (bilinear(image, side, u, v) * self.gain.unwrap_or(1.0)).min(255.0) / 255.0
    }
}

/// One axis of a grid distortion: the source of a pixel, strip after strip from the edge on.
fn strip(pixel: f64, side: f64, factors: &[f64]) -> f64 {
    let width = side / factors.len() as f64;
    let mut left = pixel + 0.5;
    let mut source = 0.0;
    for factor in factors {
        source += left.min(width) * factor;
        left -= left.min(width);
    }
    source - 0.5
}

fn bilinear(image: &[u8], side: usize, x: f64, y: f64) -> f64 {
    let at = |x: f64, y: f64| {
        let inside = x >= 0.0 && y >= 0.0 && x < side as f64 && y < side as f64;
        if inside {
            f64::from(image[y as usize * side + x as usize])
        } else {
            0.0
        }
    };
    let (left, top) = (x.floor(), y.floor());
    let (r, b) = (x - left, y - top);
    at(left, top) * (1.0 - r) * (1.0 - b)
        + at(left + 1.0, top) * r * (1.0 - b)
        + at(left, top + 1.0) * (1.0 - r) * b
        + at(left + 1.0, top + 1.0) * r * b
}

/// Pixels stay in 0..1.
fn plain(threads: usize) -> Renderer {
    let normalization = Normalization {
        mean: [0.0; 3],
        std: [1.0; 3],
    };
    Renderer::new(threads, normalization).unwrap()
}

fn rendered(renderer: &Renderer, pixels: &[u8], change: &Augmentation, side: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; pixels.len()];
    let change = Some(change);
    renderer
        .render(&[Sample { pixels, change }], side, &mut out)
        .unwrap();
    out
}

/// Slices without a pattern: neighbours differ by all of the range.
fn noise(seed: u32, bytes: usize) -> Vec<u8> {
    let mut state = seed;
    (0..bytes)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

/// Renders noise and compares every pixel with the reference.
fn check(what: &str, steps: &Steps) {
    let renderer = plain(1);
    // Even, odd and of a remainder; one slice, a group of four and more than one group.
    for (side, slices) in [(64, 3), (51, 6), (20, 1)] {
        let steps = Steps {
            // Of the sides below 64, the part that is there.
            holes: (steps.holes.iter())
                .map(|h| h.map(|v| v.min(side)))
                .collect(),
            ..steps.clone()
        };
        let pixels = noise(7, slices * side * side);
        let out = rendered(&renderer, &pixels, &steps.change(side), side);
        let plane = side * side;
        for (slice, (image, out)) in pixels.chunks(plane).zip(out.chunks(plane)).enumerate() {
            for (i, got) in out.iter().enumerate() {
                let want = steps.reference(image, side, i % side, i / side);
                // Places are f32: 4e-6 of a pixel, and noise has a slope of up to 1 a pixel.
                assert!(
                    (f64::from(*got) - want).abs() < 2e-5,
                    "{what}, side {side}, slice {slice}, pixel {i}: {got} for {want}"
                );
            }
        }
    }
}

fn elastic() -> Distortion {
    let drawn = (0..).map(|sample| Augmentation::draw(&BENDING, 9, 0, sample).distortion);
    let mut fields = drawn.filter(|distortion| matches!(distortion, Distortion::Elastic(_)));
    fields.next().unwrap()
}

const TURN: [f64; 4] = [0.13, -0.07, 1.15, 17.0];

fn grid() -> (Vec<f64>, Vec<f64>) {
    (
        vec![1.05, 0.96, 1.0, 0.95, 1.02],
        vec![0.97, 1.01, 1.04, 0.99, 1.0],
    )
}

#[test]
fn each_change_is_its_formula() {
    let none = Steps::default;
    check("nothing", &none());
    check(
        "mirror",
        &Steps {
            mirror: true,
            ..none()
        },
    );
    for turn in [
        [0.25, -0.1, 1.0, 0.0],
        [0.0, 0.0, 0.8, 0.0],
        [0.0, 0.0, 1.0, 20.0],
        [0.0, 0.0, 1.0, -90.0],
        TURN,
        [0.9, 0.9, 1.0, 0.0],
    ] {
        check(
            "turn",
            &Steps {
                turn: Some(turn),
                ..none()
            },
        );
    }
    check(
        "grid",
        &Steps {
            grid: Some(grid()),
            ..none()
        },
    );
    check(
        "elastic",
        &Steps {
            elastic: Some(elastic()),
            ..none()
        },
    );
    for gain in [0.8, 1.2] {
        check(
            "contrast",
            &Steps {
                gain: Some(gain),
                ..none()
            },
        );
    }
    check(
        "holes",
        &Steps {
            holes: vec![[3, 5, 9, 11], [0, 0, 4, 64], [60, 50, 64, 64]],
            ..none()
        },
    );
}

#[test]
fn all_changes_are_the_maps_one_after_another() {
    for mirror in [false, true] {
        let all = Steps {
            mirror,
            turn: Some(TURN),
            gain: Some(1.17),
            holes: vec![[3, 5, 9, 11], [15, 10, 30, 16], [60, 50, 64, 64]],
            ..Steps::default()
        };
        check(
            "all with a grid",
            &Steps {
                grid: Some(grid()),
                ..all.clone()
            },
        );
        check(
            "all with an elastic field",
            &Steps {
                elastic: Some(elastic()),
                ..all
            },
        );
    }
}

#[test]
fn a_mirror_image_is_exact() {
    let (side, pixels) = (64, noise(3, 3 * 64 * 64));
    let mirror = Augmentation {
        map: Affine::scale(-1.0, 1.0),
        ..Augmentation::NONE
    };
    let out = rendered(&plain(1), &pixels, &mirror, side);
    for (row, out) in pixels.chunks(side).zip(out.chunks(side)) {
        let want: Vec<f32> = row.iter().rev().map(|p| f32::from(*p) / 255.0).collect();
        assert_eq!(out, want);
    }
}

#[test]
fn channels_are_normalised_after_holes_are_cut() {
    let normalization = Normalization {
        mean: [0.1, 0.2, 0.3],
        std: [0.5, 0.25, 2.0],
    };
    let renderer = Renderer::new(2, normalization).unwrap();
    let side = 16;
    let pixels = vec![255; 6 * side * side];
    for turn in [None, Some([0.0, 0.0, 1.0, 5.0])] {
        let steps = Steps {
            turn,
            holes: vec![[4, 4, 8, 8]],
            gain: Some(0.9),
            ..Steps::default()
        };
        let out = rendered(&renderer, &pixels, &steps.change(side), side);
        for (slice, out) in out.chunks(side * side).enumerate() {
            let channel = slice % 3;
            let of =
                |pixel: f32| (pixel - normalization.mean[channel]) / normalization.std[channel];
            assert_eq!(out[5 * side + 5], of(0.0));
            assert!((out[10 * side + 9] - of(0.9)).abs() < 1e-6);
        }
    }
}

#[test]
fn threads_and_batches_make_no_difference_and_values_stay_in_range() {
    let (side, slices, count) = (45, 6, 24);
    let pixels: Vec<Vec<u8>> = (0..count).map(|i| noise(i, slices * side * side)).collect();
    let changes: Vec<Augmentation> = (0..u64::from(count))
        .map(|i| Augmentation::draw(&PUBLISHED, 1, 2, i))
        .collect();
    let one = plain(1);
    let alone: Vec<f32> = pixels
        .iter()
        .zip(&changes)
        .flat_map(|(pixels, change)| rendered(&one, pixels, change, side))
        .collect();
    assert!(alone.iter().all(|value| (0.0..=1.0).contains(value)));
    let samples: Vec<Sample> = pixels
        .iter()
        .zip(&changes)
        .map(|(pixels, change)| Sample {
            pixels,
            change: Some(change),
        })
        .collect();
    for threads in [1, 2, 3, 7] {
        let renderer = plain(threads);
        for batch in [1, 5, 24] {
            let mut out = vec![f32::NAN; alone.len()];
            for (samples, out) in samples
                .chunks(batch)
                .zip(out.chunks_mut(batch * slices * side * side))
            {
                renderer.render(samples, side, out).unwrap();
            }
            assert_eq!(out, alone, "{threads} threads, batches of {batch}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let renderer = plain(1);
    let pixels = [0; 3 * 16];
    let render = |pixels, side, room: usize| {
        let sample = Sample {
            pixels,
            change: None,
        };
        renderer.render(&[sample], side, &mut vec![0.0; room])
    };
    assert!(render(&pixels, 4, 48).is_ok());
    for (side, room) in [(4, 47), (4, 32), (5, 48), (0, 48), (0, 0)] {
        assert!(render(&pixels, side, room).is_err(), "{side} {room}");
    }
    assert!(render(&pixels[..16], 4, 48).is_err());
    // Nothing of nothing.
    assert!(renderer.render(&[], 4, &mut []).is_ok());
}

/// First and last pixel (excluded) along x and y of what is not black: interpolation carries an edge half a pixel further.
fn lit(image: &[f32], side: usize) -> Option<[f64; 4]> {
    let mut found: Option<[usize; 4]> = None;
    for (i, _) in image.iter().enumerate().filter(|(_, value)| **value > 0.02) {
        let (x, y) = (i % side, i / side);
        let [x0, y0, x1, y1] = found.unwrap_or([x, y, x + 1, y + 1]);
        found = Some([x0.min(x), y0.min(y), x1.max(x + 1), y1.max(y + 1)]);
    }
    found.map(|bounds| bounds.map(|v| v as f64))
}

#[test]
fn a_box_lies_where_the_image_shows_it() {
    let (side, renderer) = (200, plain(2));
    let (mut shown, mut kinds) = (0, [0; 3]);
    for sample in 0..240 {
        let strength = if sample % 2 == 0 { PUBLISHED } else { BENDING };
        let change = Augmentation {
            holes: Vec::new(),
            gain: 1.0,
            ..Augmentation::draw(&strength, 6, 0, sample)
        };
        kinds[match change.distortion {
            Distortion::None => 0,
            Distortion::Grid(_) => 1,
            Distortion::Elastic(_) => 2,
        }] += 1;
        // Near the middle, and at the border where part of it leaves the image.
        for bounds in [[60, 70, 120, 150], [2, 4, 60, 40], [150, 120, 200, 200]] {
            let [x0, y0, x1, y1]: [usize; 4] = bounds;
            let mut pixels = vec![0; side * side];
            for row in pixels[y0 * side..y1 * side].chunks_mut(side) {
                row[x0..x1].fill(255);
            }
            let image = rendered(&renderer, &pixels, &change, side);
            let moved = change.move_box(bounds.map(|v| v as f64 / side as f64));
            let moved = moved.map(|bounds| bounds.map(|share| share * side as f64));
            match (moved, lit(&image, side)) {
                (Some(moved), Some(seen)) => {
                    shown += 1;
                    for (moved, seen) in moved.iter().zip(seen) {
                        assert!((moved - seen).abs() < 2.0, "{sample}: {moved} for {seen}");
                    }
                }
                (None, None) => {}
                // An edge along the border of the image may lie on either side of it.
                (Some([x0, y0, x1, y1]), None) | (None, Some([x0, y0, x1, y1])) => {
                    assert!(x1 - x0 < 2.0 || y1 - y0 < 2.0, "{sample}: one of two");
                }
            }
        }
    }
    assert!(shown > 600, "{shown} of 720 boxes are seen");
    assert!(kinds.iter().all(|count| *count > 40), "{kinds:?}");
}
