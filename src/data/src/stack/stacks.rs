//! The studies of a training as stacks: each read once, the ones used last kept within a limit of memory.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Appearance, Stack, read_stack};
use crate::cache::Cache;
use crate::error::Result;
use crate::study::StudyUid;
use crate::volume::find_study;

/// Studies by identifier, read on first use; the least recently used ones are dropped beyond `limit` bytes.
///
/// With a cache, pixels stay on disk, and what is held is a few kilobytes a study.
pub struct Stacks {
    images: PathBuf,
    appearance: Appearance,
    crops: BTreeMap<StudyUid, [f64; 4]>,
    limit: usize,
    cache: Option<Arc<Cache>>,
    held: Mutex<Held>,
    reading: Mutex<BTreeMap<StudyUid, Arc<Reading>>>,
}

/// A study that a thread is reading: the others wait for the lock, and find the stack in it.
type Reading = Mutex<Option<Arc<Stack>>>;

#[derive(Default)]
struct Held {
    stacks: BTreeMap<StudyUid, Arc<Stack>>,
    /// Least recently used first.
    order: VecDeque<StudyUid>,
}

impl Stacks {
    /// `images`: the folder with a folder for each study. Studies that are not in `crops` are taken whole.
    pub fn new(
        images: PathBuf,
        appearance: Appearance,
        crops: BTreeMap<StudyUid, [f64; 4]>,
        limit: usize,
    ) -> Self {
        Stacks {
            images,
            appearance,
            crops,
            limit,
            cache: None,
            held: Mutex::default(),
            reading: Mutex::default(),
        }
    }

    /// The same over a cache.
    #[must_use]
    pub fn with_cache(self, cache: Arc<Cache>) -> Self {
        Stacks {
            cache: Some(cache),
            ..self
        }
    }

    /// Bytes of one slice.
    pub fn slice_bytes(&self) -> usize {
        self.appearance.side * self.appearance.side
    }

    /// The study's stack. Of threads that ask at once, one reads it and the others wait.
    pub fn get(&self, study: &StudyUid) -> Result<Arc<Stack>> {
        let found = {
            let mut held = lock(&self.held);
            held.trim(self.limit);
            held.find(study)
        };
        if let Some(stack) = found {
            return Ok(stack);
        }
        let reading = Arc::clone(lock(&self.reading).entry(study.clone()).or_default());
        let mut read = lock(&reading);
        if let Some(stack) = read.as_ref() {
            return Ok(Arc::clone(stack));
        }
        let stack = self.read(study);
        if let Ok(stack) = &stack {
            *read = Some(Arc::clone(stack));
            lock(&self.held).keep(study, stack, self.limit);
        }
        // Whoever asks from now on looks among the held ones, or reads anew.
        let mut all = lock(&self.reading);
        if all
            .get(study)
            .is_some_and(|other| Arc::ptr_eq(other, &reading))
        {
            all.remove(study);
        }
        stack
    }

    fn read(&self, study: &StudyUid) -> Result<Arc<Stack>> {
        // A thread that asked a moment too late finds here what the one before it has read.
        if let Some(stack) = lock(&self.held).find(study) {
            return Ok(stack);
        }
        let header = find_study(&self.images, study)?;
        let crop = self.crops.get(study).copied();
        let stack = match &self.cache {
            Some(cache) => cache.stack(&header, crop, self.appearance)?,
            None => read_stack(&header, crop, self.appearance)?,
        };
        Ok(Arc::new(stack))
    }

    /// What went wrong with the cache since this was last called, for the user.
    pub fn warnings(&self) -> Vec<String> {
        self.cache
            .as_ref()
            .map(|cache| cache.warnings())
            .unwrap_or_default()
    }
}

/// What a thread that panicked left is whole: every change is made by one call.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Held {
    fn find(&mut self, study: &StudyUid) -> Option<Arc<Stack>> {
        let stack = self.stacks.get(study).cloned()?;
        self.order.retain(|other| other != study);
        self.order.push_back(study.clone());
        Some(stack)
    }

    fn keep(&mut self, study: &StudyUid, stack: &Arc<Stack>, limit: usize) {
        if stack.memory_bytes() > limit || self.stacks.contains_key(study) {
            return;
        }
        self.stacks.insert(study.clone(), Arc::clone(stack));
        self.order.push_back(study.clone());
        self.trim(limit);
    }

    /// Drops the least recently used ones beyond `limit` bytes.
    fn trim(&mut self, limit: usize) {
        // Counted anew: a stack that lost its place in the cache has moved into memory.
        let mut bytes: usize = self.stacks.values().map(|stack| stack.memory_bytes()).sum();
        while bytes > limit {
            let Some(oldest) = self.order.pop_front() else {
                return;
            };
            if let Some(dropped) = self.stacks.remove(&oldest) {
                bytes = bytes.saturating_sub(dropped.memory_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_last_stays() {
        let stack = || Arc::new(Stack::in_memory(vec![0; 4], vec![1], 2));
        let uid = |n: u32| StudyUid::new(&format!("1.{n}")).unwrap();
        let mut held = Held::default();
        held.keep(&uid(1), &stack(), 8);
        held.keep(&uid(2), &stack(), 8);
        assert!(held.find(&uid(1)).is_some());
        held.keep(&uid(3), &stack(), 8);
        assert!(held.find(&uid(2)).is_none() && held.find(&uid(1)).is_some());
        assert_eq!(held.stacks.len(), 2);
        // What has grown since, or a smaller limit.
        held.trim(4);
        assert!(held.find(&uid(1)).is_some());
        assert_eq!(held.stacks.len(), 1);
    }
}
