//! What the folder of a study holds: slices, NIfTI volumes, and files that are neither.
//!
//! Hospital folders hold files of any name, and beside the slices there may be a DICOMDIR, dose reports, screenshots and
//! what file managers leave behind.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::finding::name;
use crate::dicom::{self, SliceHeader};
use crate::error::{DataError, Result};

/// The files of a folder; those of subfolders are not looked at.
#[derive(Debug, Default)]
pub(super) struct Folder {
    /// Slices, by the names of their files (numbers by their value), frames in the order of their file.
    pub(super) slices: Vec<FoundSlice>,
    /// NIfTI volumes, by name.
    pub(super) niftis: Vec<PathBuf>,
    /// Files that are no slices, by name.
    pub(super) passed_over: Vec<PathBuf>,
}

/// A slice, and where it was found.
#[derive(Debug, Clone)]
pub(super) struct FoundSlice {
    pub(super) file: Arc<Path>,
    pub(super) header: SliceHeader,
}

/// Reads the headers of all slices in `dir`.
///
/// A file of another name than `*.dcm` that is not DICOM is passed over, and so is a DICOM file that by its SOP class holds
/// something else than slices. Any other file that cannot be read as a slice is an error: a series with a damaged slice is
/// not to become one with a hole.
pub(super) fn read_folder(dir: &Path) -> Result<Folder> {
    let mut found = Folder::default();
    for path in files(dir)? {
        let name = name(&path);
        if name.starts_with('.') {
            found.passed_over.push(path);
            continue;
        }
        if is_nifti_name(&name) {
            found.niftis.push(path);
            continue;
        }
        match dicom::read_headers(&path) {
            Ok(headers) => {
                let file: Arc<Path> = path.into();
                found
                    .slices
                    .extend(headers.into_iter().map(|header| FoundSlice {
                        file: Arc::clone(&file),
                        header,
                    }));
            }
            Err(error @ DataError::Io { .. }) => return Err(error),
            Err(error) => match contents(&path)? {
                Contents::NotDicom if !has_ending(&name, ".dcm") => found.passed_over.push(path),
                Contents::NoSlice => found.passed_over.push(path),
                _ => return Err(error),
            },
        }
    }
    Ok(found)
}

/// The `<n>` of a file `<n>.dcm`, written as the number is.
pub(super) fn slice_number(path: &Path) -> Option<u32> {
    let name = path.file_name()?.to_str()?;
    let stem = name.strip_suffix(".dcm")?;
    stem.parse().ok().filter(|n: &u32| n.to_string() == stem)
}

pub(super) fn is_nifti_name(name: &str) -> bool {
    has_ending(name, ".nii") || has_ending(name, ".nii.gz")
}

fn has_ending(name: &str, ending: &str) -> bool {
    let start = name.len().checked_sub(ending.len());
    start
        .and_then(|start| name.get(start..))
        .is_some_and(|end| end.eq_ignore_ascii_case(ending))
}

/// The files of `dir`, also behind links; numbered slices first and by number, so that of two equal ones the first stays.
pub(crate) fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => DataError::StudyMissing {
            path: dir.to_path_buf(),
        },
        _ => DataError::io("list", dir)(source),
    })?;
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(DataError::io("list", dir))?;
        let (kind, path) = (entry.file_type(), entry.path());
        let kind = kind.map_err(DataError::io("read", &path))?;
        let is_file = match kind.is_symlink() {
            true => fs::metadata(&path)
                .map_err(DataError::io("read", &path))?
                .is_file(),
            false => kind.is_file(),
        };
        if is_file {
            files.push((slice_number(&path).unwrap_or(u32::MAX), path));
        }
    }
    files.sort();
    Ok(files.into_iter().map(|(_, path)| path).collect())
}

/// What a file is that cannot be read as slices.
enum Contents {
    NotDicom,
    /// DICOM of a class that holds no slices.
    NoSlice,
    /// DICOM of any other kind.
    Image,
}

/// Storage classes that hold no CT slices, or what their UIDs begin with (DICOM PS3.6, table A-1).
const NO_SLICES: [&[u8]; 6] = [
    b"1.2.840.10008.1.3.10",         // media storage directory: DICOMDIR
    b"1.2.840.10008.5.1.4.1.1.7",    // secondary capture: screenshots
    b"1.2.840.10008.5.1.4.1.1.11.",  // presentation states
    b"1.2.840.10008.5.1.4.1.1.88.",  // structured reports, dose reports, key object selections
    b"1.2.840.10008.5.1.4.1.1.104.", // encapsulated documents
    b"1.2.840.10008.5.1.4.1.1.481.", // radiotherapy structure sets, plans, doses
];

/// Looks at the file-meta group (DICOM PS3.10, section 7.1), which is explicit VR little endian.
fn contents(path: &Path) -> Result<Contents> {
    const SOP_CLASS: &[u8] = &[0x02, 0x00, 0x02, 0x00, b'U', b'I'];
    let mut beginning = Vec::new();
    File::open(path)
        .and_then(|file| file.take(4096).read_to_end(&mut beginning))
        .map_err(DataError::io("read", path))?;
    let meta = match (beginning.get(128..132), beginning.as_slice()) {
        (Some(b"DICM"), _) => &beginning[132..],
        (_, [0x02, 0x00, _, 0x00, b'U' | b'O', b'L' | b'B' | b'I', ..]) => &beginning[..],
        _ => return Ok(Contents::NotDicom),
    };
    // The class stands in the first hundred bytes.
    let class = meta
        .windows(SOP_CLASS.len())
        .position(|window| window == SOP_CLASS)
        .and_then(|at| meta.get(at + SOP_CLASS.len() + 2..));
    let no_slice = class.is_some_and(|class| NO_SLICES.iter().any(|uid| class.starts_with(uid)));
    Ok(match no_slice {
        true => Contents::NoSlice,
        false => Contents::Image,
    })
}
