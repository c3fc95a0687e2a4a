//! How a global batch is spread over ranks and time.

use recipe::{Elastic, Gpus};

use crate::{JobKind, Plan, Training};

/// batch = micro_batch x ranks x accumulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// Samples a rank takes through the model at once.
    pub micro_batch: usize,
    /// Micro-batches a rank adds up before an update.
    pub accumulation: usize,
}

/// How many ranks a job takes, and how its batch is spread over them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    pub ranks: usize,
    pub split: Split,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    #[error(
        "a batch of {batch} cannot be spread over {ranks} ranks in micro-batches of {micro_batch}: \
         batch = micro_batch x ranks x accumulation. Take {suggestion}"
    )]
    Uneven {
        batch: u64,
        micro_batch: u64,
        ranks: usize,
        suggestion: String,
    },
    #[error(
        "{ranks} ranks are fewer than the recipe allows (`elastic: {{min: {min}}}`): take more ranks, or a smaller elastic.min"
    )]
    TooFew { ranks: usize, min: u64 },
    #[error(
        "`gpus: {gpus}` is more than the {devices} of this launch (`--gpus`, or `--ranks` with `--device cpu`): take more, or a \
         smaller training.gpus"
    )]
    TooWide { gpus: u64, devices: usize },
    #[error(
        "a batch of {batch} cannot be spread over any number of ranks from {min} to {most} in micro-batches of \
         {micro_batch}: batch = micro_batch x ranks x accumulation. Take a smaller elastic.min, or a batch that one of \
         these numbers divides"
    )]
    NoneDivides {
        batch: u64,
        micro_batch: u64,
        min: u64,
        most: usize,
    },
}

/// Works the accumulation out for so many ranks.
///
/// A micro-batch larger than a rank's share is cut to the share: fewer, not other, samples.
pub fn accumulation(training: &Training, ranks: usize) -> Result<Split, BatchError> {
    accumulation_of(training, ranks, None)
}

/// As [`accumulation`], with another micro-batch than the recipe's: memory was too small for that.
pub fn accumulation_of(
    training: &Training,
    ranks: usize,
    micro_batch: Option<u64>,
) -> Result<Split, BatchError> {
    let micro_batch = micro_batch.unwrap_or(training.micro_batch).max(1);
    let (batch, ranks_wide) = (training.batch, ranks.max(1) as u64);
    let error = |suggestion: String| BatchError::Uneven {
        batch,
        micro_batch,
        ranks,
        suggestion,
    };
    if !batch.is_multiple_of(ranks_wide) {
        return Err(error(format!(
            "a number of ranks that divides {batch}, or a batch that {ranks} divides"
        )));
    }
    let share = batch / ranks_wide;
    let micro_batch = micro_batch.min(share);
    if !share.is_multiple_of(micro_batch) {
        return Err(error(format!("a micro_batch that divides {share}")));
    }
    Ok(Split {
        micro_batch: micro_batch as usize,
        accumulation: (share / micro_batch) as usize,
    })
}

/// The most ranks that a job takes of so many devices ([`widths`]), and its batch on them.
pub fn spread(
    training: &Training,
    devices: usize,
    elastic: Option<Elastic>,
) -> Result<Spread, BatchError> {
    let widest = widths(training, devices, elastic).last().copied();
    let ranks = match (widest, elastic) {
        (Some(ranks), _) => ranks,
        (None, None) => match training.gpus {
            Gpus::Count(gpus) if gpus > devices as u64 => {
                return Err(BatchError::TooWide { gpus, devices });
            }
            Gpus::Count(gpus) => gpus as usize,
            Gpus::All | Gpus::Auto => devices,
        },
        (None, Some(Elastic { min, .. })) if (devices as u64) < min => {
            return Err(BatchError::TooFew {
                ranks: devices,
                min,
            });
        }
        (None, Some(Elastic { min, max })) => {
            return Err(BatchError::NoneDivides {
                batch: training.batch,
                micro_batch: training.micro_batch,
                min,
                most: devices.min(max as usize),
            });
        }
    };
    accumulation(training, ranks).map(|split| Spread { ranks, split })
}

/// Says of each trained stage that takes fewer ranks than there are devices how many it takes, and why.
pub fn elastic_words(plan: &Plan, devices: usize) -> Vec<String> {
    let Some(Elastic { min, max }) = plan.elastic else {
        return Vec::new();
    };
    let mut words = Vec::new();
    for job in &plan.jobs {
        let JobKind::Train {
            stage, training, ..
        } = &job.kind
        else {
            continue;
        };
        match ranks_of(training, devices, plan.elastic) {
            Some(ranks) if ranks < devices => words.push(format!(
                "{} trains on {ranks} of {devices} ranks: the most within `elastic: {{min: {min}, max: {max}}}` over which its \
                 batch of {} can be spread",
                stage.name(),
                training.batch
            )),
            _ => {}
        }
    }
    // Of each fold and seed alike.
    words.dedup();
    words
}

/// The ranks that a job takes of so many devices: all, or where the recipe is elastic the largest number within its bounds
/// over which the batch can be spread. None where there is none.
pub fn ranks_of(training: &Training, devices: usize, elastic: Option<Elastic>) -> Option<usize> {
    let (least, most) = match elastic {
        Some(Elastic { min, max }) => (min as usize, devices.min(max as usize)),
        None => (devices, devices),
    };
    (least.max(1)..=most)
        .rev()
        .find(|ranks| accumulation(training, *ranks).is_ok())
}

/// The numbers of devices that a job can run on where there are so many, ascending; none where it cannot.
pub fn widths(training: &Training, devices: usize, elastic: Option<Elastic>) -> Vec<usize> {
    let fits = |ranks: &usize| accumulation(training, *ranks).is_ok();
    match training.gpus {
        Gpus::Count(count) if count as usize <= devices => {
            Some(count as usize).filter(fits).into_iter().collect()
        }
        Gpus::Auto => {
            let Elastic { min, max } = elastic.unwrap_or(Elastic {
                min: 1,
                max: u64::MAX,
            });
            let most = devices.min(usize::try_from(max).unwrap_or(usize::MAX));
            (min.max(1) as usize..=most).filter(fits).collect()
        }
        // Fewer than it wants, where the recipe says that fewer will do.
        Gpus::Count(_) if elastic.is_none() => Vec::new(),
        Gpus::All | Gpus::Count(_) => ranks_of(training, devices, elastic).into_iter().collect(),
    }
}

/// The largest micro-batch of at most half this size that makes the same batch; none where it would be less than `least`.
pub fn halved(training: &Training, ranks: usize, micro_batch: u64, least: u64) -> Option<Split> {
    (least.max(1)..=micro_batch / 2)
        .rev()
        .find_map(|smaller| accumulation_of(training, ranks, Some(smaller)).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use recipe::{Source, parse};

    fn training(batch: u64, micro_batch: u64) -> Training {
        let text = format!(
            "data: {{root: d}}\nstage2: {{training: {{batch: {batch}, micro_batch: {micro_batch}}}}}"
        );
        let source = Source {
            name: "r".into(),
            text,
        };
        parse(&source, &[]).unwrap().stage2.unwrap().training
    }

    #[test]
    fn the_product_is_the_batch() {
        for (batch, micro, ranks) in [(48, 3, 1), (48, 3, 8), (16, 8, 2), (16, 8, 4)] {
            let split = accumulation(&training(batch, micro), ranks).unwrap();
            assert_eq!(
                split.micro_batch * split.accumulation * ranks,
                batch as usize
            );
        }
    }

    #[test]
    fn half_a_micro_batch_makes_the_same_batch() {
        let training = training(48, 6);
        let mut split = accumulation(&training, 2).unwrap();
        let mut seen = Vec::new();
        while let Some(smaller) = halved(&training, 2, split.micro_batch as u64, 1) {
            split = smaller;
            seen.push((split.micro_batch, split.accumulation));
        }
        assert_eq!(seen, [(3, 8), (1, 24)]);
        assert_eq!(halved(&training, 2, 3, 2), None, "one image is too few");
    }

    #[test]
    fn an_elastic_job_takes_what_its_batch_allows() {
        let training = training(16, 4);
        let elastic = |min, max| Some(Elastic { min, max });
        assert_eq!(ranks_of(&training, 4, None), Some(4));
        assert_eq!(ranks_of(&training, 3, None), None);
        assert_eq!(ranks_of(&training, 3, elastic(1, 8)), Some(2));
        assert_eq!(ranks_of(&training, 8, elastic(1, 4)), Some(4));
        assert_eq!(ranks_of(&training, 3, elastic(3, 8)), None);
    }

    #[test]
    fn gpus_say_on_how_many_devices_a_job_can_run() {
        let of = |gpus| Training {
            gpus,
            ..training(16, 4)
        };
        let elastic = |min, max| Some(Elastic { min, max });
        assert_eq!(widths(&of(Gpus::All), 4, None), [4]);
        assert_eq!(widths(&of(Gpus::All), 3, elastic(1, 8)), [2]);
        assert_eq!(widths(&of(Gpus::Auto), 6, None), [1, 2, 4]);
        assert_eq!(widths(&of(Gpus::Auto), 6, elastic(2, 3)), [2]);
        assert_eq!(widths(&of(Gpus::Count(2)), 4, None), [2]);
        assert!(widths(&of(Gpus::Count(4)), 3, None).is_empty());
        assert_eq!(widths(&of(Gpus::Count(4)), 3, elastic(1, 8)), [2]);
        let too_wide = spread(&of(Gpus::Count(8)), 4, None).unwrap_err();
        assert_eq!(
            too_wide,
            BatchError::TooWide {
                gpus: 8,
                devices: 4
            }
        );
        let uneven = spread(&of(Gpus::Count(3)), 4, None).unwrap_err();
        assert!(matches!(uneven, BatchError::Uneven { ranks: 3, .. }));
        assert_eq!(spread(&of(Gpus::Count(2)), 4, None).unwrap().ranks, 2);
    }

    #[test]
    fn a_batch_is_spread_over_the_ranks_that_a_job_takes() {
        let training = training(16, 4);
        let elastic = |min, max| Some(Elastic { min, max });
        let spread = |devices, elastic| spread(&training, devices, elastic);
        for (devices, elastic, ranks) in [
            (4, None, 4),
            (3, elastic(1, 8), 2),
            (7, elastic(2, 8), 4),
            (8, elastic(1, 3), 2),
        ] {
            let found = spread(devices, elastic).unwrap();
            assert_eq!(found.ranks, ranks, "{devices} devices");
            assert_eq!(
                found.split.micro_batch * ranks * found.split.accumulation,
                16
            );
        }
        let why = |devices, elastic| spread(devices, elastic).unwrap_err().to_string();
        assert!(why(3, None).contains("over 3 ranks in micro-batches of 4"));
        assert!(why(2, elastic(3, 8)).contains("2 ranks are fewer than"));
        let none = why(3, elastic(3, 8));
        assert!(none.contains("any number of ranks from 3 to 3"), "{none}");
    }

    #[test]
    fn what_does_not_divide_is_refused_with_a_way_out() {
        let error = accumulation(&training(48, 3), 5).unwrap_err().to_string();
        assert!(error.contains("48") && error.contains("5 ranks"), "{error}");
        assert!(accumulation(&training(48, 6), 4).is_ok());
        assert!(
            accumulation(&training(40, 8), 4).is_err(),
            "10 is no multiple of 8"
        );
    }
}
