//! Worker threads that load samples ahead of the training loop and hand them over in its order.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::error::{DataError, Result};

/// Samples that can be loaded by number, from any thread.
pub trait Dataset: Send + Sync + 'static {
    type Sample: Send + 'static;

    /// How many samples an epoch has.
    fn len(&self) -> usize;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// About how many bytes sample `index` takes in memory.
    fn bytes(&self, index: usize) -> usize;

    /// What a reader knows sample `index` by, such as `<StudyInstanceUID>/<slice>`. No two samples have the same.
    fn id(&self, index: usize) -> String;

    /// Loads sample `index` as epoch `epoch` sees it: a function of the two (and the data set) alone.
    fn load(&self, index: usize, epoch: u64) -> Result<Self::Sample>;
}

/// One sample of one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    pub index: usize,
    pub epoch: u64,
}

/// Loads `requests` ahead; [`Loader::next_sample`] returns the samples in that order.
pub struct Loader<S> {
    shared: Arc<Shared<S>>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared<S> {
    state: Mutex<State<S>>,
    /// Signalled when a sample is there, or room for another.
    changed: Condvar,
    /// Bytes of samples that may be loaded, or in the making, and not handed out.
    budget: usize,
}

struct State<S> {
    requests: Box<dyn Iterator<Item = Request> + Send>,
    /// The next request, where it waits for room.
    next: Option<Request>,
    /// Number of the next request to hand to a worker, and of the next sample to hand out.
    issued: usize,
    delivered: usize,
    exhausted: bool,
    loaded: BTreeMap<usize, (Request, Result<S>)>,
    /// Bytes of the samples between `delivered` and `issued`, in that order, and their sum.
    sizes: VecDeque<usize>,
    held: usize,
    closed: bool,
}

impl<S: Send + 'static> Loader<S> {
    /// Samples of at most `budget` bytes are held or being loaded at any time; one, where a single one takes more.
    pub fn new<D: Dataset<Sample = S>>(
        dataset: &Arc<D>,
        requests: impl Iterator<Item = Request> + Send + 'static,
        workers: usize,
        budget: usize,
    ) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                requests: Box::new(requests),
                next: None,
                issued: 0,
                delivered: 0,
                exhausted: false,
                loaded: BTreeMap::new(),
                sizes: VecDeque::new(),
                held: 0,
                closed: false,
            }),
            changed: Condvar::new(),
            budget,
        });
        let workers = (0..workers.max(1))
            .map(|_| {
                let (shared, dataset) = (Arc::clone(&shared), Arc::clone(dataset));
                std::thread::spawn(move || shared.work(&*dataset))
            })
            .collect();
        Loader { shared, workers }
    }

    /// The next sample, waiting for it; none after the last request.
    pub fn next_sample(&mut self) -> Option<Result<S>> {
        self.next_answer().map(|(_, sample)| sample)
    }

    /// As [`Loader::next_sample`], with the request that a worker has loaded it for.
    pub fn next_answer(&mut self) -> Option<(Request, Result<S>)> {
        let mut state = self.shared.lock();
        loop {
            let number = state.delivered;
            if let Some(answer) = state.loaded.remove(&number) {
                state.delivered += 1;
                let size = state.sizes.pop_front().unwrap_or(0);
                state.held -= size;
                self.shared.changed.notify_all();
                return Some(answer);
            }
            if state.exhausted && number >= state.issued {
                return None;
            }
            state = self.shared.wait(state);
        }
    }
}

impl<S> Drop for Loader<S> {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches the panics of a load; it has nothing else to say.
            let _ = worker.join();
        }
    }
}

impl<S> Shared<S> {
    fn lock(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State<S>>) -> MutexGuard<'a, State<S>> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn work<D: Dataset<Sample = S>>(&self, dataset: &D) {
        while let Some((number, request)) = self.take(dataset) {
            let sample = catch_unwind(AssertUnwindSafe(|| {
                dataset.load(request.index, request.epoch)
            }))
            .unwrap_or(Err(DataError::LoaderPanic {
                index: request.index,
            }));
            self.lock().loaded.insert(number, (request, sample));
            self.changed.notify_all();
        }
    }

    /// The next request, once there is room for its sample.
    fn take<D: Dataset<Sample = S>>(&self, dataset: &D) -> Option<(usize, Request)> {
        let mut state = self.lock();
        loop {
            if state.closed || state.exhausted {
                return None;
            }
            let Some(request) = state.next.take().or_else(|| state.requests.next()) else {
                state.exhausted = true;
                self.changed.notify_all();
                return None;
            };
            let size = dataset.bytes(request.index);
            let room = self.budget.saturating_sub(state.held);
            if size <= room || state.sizes.is_empty() {
                state.sizes.push_back(size);
                state.held += size;
                state.issued += 1;
                return Some((state.issued - 1, request));
            }
            state.next = Some(request);
            state = self.wait(state);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    struct Squares;

    impl Dataset for Squares {
        type Sample = (usize, u64);

        fn len(&self) -> usize {
            100
        }

        fn bytes(&self, _: usize) -> usize {
            10
        }

        fn id(&self, index: usize) -> String {
            index.to_string()
        }

        fn load(&self, index: usize, epoch: u64) -> Result<(usize, u64)> {
            match index {
                13 => Err(DataError::InvalidStudyUid { value: "13".into() }),
                14 => panic!("fourteen"),
                _ => Ok((index * index, epoch)),
            }
        }
    }

    fn requests(indices: impl Iterator<Item = usize>) -> impl Iterator<Item = Request> {
        indices.map(|index| Request { index, epoch: 7 })
    }

    #[test]
    fn samples_come_in_the_order_of_the_requests() {
        let mut loader = Loader::new(&Arc::new(Squares), requests((20..60).rev()), 4, 60);
        for index in (20..60).rev() {
            let (request, sample) = loader.next_answer().unwrap();
            assert_eq!(request, Request { index, epoch: 7 });
            assert_eq!(sample.unwrap(), (index * index, 7));
        }
        assert!(loader.next_sample().is_none() && loader.next_sample().is_none());
    }

    #[test]
    fn a_fault_or_a_panic_reaches_the_reader_at_its_place() {
        let mut loader = Loader::new(&Arc::new(Squares), requests(12..16), 2, 20);
        assert!(loader.next_sample().unwrap().is_ok());
        assert!(matches!(
            loader.next_sample().unwrap(),
            Err(DataError::InvalidStudyUid { .. })
        ));
        assert!(matches!(
            loader.next_sample().unwrap(),
            Err(DataError::LoaderPanic { index: 14 })
        ));
        assert!(loader.next_sample().unwrap().is_ok());
    }

    /// Counts the samples that are loaded and not dropped.
    struct Counted(Arc<AtomicUsize>, Arc<AtomicUsize>);

    struct Held(Arc<AtomicUsize>);

    impl Drop for Held {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    impl Dataset for Counted {
        type Sample = Held;

        fn len(&self) -> usize {
            100
        }

        /// The last ones are larger than any budget here.
        fn bytes(&self, index: usize) -> usize {
            if index < 90 { 10 } else { 1000 }
        }

        fn id(&self, index: usize) -> String {
            index.to_string()
        }

        fn load(&self, _: usize, _: u64) -> Result<Held> {
            let held = self.0.fetch_add(1, Ordering::SeqCst) + 1;
            self.1.fetch_max(held, Ordering::SeqCst);
            Ok(Held(Arc::clone(&self.0)))
        }
    }

    #[test]
    fn no_more_is_held_than_the_budget_and_large_samples_come_one_by_one() {
        let (held, most) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let counted = Arc::new(Counted(Arc::clone(&held), Arc::clone(&most)));
        let mut loader = Loader::new(&counted, requests(0..100), 8, 35);
        for index in 0..100 {
            // Whoever takes a sample drops it before the next one.
            assert!(loader.next_sample().unwrap().is_ok());
            // The sample that is being handed out makes room for one more, which may come before it is dropped.
            assert!(most.load(Ordering::SeqCst) <= 3 + 1, "{index}");
        }
        assert!(loader.next_sample().is_none());
        drop(loader);
        assert_eq!(held.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_reader_that_leaves_early_leaves_no_thread_waiting() {
        let mut loader = Loader::new(&Arc::new(Squares), requests((0..).map(|i| i % 10)), 3, 20);
        assert!(loader.next_sample().unwrap().is_ok());
        drop(loader);
    }
}
