//! What a study's files are, without reading them, and what its labels are: digests that do not change where a data set moves.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::{DataError, Result};
use crate::study::StudyUid;
use crate::tables::StudyLabels;
use crate::volume::{files, study_path};

/// The files of a study's images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFiles {
    /// How many there are.
    pub count: u64,
    /// SHA-256 of their names and sizes, in hexadecimal digits. A change that keeps a file's size does not show.
    pub digest: String,
}

/// Looks at the files of a study; hidden ones are nobody's. A study that is not there, or there twice, has none.
///
/// # Errors
/// [`DataError::Io`].
pub fn image_files(images: &Path, study: &StudyUid) -> Result<ImageFiles> {
    let found = study_path(images, study).and_then(|path| match path.is_dir() {
        true => files(&path),
        false => Ok(vec![path]),
    });
    let found = match found {
        Err(error @ DataError::Io { .. }) => return Err(error),
        found => found.unwrap_or_default(),
    };
    let mut hasher = Sha256::new();
    let mut count = 0;
    for path in &found {
        let name = path.file_name().unwrap_or_default().as_bytes();
        if name.starts_with(b".") {
            continue;
        }
        let size = fs::metadata(path)
            .map_err(DataError::io("read", path))?
            .len();
        hasher.update((name.len() as u64).to_le_bytes());
        hasher.update(name);
        hasher.update(size.to_le_bytes());
        count += 1;
    }
    let digest = hex(&hasher.finalize());
    Ok(ImageFiles { count, digest })
}

/// SHA-256, in hexadecimal digits, of which study has which labels, in the order of `rows`. Whose studies they are is not in it.
pub fn labels_digest<'a>(rows: impl IntoIterator<Item = &'a StudyLabels>) -> String {
    digest_of(rows.into_iter().map(|row| (&row.study, row.all())))
}

/// SHA-256, in hexadecimal digits, of studies with something of each.
pub fn digest_of<'a, T: AsRef<[u8]>>(studies: impl Iterator<Item = (&'a StudyUid, T)>) -> String {
    let mut hasher = Sha256::new();
    for (study, what) in studies {
        for part in [study.as_str().as_bytes(), what.as_ref()] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
    }
    hex(&hasher.finalize())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moved_study_is_the_same_and_one_with_another_slice_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let study = StudyUid::new("1.2.3").unwrap();
        let fill = |place: &str, slices: &[(&str, usize)]| {
            let images = folder.path().join(place);
            fs::create_dir_all(images.join("1.2.3")).unwrap();
            for (name, size) in slices {
                fs::write(images.join("1.2.3").join(name), vec![0; *size]).unwrap();
            }
            image_files(&images, &study).unwrap()
        };
        let here = fill("here", &[("2.dcm", 7), ("10.dcm", 8)]);
        assert_eq!(here.count, 2);
        assert_eq!(
            fill("there", &[("10.dcm", 8), ("2.dcm", 7), (".DS_Store", 3)]),
            here
        );
        for other in [
            &[("2.dcm", 7), ("10.dcm", 9)][..],
            &[("2.dcm", 7), ("11.dcm", 8)],
            &[("2.dcm", 7)],
        ] {
            let place = format!("{other:?}").replace('/', "");
            assert_ne!(fill(&place, other).digest, here.digest, "{other:?}");
        }
        let nowhere = image_files(&folder.path().join("nowhere"), &study).unwrap();
        assert_eq!(nowhere.count, 0);
    }

    #[test]
    fn labels_count_and_patients_do_not() {
        let row = |study: &str, c1: u8, patient: Option<&str>| StudyLabels {
            study: StudyUid::new(study).unwrap(),
            patient_overall: c1,
            vertebrae: [c1, 0, 0, 0, 0, 0, 0],
            patient: patient.map(str::to_owned),
        };
        let sound = labels_digest(&[row("1", 0, None), row("12", 1, None)]);
        let named = labels_digest(&[row("1", 0, Some("P")), row("12", 1, Some("Q"))]);
        assert_eq!(named, sound);
        assert_ne!(
            labels_digest(&[row("1", 1, None), row("12", 1, None)]),
            sound
        );
        assert_ne!(
            labels_digest(&[row("1", 0, None), row("13", 1, None)]),
            sound
        );
        assert_ne!(labels_digest(&[row("1", 0, None)]), sound);
    }
}
