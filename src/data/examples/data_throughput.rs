//! Samples of stage 2 from disk to the normalised, changed images, as a training on CPUs takes them: loader threads, and one
//! render. `make bench-data` runs it beside the Python peer.
//!
//! `data_throughput DATA WINDOWS.csv CACHE --threads N --mode dicom|cache`. DATA holds train_images/ and bbox.csv (study boxes,
//! pixels); WINDOWS.csv says study, first slice number and distortion of each sample. `dicom`: each sample decodes its 96
//! slices. `cache`: they come from the cache in the folder CACHE, which is filled first where it is not. Prints one JSON
//! object; the first sample is the start-up and does not count in the rate.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use data::StudyUid;
use data::augment::{Augmentation, Distortion, Normalization, Renderer, Sample, Strength};
use data::cache::{Cache, CacheOptions};
use data::csv_table::{Cells, Row, read_table};
use data::image::{Resize, Window};
use data::loader::{Dataset, Loader, Request};
use data::stack::{Appearance, Stacks, squared};
use data::volume::{StudyHeader, find_study};

const SIDE: usize = 512;
const WINDOW: usize = 96;
/// Bytes of samples that loader threads may be ahead: `data.prefetch_mb` is larger by default.
const PREFETCH: usize = 256 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [data, windows, cache, threads_flag, threads, mode_flag, mode] = arguments.as_slice()
    else {
        return Err(
            "usage: data_throughput DATA WINDOWS.csv CACHE --threads N --mode dicom|cache".into(),
        );
    };
    let from_cache = match (threads_flag.as_str(), mode_flag.as_str(), mode.as_str()) {
        ("--threads", "--mode", "dicom") => false,
        ("--threads", "--mode", "cache") => true,
        _ => return Err("usage: ... --threads N --mode dicom|cache".into()),
    };
    let threads: usize = threads.parse()?;
    let images = Path::new(data).join("train_images");
    let boxes: BTreeMap<StudyUid, [f64; 4]> =
        read_table::<PixelBox>(&Path::new(data).join("bbox.csv"))?
            .into_iter()
            .map(|row| (row.study, row.sides))
            .collect();
    let samples: Vec<Listed> = read_table(Path::new(windows))?;
    let count = samples.len();
    let appearance = Appearance {
        side: SIDE,
        window: Window::default(),
    };

    let mut stacks = None;
    if from_cache {
        let options = CacheOptions {
            limit: 64_000_000_000,
            compress: false,
            volumes: false,
        };
        let cache = Arc::new(Cache::open(Path::new(cache), options)?);
        let over = Stacks::new(images.clone(), appearance, boxes.clone(), 0).with_cache(cache);
        for sample in &samples {
            over.get(&sample.study)?;
        }
        stacks = Some(over);
    }
    let dataset = Arc::new(Windows {
        images,
        boxes,
        samples,
        appearance,
        stacks,
        headers: Mutex::default(),
    });
    let renderer = Renderer::new(threads, Normalization::PUBLISHED)?;
    // A rank keeps its memory (src/rank/src/memory.rs): one result stands for all.
    let mut out = vec![0.0_f32; WINDOW * SIDE * SIDE];
    let bytes_per_s = bandwidth(&mut out);

    let cpu_before = cpu_seconds();
    let requests = (0..count).map(|index| Request { index, epoch: 0 });
    let mut loader = Loader::new(&dataset, requests, threads, PREFETCH);
    let mut first = None;
    let mut checksum = 0.0;
    while let Some(sample) = loader.next_sample() {
        let (pixels, change) = sample?;
        let sample = Sample {
            pixels: &pixels,
            change: Some(&change),
        };
        renderer.render(&[sample], SIDE, &mut out)?;
        checksum += f64::from(out[out.len() / 2]);
        first.get_or_insert_with(Instant::now);
    }
    let seconds = first.ok_or("no samples")?.elapsed().as_secs_f64();
    let cpu = cpu_seconds() - cpu_before;
    let peak = peak_rss_mb();
    let pixels = (WINDOW * SIDE * SIDE) as f64;
    println!(
        "{}",
        serde_json::json!({
            "samples_per_s": (count - 1) as f64 / seconds,
            "cpu_s_per_sample": cpu / count as f64,
            "peak_rss_mb": peak,
            "peak_pss_mb": peak,
            "checksum": checksum,
            "floor": {
                "bytes_per_s": bytes_per_s,
                // Files of 16-bit slices read and 32-bit results written; 8-bit slices read and results written.
                "dicom_bytes": pixels * 6.0,
                "cache_bytes": pixels * 5.0,
            },
        })
    );
    Ok(())
}

/// A row of the peer's bbox.csv.
struct PixelBox {
    study: StudyUid,
    /// x0, y0, x1, y1 as shares of the sides of an image of 512.
    sides: [f64; 4],
}

impl Row for PixelBox {
    fn columns() -> Vec<String> {
        ["StudyInstanceUID", "x0", "y0", "x1", "y1"]
            .map(String::from)
            .to_vec()
    }

    fn read(cells: &Cells<'_>) -> data::Result<Self> {
        let side = |name| cells.parse(name, "a number of pixels", |v: &f64| *v >= 0.0);
        Ok(Self {
            study: cells.study("StudyInstanceUID")?,
            sides: [side("x0")?, side("y0")?, side("x1")?, side("y1")?].map(|v| v / 512.0),
        })
    }

    fn write(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A row of the list of windows.
struct Listed {
    study: StudyUid,
    /// The lowest slice number of the window.
    first: u32,
    distortion: String,
}

impl Row for Listed {
    fn columns() -> Vec<String> {
        ["study", "first", "distortion"].map(String::from).to_vec()
    }

    fn read(cells: &Cells<'_>) -> data::Result<Self> {
        Ok(Self {
            study: cells.study("study")?,
            first: cells.parse("first", "a slice number", |_| true)?,
            distortion: cells.parse("distortion", "none, grid or elastic", |_| true)?,
        })
    }

    fn write(&self) -> Vec<String> {
        Vec::new()
    }
}

struct Windows {
    images: PathBuf,
    boxes: BTreeMap<StudyUid, [f64; 4]>,
    samples: Vec<Listed>,
    appearance: Appearance,
    /// Over the cache; without it every sample decodes its own slices.
    stacks: Option<Stacks>,
    headers: Mutex<BTreeMap<StudyUid, Arc<StudyHeader>>>,
}

impl Windows {
    /// The headers of a study are read once, as a table of slices stands for them on the peer's side.
    fn header(&self, study: &StudyUid) -> data::Result<Arc<StudyHeader>> {
        let held =
            |of: &Mutex<BTreeMap<StudyUid, Arc<StudyHeader>>>| of.lock().ok()?.get(study).cloned();
        if let Some(header) = held(&self.headers) {
            return Ok(header);
        }
        let header = Arc::new(find_study(&self.images, study)?);
        if let Ok(mut headers) = self.headers.lock() {
            headers.insert(study.clone(), Arc::clone(&header));
        }
        Ok(header)
    }

    fn decoded(
        &self,
        header: &StudyHeader,
        start: usize,
        crop: Option<&[f64; 4]>,
    ) -> data::Result<Vec<u8>> {
        let (rows, cols) = (header.geometry.rows, header.geometry.cols);
        let crop = squared(*crop.unwrap_or(&[0.0, 0.0, 1.0, 1.0]), rows, cols);
        let resize = Resize::new(crop, SIDE, SIDE);
        let mut resized = vec![0.0; SIDE * SIDE];
        let mut pixels = vec![0; WINDOW * SIDE * SIDE];
        header.for_each_slice(start..start + WINDOW, |index, hu| {
            resize.apply(hu, cols, &mut resized)?;
            let at = (index - start) * SIDE * SIDE;
            self.appearance
                .window
                .apply(&resized, &mut pixels[at..at + SIDE * SIDE]);
            Ok(())
        })?;
        Ok(pixels)
    }
}

impl Dataset for Windows {
    type Sample = (Vec<u8>, Augmentation);

    fn len(&self) -> usize {
        self.samples.len()
    }

    fn bytes(&self, _: usize) -> usize {
        WINDOW * SIDE * SIDE
    }

    fn id(&self, index: usize) -> String {
        let Listed { study, first, .. } = &self.samples[index];
        format!("{study}/{first}")
    }

    fn load(&self, index: usize, epoch: u64) -> data::Result<Self::Sample> {
        let Listed {
            study,
            first,
            distortion,
        } = &self.samples[index];
        // Slices of a window are neighbours, whichever way the numbers run.
        let start = |numbers: &[u32]| {
            let window = *first..*first + WINDOW as u32;
            numbers
                .iter()
                .position(|number| window.contains(number))
                .unwrap_or(0)
        };
        let pixels = match &self.stacks {
            Some(stacks) => {
                let stack = stacks.get(study)?;
                let start = start(&stack.slice_numbers) as isize;
                stack.slices_between(start, start + WINDOW as isize)?
            }
            None => {
                let header = self.header(study)?;
                self.decoded(&header, start(&header.slice_numbers), self.boxes.get(study))?
            }
        };
        Ok((pixels, change(distortion, epoch, index)))
    }
}

/// The published mix, but for the distortion, which is given.
fn change(distortion: &str, epoch: u64, index: usize) -> Augmentation {
    let strength = Strength {
        distortion: if distortion == "none" { 0.0 } else { 1.0 },
        ..Strength::PUBLISHED
    };
    let wanted = |change: &Augmentation| match (&change.distortion, distortion) {
        (Distortion::None, "none") | (Distortion::Grid(_), "grid") => true,
        (Distortion::Elastic(_), other) => other == "elastic",
        _ => false,
    };
    (0..64)
        .map(|draw| Augmentation::draw(&strength, 1, epoch, (index as u64) << 6 | draw))
        .find(wanted)
        .unwrap_or_else(|| Augmentation::draw(&strength, 1, epoch, index as u64))
}

/// Bytes that one core writes in a second.
fn bandwidth(out: &mut [f32]) -> f64 {
    out.fill(1.0);
    let began = Instant::now();
    for round in 0..8 {
        out.fill(round as f32);
    }
    (8 * size_of_val(out)) as f64 / began.elapsed().as_secs_f64()
}

/// User and system time of this process so far.
fn cpu_seconds() -> f64 {
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the structure is there, and large enough, and plain numbers.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 * 1e-6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// The most that was ever resident, MiB.
fn peak_rss_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) / 1024.0
}
