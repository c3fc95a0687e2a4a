//! The samples that a rank works on, as an event names them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Some of the samples by name, and how many there are in all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Samples {
    /// As the ledger names them: the StudyInstanceUID, and the place in its stack where a sample is less than a study.
    pub ids: Vec<String>,
    pub count: usize,
}

impl Samples {
    /// How many are named: enough to look at, few enough for every heartbeat.
    pub const NAMED: usize = 8;

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// What a sentence about a failure goes on with; empty where no sample is known.
    pub fn clause(&self) -> String {
        match self.is_empty() {
            true => String::new(),
            false => format!("; samples in work: {self}"),
        }
    }
}

impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.ids.join(", "))?;
        match self.count.saturating_sub(self.ids.len()) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_named_and_the_rest_is_counted() {
        let mut samples = Samples {
            ids: vec!["1.2.3/41".into(), "1.2.4/7".into()],
            count: 2,
        };
        assert_eq!(samples.clause(), "; samples in work: 1.2.3/41, 1.2.4/7");
        samples.count = 12;
        assert_eq!(samples.to_string(), "1.2.3/41, 1.2.4/7 and 10 more");
        assert_eq!(Samples::default().clause(), "");
    }
}
