//! The best evaluation of a training so far: its checkpoint is kept.

use std::collections::BTreeMap;

use recipe::{KeepBest, Mode};
use serde::{Deserialize, Serialize};

use crate::{Result, TrainError};

/// As trainer.json has it, so that a job that goes on compares with the same value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Best {
    /// What it is best in: a recipe that asks for something else begins anew.
    #[serde(flatten)]
    pub by: KeepBest,
    /// Updates done when it was evaluated.
    pub step: u64,
    pub value: f64,
}

impl Best {
    /// The evaluation after `step` updates, if it is better than `best`; of equal ones the first counts. A value that is
    /// not finite is never the best.
    ///
    /// # Errors
    /// The evaluation has no such metric.
    pub fn of(
        by: &KeepBest,
        best: Option<&Best>,
        step: u64,
        metrics: &BTreeMap<String, f64>,
    ) -> Result<Option<Best>> {
        let Some(&value) = metrics.get(&by.metric) else {
            return Err(TrainError::UnknownMetric {
                metric: by.metric.clone(),
                known: metrics.keys().cloned().collect::<Vec<_>>().join(", "),
            });
        };
        let beaten = match best.filter(|best| best.by == *by) {
            None => true,
            Some(best) => match by.mode {
                Mode::Min => value < best.value,
                Mode::Max => value > best.value,
            },
        };
        let by = by.clone();
        Ok((value.is_finite() && beaten).then_some(Best { by, step, value }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(mode: Mode) -> KeepBest {
        let metric = "loss".to_owned();
        KeepBest { metric, mode }
    }

    /// The step of the best after evaluations with these values at steps 1, 2, ...
    fn best_of(mode: Mode, values: &[f64]) -> Option<u64> {
        let mut best = None;
        for (step, &value) in (1..).zip(values) {
            let metrics = BTreeMap::from([("loss".to_owned(), value)]);
            let better = Best::of(&by(mode), best.as_ref(), step, &metrics).unwrap();
            best = better.or(best);
        }
        best.map(|best| best.step)
    }

    #[test]
    fn the_first_of_the_best_counts() {
        let values = [0.5, f64::NAN, 0.25, 0.75, 0.25, 0.75, f64::INFINITY];
        assert_eq!(best_of(Mode::Min, &values), Some(3));
        assert_eq!(best_of(Mode::Max, &values), Some(4));
        assert_eq!(best_of(Mode::Max, &[f64::NAN]), None);
    }

    #[test]
    fn the_best_in_something_else_is_no_measure() {
        let metrics = BTreeMap::from([("loss".to_owned(), 0.5)]);
        let lowest = Best::of(&by(Mode::Min), None, 1, &metrics).unwrap();
        let highest = Best::of(&by(Mode::Max), lowest.as_ref(), 2, &metrics).unwrap();
        assert_eq!(highest.unwrap().step, 2);
    }

    #[test]
    fn an_unknown_metric_is_answered_with_the_known_ones() {
        let metrics = BTreeMap::from([("auc".to_owned(), 0.5), ("score".to_owned(), 0.5)]);
        let error = Best::of(&by(Mode::Min), None, 1, &metrics).unwrap_err();
        assert_eq!(error.class(), event::FailureClass::Setup);
        let text = error.to_string();
        assert!(
            text.contains("`loss`") && text.contains("auc, score"),
            "{text}"
        );
    }

    #[test]
    fn it_survives_json_to_the_bit() {
        let value = 0.1 + 0.2;
        let by = by(Mode::Max);
        let best = Best { by, step: 7, value };
        let json = serde_json::to_value(&best).unwrap();
        assert_eq!(json["metric"], "loss");
        assert_eq!(serde_json::from_value::<Best>(json).unwrap(), best);
    }
}
