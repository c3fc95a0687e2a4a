//! How a global batch is spread over ranks and time.

use crate::Training;

/// batch = micro_batch x ranks x accumulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// Samples a rank takes through the model at once.
    pub micro_batch: usize,
    /// Micro-batches a rank adds up before an update.
    pub accumulation: usize,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a batch of {batch} cannot be spread over {ranks} ranks in micro-batches of {micro_batch}: \
     batch = micro_batch x ranks x accumulation. Take {suggestion}"
)]
pub struct BatchError {
    batch: u64,
    micro_batch: u64,
    ranks: usize,
    suggestion: String,
}

/// Works the accumulation out for so many ranks.
///
/// A micro-batch larger than a rank's share is cut to the share: fewer, not other, samples.
pub fn accumulation(training: &Training, ranks: usize) -> Result<Split, BatchError> {
    let (batch, ranks_wide) = (training.batch, ranks.max(1) as u64);
    let error = |suggestion: String| BatchError {
        batch,
        micro_batch: training.micro_batch,
        ranks,
        suggestion,
    };
    if !batch.is_multiple_of(ranks_wide) {
        return Err(error(format!(
            "a number of ranks that divides {batch}, or a batch that {ranks} divides"
        )));
    }
    let share = batch / ranks_wide;
    let micro_batch = training.micro_batch.min(share);
    if !share.is_multiple_of(micro_batch) {
        return Err(error(format!("a micro_batch that divides {share}")));
    }
    Ok(Split {
        micro_batch: micro_batch as usize,
        accumulation: (share / micro_batch) as usize,
    })
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
