//! A small picture in memory: points, lines, frames, other pictures; and as a PNG.

use std::io;

/// Red, green, blue.
pub(crate) type Colour = [u8; 3];

/// Height x width pixels, row by row. What is drawn outside of it is not seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Canvas {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Canvas {
    pub fn new(width: usize, height: usize, colour: Colour) -> Self {
        Canvas {
            width,
            height,
            pixels: colour.repeat(width * height),
        }
    }

    pub fn size(&self) -> (usize, usize) {
        (self.width, self.height)
    }

    pub fn set(&mut self, x: i64, y: i64, colour: Colour) {
        let inside = |at: i64, side: usize| usize::try_from(at).ok().filter(|at| *at < side);
        let place = inside(x, self.width).zip(inside(y, self.height));
        let Some((x, y)) = place else {
            return;
        };
        let first = 3 * (y * self.width + x);
        if let Some(pixel) = self.pixels.get_mut(first..first + 3) {
            pixel.copy_from_slice(&colour);
        }
    }

    /// From row `top` down to and with row `bottom`.
    pub fn column(&mut self, x: i64, (top, bottom): (i64, i64), colour: Colour) {
        (top..=bottom).for_each(|y| self.set(x, y, colour));
    }

    /// The outline of a box; its corners are part of it.
    pub fn frame(&mut self, [x0, y0, x1, y1]: [i64; 4], colour: Colour) {
        for x in x0..=x1 {
            self.set(x, y0, colour);
            self.set(x, y1, colour);
        }
        self.column(x0, (y0, y1), colour);
        self.column(x1, (y0, y1), colour);
    }

    /// Puts a picture on this one, its upper left corner at (x, y).
    pub fn paste(&mut self, x: usize, y: usize, other: &Canvas) {
        let rows = other.pixels.chunks_exact(3 * other.width.max(1));
        for (row, line) in rows.enumerate() {
            for (column, pixel) in line.chunks_exact(3).enumerate() {
                let (x, y) = ((x + column) as i64, (y + row) as i64);
                self.set(x, y, [pixel[0], pixel[1], pixel[2]]);
            }
        }
    }

    /// 8 bits, RGB.
    pub fn png(&self) -> io::Result<Vec<u8>> {
        let side = |n: usize| u32::try_from(n).map_err(io::Error::other);
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, side(self.width)?, side(self.height)?);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.pixels)?;
        writer.finish()?;
        Ok(bytes)
    }

    #[cfg(test)]
    pub fn at(&self, x: usize, y: usize) -> Colour {
        let first = 3 * (y * self.width + x);
        [0, 1, 2].map(|channel| self.pixels[first + channel])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RED: Colour = [255, 0, 0];

    #[test]
    fn a_frame_is_drawn_as_far_as_it_lies_inside() {
        let mut canvas = Canvas::new(4, 3, [0; 3]);
        canvas.frame([-5, 1, 2, 9], RED);
        let red = (0..3).map(|y| (0..4).filter(|x| canvas.at(*x, y) == RED).count());
        assert_eq!(red.collect::<Vec<_>>(), [0, 3, 1]);
    }

    #[test]
    fn the_png_holds_the_pixels() {
        let mut canvas = Canvas::new(5, 2, [7, 8, 9]);
        canvas.paste(3, 1, &Canvas::new(4, 4, RED));
        let bytes = canvas.png().unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes))
            .read_info()
            .unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.width, info.height), (5, 2));
        assert_eq!(pixels, canvas.pixels);
        assert_eq!((canvas.at(4, 1), canvas.at(4, 0)), (RED, [7, 8, 9]));
    }
}
