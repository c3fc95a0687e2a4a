//! Who writes which tensors of a checkpoint that several write together.

use std::cmp::Reverse;

/// For tensors of so many bytes each: the part that each belongs to, of `parts` (of one, where it is 0). It follows from the
/// arguments alone, so that all who divide the same state agree without a word.
///
/// Tensors stay whole: each is written, hashed and read in one go. The largest come first, each to the part with the fewest bytes
/// by then: no part has more than 4/3 of what the best division would give it. Ranges in order would leave up to a whole
/// tensor between two parts, and a model's largest tensors stand side by side.
pub fn divide(bytes: &[usize], parts: usize) -> Vec<usize> {
    let mut largest_first: Vec<usize> = (0..bytes.len()).collect();
    largest_first.sort_by_key(|&tensor| Reverse(bytes.get(tensor)));
    let mut loads = vec![0u64; parts.max(1)];
    let mut of = vec![0; bytes.len()];
    for tensor in largest_first {
        let lightest = (0..).zip(&mut loads).min_by_key(|(_, load)| **load);
        if let (Some((part, load)), Some(&bytes), Some(of)) =
            (lightest, bytes.get(tensor), of.get_mut(tensor))
        {
            *load += bytes as u64;
            *of = part;
        }
    }
    of
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn loads(bytes: &[usize], parts: usize) -> Vec<usize> {
        let mut loads = vec![0; parts];
        let of = divide(bytes, parts);
        assert_eq!(of.len(), bytes.len(), "each tensor has one part");
        for (part, bytes) in of.into_iter().zip(bytes) {
            // Out of range, it panics.
            loads[part] += bytes;
        }
        loads
    }

    #[test]
    fn parts_are_as_even_as_whole_tensors_allow() {
        for seed in 0..500 {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let parts = random.random_range(1..=9);
            // As models have them: a few large tensors, and many of a few bytes.
            let bytes: Vec<usize> = (0..random.random_range(0..200))
                .map(|_| {
                    let most = 1usize << random.random_range(0..24u32);
                    random.random_range(0..=most)
                })
                .collect();
            let loads = loads(&bytes, parts);
            let total: usize = bytes.iter().sum();
            assert_eq!(loads.iter().sum::<usize>(), total, "seed {seed}");
            // Without its smallest tensor no part would have more than the least of them.
            let least = loads.iter().min().unwrap();
            let of = divide(&bytes, parts);
            for (part, load) in loads.iter().enumerate() {
                let own = bytes.iter().zip(&of).filter(|(_, of)| **of == part);
                let smallest = own.map(|(bytes, _)| *bytes).min().unwrap_or(0);
                assert!(load - smallest <= *least, "seed {seed}: {loads:?}");
            }
            assert_eq!(divide(&bytes, parts), of, "seed {seed}");
        }
    }

    #[test]
    fn a_part_may_be_empty() {
        assert_eq!(loads(&[7], 3), [7, 0, 0]);
        assert_eq!(loads(&[], 2), [0, 0]);
        assert_eq!(divide(&[1, 2], 0), [0, 0]);
    }

    #[test]
    fn the_largest_come_first() {
        assert_eq!(divide(&[1, 5, 3, 3, 4], 2), [1, 0, 1, 0, 1]);
    }
}
