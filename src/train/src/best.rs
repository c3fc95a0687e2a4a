//! The best evaluation of a training so far: its checkpoint is kept.

use std::collections::BTreeMap;

use recipe::Mode;
use serde::{Deserialize, Serialize};

use crate::{Result, TrainError};

/// As trainer.json has it, so that a job that goes on compares with the same value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Best {
    /// What it is best in: a recipe that asks for something else begins anew.
    pub metric: String,
    pub mode: Mode,
    /// Updates done when it was evaluated.
    pub step: u64,
    pub value: f64,
}

impl Best {
    /// The evaluation after `step` updates, if it is better than `best` in the first of the metrics `by` that it has; of
    /// equal ones the first counts. A value that is not finite is never the best. A model that holds nothing out has empty
    /// evaluations, and none of them is.
    ///
    /// # Errors
    /// The evaluation has metrics, and not these.
    pub fn of(
        by: &BTreeMap<String, Mode>,
        best: Option<&Best>,
        step: u64,
        metrics: &BTreeMap<String, f64>,
    ) -> Result<Option<Best>> {
        if metrics.is_empty() {
            return Ok(None);
        }
        let chosen = by
            .iter()
            .find_map(|(metric, mode)| Some((metric, *mode, *metrics.get(metric)?)));
        let Some((metric, mode, value)) = chosen else {
            let list = |names: Vec<&String>| {
                let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
                names.join(", ")
            };
            return Err(TrainError::UnknownMetric {
                asked: list(by.keys().collect()),
                known: list(metrics.keys().collect()),
            });
        };
        let comparable = best.filter(|best| (&best.metric, best.mode) == (metric, mode));
        let beaten = match comparable {
            None => true,
            Some(best) => match mode {
                Mode::Min => value < best.value,
                Mode::Max => value > best.value,
            },
        };
        Ok((value.is_finite() && beaten).then(|| Best {
            metric: metric.clone(),
            mode,
            step,
            value,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(mode: Mode) -> BTreeMap<String, Mode> {
        BTreeMap::from([("loss".to_owned(), mode), ("other".to_owned(), mode)])
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
            text.contains("loss, other") && text.contains("auc, score"),
            "{text}"
        );
    }

    #[test]
    fn it_survives_json_to_the_bit() {
        let best = Best {
            metric: "loss".into(),
            mode: Mode::Max,
            step: 7,
            value: 0.1 + 0.2,
        };
        let json = serde_json::to_value(&best).unwrap();
        assert_eq!(json["metric"], "loss");
        assert_eq!(serde_json::from_value::<Best>(json).unwrap(), best);
    }
}
