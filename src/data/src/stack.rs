//! The slices of a study as the networks take them: cropped, resized, windowed to 8 bits; in memory, or in the cache on disk.

mod stacks;

use std::sync::{Arc, PoisonError, RwLock};

use crate::cache::{Cache, Entry, Obtained};
use crate::error::{DataError, Result};
use crate::image::{PixelBox, Resize, Window};
use crate::volume::StudyHeader;

pub use stacks::Stacks;

/// 8-bit slices of one study, head first: (slices, side, side).
#[derive(Debug)]
pub struct Stack {
    /// The `<n>` of each slice's `<n>.dcm`.
    pub slice_numbers: Vec<u32>,
    pub side: usize,
    pixels: Pixels,
}

#[derive(Debug)]
enum Pixels {
    Memory(Vec<u8>),
    Cached(Box<CachedPixels>),
}

/// Pixels in the cache, and how to have them again should they be gone or damaged there.
#[derive(Debug)]
struct CachedPixels {
    /// Replaced when it could not be read.
    place: RwLock<Place>,
    cache: Arc<Cache>,
    header: StudyHeader,
    crop: Option<[f64; 4]>,
    appearance: Appearance,
}

#[derive(Clone, Debug)]
enum Place {
    Entry(Arc<Entry>),
    Memory(Arc<Vec<u8>>),
}

impl Stack {
    /// `pixels`: (slices, side, side).
    pub fn in_memory(pixels: Vec<u8>, slice_numbers: Vec<u32>, side: usize) -> Self {
        Stack {
            slice_numbers,
            side,
            pixels: Pixels::Memory(pixels),
        }
    }

    pub(crate) fn cached(
        entry: Entry,
        cache: Arc<Cache>,
        header: &StudyHeader,
        crop: Option<[f64; 4]>,
        appearance: Appearance,
    ) -> Self {
        Stack {
            slice_numbers: header.slice_numbers.clone(),
            side: appearance.side,
            pixels: Pixels::Cached(Box::new(CachedPixels {
                place: RwLock::new(Place::Entry(Arc::new(entry))),
                cache,
                header: header.clone(),
                crop,
                appearance,
            })),
        }
    }

    pub fn slices(&self) -> usize {
        self.slice_numbers.len()
    }

    /// Reads the slices `from..to`, cut to the ends of the study one by one, into `out`: (to - from, side, side). An image
    /// at the edge of a study sees its last slice twice.
    ///
    /// # Errors
    /// [`DataError::StackBuffer`] where `out` has another size. Pixels that the cache has lost are read from the study's
    /// files; what that says.
    pub fn read(&self, from: isize, to: isize, out: &mut [u8]) -> Result<()> {
        let area = self.side * self.side;
        let asked = usize::try_from(to.saturating_sub(from)).unwrap_or(0);
        if self.slices() == 0 || asked.checked_mul(area) != Some(out.len()) {
            return Err(DataError::StackBuffer {
                slices: asked,
                side: self.side,
                found: out.len(),
            });
        }
        let last = self.slices() - 1;
        let indices = (from..to).map(|index| usize::try_from(index).unwrap_or(0).min(last));
        match &self.pixels {
            Pixels::Memory(pixels) => copy(pixels, area, indices, out),
            Pixels::Cached(cached) => cached.read(area, indices, out)?,
        }
        Ok(())
    }

    /// [`Stack::read`] into a new buffer.
    pub fn slices_between(&self, from: isize, to: isize) -> Result<Vec<u8>> {
        let asked = usize::try_from(to.saturating_sub(from)).unwrap_or(0);
        let mut pixels = vec![0; asked * self.side * self.side];
        self.read(from, to, &mut pixels)?;
        Ok(pixels)
    }

    /// Its mirror image in memory: the patient's left and right exchanged.
    ///
    /// # Errors
    /// As [`Stack::read`].
    pub fn mirrored(&self) -> Result<Self> {
        let mut pixels = match self.slices() {
            0 => Vec::new(),
            slices => self.slices_between(0, slices as isize)?,
        };
        pixels
            .chunks_exact_mut(self.side.max(1))
            .for_each(<[u8]>::reverse);
        Ok(Self::in_memory(
            pixels,
            self.slice_numbers.clone(),
            self.side,
        ))
    }

    /// Bytes that it takes in memory.
    pub fn memory_bytes(&self) -> usize {
        match &self.pixels {
            Pixels::Memory(pixels) => pixels.len(),
            // While another thread finds a new place for it, it takes none.
            Pixels::Cached(cached) => match cached.place.try_read().as_deref() {
                Ok(Place::Entry(entry)) => entry.memory_bytes(),
                Ok(Place::Memory(pixels)) => pixels.len(),
                Err(_) => 0,
            },
        }
    }
}

fn copy(pixels: &[u8], area: usize, indices: impl Iterator<Item = usize>, out: &mut [u8]) {
    for (index, out) in indices.zip(out.chunks_exact_mut(area.max(1))) {
        out.copy_from_slice(&pixels[index * area..(index + 1) * area]);
    }
}

/// How often an entry is looked for again before its study is read into memory: one that vanishes as often is removed
/// as fast as it is made, because the cache's limit is too small.
const ATTEMPTS: usize = 2;

impl CachedPixels {
    fn place(&self) -> Place {
        let place = self.place.read().unwrap_or_else(PoisonError::into_inner);
        place.clone()
    }

    fn read(
        &self,
        area: usize,
        indices: impl Iterator<Item = usize> + Clone,
        out: &mut [u8],
    ) -> Result<()> {
        for attempt in 0.. {
            let entry = match self.place() {
                Place::Entry(entry) => entry,
                Place::Memory(pixels) => {
                    copy(&pixels, area, indices, out);
                    return Ok(());
                }
            };
            let read = entry.reader().and_then(|mut reader| {
                let mut out = out.chunks_exact_mut(area.max(1));
                indices
                    .clone()
                    .zip(&mut out)
                    .try_for_each(|(index, out)| reader.slice(index, out))
            });
            match read {
                Ok(()) => return Ok(()),
                Err(_) => self.replace(&entry, attempt < ATTEMPTS)?,
            }
        }
        Ok(())
    }

    /// Puts another in the place of an entry that could not be read, unless another thread has done so.
    fn replace(&self, lost: &Arc<Entry>, in_cache: bool) -> Result<()> {
        let mut place = self.place.write().unwrap_or_else(PoisonError::into_inner);
        match &*place {
            Place::Entry(entry) if Arc::ptr_eq(entry, lost) => {}
            _ => return Ok(()),
        }
        let Self {
            header,
            crop,
            appearance,
            ..
        } = self;
        *place = if in_cache {
            match self.cache.find_or_make(header, *crop, *appearance, true)? {
                Obtained::Found(entry) | Obtained::Made(entry) => Place::Entry(Arc::new(entry)),
                Obtained::InMemory(pixels) => Place::Memory(Arc::new(pixels)),
            }
        } else {
            Place::Memory(Arc::new(read_pixels(header, *crop, *appearance)?))
        };
        Ok(())
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
    let pixels = read_pixels(header, crop, appearance)?;
    Ok(Stack::in_memory(
        pixels,
        header.slice_numbers.clone(),
        appearance.side,
    ))
}

fn read_pixels(
    header: &StudyHeader,
    crop: Option<[f64; 4]>,
    appearance: Appearance,
) -> Result<Vec<u8>> {
    // One slice at a time: a study of 1,000 slices of 512 x 512 is 0.5 GB of HU.
    let all = 0..header.slice_numbers.len();
    resized_slices(header, crop, appearance, |visit| {
        header.for_each_slice(all, visit)
    })
}

/// Takes each slice's HU from `for_each`, in any order; the pixels of all, (slices, side, side).
pub(crate) fn resized_slices(
    header: &StudyHeader,
    crop: Option<[f64; 4]>,
    appearance: Appearance,
    for_each: impl FnOnce(&mut dyn FnMut(usize, &[i16]) -> Result<()>) -> Result<()>,
) -> Result<Vec<u8>> {
    let (rows, cols) = (header.geometry.rows, header.geometry.cols);
    let crop = crop.map_or(PixelBox::whole(rows, cols), |bounds| {
        squared(bounds, rows, cols)
    });
    let area = appearance.side * appearance.side;
    let resize = Resize::new(crop, appearance.side, appearance.side);
    let mut resized = vec![0.0; area];
    let mut pixels = vec![0; header.slice_numbers.len() * area];
    for_each(&mut |index, hu| {
        resize.apply(hu, cols, &mut resized)?;
        if let Some(out) = pixels.get_mut(index * area..(index + 1) * area) {
            appearance.window.apply(&resized, out);
        }
        Ok(())
    })?;
    Ok(pixels)
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
    fn a_mirrored_stack_has_its_rows_reversed_and_nothing_else() {
        let stack = Stack::in_memory((1..=8).collect(), vec![4, 5], 2);
        let mirrored = stack.mirrored().unwrap();
        assert_eq!(
            mirrored.slices_between(0, 2).unwrap(),
            [2, 1, 4, 3, 6, 5, 8, 7]
        );
        assert_eq!(mirrored.slice_numbers, [4, 5]);
        assert_eq!(mirrored.side, 2);
        assert_eq!(
            mirrored.mirrored().unwrap().slices_between(0, 2).unwrap(),
            [1, 2, 3, 4, 5, 6, 7, 8]
        );
        let empty = Stack::in_memory(vec![], vec![], 2).mirrored().unwrap();
        assert_eq!(empty.slices(), 0);
    }

    #[test]
    fn a_stack_repeats_its_ends() {
        let stack = Stack::in_memory(vec![1, 2, 3], vec![4, 5, 6], 1);
        assert_eq!(stack.slices_between(-1, 4).unwrap(), [1, 1, 2, 3, 3]);
        assert!(stack.read(0, 2, &mut [0; 3]).is_err());
        assert!(
            Stack::in_memory(vec![], vec![], 1)
                .slices_between(0, 1)
                .is_err()
        );
    }
}
