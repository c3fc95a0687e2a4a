//! The identifier of a CT study, checked so that it may become part of a path.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{DataError, excerpt};

/// A StudyInstanceUID: numbers separated by single dots, at most 64 characters (DICOM PS3.5, section 9.1).
///
/// Holding one is proof of that form, so joining it to a folder can neither leave the folder nor name a hidden file.
/// Leading zeros, which the standard forbids but archives contain, are let through.
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
        let well_formed = value.len() <= 64
            && value
                .split('.')
                .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
        if well_formed {
            Ok(Self(value.to_owned()))
        } else {
            Err(DataError::InvalidStudyUid {
                value: excerpt(value),
            })
        }
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
    fn refuses_what_could_leave_a_folder_or_is_no_uid() {
        let long = "1".repeat(65);
        for text in [
            "", ".", "..", "../1.2", "1..2", ".1", "1.", "1/2", "1.2\\3", "1.2a", "1.2\n", "१.२",
            &long,
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
