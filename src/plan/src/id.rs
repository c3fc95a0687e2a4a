//! Names of jobs: they become folders, so they are made of safe characters only.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

/// `labels`, `stage2-resnest50d-fold0-seed1`: lower-case letters, digits, `-`, `_` and `.`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct JobId(String);

impl JobId {
    /// None where the text could not be a folder's name.
    pub fn new(text: &str) -> Option<Self> {
        let safe = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
        let good = !text.is_empty() && !text.starts_with('.') && text.chars().all(safe);
        good.then(|| JobId(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl<'de> Deserialize<'de> for JobId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        JobId::new(&text)
            .ok_or_else(|| serde::de::Error::custom(format!("`{text}` is not a job's name")))
    }
}
