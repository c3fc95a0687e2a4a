//! The cache on disk: studies that were decoded once, shared by all ranks and runs that name its folder.
//!
//! An entry is named by the contents of the study's files and by what was made of them, so it is never out of date: other
//! files or other parameters are another entry. One process makes an entry while the others wait for it; what is there is
//! read without any lock. Whatever happens to the folder, a run goes on: what cannot be read is made again from the
//! study's files, what cannot be written stays in memory, and [`Cache::warnings`] says so.

mod entry;
mod folder;
mod key;
mod upkeep;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{DataError, Result};
use crate::stack::{Appearance, Stack, resized_slices};
use crate::volume::StudyHeader;

pub(crate) use entry::Entry;
use entry::{EntryWriter, Fault, Layout};
use folder::Folder;
pub use key::Kind;
use key::{Content, Fingerprint, Key};
pub use upkeep::{Amount, BadEntry, Usage, Verified};

/// How a cache is used; the folder's entries do not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheOptions {
    /// Bytes that all entries may take. Beyond it those go that were not used for longest.
    pub limit: u64,
    /// Whether new entries are compressed: smaller, and slower to read.
    pub compress: bool,
    /// Whether HU as decoded are kept too, so that other crops and sizes need no decoding.
    pub volumes: bool,
}

/// What became of an entry that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was there.
    Found {
        /// Its file's size.
        bytes: u64,
    },
    /// It was made.
    Made {
        /// Its file's size.
        bytes: u64,
    },
    /// It is not in the cache; the warnings say why.
    NotKept,
}

/// A folder of entries. Threads may share it, and processes may share the folder.
#[derive(Debug)]
pub struct Cache {
    folder: Folder,
    options: CacheOptions,
    warnings: Mutex<Warnings>,
}

#[derive(Debug, Default)]
struct Warnings {
    unread: Vec<String>,
    /// What is said once only.
    said: BTreeSet<&'static str>,
}

/// A stack from the cache, or in memory where it could not be kept.
#[derive(Debug)]
pub(crate) enum Obtained {
    Found(Entry),
    Made(Entry),
    InMemory(Vec<u8>),
}

/// Takes one slice's bytes.
type SliceWrite<'a> = dyn FnMut(usize, &[u8]) -> Result<()> + 'a;

/// A study's files as they were when it was asked for.
struct Source<'a> {
    header: &'a StudyHeader,
    files: Vec<PathBuf>,
    fingerprint: Fingerprint,
    content: Content,
}

impl Source<'_> {
    /// Whether the files are what they were, so that what was read of them belongs to their hash.
    fn is_unchanged(&self) -> Result<bool> {
        if !Fingerprint::of(&self.files)?.is_same(&self.fingerprint) {
            return Ok(false);
        }
        Ok(self.fingerprint.is_settled() || Content::of(&self.files)? == self.content)
    }

    fn layout(&self, kind: Kind, rows: usize, cols: usize) -> Layout {
        Layout {
            kind,
            slices: self.header.slice_numbers.len(),
            rows,
            cols,
            compressed: false,
        }
    }
}

impl Cache {
    /// Takes the folder `dir`, which is a cache, empty, or not there.
    ///
    /// # Errors
    /// [`DataError::Cache`] where it holds anything else, [`DataError::Io`]
    /// where it cannot be made or read.
    pub fn open(dir: &Path, options: CacheOptions) -> Result<Self> {
        let cache = Cache {
            folder: Folder::open(dir)?,
            options,
            warnings: Mutex::default(),
        };
        if let Err(error) = cache.folder.remove_leftovers() {
            cache.cannot_write(&error);
        }
        Ok(cache)
    }

    /// A study's slices as `appearance` says; `crop` as [`read_stack`](crate::stack::read_stack) takes it. Pixels are
    /// read when they are asked for.
    ///
    /// # Errors
    /// What reading the study's files says. Faults of the cache are warnings.
    pub fn stack(
        self: &Arc<Self>,
        header: &StudyHeader,
        crop: Option<[f64; 4]>,
        appearance: Appearance,
    ) -> Result<Stack> {
        let (numbers, side) = (header.slice_numbers.clone(), appearance.side);
        match self.find_or_make(header, crop, appearance, false)? {
            Obtained::Found(entry) | Obtained::Made(entry) => Ok(Stack::cached(
                entry,
                Arc::clone(self),
                header,
                crop,
                appearance,
            )),
            Obtained::InMemory(pixels) => Ok(Stack::in_memory(pixels, numbers, side)),
        }
    }

    /// Sees to it that [`Cache::stack`] finds the study in the cache.
    ///
    /// # Errors
    /// What reading the study's files says.
    pub fn build_stack(
        &self,
        header: &StudyHeader,
        crop: Option<[f64; 4]>,
        appearance: Appearance,
    ) -> Result<Outcome> {
        Ok(match self.find_or_make(header, crop, appearance, false)? {
            Obtained::Found(entry) => Outcome::Found { bytes: entry.bytes },
            Obtained::Made(entry) => Outcome::Made { bytes: entry.bytes },
            Obtained::InMemory(_) => Outcome::NotKept,
        })
    }

    /// Sees to it that the study's HU are in the cache, whatever the options say.
    ///
    /// # Errors
    /// What reading the study's files says.
    pub fn build_volume(&self, header: &StudyHeader) -> Result<Outcome> {
        let source = self.source(header)?;
        Ok(match self.volume_entry(&source)? {
            Some((entry, true)) => Outcome::Made { bytes: entry.bytes },
            Some((entry, false)) => Outcome::Found { bytes: entry.bytes },
            None => Outcome::NotKept,
        })
    }

    /// A study's HU, (slices, rows, columns): from the cache where they are there, else from the study's files.
    ///
    /// # Errors
    /// What reading the study's files says.
    pub fn volume(&self, header: &StudyHeader) -> Result<Vec<i16>> {
        let source = self.source(header)?;
        let geometry = &header.geometry;
        let pixels = geometry.rows * geometry.cols;
        let mut hu = vec![0; header.slice_numbers.len() * pixels];
        self.for_each_slice(&source, self.options.volumes, &mut |index, slice| {
            if let Some(out) = hu.get_mut(index * pixels..(index + 1) * pixels) {
                out.copy_from_slice(slice);
            }
            Ok(())
        })?;
        Ok(hu)
    }

    /// What went wrong since this was last called, for the user.
    pub fn warnings(&self) -> Vec<String> {
        std::mem::take(&mut self.warn().unread)
    }

    fn warn(&self) -> std::sync::MutexGuard<'_, Warnings> {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, message: String) {
        self.warn().unread.push(message);
    }

    fn say_once(&self, what: &'static str, message: impl FnOnce() -> String) {
        let mut warnings = self.warn();
        if warnings.said.insert(what) {
            warnings.unread.push(message());
        }
    }

    fn cannot_write(&self, error: &io::Error) {
        self.say_once("write", || {
            format!(
                "cannot write to the cache {}: {error}; what is not in it is decoded anew and kept in memory: free space \
                 there, or name another folder in data.cache.dir",
                self.folder.root().display()
            )
        });
    }

    fn damaged(&self, name: &str, problem: &str) {
        self.say(format!(
            "cache entry {name} was damaged ({problem}): it is removed, and made again from the study's files; \
             `spinectl data cache verify` checks the others"
        ));
    }

    fn source<'a>(&self, header: &'a StudyHeader) -> Result<Source<'a>> {
        let files = header.files();
        let fingerprint = Fingerprint::of(&files)?;
        let content = self.content(&files, &fingerprint)?;
        Ok(Source {
            header,
            files,
            fingerprint,
            content,
        })
    }

    /// The hash of the files' contents: as noted, or worked out by one process and noted.
    fn content(&self, files: &[PathBuf], fingerprint: &Fingerprint) -> Result<Content> {
        let path = self.folder.study(fingerprint);
        let noted = || {
            let is_file = fs::symlink_metadata(&path).is_ok_and(|status| status.is_file());
            let line = is_file.then(|| fs::read_to_string(&path))?;
            Content::from_line(&line.ok()?)
        };
        if let Some(content) = noted() {
            return Ok(content);
        }
        let _lock = match self.folder.lock_name(&fingerprint.name()) {
            Ok(lock) => lock,
            Err(error) => {
                self.cannot_write(&error);
                return Content::of(files);
            }
        };
        if let Some(content) = noted() {
            return Ok(content);
        }
        let content = Content::of(files)?;
        if fingerprint.is_settled()
            && Fingerprint::of(files)?.is_same(fingerprint)
            && let Err(error) = self.folder.write_study(fingerprint, &content.to_line())
        {
            self.cannot_write(&error);
        }
        Ok(content)
    }

    /// The study's stack; `suspect` where its entry was found damaged, so that all of it is checked.
    pub(crate) fn find_or_make(
        &self,
        header: &StudyHeader,
        crop: Option<[f64; 4]>,
        appearance: Appearance,
        suspect: bool,
    ) -> Result<Obtained> {
        let source = self.source(header)?;
        let key = Key::stack(&source.content, &header.slice_numbers, crop, &appearance);
        let side = appearance.side;
        let layout = source.layout(Kind::Stack, side, side);
        if !suspect && let Ok(Some(entry)) = self.find(&key, &layout, header) {
            return Ok(Obtained::Found(entry));
        }
        let begun = self
            .folder
            .lock_name(&key.name())
            .and_then(|lock| Ok((lock, self.find_or_remove(&key, &layout, header, suspect)?)));
        let lock = match begun {
            Ok((_, Some(entry))) => return Ok(Obtained::Found(entry)),
            Ok((lock, None)) => Some(lock),
            Err(error) => {
                self.cannot_write(&error);
                None
            }
        };

        let make_volume = self.options.volumes && lock.is_some();
        let pixels = resized_slices(header, crop, appearance, |visit| {
            self.for_each_slice(&source, make_volume, visit)
        })?;
        if lock.is_some() {
            let fill = |write: &mut SliceWrite| {
                let slices = pixels.chunks_exact((side * side).max(1)).enumerate();
                slices
                    .into_iter()
                    .try_for_each(|(index, slice)| write(index, slice))
            };
            if let Some(entry) = self.keep(&source, &key, layout, fill)? {
                return Ok(Obtained::Made(entry));
            }
        }
        Ok(Obtained::InMemory(pixels))
    }

    /// The entry of the study's HU, and whether it was made just now; none where it cannot be kept.
    fn volume_entry(&self, source: &Source) -> Result<Option<(Entry, bool)>> {
        let header = source.header;
        let (key, layout) = self.volume_key(source);
        if let Ok(Some(entry)) = self.find(&key, &layout, header) {
            return Ok(Some((entry, false)));
        }
        let begun = self
            .folder
            .lock_name(&key.name())
            .and_then(|lock| Ok((lock, self.find_or_remove(&key, &layout, header, false)?)));
        match begun {
            Ok((_, Some(entry))) => Ok(Some((entry, false))),
            Ok((_lock, None)) => {
                let all = 0..layout.slices;
                let mut bytes = Vec::with_capacity(layout.slice_bytes());
                let fill = |write: &mut SliceWrite| {
                    header.for_each_slice(all, |index, hu| {
                        bytes.clear();
                        bytes.extend(hu.iter().flat_map(|v| v.to_le_bytes()));
                        write(index, &bytes)
                    })
                };
                let kept = self.keep(source, &key, layout, fill)?;
                Ok(kept.map(|entry| (entry, true)))
            }
            Err(error) => {
                self.cannot_write(&error);
                Ok(None)
            }
        }
    }

    fn volume_key(&self, source: &Source) -> (Key, Layout) {
        let geometry = &source.header.geometry;
        let layout = source.layout(Kind::Volume, geometry.rows, geometry.cols);
        (
            Key::volume(&source.content, &source.header.slice_numbers),
            layout,
        )
    }

    /// Hands the HU of every slice to `visit`, in any order: from the cached volume where there is one (made first, if
    /// `make`), else from the files. A volume that turns out damaged half-way is followed by all of the files.
    fn for_each_slice(
        &self,
        source: &Source,
        make: bool,
        visit: &mut dyn FnMut(usize, &[i16]) -> Result<()>,
    ) -> Result<()> {
        let header = source.header;
        let (key, layout) = self.volume_key(source);
        let volume = match make {
            true => self.volume_entry(source)?.map(|(entry, _)| entry),
            false => self.find(&key, &layout, header).unwrap_or_default(),
        };
        if let Some(entry) = volume {
            match read_volume(&entry, visit) {
                Ok(visited) => return visited,
                Err(fault) => self.give_up(&key, &layout, header, &fault),
            }
        }
        header.for_each_slice(0..layout.slices, visit)
    }

    /// Removes an entry that could not be read, if it is damaged.
    fn give_up(&self, key: &Key, layout: &Layout, header: &StudyHeader, fault: &Fault) {
        if let Fault::Damaged(_) = fault {
            let checked = self
                .folder
                .lock_name(&key.name())
                .and_then(|_lock| self.find_or_remove(key, layout, header, true).map(|_| ()));
            if let Err(error) = checked {
                self.cannot_write(&error);
            }
        }
    }

    /// The entry of `key`, if it is there and of this study.
    fn find(
        &self,
        key: &Key,
        layout: &Layout,
        header: &StudyHeader,
    ) -> std::result::Result<Option<Entry>, Fault> {
        let entry = Entry::open(&self.folder.entry(key), key)?;
        let fits = |entry: &Entry| {
            let expected = Layout {
                compressed: entry.layout.compressed,
                ..*layout
            };
            entry.layout == expected && entry.slice_numbers == header.slice_numbers
        };
        match entry {
            Some(entry) if !fits(&entry) => Err(Fault::Damaged("it is of another study".into())),
            entry => {
                if let Some(entry) = &entry {
                    // To be found is to be used. Whether it can be read, its reader will see.
                    let _ = entry.reader();
                }
                Ok(entry)
            }
        }
    }

    /// [`Cache::find`] for the holder of the entry's lock: a damaged entry is removed. `whole`: all of it is checked.
    fn find_or_remove(
        &self,
        key: &Key,
        layout: &Layout,
        header: &StudyHeader,
        whole: bool,
    ) -> io::Result<Option<Entry>> {
        let found = self.find(key, layout, header).and_then(|entry| {
            if let (Some(entry), true) = (&entry, whole) {
                entry.check()?;
            }
            Ok(entry)
        });
        match found {
            Ok(entry) => Ok(entry),
            Err(Fault::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(Fault::Io(error)) => Err(error),
            Err(Fault::Damaged(problem)) => {
                folder::remove(&self.folder.entry(key))?;
                self.damaged(&key.name(), &problem);
                Ok(None)
            }
        }
    }

    /// Writes an entry; `fill` hands every slice's bytes to the function that it is given. The caller holds the key's lock.
    /// None, and a warning, where it cannot be kept; errors are those of `fill` and of the study's files.
    fn keep(
        &self,
        source: &Source,
        key: &Key,
        layout: Layout,
        fill: impl FnOnce(&mut SliceWrite) -> Result<()>,
    ) -> Result<Option<Entry>> {
        let layout = Layout {
            compressed: self.options.compress,
            ..layout
        };
        let numbers = &source.header.slice_numbers;
        let largest = layout.largest_file();
        let reserved = match self.folder.reserve(key, largest, self.options.limit) {
            Ok(Some(reserved)) => reserved,
            Ok(None) => {
                self.no_room(largest);
                return Ok(None);
            }
            Err(error) => {
                self.cannot_write(&error);
                return Ok(None);
            }
        };
        let refused = |error: io::Error| {
            self.cannot_write(&error);
            Ok(None)
        };
        let mut writer = match reserved.file.try_clone() {
            Ok(file) => EntryWriter::new(file, layout),
            Err(error) => return refused(error),
        };
        let mut refusal = None;
        let filled = fill(&mut |index, bytes| {
            writer.slice(index, bytes).map_err(|error| {
                // For `fill` to end by; the reason is told below.
                let stop = io::Error::from(error.kind());
                refusal = Some(error);
                DataError::io("write", self.folder.root())(stop)
            })
        });
        if let Some(error) = refusal {
            return refused(error);
        }
        filled?;
        if !source.is_unchanged()? {
            self.say(format!(
                "study {} changed while it was read; it is not put into the cache",
                source.header.study
            ));
            return Ok(None);
        }
        let written = writer
            .finish(key, numbers)
            .and_then(|_| self.folder.publish(reserved, key));
        if let Err(error) = written {
            return refused(error);
        }
        match self.find(key, &layout, source.header) {
            Ok(Some(entry)) => Ok(Some(entry)),
            // Another process needed the room for its own already.
            Ok(None) => Ok(None),
            Err(Fault::Io(error)) => refused(error),
            Err(Fault::Damaged(problem)) => refused(io::Error::other(problem)),
        }
    }

    fn no_room(&self, bytes: u64) {
        self.say_once("room", || {
            format!(
                "the cache {} has no room for an entry of {:.1} MB within its limit of {:.1} GB; it is kept in memory: raise \
                 data.cache.limit_gb",
                self.folder.root().display(),
                bytes as f64 / 1e6,
                self.options.limit as f64 / 1e9
            )
        });
    }
}

/// Hands the HU of every slice to `visit`; the inner result is the visitor's.
fn read_volume(
    entry: &Entry,
    visit: &mut dyn FnMut(usize, &[i16]) -> Result<()>,
) -> std::result::Result<Result<()>, Fault> {
    let layout = entry.layout;
    let mut reader = entry.reader()?;
    let mut bytes = vec![0; layout.slice_bytes()];
    let mut hu = Vec::with_capacity(layout.rows * layout.cols);
    for index in 0..layout.slices {
        reader.slice(index, &mut bytes)?;
        let pairs = bytes.chunks_exact(2);
        hu.clear();
        hu.extend(pairs.map(|b| i16::from_le_bytes([b[0], b[1]])));
        if let Err(error) = visit(index, &hu) {
            return Ok(Err(error));
        }
    }
    Ok(Ok(()))
}
