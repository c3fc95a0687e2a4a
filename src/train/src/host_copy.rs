//! Copies of host memory that nobody reads soon, by several threads, past the caches.
//!
//! What is stored by an ordinary copy is first read into the cache, and pushes out what the training needs next. Stores that go
//! past it spare a third of the traffic between cores and memory, which is all that such a copy waits for.

use std::sync::{Mutex, PoisonError};
use std::thread;

/// What a thread takes at once: a fraction of a millisecond, so that on a busy machine none has much left to do when the others
/// are done.
const PIECE: usize = 4 << 20;

/// From where to where; both are of the same length.
pub(crate) type FromTo<'a> = (&'a [u8], &'a mut [u8]);

/// Does all the copies, by up to so many threads, this one among them.
pub(crate) fn copy_all(copies: Vec<FromTo>, threads: usize) {
    let pieces = pieces(copies, PIECE);
    let threads = threads.min(pieces.len());
    let pieces = Mutex::new(pieces);
    let next = || pieces.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let work = || {
        while let Some(piece) = next() {
            for (source, target) in piece {
                stream(source, target);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            let helper = thread::Builder::new().name("copy".into());
            // What a thread that cannot be had would have done is done by the others.
            let _ = helper.spawn_scoped(scope, work);
        }
        work();
    });
}

/// The copies in lists of so many bytes each; the last may have less.
fn pieces(copies: Vec<FromTo>, bytes: usize) -> Vec<Vec<FromTo>> {
    let mut pieces = Vec::new();
    let (mut piece, mut room) = (Vec::new(), bytes);
    for (mut source, mut target) in copies {
        while source.len() > room {
            let (now, later) = source.split_at(room);
            let (into, rest) = target.split_at_mut(room.min(target.len()));
            piece.push((now, into));
            pieces.push(std::mem::take(&mut piece));
            (source, target, room) = (later, rest, bytes);
        }
        room -= source.len();
        piece.push((source, target));
    }
    pieces.push(piece);
    pieces
}

/// Bytes that one round of the loop moves: a line of the cache.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 64;

#[cfg(target_arch = "x86_64")]
fn stream(source: &[u8], target: &mut [u8]) {
    use std::arch::x86_64::{_mm_loadu_si128, _mm_sfence, _mm_stream_si128};

    let length = source.len().min(target.len());
    // Such stores want whole, aligned lines; before the first and after the last an ordinary copy does.
    let before = target.as_ptr().align_offset(LINE).min(length);
    let lines = (length - before) / LINE;
    let after = before + lines * LINE;
    let (from, into) = (source.as_ptr(), target.as_mut_ptr());
    for line in 0..lines {
        for at in [0, 16, 32, 48].map(|of_line| before + line * LINE + of_line) {
            // SAFETY: `at` and the 16 bytes from it lie within both slices, and the address of the target is a multiple of
            // 16. SSE2 is part of x86-64.
            unsafe {
                let bytes = _mm_loadu_si128(from.add(at).cast());
                _mm_stream_si128(into.add(at).cast(), bytes);
            }
        }
    }
    // Before another thread reads it.
    // SAFETY: SSE is part of x86-64.
    unsafe { _mm_sfence() };
    for range in [0..before, after..length] {
        if let (Some(source), Some(target)) = (source.get(range.clone()), target.get_mut(range)) {
            target.copy_from_slice(source);
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn stream(source: &[u8], target: &mut [u8]) {
    target.copy_from_slice(source);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_arrive_whatever_the_lengths_places_and_threads() {
        let source: Vec<u8> = (0..9_000_003u32).map(|i| (i % 251) as u8).collect();
        for threads in [0, 1, 2, 3, 7] {
            let mut target = vec![0; source.len()];
            let (mut from, mut into) = (source.as_slice(), target.as_mut_slice());
            let mut copies = Vec::new();
            // Of every alignment, from nothing to more than a piece.
            for length in (0..300).chain([1 << 20, 64, 1 << 12, 65]) {
                let (now, later) = from.split_at(length);
                let (here, rest) = std::mem::take(&mut into).split_at_mut(length);
                copies.push((now, here));
                (from, into) = (later, rest);
            }
            copies.push((from, into));
            copy_all(copies, threads);
            assert!(target == source, "{threads} threads");
        }
    }

    #[test]
    fn pieces_are_of_one_size() {
        let source = vec![1; 1000];
        let mut target = vec![0; 1000];
        let (one, other) = target.split_at_mut(900);
        let pieces = pieces(vec![(&source[..900], one), (&source[900..], other)], 334);
        let bytes = |piece: &Vec<FromTo>| piece.iter().map(|(from, _)| from.len()).sum::<usize>();
        assert_eq!(
            pieces.iter().map(bytes).collect::<Vec<_>>(),
            [334, 334, 332]
        );
    }
}
