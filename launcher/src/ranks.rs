//! The processes of one attempt: started together, heard as one stream, ended together.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use plan::JobId;
use recipe::Device;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinHandle;

use crate::events::{Message, Speaker, listen};
use crate::exit::Exit;
use crate::gpu;
use crate::guardian::Guardian;
use crate::lifeline::Life;
use crate::mark::{self, Mark};
use crate::numa::Cores;
use crate::pidfd::Pidfd;
use crate::process::{Launch, Process};
use crate::rendezvous::meeting_file;

/// Events that wait for the supervisor; ranks that talk faster wait for it in turn.
const WAITING: usize = 256;
/// How long the next attempt is kept waiting for what the ranks have left behind to be gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// What to start on every rank.
#[derive(Debug)]
pub(crate) struct Order {
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
    /// The job and its attempt, where it is a job of the plan.
    pub about: Option<(JobId, u32)>,
    /// What CUDA_VISIBLE_DEVICES is to be, where they do not have all GPUs; else ranks see what the launcher sees.
    pub visible_gpus: Option<String>,
    /// One log for each rank: as many as the world size.
    pub logs: Vec<PathBuf>,
    /// Each rank has a GPU, and runs on the cores beside it.
    pub near_gpus: bool,
    /// Among how many ranks the cores are shared: these, and those of other jobs beside them.
    pub sharers: usize,
}

#[derive(Debug)]
pub(crate) struct Ranks {
    processes: Vec<Process>,
    /// The other direction of the sockets by which events come.
    questions: Vec<UnixStream>,
    listeners: Vec<JoinHandle<()>>,
    messages: Receiver<(usize, Message)>,
    /// What these ranks and all that they start bear.
    mark: Mark,
}

impl Ranks {
    /// Starts all ranks, or leaves none.
    pub fn start(order: Order, guardian: &mut Guardian) -> io::Result<Self> {
        let store = meeting_file()?;
        let (to, messages) = channel(WAITING);
        let mut ranks = Ranks {
            processes: Vec::with_capacity(order.logs.len()),
            questions: Vec::with_capacity(order.logs.len()),
            listeners: Vec::with_capacity(order.logs.len()),
            messages,
            mark: Mark::new()?,
        };
        for rank in 0..order.logs.len() {
            if let Err(error) = ranks.add(rank, &order, &store, &to, guardian) {
                ranks.kill();
                for started in 0..=rank {
                    ranks.reap(started, guardian);
                }
                return Err(error);
            }
        }
        Ok(ranks)
    }

    fn add(
        &mut self,
        rank: usize,
        order: &Order,
        store: &File,
        to: &Sender<(usize, Message)>,
        guardian: &mut Guardian,
    ) -> io::Result<()> {
        let Some(log) = order.logs.get(rank) else {
            return Ok(());
        };
        let visible = order.visible_gpus.clone();
        let visible = visible.map(|gpus| ("CUDA_VISIBLE_DEVICES", gpus));
        let (process, stream, lifeline) = Process::start(Launch {
            program: &order.program,
            arguments: &order.arguments,
            environment: environment(rank, order.logs.len(), order.sharers)
                .into_iter()
                .chain(visible)
                .chain([mark::variable([guardian.mark(), self.mark])])
                .collect(),
            log,
            cores: order
                .near_gpus
                .then(|| near_gpu(rank, order.visible_gpus.as_deref()))
                .flatten(),
            store,
        })?;
        guardian.watch(process.group());
        let pid = process.id();
        let pidfd = Pidfd::open(pid);
        self.processes.push(process);
        self.questions.push(stream.try_clone()?);
        let (job, attempt) = order.about.clone().unzip();
        let speaker = Speaker { job, attempt, rank };
        let life = Life::new(pid, pidfd?, lifeline);
        let listener = listen(speaker, stream, life, to.clone());
        self.listeners.push(tokio::spawn(listener));
        Ok(())
    }

    /// As [`Ranks::next`], for who listens to several jobs.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<(usize, Message)> {
        match self.messages.poll_recv(context) {
            Poll::Ready(Some(message)) => Poll::Ready(message),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    /// What the next rank has to say; waits for ever once all have ended.
    pub async fn next(&mut self) -> (usize, Message) {
        match self.messages.recv().await {
            Some(message) => message,
            None => std::future::pending().await,
        }
    }

    /// Takes the end of a rank that said [`Message::Ended`], and ends what it has left behind.
    pub fn reap(&mut self, rank: usize, guardian: &mut Guardian) -> Option<Exit> {
        let process = self.processes.get_mut(rank)?;
        let exit = process.reap();
        guardian.forget(process.group());
        Some(exit)
    }

    /// Asks a rank where its main thread is; it answers by an event if it can.
    pub fn ask_for_stack(&self, rank: usize) {
        if let Some(mut socket) = self.questions.get(rank) {
            // A rank that does not listen is looked at from outside.
            let _ = socket.write_all(b"stack\n");
        }
    }

    /// The process of a rank that has not been reaped.
    pub fn pid(&self, rank: usize) -> Option<u32> {
        self.processes.get(rank)?.running()
    }

    /// Asks all to save and stop.
    pub fn terminate(&self) {
        self.processes.iter().for_each(Process::terminate);
    }

    /// Kills all, with all that they have started.
    pub fn kill(&self) {
        self.processes.iter().for_each(Process::kill);
    }
}

impl Drop for Ranks {
    fn drop(&mut self) {
        self.listeners.iter().for_each(JoinHandle::abort);
        // All at once, so that none sees another one's end; then what they have started in sessions of their own.
        self.kill();
        for process in &mut self.processes {
            process.reap();
        }
        self.mark.sweep(PATIENCE);
    }
}

/// `visible` as the rank will find it, where it is not as here.
fn near_gpu(local_rank: usize, visible: Option<&str>) -> Option<Cores> {
    let here = std::env::var_os("CUDA_VISIBLE_DEVICES");
    let here = here.as_ref().map(|list| list.to_string_lossy());
    Cores::near_gpu(local_rank, visible.or(here.as_deref()))
}

/// The arguments that name a device.
pub(crate) fn device_argument(device: Device) -> &'static str {
    match device {
        Device::Cpu => "cpu",
        Device::Cuda => "cuda",
    }
}

/// Who it is, as torchrun says it too, and a fair share of the cores.
fn environment(rank: usize, world_size: usize, sharers: usize) -> Vec<(&'static str, String)> {
    let mut environment = vec![
        ("RANK", rank.to_string()),
        ("LOCAL_RANK", rank.to_string()),
        ("WORLD_SIZE", world_size.to_string()),
        ("LOCAL_WORLD_SIZE", world_size.to_string()),
    ];
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let share = (cores / sharers.max(1)).max(1);
    environment.extend(gpu::order());
    for name in ["OMP_NUM_THREADS", "MKL_NUM_THREADS"] {
        if std::env::var_os(name).is_none() {
            environment.push((name, share.to_string()));
        }
    }
    environment
}
