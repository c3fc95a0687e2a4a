//! Where studies stand in a data set.

use std::fs;
use std::path::{Path, PathBuf};

use super::finding::name;
use super::folder::is_nifti_name;
use crate::data_set::VOLUME_ENDINGS;
use crate::error::{DataError, Result};
use crate::study::StudyUid;

/// Where a study is below `images`: the folder `<study>`, or the file `<study>.nii` or `<study>.nii.gz`.
///
/// # Errors
/// [`DataError::StudyMissing`] where there is none of them, [`DataError::Study`] where there are several.
pub fn study_path(images: &Path, study: &StudyUid) -> Result<PathBuf> {
    let folder = images.join(study.as_str());
    let files = ["nii", "nii.gz"].map(|end| images.join(format!("{study}.{end}")));
    let mut there: Vec<PathBuf> = files.into_iter().filter(|path| path.is_file()).collect();
    if folder.is_dir() {
        there.insert(0, folder.clone());
    }
    match there.as_slice() {
        [] => Err(DataError::StudyMissing { path: folder }),
        [one] => Ok(one.clone()),
        [first, second, ..] => Err(DataError::Study {
            path: first.clone(),
            problem: format!("is there a second time, as {}", second.display()),
            remedy: "keep one of the two",
        }),
    }
}

/// The studies below `images` that [`find_study`](super::find_study) would look at, by name: folders and NIfTI files that are named as studies
/// are. Nothing is opened.
///
/// # Errors
/// [`DataError::Io`].
pub fn studies_below(images: &Path) -> Result<Vec<StudyUid>> {
    let named = named_below(images)?;
    let mut studies: Vec<StudyUid> = named
        .into_iter()
        .filter_map(|(_, study)| study.ok())
        .collect();
    studies.sort();
    studies.dedup();
    Ok(studies)
}

/// Folders and NIfTI files below `images` by name, and the study that each names, or why it can name none.
///
/// # Errors
/// [`DataError::Io`].
pub fn named_below(images: &Path) -> Result<Vec<(String, Result<StudyUid>)>> {
    let mut named = Vec::new();
    for entry in fs::read_dir(images).map_err(DataError::io("list", images))? {
        let path = entry.map_err(DataError::io("list", images))?.path();
        let name = name(&path);
        let stem = match path.is_dir() {
            true => Some(name.as_str()),
            false => VOLUME_ENDINGS
                .iter()
                .find_map(|ending| name.strip_suffix(ending)),
        };
        named.extend(stem.map(|stem| (stem.to_owned(), named_by(stem))));
    }
    named.sort_by(|(a, _), (b, _)| a.cmp(b));
    named.dedup_by(|(a, _), (b, _)| a == b);
    Ok(named)
}

/// The study of this very name: padding that DICOM would drop would make it another folder's.
fn named_by(name: &str) -> Result<StudyUid> {
    let study = StudyUid::new(name)?;
    match study.as_str() == name {
        true => Ok(study),
        false => Err(DataError::InvalidStudyUid {
            value: name.to_owned(),
        }),
    }
}

/// The name of a NIfTI file without its ending.
pub(super) fn nifti_stem(name: &str) -> Option<&str> {
    if !is_nifti_name(name) {
        return None;
    }
    let ending = if name.ends_with(['z', 'Z']) { 7 } else { 4 };
    name.get(..name.len() - ending)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_padded_name_is_not_taken_for_the_study_beside_it() {
        let images = tempfile::tempdir().unwrap();
        for name in ["abc", "abc ", "some body"] {
            fs::create_dir(images.path().join(name)).unwrap();
        }
        fs::write(images.path().join("volume.nii.gz"), "").unwrap();
        fs::write(images.path().join("notes.txt"), "").unwrap();
        let named = named_below(images.path()).unwrap();
        let named: Vec<_> = named
            .iter()
            .map(|(name, study)| (name.as_str(), study.is_ok()))
            .collect();
        let expected = [
            ("abc", true),
            ("abc ", false),
            ("some body", false),
            ("volume", true),
        ];
        assert_eq!(named, expected);
        let studies = studies_below(images.path()).unwrap();
        let studies: Vec<&str> = studies.iter().map(StudyUid::as_str).collect();
        assert_eq!(studies, ["abc", "volume"]);
    }
}
