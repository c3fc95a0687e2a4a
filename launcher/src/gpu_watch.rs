//! How busy the GPUs of running ranks are. A thread of its own asks the driver, which may hang: nobody waits for it.

mod nvml;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::future::pending;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use event::{EventKind, GpuUse, RunEvent};
use nvml_wrapper::Nvml;
use plan::JobId;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use nvml::Gpu;

/// How often it is looked. The driver tells of the last second at most.
pub(crate) const LOOK: Duration = Duration::from_secs(1);
/// What so many looks have seen is told at once; the first one by itself, for jobs that are short.
const LOOKS: u32 = 10;
/// At the end, for a call that is under way: the library must not go while it is in use. One that hangs is left behind.
const PATIENCE: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(crate) struct GpuWatch {
    /// None where nothing is watched, and once the watch is to end.
    words: Option<Sender<Word>>,
    seen: UnboundedReceiver<(JobId, Box<RunEvent>)>,
    /// Closed once the thread is done.
    done: Receiver<()>,
}

/// What the thread is told.
enum Word {
    Started {
        job: JobId,
        attempt: u32,
        /// Of each rank's GPU, as in CUDA_VISIBLE_DEVICES.
        names: Vec<String>,
    },
    Ended(JobId),
}

/// A job whose ranks are running.
struct Watched<'n> {
    attempt: u32,
    /// By rank; none of which NVML does not know.
    gpus: Vec<Option<(Gpu<'n>, Mean)>>,
    looks: u32,
}

/// Of the looks since the last telling.
#[derive(Default)]
struct Mean {
    sum: f64,
    count: u32,
}

impl GpuWatch {
    /// Begins to watch through the NVML at `library`. Where there is none, or no GPU, nothing is ever seen.
    ///
    /// `by_address`: numbers in names count GPUs in the order of their PCI addresses; else numbers mean nothing here.
    pub fn start(library: PathBuf, by_address: bool, look: Duration) -> Self {
        let (words_to, words) = channel();
        let (seen_to, seen) = unbounded_channel();
        let (done_to, done) = channel::<()>();
        let work = move || {
            // Closed when the work ends, however it ends.
            let _done = done_to;
            let nvml = Nvml::builder().lib_path(library.as_os_str()).init();
            if let Ok(nvml) = nvml {
                watch(&nvml, by_address, look, &words, &seen_to);
            }
        };
        // Without a thread nothing is seen, and nothing else is amiss.
        let _ = thread::Builder::new().name("gpus".into()).spawn(work);
        GpuWatch {
            words: Some(words_to),
            seen,
            done,
        }
    }

    /// Where ranks have no GPUs.
    pub fn none() -> Self {
        GpuWatch {
            words: None,
            seen: unbounded_channel().1,
            done: channel().1,
        }
    }

    /// `names`: of the GPU of each rank, in their order; none of a job on the CPU.
    pub fn job_started(&self, job: &JobId, attempt: u32, names: Vec<String>) {
        if !names.is_empty() {
            let job = job.clone();
            self.say(Word::Started {
                job,
                attempt,
                names,
            });
        }
    }

    pub fn job_ended(&self, job: &JobId) {
        self.say(Word::Ended(job.clone()));
    }

    fn say(&self, word: Word) {
        // A thread that is gone, or hangs, does not listen.
        let _ = self.words.as_ref().map(|words| words.send(word));
    }

    /// What is seen next, of a job that may have ended meanwhile; waits for ever where nothing can be seen.
    pub async fn next(&mut self) -> (JobId, Box<RunEvent>) {
        match self.seen.recv().await {
            Some(seen) => seen,
            None => pending().await,
        }
    }
}

impl Drop for GpuWatch {
    fn drop(&mut self) {
        self.words = None;
        // Closed in time or not.
        let _ = self.done.recv_timeout(PATIENCE);
    }
}

/// The thread's work, until nobody has a word for it any more.
fn watch(
    nvml: &Nvml,
    by_address: bool,
    look: Duration,
    words: &Receiver<Word>,
    to: &UnboundedSender<(JobId, Box<RunEvent>)>,
) {
    let mut jobs: BTreeMap<JobId, Watched<'_>> = BTreeMap::new();
    loop {
        let word = match jobs.is_empty() {
            true => words.recv().map_err(|_| RecvTimeoutError::Disconnected),
            false => words.recv_timeout(look),
        };
        match word {
            Ok(Word::Started {
                job,
                attempt,
                names,
            }) => {
                let gpu =
                    |name: &String| Some((Gpu::find(nvml, name, by_address)?, Mean::default()));
                let watched = Watched {
                    attempt,
                    gpus: names.iter().map(gpu).collect(),
                    looks: 0,
                };
                jobs.insert(job, watched);
            }
            Ok(Word::Ended(job)) => drop(jobs.remove(&job)),
            Err(RecvTimeoutError::Timeout) => {
                for (job, watched) in &mut jobs {
                    for event in watched.look(job) {
                        // Whoever no longer listens will say so by an end of words.
                        let _ = to.send((job.clone(), Box::new(event)));
                    }
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

impl Watched<'_> {
    /// What is to be told after one more look.
    fn look(&mut self, job: &JobId) -> Vec<RunEvent> {
        let is_due = self.looks.is_multiple_of(LOOKS);
        self.looks = self.looks.wrapping_add(1);
        let mut told = Vec::new();
        for (rank, gpu) in self.gpus.iter_mut().enumerate() {
            let Some((gpu, mean)) = gpu else {
                continue;
            };
            mean.take(gpu.utilization());
            if is_due && let Some(used) = gpu.told(std::mem::take(mean).value()) {
                told.push(RunEvent {
                    rank: Some(rank),
                    ..RunEvent::job(job.as_str(), self.attempt, EventKind::GpuUse(used))
                });
            }
        }
        told
    }
}

impl Mean {
    fn take(&mut self, value: Option<f64>) {
        if let Some(value) = value {
            self.sum += value;
            self.count += 1;
        }
    }

    fn value(self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / f64::from(self.count))
    }
}

impl Gpu<'_> {
    /// None where the driver says nothing of it, as of a GPU that is lost.
    fn told(&self, utilization: Option<f64>) -> Option<GpuUse> {
        let (memory_used, memory_total) = self.memory().unzip();
        (utilization.is_some() || memory_used.is_some()).then(|| GpuUse {
            id: self.id.clone(),
            model: self.model.clone(),
            utilization,
            memory_used,
            memory_total,
        })
    }
}
