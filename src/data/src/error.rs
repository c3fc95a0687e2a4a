//! What can go wrong with the data: which file, which field, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use crate::image::PixelBox;

/// An error in the data set, or in reading or writing it.
///
/// Messages name files, fields and study UIDs; they never carry other contents of a patient's files. Files are named with their
/// whole paths, which [`Discretion`](crate::Discretion) finds in a text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The operating system refused a file operation.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was being done: "read", "create", "list".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },

    /// A name from a file, a table or a folder cannot be a study's.
    #[error(
        "{value:?} cannot name a study: expected letters, digits, single dots, hyphens and underscores, at most 64 \
         characters, a letter or digit first; name the study by the UID in its DICOM files"
    )]
    InvalidStudyUid {
        /// The beginning of what was found.
        value: String,
    },

    /// A study is not there.
    #[error(
        "study {path} does not exist; each study of train.csv needs a folder of DICOM files of its name in train_images, \
         or a NIfTI volume <name>.nii.gz: complete the download or take the study out of the table"
    )]
    StudyMissing {
        /// The folder that was looked for.
        path: PathBuf,
    },

    /// A study without a usable series.
    #[error("study {path} {problem}; {remedy}")]
    Study {
        /// The study's folder or file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
        /// What to do.
        remedy: &'static str,
    },

    /// Two slices of a study contradict each other.
    #[error(
        "{first} and {second} do not belong to one volume: {attribute} is {first_value} in one and {second_value} in the \
         other; keep one series a folder"
    )]
    MixedSlices {
        /// The first slice's file.
        first: PathBuf,
        /// The file that differs from it.
        second: PathBuf,
        /// The DICOM attribute, by keyword.
        attribute: &'static str,
        /// Its value in the first file.
        first_value: String,
        /// Its value in the second file.
        second_value: String,
    },

    /// Slices of one series do not make a volume.
    #[error("{first} and {second} {problem}; {remedy}, or take the study out of the table")]
    Series {
        /// The first slice's file.
        first: PathBuf,
        /// The second slice's file.
        second: PathBuf,
        /// What is wrong between them.
        problem: String,
        /// What to do.
        remedy: &'static str,
    },

    /// A DICOM attribute is missing or has a value that cannot be used.
    #[error("cannot read slice {path}: {attribute} {problem}; {remedy}")]
    Dicom {
        /// The DICOM file.
        path: PathBuf,
        /// The attribute, by keyword, or the part of the file.
        attribute: &'static str,
        /// What is wrong with it.
        problem: String,
        /// What to do.
        remedy: &'static str,
    },

    /// A NIfTI file is damaged or of a kind that is not read.
    #[error("cannot read volume {path}: {field} {problem}; {remedy}")]
    Nifti {
        /// The NIfTI file.
        path: PathBuf,
        /// The header field, or the part of the file.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
        /// What to do.
        remedy: &'static str,
    },

    /// A decoder or another part of a loader thread panicked.
    #[error(
        "loading sample {index} failed inside a decoder; the rank's log has the details: take the study out"
    )]
    LoaderPanic {
        /// The sample's number in the data set.
        index: usize,
    },

    /// The loader had no more samples where the trainer wanted one.
    #[error("the loader ended before the epoch did; launch again with --resume auto")]
    LoaderEnded,

    /// A segmentation has another number of voxels than the study that it belongs to.
    #[error(
        "segmentation {path} has {found:?} voxels where its study has {expected:?} (slices, rows, columns); \
         it was made for another series: remove it or export it again"
    )]
    SegmentationShape {
        /// The segmentation.
        path: PathBuf,
        /// Its shape, in the study's axes.
        found: [usize; 3],
        /// The study's shape.
        expected: [usize; 3],
    },

    /// A segmentation lies elsewhere in space than the study that it belongs to.
    #[error(
        "segmentation {path} does not lie on its study's grid: {problem}; \
         it was made for another series: remove it or resample it to the slices"
    )]
    SegmentationGrid {
        /// The segmentation.
        path: PathBuf,
        /// How the two grids differ.
        problem: String,
    },

    /// Data handed to a writer does not have the shape that its geometry says.
    #[error("cannot write {path}: {found} voxels were given where the geometry has {expected}")]
    VoxelCount {
        /// The file to be written.
        path: PathBuf,
        /// Voxels given.
        found: usize,
        /// Voxels by the geometry.
        expected: usize,
    },

    /// A crop reaches outside the image, or its result has no room.
    #[error(
        "cannot crop {crop:?} out of an image of {rows} rows and {cols} columns; cut the box to the image first"
    )]
    CropOutside {
        /// The box, in pixels.
        crop: PixelBox,
        /// Rows of the image.
        rows: usize,
        /// Columns of the image.
        cols: usize,
    },

    /// Threads to render on could not be started.
    #[error(
        "cannot start {threads} threads to render slices: {source}; raise the limit of processes (ulimit -u) or give the \
         rank fewer threads"
    )]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// The reason.
        source: rayon::ThreadPoolBuildError,
    },

    /// Slices to render are not of the shape that the room for the result has.
    #[error(
        "cannot render {samples} samples of {bytes} bytes as slices of {side} x {side} into {room} values: each sample \
         needs the same whole number of slices, and each byte one value"
    )]
    RenderShape {
        /// How many samples.
        samples: usize,
        /// Bytes of the first.
        bytes: usize,
        /// The side of a slice.
        side: usize,
        /// Values that the result has room for.
        room: usize,
    },

    /// A table lacks a column.
    #[error(
        "table {path} has no column {column}; its header is \"{header}\": add the column or name the right file"
    )]
    TableColumn {
        /// The CSV file.
        path: PathBuf,
        /// The missing column.
        column: String,
        /// The columns that are there.
        header: String,
    },

    /// A cell of a table cannot be used.
    #[error(
        "table {path}, line {line}, column {column}: {found:?} is not {expected}; correct the line"
    )]
    TableValue {
        /// The CSV file.
        path: PathBuf,
        /// The line, from 1, the header included.
        line: u64,
        /// The column's name.
        column: String,
        /// The beginning of what was found.
        found: String,
        /// What would have been right.
        expected: &'static str,
    },

    /// Two rows of a table say something of the same thing.
    #[error(
        "table {path}, line {line}: {key} was already on line {first_line}; delete one of the two"
    )]
    TableDuplicate {
        /// The CSV file.
        path: PathBuf,
        /// The second line.
        line: u64,
        /// The first line.
        first_line: u64,
        /// What both name.
        key: String,
    },

    /// A table is not CSV: a row with too few or too many fields, or text that is not UTF-8.
    #[error(
        "table {path} is not well-formed CSV: {problem}; write it again with one field for each column"
    )]
    TableSyntax {
        /// The CSV file.
        path: PathBuf,
        /// What the parser met, with its line.
        problem: String,
    },

    /// The studies cannot be shared out over folds as asked.
    #[error("cannot make folds: {problem}; {remedy}")]
    Folds {
        /// What is wrong.
        problem: String,
        /// What to do.
        remedy: &'static str,
    },

    /// Something crosses the folds.
    #[error("{}", crate::leakage::in_words(.0))]
    Leaks(Vec<crate::leakage::Leak>),

    /// A folder cannot be used as a cache.
    #[error("cannot use {path} as a cache: {problem}; {remedy}")]
    Cache {
        /// The folder.
        path: PathBuf,
        /// What is in the way.
        problem: String,
        /// What to do.
        remedy: &'static str,
    },

    /// Pixels of a stack were asked for with a buffer of another size.
    #[error(
        "{slices} slices of {side} x {side} pixels do not fit a buffer of {found} bytes; give one of just that size"
    )]
    StackBuffer {
        /// Slices asked for.
        slices: usize,
        /// Side of a slice, pixels.
        side: usize,
        /// Bytes of the buffer.
        found: usize,
    },

    /// An option of the phantom generator is out of range.
    #[error("cannot make a phantom data set with {option} = {found}: expected {expected}")]
    PhantomOption {
        /// The option's name.
        option: &'static str,
        /// Its value.
        found: String,
        /// The range that it may have.
        expected: &'static str,
    },

    /// A folder is not free for the phantom data set that was asked for.
    #[error("cannot make a phantom data set in {path}: {problem}; {remedy}")]
    PhantomFolder {
        /// The folder.
        path: PathBuf,
        /// What is in the way.
        problem: String,
        /// What to do.
        remedy: &'static str,
    },
}

/// The result of everything in this crate.
pub type Result<T> = std::result::Result<T, DataError>;

impl DataError {
    /// For `map_err`: an I/O error while doing `action` to `path`.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

/// The first characters of an unusable value: enough to recognise it, too little to spill a file into a log.
pub(crate) fn excerpt(value: &str) -> String {
    const SHOWN: usize = 64;
    match value.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &value[..end]),
        None => value.to_owned(),
    }
}
