//! The slices of a study as the networks take them: cropped, resized, windowed to 8 bits; kept in memory within a limit.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Result;
use crate::image::{PixelBox, Resize, Window};
use crate::study::StudyUid;
use crate::volume::{StudyHeader, find_study};

/// 8-bit slices of one study, head first.
#[derive(Debug, PartialEq, Eq)]
pub struct Stack {
    /// (slices, side, side)
    pub pixels: Vec<u8>,
    /// The `<n>` of each slice's `<n>.dcm`.
    pub slice_numbers: Vec<u32>,
    pub side: usize,
}

impl Stack {
    pub fn slices(&self) -> usize {
        self.slice_numbers.len()
    }

    /// Slice `index`, cut to the ends of the study: (side, side). An image at the edge of a study sees its last slice
    /// twice.
    pub fn slice(&self, index: isize) -> &[u8] {
        let last = self.slices().saturating_sub(1);
        let index = usize::try_from(index).unwrap_or(0).min(last);
        let area = self.side * self.side;
        &self.pixels[index * area..(index + 1) * area]
    }

    /// The slices `from..to`, cut to the ends of the study one by one: (to - from, side, side).
    pub fn slices_between(&self, from: isize, to: isize) -> Vec<u8> {
        (from..to)
            .flat_map(|index| self.slice(index))
            .copied()
            .collect()
    }
}

/// How slices become pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Appearance {
    /// Side of the square result, pixels.
    pub side: usize,
    pub window: Window,
}

/// A box given as shares of the image's sides, made square in pixels around its centre and cut to the image.
///
/// The longer side counts; where the square would leave the image it is moved inwards, and cut where it is larger than
/// the image.
pub fn squared(bounds: [f64; 4], rows: usize, cols: usize) -> PixelBox {
    let [x0, y0, x1, y1] = bounds;
    let (width, height) = ((x1 - x0) * cols as f64, (y1 - y0) * rows as f64);
    let side = width.max(height).max(1.0);
    let span = |from: f64, to: f64, n: usize| {
        let n = n as f64;
        let side = side.min(n);
        let start = ((from + to) / 2.0 * n - side / 2.0).clamp(0.0, n - side);
        (start.round() as usize, (start + side).round() as usize)
    };
    let (x0, x1) = span(x0, x1, cols);
    let (y0, y1) = span(y0, y1, rows);
    PixelBox { x0, y0, x1, y1 }.within(rows, cols)
}

/// Reads a whole study into a stack; `crop` as shares of the image's sides, squared, or the whole image.
pub fn read_stack(
    header: &StudyHeader,
    crop: Option<[f64; 4]>,
    appearance: Appearance,
) -> Result<Stack> {
    let (rows, cols) = (header.geometry.rows, header.geometry.cols);
    let slices = header.slice_numbers.len();
    let crop = crop.map_or(PixelBox::whole(rows, cols), |bounds| {
        squared(bounds, rows, cols)
    });
    let side = appearance.side;
    let resize = Resize::new(crop, side, side);
    let mut pixels = vec![0; slices * side * side];
    let mut hu = vec![0.0; side * side];
    for (index, out) in pixels.chunks_exact_mut((side * side).max(1)).enumerate() {
        // One slice at a time: a study of 1,000 slices of 512 x 512 is 0.5 GB of HU.
        let slice = header.read_slices(index..index + 1)?;
        resize.apply(&slice, cols, &mut hu)?;
        appearance.window.apply(&hu, out);
    }
    Ok(Stack {
        pixels,
        slice_numbers: header.slice_numbers.clone(),
        side,
    })
}

/// Studies by identifier, read on first use; the least recently used ones are dropped beyond `limit` bytes.
pub struct Stacks {
    images: PathBuf,
    appearance: Appearance,
    crops: BTreeMap<StudyUid, [f64; 4]>,
    limit: usize,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    stacks: BTreeMap<StudyUid, Arc<Stack>>,
    /// Least recently used first.
    order: VecDeque<StudyUid>,
    bytes: usize,
}

impl Stacks {
    /// `images`: the folder with a folder for each study. Studies that are not in `crops` are taken whole.
    pub fn new(
        images: PathBuf,
        appearance: Appearance,
        crops: BTreeMap<StudyUid, [f64; 4]>,
        limit: usize,
    ) -> Self {
        Stacks {
            images,
            appearance,
            crops,
            limit,
            held: Mutex::default(),
        }
    }

    /// Bytes of one slice.
    pub fn slice_bytes(&self) -> usize {
        self.appearance.side * self.appearance.side
    }

    /// The study's stack. Two threads that ask at once may both read it; they get equal ones.
    pub fn get(&self, study: &StudyUid) -> Result<Arc<Stack>> {
        if let Some(stack) = self.held(|held| held.find(study)) {
            return Ok(stack);
        }
        let header = find_study(&self.images, study)?;
        let crop = self.crops.get(study).copied();
        let stack = Arc::new(read_stack(&header, crop, self.appearance)?);
        self.held(|held| held.keep(study, &stack, self.limit));
        Ok(stack)
    }

    fn held<T>(&self, use_it: impl FnOnce(&mut Held) -> T) -> T {
        use_it(&mut self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Held {
    fn find(&mut self, study: &StudyUid) -> Option<Arc<Stack>> {
        let stack = self.stacks.get(study).cloned()?;
        self.order.retain(|other| other != study);
        self.order.push_back(study.clone());
        Some(stack)
    }

    fn keep(&mut self, study: &StudyUid, stack: &Arc<Stack>, limit: usize) {
        if stack.pixels.len() > limit || self.stacks.contains_key(study) {
            return;
        }
        self.bytes += stack.pixels.len();
        self.stacks.insert(study.clone(), Arc::clone(stack));
        self.order.push_back(study.clone());
        while self.bytes > limit {
            let Some(oldest) = self.order.pop_front() else {
                return;
            };
            if let Some(dropped) = self.stacks.remove(&oldest) {
                self.bytes -= dropped.pixels.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_become_squares_within_the_image() {
        assert_eq!(
            squared([0.25, 0.4, 0.75, 0.6], 100, 100),
            PixelBox {
                x0: 25,
                y0: 25,
                x1: 75,
                y1: 75
            }
        );
        // At the edge the square moves inwards; a box wider than the image is high is cut.
        assert_eq!(
            squared([0.9, 0.0, 1.0, 0.4], 100, 100),
            PixelBox {
                x0: 60,
                y0: 0,
                x1: 100,
                y1: 40
            }
        );
        assert_eq!(
            squared([0.0, 0.2, 1.0, 0.4], 50, 100),
            PixelBox {
                x0: 0,
                y0: 0,
                x1: 100,
                y1: 50
            }
        );
    }

    #[test]
    fn a_stack_repeats_its_ends() {
        let stack = Stack {
            pixels: vec![1, 2, 3],
            slice_numbers: vec![4, 5, 6],
            side: 1,
        };
        assert_eq!(stack.slices_between(-1, 4), [1, 1, 2, 3, 3]);
    }

    #[test]
    fn what_was_used_last_stays() {
        let stack = || {
            Arc::new(Stack {
                pixels: vec![0; 4],
                slice_numbers: vec![1],
                side: 2,
            })
        };
        let uid = |n: u32| StudyUid::new(&format!("1.{n}")).unwrap();
        let mut held = Held::default();
        held.keep(&uid(1), &stack(), 8);
        held.keep(&uid(2), &stack(), 8);
        assert!(held.find(&uid(1)).is_some());
        held.keep(&uid(3), &stack(), 8);
        assert!(held.find(&uid(2)).is_none() && held.find(&uid(1)).is_some());
        assert_eq!(held.bytes, 8);
    }
}
