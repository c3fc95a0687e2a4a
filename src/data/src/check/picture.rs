//! Two small pictures of a study: an axial slice from its middle and the mid-sagittal plane.

use std::path::{Path, PathBuf};

use crate::dicom::{self, SliceHeader, directions};
use crate::geometry::{cross, dot};
use crate::image::{Window, WindowMode};
use crate::volume::{StudyHeader, files};

/// An 8-bit picture, (rows, columns).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gray {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// How high a row is in columns' widths: for showing it in true proportions.
    pub aspect: (u32, u32),
    /// One byte a pixel.
    pub pixels: Vec<u8>,
}

/// The pictures of a study, in the window of the networks; black where a slice cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pictures {
    /// The middle slice.
    pub axial: Gray,
    /// Column `cols / 2` of every slice, head up: (slices, rows).
    pub sagittal: Gray,
    cols: usize,
}

impl Pictures {
    /// Black ones, for [`Pictures::take`].
    pub(super) fn of(header: &StudyHeader) -> Self {
        let g = &header.geometry;
        Self::black(g.shape(), g.spacing, g.slice_spacing())
    }

    fn black([slices, rows, cols]: [usize; 3], spacing: [f64; 2], slice_spacing: f64) -> Self {
        let [between_rows, between_columns] = spacing;
        let gray = |height, width, row: f64, col: f64| Gray {
            height,
            width,
            aspect: ((row * 1000.0) as u32, (col * 1000.0) as u32),
            pixels: vec![0; height * width],
        };
        Self {
            axial: gray(rows, cols, between_rows, between_columns),
            sagittal: gray(slices, rows, slice_spacing, between_rows),
            cols,
        }
    }

    /// Takes from slice `index` what the pictures show of it.
    pub(super) fn take(&mut self, index: usize, hu: &[i16]) {
        let (rows, cols) = (self.axial.height, self.cols);
        if hu.len() != rows * cols {
            return;
        }
        if index == self.sagittal.height / 2 {
            show(hu.iter().copied(), &mut self.axial.pixels);
        }
        let line = hu.iter().copied().skip(cols / 2).step_by(cols.max(1));
        if let Some(out) = self
            .sagittal
            .pixels
            .get_mut(index * rows..(index + 1) * rows)
        {
            show(line, out);
        }
    }
}

fn show(hu: impl Iterator<Item = i16>, out: &mut [u8]) {
    let window = Window {
        mode: WindowMode::Fixed,
        ..Window::default()
    };
    let hu: Vec<f32> = hu.map(f32::from).collect();
    window.apply(&hu, out);
}

/// So many files of a folder are looked at.
const LOOKED_AT: usize = 2000;

/// Of a study that could not be put in order: of those of its files that can be read and are like the first of them.
pub(super) fn of_folder(folder: &Path) -> Option<Pictures> {
    let files = files(folder).ok()?;
    let slices: Vec<(&PathBuf, SliceHeader)> = files
        .iter()
        .take(LOOKED_AT)
        .filter_map(|file| Some((file, dicom::read_headers(file).ok()?)))
        .flat_map(|(file, headers)| headers.into_iter().map(move |header| (file, header)))
        .collect();
    let (_, first) = slices.first()?;
    let [row, col] = directions(&first.orientation);
    let [x, y, z] = cross(row, col);
    let normal = if z > 0.0 { [-x, -y, -z] } else { [x, y, z] };
    let mut alike: Vec<(f64, &PathBuf, usize)> = slices
        .iter()
        .filter(|(_, slice)| (slice.rows, slice.cols) == (first.rows, first.cols))
        .map(|(file, slice)| (dot(slice.position, normal), *file, slice.frame))
        .collect();
    alike.sort_by(|a, b| a.0.total_cmp(&b.0));
    let length = alike.last()?.0 - alike.first()?.0;
    let step = match length / (alike.len().max(2) - 1) as f64 {
        step if step > 0.0 => step,
        _ => first.pixel_spacing[0],
    };
    let shape = [alike.len(), first.rows, first.cols];
    let mut pictures = Pictures::black(shape, first.pixel_spacing, step);
    let mut seen = false;
    for (index, (_, file, frame)) in alike.into_iter().enumerate() {
        if let Some(slice) = dicom::read_frames(file, &[frame])
            .ok()
            .and_then(|mut s| s.pop())
        {
            pictures.take(index, &slice.hu);
            seen = true;
        }
    }
    seen.then_some(pictures)
}
