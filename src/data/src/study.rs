//! The name of a CT study, checked so that it may become part of a path.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{DataError, excerpt};

/// The name of a study: a DICOM StudyInstanceUID, or the name that a NIfTI data set gives it (`s0011`, `sub-verse004`).
///
/// Holding one is proof of the form: letters, digits, dots, underscores and hyphens, beginning with a letter or a digit,
/// no two dots in a row and none at the end, at most 64 characters. So joining it to a folder can neither leave the
/// folder nor name a hidden file. Leading zeros in a UID, which the standard forbids but archives contain, are let
/// through.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StudyUid(String);

impl StudyUid {
    /// Checks `value`, which may carry DICOM's padding (a trailing NUL or spaces).
    ///
    /// # Errors
    /// [`DataError::InvalidStudyUid`] when it is not of the form above.
    pub fn new(value: &str) -> Result<Self, DataError> {
        let value = value.trim_end_matches(['\0', ' ']);
        let in_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let well_formed = value.len() <= 64
            && value.starts_with(|first: char| first.is_ascii_alphanumeric())
            && value.bytes().all(in_name)
            && value.split('.').all(|part| !part.is_empty());
        if well_formed {
            Ok(Self(value.to_owned()))
        } else {
            Err(DataError::InvalidStudyUid {
                value: excerpt(value),
            })
        }
    }

    /// Checks a StudyInstanceUID out of a DICOM file: digits and dots only (DICOM PS3.5, section 9.1).
    ///
    /// # Errors
    /// [`DataError::InvalidStudyUid`].
    pub fn from_dicom(value: &str) -> Result<Self, DataError> {
        let study = Self::new(value)?;
        match study.is_numeric() {
            true => Ok(study),
            false => Err(DataError::InvalidStudyUid {
                value: excerpt(value),
            }),
        }
    }

    /// Whether this can only be meant as a DICOM UID: numbers joined by dots, two at least.
    pub fn is_dicom(&self) -> bool {
        self.is_numeric() && self.0.contains('.')
    }

    fn is_numeric(&self) -> bool {
        self.0.bytes().all(|b| b.is_ascii_digit() || b == b'.')
    }

    /// The identifier as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StudyUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for StudyUid {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for StudyUid {
    type Err = DataError;

    fn from_str(value: &str) -> Result<Self, DataError> {
        Self::new(value)
    }
}

impl TryFrom<String> for StudyUid {
    type Error = DataError;

    fn try_from(value: String) -> Result<Self, DataError> {
        Self::new(&value)
    }
}

impl From<StudyUid> for String {
    fn from(study: StudyUid) -> Self {
        study.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_the_archives_hold() {
        for text in [
            "1.2.826.0.1.3680043.20574",
            "2.25.0123",
            "1.2.3\0",
            "1.2.3 ",
        ] {
            assert!(StudyUid::new(text).is_ok(), "{text:?}");
        }
        assert_eq!(StudyUid::new("1.2.3\0").unwrap().as_str(), "1.2.3");
    }

    #[test]
    fn names_of_nifti_data_sets_are_accepted_but_are_no_dicom_uids() {
        for text in ["s0011", "sub-verse004", "sub-gl003_dir-ax", "A.b_c-9", "17"] {
            assert!(!StudyUid::new(text).unwrap().is_dicom(), "{text:?}");
        }
        assert!(StudyUid::new("1.2.826").unwrap().is_dicom());
        assert!(StudyUid::from_dicom("1.2.3 ").is_ok() && StudyUid::from_dicom("17").is_ok());
        assert!(StudyUid::from_dicom("s0011").is_err());
    }

    #[test]
    fn refuses_what_could_leave_a_folder_or_hide_in_it() {
        let long = "1".repeat(65);
        for text in [
            "", ".", "..", "../1.2", "1..2", ".1", "1.", "1/2", "1.2\\3", "-1", "_a", "a b",
            "1.2\n", "१.२", "é", "a:b", &long,
        ] {
            assert!(StudyUid::new(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn travels_through_serde_as_a_checked_string() {
        let study: StudyUid = serde_json::from_str("\"1.2.3\"").unwrap();
        assert_eq!(serde_json::to_string(&study).unwrap(), "\"1.2.3\"");
        assert!(serde_json::from_str::<StudyUid>("\"../etc\"").is_err());
    }
}
