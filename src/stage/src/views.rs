//! A study as models see it: at their image sizes, and its mirror image beside it where a prediction averages over both.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use data::stack::{Stack, read_stack};
use data::volume::StudyHeader;

use crate::Result;
use crate::context::appearance;

/// A study's stacks, of one crop, made on first use: models of one image size share what was decoded.
pub(crate) struct Views<'a> {
    data: &'a recipe::Data,
    header: &'a StudyHeader,
    crop: Option<[f64; 4]>,
    flip: bool,
    /// By side.
    made: BTreeMap<u64, Vec<Stack>>,
}

impl<'a> Views<'a> {
    /// `crop`: as shares of the image's sides; `flip`: with the mirror image.
    pub fn new(
        data: &'a recipe::Data,
        header: &'a StudyHeader,
        crop: Option<[f64; 4]>,
        flip: bool,
    ) -> Self {
        Views {
            data,
            header,
            crop,
            flip,
            made: BTreeMap::new(),
        }
    }

    /// The study at this side, and its mirror image (`true`) where one is wanted.
    ///
    /// # Errors
    /// What reading the study's files says.
    pub fn at(&mut self, side: u64) -> Result<impl Iterator<Item = (&Stack, bool)>> {
        let stacks = match self.made.entry(side) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(free) => {
                let plain = read_stack(self.header, self.crop, appearance(self.data, side))?;
                let mirrored = self.flip.then(|| plain.mirrored()).transpose()?;
                free.insert(std::iter::once(plain).chain(mirrored).collect())
            }
        };
        Ok(stacks.iter().zip([false, true]))
    }
}
