//! `spinectl logs`: what ranks have printed, as one stream.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use clap::Args;
use console::{Color, Style};
use launcher::{LogLine, LogQuery, Logs};
use plan::{JobId, JobKind, JobSpec, Plan};

use crate::{exit, output};

/// Between two looks at files that are followed. They are looked at rather than watched: that works on network file
/// systems too, where writes of another machine wake nobody.
const PAUSE: Duration = Duration::from_millis(200);
/// What is collected before it is written.
const CHUNK: usize = 64 << 10;

const COLORS: [Color; 6] = [
    Color::Cyan,
    Color::Green,
    Color::Yellow,
    Color::Magenta,
    Color::Blue,
    Color::Red,
];

/// Show what the ranks of a job have printed
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  spinectl logs runs/rsna2022 -f
  spinectl logs runs/rsna2022 stage2-resnest50d-fold0-seed0 --rank 3 --tail 50
  spinectl logs runs/rsna2022 labels --attempt 1 | grep -i warning

What is there is shown rank by rank, as lines carry no time; with -f, what comes is shown as it comes. Control
characters are shown as \\x1b. A rank's whole log is RUN_DIR/jobs/JOB/attempt-N/rankR.log, with older parts in
rankR.log.1 (newest), rankR.log.2 and so on.

Exit codes:
  0  shown; with -f: the run has ended
  2  there is no such run, job, attempt or rank")]
pub struct Arguments {
    run_dir: PathBuf,

    /// A job's name, as `spinectl status` shows it [default: the one that runs, or ran last]
    job: Option<String>,

    /// Only this rank
    #[arg(long, value_name = "R")]
    rank: Option<usize>,

    /// This attempt at the job [default: the newest]
    #[arg(long, value_name = "N")]
    attempt: Option<u32>,

    /// Only the last N lines that each rank has written by now
    #[arg(long, value_name = "N")]
    tail: Option<usize>,

    /// Go on with what comes, over new attempts and (without JOB) new jobs, until the run ends
    #[arg(long, short)]
    follow: bool,

    /// Print a JSON object for each line
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    let mut logs = Logs::open(
        &arguments.run_dir,
        LogQuery {
            job: arguments.job.clone(),
            rank: arguments.rank,
            attempt: arguments.attempt,
            tail: arguments.tail,
        },
    )?;
    if !logs.has_begun() {
        let job = arguments.job.as_deref().unwrap_or("the run");
        output::say(&format!("{job} has no log yet"));
    }
    let several = arguments.follow && arguments.job.is_none();
    let mut writer = Writer {
        json: arguments.json,
        labels: Labels::new(logs.plan(), several),
        text: String::new(),
    };
    loop {
        let over = !arguments.follow || logs.is_over()?;
        logs.read(arguments.follow, |line| writer.take(&line))?;
        if over {
            logs.finish(|line| writer.take(&line))?;
            writer.flush()?;
            return Ok(exit::DONE);
        }
        writer.flush()?;
        sleep(PAUSE);
    }
}

/// Lines on their way to stdout.
struct Writer {
    json: bool,
    labels: Labels,
    text: String,
}

impl Writer {
    fn take(&mut self, line: &LogLine) -> anyhow::Result<()> {
        match self.json {
            true => self.text.push_str(&serde_json::to_string(line)?),
            false => {
                self.text.push_str(&self.labels.of(line));
                self.text.push(' ');
                output::push_printable(&mut self.text, &line.line);
            }
        }
        self.text.push('\n');
        match self.text.len() < CHUNK {
            true => Ok(()),
            false => self.flush(),
        }
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        if !self.text.is_empty() {
            output::print(&self.text)?;
            self.text.clear();
        }
        Ok(())
    }
}

/// `[fold0 r3]` before each line, in the rank's colour on a terminal.
struct Labels {
    jobs: Vec<(JobId, String)>,
    colored: bool,
}

impl Labels {
    /// `several`: lines of more than one job are shown, so that each says its stage too.
    fn new(plan: &Plan, several: bool) -> Self {
        let name = |job: &JobSpec| match &job.kind {
            JobKind::Train {
                stage, fold, seed, ..
            } => {
                let mut name = format!("fold{fold}");
                if several {
                    let stage = stage.name();
                    let model = distinct(plan, stage, |job, _| job.model()) > 1;
                    let model = job.model().filter(|_| model);
                    let model = model.map_or(String::new(), |model| format!("{model} "));
                    name = format!("{stage} {model}{name}");
                    if distinct(plan, stage, |_, seed| Some(seed)) > 1 {
                        name.push_str(&format!(" seed{seed}"));
                    }
                }
                name
            }
            _ => job.id.to_string(),
        };
        let jobs = plan.jobs.iter();
        Labels {
            jobs: jobs.map(|job| (job.id.clone(), name(job))).collect(),
            colored: std::io::stdout().is_terminal() && console::colors_enabled(),
        }
    }

    fn of(&self, line: &LogLine) -> String {
        let job = self.jobs.iter().find(|(id, _)| *id == line.job);
        let job = job.map_or(line.job.as_str(), |(_, name)| name);
        let label = format!("[{job} r{}]", line.rank);
        match COLORS.get(line.rank % COLORS.len()) {
            Some(color) if self.colored => Style::new().fg(*color).apply_to(label).to_string(),
            _ => label,
        }
    }
}

/// How many values something has over the training jobs of a stage.
fn distinct<'p, T: Ord>(
    plan: &'p Plan,
    stage_name: &str,
    value: impl Fn(&'p JobSpec, u64) -> Option<T>,
) -> usize {
    let trained = plan.jobs.iter().filter_map(|job| match &job.kind {
        JobKind::Train { stage, seed, .. } if stage.name() == stage_name => value(job, *seed),
        _ => None,
    });
    trained.collect::<std::collections::BTreeSet<T>>().len()
}
