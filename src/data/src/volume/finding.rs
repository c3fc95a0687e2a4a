//! What was noticed about a study that can be read all the same.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Something about a study that a person should know, and that did not keep it from being read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What it is about.
    pub kind: FindingKind,
    /// One sentence with the files it concerns.
    pub message: String,
}

/// The kinds of [`Finding`]s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FindingKind {
    /// Files of the folder that are no slices.
    PassedOver,
    /// Scout views, left out.
    Localizer,
    /// Slices that are there twice, the second one left out.
    Duplicate,
    /// Different slices with one SOPInstanceUID, kept.
    RepeatedUid,
    /// Slices that seem to be missing.
    Gap,
    /// Steps between slices differ; the mean step stands for them.
    UnequalSpacing,
    /// Slices lie slanted to the way from one to the next; the geometry says how.
    GantryTilt,
    /// Slices are not perpendicular to the body.
    Oblique,
    /// The image is turned or mirrored against the usual one.
    Turned,
    /// Pixels are not squares.
    NonSquarePixels,
    /// Fewer slices than a neck has.
    FewSlices,
}

impl Finding {
    pub(super) fn new(kind: FindingKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }
}

/// In words that name no file: a file's name may be a patient's.
impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FindingKind::PassedOver => "files that are no slices are passed over",
            FindingKind::Localizer => "scout views are left out",
            FindingKind::Duplicate => "slices are there twice; one of each is left out",
            FindingKind::RepeatedUid => "different slices have one SOPInstanceUID; they are kept",
            FindingKind::Gap => "slices seem to be missing",
            FindingKind::UnequalSpacing => {
                "steps between slices differ; the mean step stands for them"
            }
            FindingKind::GantryTilt => "the gantry was tilted",
            FindingKind::Oblique => "slices are not perpendicular to the body",
            FindingKind::Turned => "the image is turned or mirrored",
            FindingKind::NonSquarePixels => "pixels are not squares",
            FindingKind::FewSlices => "there are fewer slices than a neck has",
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The names of the first few files, and how many more there are.
pub(super) fn names<'a>(paths: impl ExactSizeIterator<Item = &'a Path>) -> String {
    listed(paths.map(name))
}

/// The first few of these, and how many more there are.
pub(super) fn listed(texts: impl ExactSizeIterator<Item = String>) -> String {
    const NAMED: usize = 4;
    let more = texts.len().saturating_sub(NAMED);
    let named: Vec<_> = texts.take(NAMED).collect();
    match more {
        0 => named.join(", "),
        _ => format!("{} and {more} more", named.join(", ")),
    }
}

/// The name of a file without its folder.
pub(super) fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy()
        .into_owned()
}
