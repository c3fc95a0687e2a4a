//! Encapsulated pixel data: which fragments make up which frame (PS3.5, A.4; PS3.3, C.7.6.3.1.8).
//!
//! Frames are told apart by the extended or the basic offset table, else by one fragment a frame, else by the fragments
//! that begin a codestream.

use std::borrow::Cow;

use super::attributes::{self as tag, Attributes, COPY_AGAIN};
use super::elements::{Damage, ITEM, SEQUENCE_END, Tag};
use super::file::DicomFile;
use crate::error::{DataError, Result};

/// Fragments of one file; a damaged header may claim any number of empty ones.
const MOST_FRAGMENTS: usize = 1 << 18;

/// A fragment: where it stands in the data set, and its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fragment {
    at: u64,
    length: usize,
}

/// The fragments of all frames.
pub(crate) struct Fragments<'a> {
    file: &'a DicomFile,
    fragments: Vec<Fragment>,
    /// For each frame the number of its first fragment; then the number of fragments.
    starts: Vec<usize>,
}

/// Bytes of the header of an item.
const ITEM_HEADER: u64 = 8;

impl<'a> Fragments<'a> {
    /// Finds the fragments of `frames` frames in the value of PixelData, which begins at `at` of the data set.
    pub(crate) fn find(
        file: &'a DicomFile,
        attributes: &Attributes<'_>,
        at: u64,
        frames: usize,
    ) -> Result<Self> {
        let fault =
            |problem: &str| attributes.fault(tag::PIXEL_DATA, problem.to_owned(), COPY_AGAIN);
        let mut at = at;
        let table = next_fragment(file, &mut at)?
            .ok_or_else(|| fault("has no offset table and no fragments"))?;
        let first = at + ITEM_HEADER;
        let mut fragments = Vec::new();
        while let Some(fragment) = next_fragment(file, &mut at)? {
            if fragments.len() == MOST_FRAGMENTS {
                return Err(fault("is cut into too many fragments"));
            }
            fragments.push(fragment);
        }
        if fragments.len() < frames {
            return Err(fault(&format!(
                "holds {} fragments where there are {frames} frames",
                fragments.len()
            )));
        }
        let mut found = Self {
            file,
            fragments,
            starts: Vec::new(),
        };
        found.starts = if frames == 1 {
            vec![0]
        } else if let Some(offsets) = attributes.bytes(tag::EXTENDED_OFFSET_TABLE) {
            let offsets = offsets
                .as_chunks::<8>()
                .0
                .iter()
                .map(|offset| u64::from_le_bytes(*offset));
            found.starts_by_offset(first, offsets)
        } else if table.length > 0 {
            let offsets = file.pixel_bytes(table.at, table.length)?;
            let offsets = offsets
                .as_chunks::<4>()
                .0
                .iter()
                .map(|offset| u32::from_le_bytes(*offset).into());
            found.starts_by_offset(first, offsets)
        } else if found.fragments.len() == frames {
            (0..frames).collect()
        } else {
            found.starts_by_codestream()?
        };
        if found.starts.len() != frames || found.starts.first() != Some(&0) {
            return Err(fault(&format!(
                "is cut into {} fragments, and what says where its {frames} frames begin is damaged",
                found.fragments.len()
            )));
        }
        found.starts.push(found.fragments.len());
        Ok(found)
    }

    /// The fragments that begin at these bytes after `first`, the first fragment's value. Stops at an offset that is
    /// none's.
    fn starts_by_offset(&self, first: u64, offsets: impl Iterator<Item = u64>) -> Vec<usize> {
        let mut starts: Vec<usize> = offsets
            .map_while(|offset| {
                let at = first.checked_add(offset)?;
                self.fragments.binary_search_by_key(&at, |f| f.at).ok()
            })
            .collect();
        if !starts.is_sorted_by(|a, b| a < b) {
            starts.clear();
        }
        starts
    }

    /// The fragments that begin with the first marker of a JPEG or JPEG 2000 codestream.
    fn starts_by_codestream(&self) -> Result<Vec<usize>> {
        let mut starts = Vec::new();
        for (number, fragment) in self.fragments.iter().enumerate() {
            let beginning = self.file.pixel_bytes(fragment.at, fragment.length.min(3))?;
            if matches!(*beginning, [0xFF, 0xD8, 0xFF] | [0xFF, 0x4F, 0xFF]) {
                starts.push(number);
            }
        }
        Ok(starts)
    }

    /// The compressed bytes of the frame with this number.
    pub(crate) fn frame(&self, frame: usize) -> Result<Cow<'a, [u8]>> {
        let (start, end) = match self.starts.get(frame..) {
            Some([start, end, ..]) => (*start, *end),
            _ => (0, 0),
        };
        match self.fragments.get(start..end).unwrap_or_default() {
            [one] => self.file.pixel_bytes(one.at, one.length),
            several => {
                let mut joined = Vec::new();
                for fragment in several {
                    joined.extend_from_slice(&self.file.pixel_bytes(fragment.at, fragment.length)?);
                }
                Ok(joined.into())
            }
        }
    }
}

/// The fragment whose item begins at `at`, which moves behind it; `None` at the end of the sequence.
fn next_fragment(file: &DicomFile, at: &mut u64) -> Result<Option<Fragment>> {
    let damaged = |damage| -> DataError { tag::damaged(&file.path, damage) };
    let header = file.pixel_bytes(*at, ITEM_HEADER as usize)?;
    let malformed = || {
        damaged(Damage::Malformed {
            offset: *at as usize,
        })
    };
    let [g0, g1, e0, e1, l0, l1, l2, l3] = *header.first_chunk().ok_or_else(malformed)?;
    let length = u32::from_le_bytes([l0, l1, l2, l3]);
    match Tag::from_le_bytes([e0, e1, g0, g1]) {
        SEQUENCE_END => Ok(None),
        ITEM if length != u32::MAX => {
            let value = *at + ITEM_HEADER;
            file.check_held(value, length as usize)?;
            *at = value + u64::from(length);
            Ok(Some(Fragment {
                at: value,
                length: length as usize,
            }))
        }
        _ => Err(malformed()),
    }
}
