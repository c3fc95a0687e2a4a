//! The global order of samples: a function of seed and epoch, and of nothing else.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// A permutation of `0..samples` for this epoch.
pub fn epoch_order(seed: u64, epoch: u64, samples: usize) -> Vec<usize> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(epoch);
    let mut order: Vec<usize> = (0..samples).collect();
    order.shuffle(&mut rng);
    order
}

/// Updates of an epoch: a last batch that is not full is dropped. The next epoch's order is another, so no sample is
/// left out for good.
pub fn updates_per_epoch(samples: usize, batch: usize) -> usize {
    samples / batch.max(1)
}

/// This rank's stride of one update's batch.
pub fn rank_share(
    order: &[usize],
    update: usize,
    batch: usize,
    rank: usize,
    world_size: usize,
) -> Vec<usize> {
    order
        .iter()
        .skip(update * batch)
        .take(batch)
        .skip(rank)
        .step_by(world_size.max(1))
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_world_size_sees_the_same_batches() {
        let order = epoch_order(5, 2, 50);
        for update in 0..updates_per_epoch(50, 12) {
            let mut whole = rank_share(&order, update, 12, 0, 1);
            whole.sort_unstable();
            for world_size in [2, 3, 4] {
                let mut shared: Vec<usize> = (0..world_size)
                    .flat_map(|r| rank_share(&order, update, 12, r, world_size))
                    .collect();
                shared.sort_unstable();
                assert_eq!(shared, whole);
            }
        }
    }

    #[test]
    fn epochs_and_seeds_differ_and_repeat() {
        assert_eq!(epoch_order(1, 0, 30), epoch_order(1, 0, 30));
        assert_ne!(epoch_order(1, 0, 30), epoch_order(1, 1, 30));
        assert_ne!(epoch_order(1, 0, 30), epoch_order(2, 0, 30));
        let mut sorted = epoch_order(1, 7, 30);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..30).collect::<Vec<_>>());
    }
}
