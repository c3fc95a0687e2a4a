//! A contact sheet: images side by side, each with the boxes that belong to it.

use data::augment::Normalization;
use tch::Tensor;
use train::host;

use super::canvas::{Canvas, Colour};
use crate::Result;

/// An image on a sheet is at most so wide.
const TILE: usize = 96;
const GAP: usize = 2;
const BACKGROUND: Colour = [255; 3];

/// One image of a sheet.
#[derive(Clone, Debug)]
pub(crate) struct Tile {
    /// (3, side, side), 0..1
    pub pixels: Vec<f32>,
    pub side: usize,
    /// x0, y0, x1, y1 as shares of the sides.
    pub boxes: Vec<([f32; 4], Colour)>,
}

impl Tile {
    /// Of one 8-bit slice (side, side).
    pub fn gray(slice: &[u8], side: usize) -> Self {
        let plane = slice.iter().map(|byte| f32::from(*byte) / 255.0);
        let plane: Vec<f32> = plane.collect();
        Tile {
            pixels: plane.repeat(3),
            side,
            boxes: Vec::new(),
        }
    }

    /// Shrunk by a whole number, each pixel the mean of those that it stands for.
    fn drawn(&self) -> Canvas {
        let factor = self.side.div_ceil(TILE).max(1);
        let side = self.side / factor;
        let mut canvas = Canvas::new(side, side, BACKGROUND);
        let mean = |channel: usize, x: usize, y: usize| -> u8 {
            let rows = (y * factor..(y + 1) * factor).map(|row| {
                let first = (channel * self.side + row) * self.side + x * factor;
                let row = self.pixels.get(first..first + factor).unwrap_or_default();
                row.iter().sum::<f32>()
            });
            let mean = rows.sum::<f32>() / (factor * factor) as f32;
            (mean.clamp(0.0, 1.0) * 255.0).round() as u8
        };
        for y in 0..side {
            for x in 0..side {
                let colour = [0, 1, 2].map(|channel| mean(channel, x, y));
                canvas.set(x as i64, y as i64, colour);
            }
        }
        for (bounds, colour) in &self.boxes {
            let last = side.saturating_sub(1) as f32;
            canvas.frame(
                bounds.map(|share| (share.clamp(-1.0, 2.0) * last).round() as i64),
                *colour,
            );
        }
        canvas
    }
}

/// Normalised images (.., 3, side, side) as they were before that.
pub(crate) fn tiles(images: &Tensor, side: usize) -> Result<Vec<Tile>> {
    let Normalization { mean, std } = Normalization::PUBLISHED;
    let values = host(images)?;
    let area = (side * side).max(1);
    let tile = |image: &[f32]| {
        let channels = image.chunks_exact(area).zip(mean.iter().zip(std));
        let pixels = channels
            .flat_map(|(plane, (mean, std))| plane.iter().map(move |value| value * std + mean));
        Tile {
            pixels: pixels.collect(),
            side,
            boxes: Vec::new(),
        }
    };
    Ok(values.chunks_exact(3 * area).map(tile).collect())
}

/// Tiles in rows, left to right; about as wide as high.
pub(crate) fn sheet(tiles: &[Tile]) -> Canvas {
    let tiles: Vec<Canvas> = tiles.iter().map(Tile::drawn).collect();
    let columns = (1..).find(|n| n * n >= tiles.len()).unwrap_or(1);
    let widest = tiles.iter().map(|tile| tile.size().0).max().unwrap_or(0);
    let pitch = widest + GAP;
    let rows = tiles.len().div_ceil(columns);
    let mut sheet = Canvas::new(columns * pitch + GAP, rows.max(1) * pitch + GAP, BACKGROUND);
    for (place, tile) in tiles.iter().enumerate() {
        let (row, column) = (place / columns, place % columns);
        sheet.paste(GAP + column * pitch, GAP + row * pitch, tile);
    }
    sheet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_image_is_shrunk_to_its_means() {
        // 192 is shrunk by 2: columns of 0 and 255 in turn are gray.
        let slice: Vec<u8> = (0..192 * 192).map(|i| ((i % 2) * 255) as u8).collect();
        let tile = Tile::gray(&slice, 192).drawn();
        assert_eq!(tile.size(), (96, 96));
        assert_eq!((tile.at(0, 0), tile.at(95, 95)), ([128; 3], [128; 3]));
    }

    #[test]
    fn images_are_brought_back_to_their_pixels() {
        let Normalization { mean, std } = Normalization::PUBLISHED;
        let value = |channel: usize| (0.25 * channel as f32 + 0.1 - mean[channel]) / std[channel];
        let images: Vec<f32> = (0..24).map(|i| value(i / 4 % 3)).collect();
        let images = Tensor::from_slice(&images).view([1, 2, 3, 2, 2]);
        let tiles = tiles(&images, 2).unwrap();
        assert_eq!(tiles.len(), 2);
        for (i, pixel) in tiles[1].pixels.iter().enumerate() {
            let want = 0.25 * (i / 4) as f32 + 0.1;
            assert!((pixel - want).abs() < 1e-6, "{i}: {pixel}");
        }
    }

    #[test]
    fn tiles_stand_in_rows_with_their_boxes() {
        let mut tiles = vec![Tile::gray(&[0; 100], 10); 5];
        tiles[4].boxes = vec![([0.0, 0.0, 1.0, 1.0], [1, 2, 3])];
        let sheet = sheet(&tiles);
        assert_eq!(sheet.size(), (3 * 12 + 2, 2 * 12 + 2));
        // The fifth is the second of the second row.
        assert_eq!((sheet.at(14, 14), sheet.at(23, 23)), ([1, 2, 3], [1, 2, 3]));
        assert_eq!((sheet.at(15, 15), sheet.at(24, 24)), ([0; 3], BACKGROUND));
    }
}
