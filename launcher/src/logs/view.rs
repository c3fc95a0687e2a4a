//! The logs of all ranks of an attempt as one stream of lines, and on to the attempts that follow.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use plan::{JobId, JobState, Plan};
use serde::Serialize;

use super::rank_log::RankLog;
use crate::database::{Database, Started};
use crate::run_dir::RunDir;
use crate::{LaunchError, lock};

/// Which logs are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// A job's name; the one that runs, or ran last, where absent.
    pub job: Option<String>,
    pub rank: Option<usize>,
    /// The newest where absent.
    pub attempt: Option<u32>,
    /// Only so many of the last lines that each rank has written by now.
    pub tail: Option<usize>,
}

/// A line of a rank's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogLine {
    pub job: JobId,
    pub attempt: u32,
    pub rank: usize,
    /// Without its newline. It may hold anything else, control characters too.
    pub line: String,
}

/// A reader of a run's logs, at one attempt at a time.
#[derive(Debug)]
pub struct Logs {
    dir: RunDir,
    plan: Plan,
    query: LogQuery,
    /// The attempt that is shown; none where there is none yet.
    attempt: Option<(JobId, u32)>,
    ranks: BTreeMap<usize, RankLog>,
    /// What each rank has by now was shown once, of which `tail` wants the end.
    begun: bool,
}

impl Logs {
    /// Finds the attempt that is meant. What does not exist is refused, with what there is.
    pub fn open(run_dir: &Path, query: LogQuery) -> Result<Self, LaunchError> {
        let dir = RunDir::with_a_run(run_dir)?;
        let plan = plan::read(&dir.plan()).map_err(LaunchError::io("read", &dir.plan()))?;
        if let Some(job) = &query.job
            && plan.job(job).is_none()
        {
            let known: Vec<&str> = plan.jobs.iter().map(|job| job.id.as_str()).collect();
            return Err(LaunchError::NoLog(format!(
                "the run has no job `{job}`; it has:\n  {}",
                known.join("\n  ")
            )));
        }
        let mut logs = Logs {
            dir,
            plan,
            query,
            attempt: None,
            ranks: BTreeMap::new(),
            begun: false,
        };
        logs.attempt = logs.first()?;
        logs.find_ranks()?;
        if let Some(rank) = logs.query.rank
            && !logs.ranks.contains_key(&rank)
            && let Some((job, attempt)) = &logs.attempt
        {
            let there = logs.dir.attempt(job, *attempt);
            return Err(LaunchError::NoLog(format!(
                "rank {rank} has no log in {}",
                there.display()
            )));
        }
        Ok(logs)
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Whether there is an attempt to show.
    pub fn has_begun(&self) -> bool {
        self.attempt.is_some()
    }

    /// Whether no more lines can come. Ask before the last [`Logs::read`], so that nothing is missed.
    pub fn is_over(&self) -> Result<bool, LaunchError> {
        if !lock::is_held(&self.dir) {
            return Ok(true);
        }
        let database = Database::open_to_read(&self.dir.database())?;
        if let (Some((job, attempt)), Some(_)) = (&self.attempt, self.query.attempt) {
            let is_it = |known: &Started| known.job == job.as_str() && known.attempt == *attempt;
            return Ok(database.attempts()?.iter().any(|a| is_it(a) && a.ended));
        }
        let Some(job) = &self.query.job else {
            return Ok(false);
        };
        let state = database.jobs(event::now())?.get(job).map(|row| row.state);
        Ok(matches!(
            state,
            Some(JobState::Succeeded | JobState::Failed)
        ))
    }

    /// Shows the lines that are new: rank after rank, each whole. Goes on to the next attempt where there is one and
    /// `follow` is set.
    pub fn read<E: From<LaunchError>>(
        &mut self,
        follow: bool,
        mut show: impl FnMut(LogLine) -> Result<(), E>,
    ) -> Result<(), E> {
        loop {
            // Asked first: what an attempt wrote before the next one began is there by then.
            let next = match follow {
                true => self.after()?,
                false => None,
            };
            self.read_ranks(&mut show)?;
            let Some(next) = next else {
                return Ok(());
            };
            self.finish(&mut show)?;
            self.attempt = Some(next);
            self.ranks.clear();
        }
    }

    /// Shows what ranks have written without a newline at its end.
    pub fn finish<E: From<LaunchError>>(
        &mut self,
        mut show: impl FnMut(LogLine) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some((job, attempt)) = &self.attempt else {
            return Ok(());
        };
        for (rank, log) in &mut self.ranks {
            if let Some(line) = log.rest() {
                show(LogLine {
                    job: job.clone(),
                    attempt: *attempt,
                    rank: *rank,
                    line,
                })?;
            }
        }
        Ok(())
    }

    fn read_ranks<E: From<LaunchError>>(
        &mut self,
        show: &mut impl FnMut(LogLine) -> Result<(), E>,
    ) -> Result<(), E> {
        self.find_ranks()?;
        let Some((job, attempt)) = &self.attempt else {
            return Ok(());
        };
        let tail = self
            .query
            .tail
            .filter(|_| !std::mem::replace(&mut self.begun, true));
        for (rank, log) in &mut self.ranks {
            let mut each = |line| -> Result<(), Stop<E>> {
                let job = job.clone();
                let (attempt, rank) = (*attempt, *rank);
                show(LogLine {
                    job,
                    attempt,
                    rank,
                    line,
                })
                .map_err(Stop::Shown)
            };
            let read = match tail {
                None => log.read(&mut each),
                Some(count) => log
                    .read_last(count)
                    .map_err(Stop::Read)
                    .and_then(|last| last.into_iter().try_for_each(each)),
            };
            read.map_err(|stop| match stop {
                Stop::Shown(error) => error,
                Stop::Read(error) => {
                    let path = self.dir.log(job, *attempt, *rank);
                    LaunchError::io("read", &path)(error).into()
                }
            })?;
        }
        Ok(())
    }

    /// Takes up the ranks whose logs have appeared.
    fn find_ranks(&mut self) -> Result<(), LaunchError> {
        let Some((job, attempt)) = &self.attempt else {
            return Ok(());
        };
        let folder = self.dir.attempt(job, *attempt);
        let entries = match fs::read_dir(&folder) {
            // It is made when its ranks are started.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(LaunchError::io("list", &folder))?,
        };
        for entry in entries {
            let name = entry.map_err(LaunchError::io("list", &folder))?.file_name();
            if let Some(rank) = name.to_str().and_then(rank_of)
                && self.query.rank.is_none_or(|wanted| wanted == rank)
            {
                let path = self.dir.log(job, *attempt, rank);
                let new = || RankLog::new(path);
                self.ranks.entry(rank).or_insert_with(new);
            }
        }
        Ok(())
    }

    /// The attempt to begin with.
    fn first(&self) -> Result<Option<(JobId, u32)>, LaunchError> {
        let attempts = self.attempts()?.into_iter();
        let attempts = attempts.map(|(job, attempt, _)| (job, attempt));
        let attempts: Vec<(JobId, u32)> = attempts.collect();
        let Some(number) = self.query.attempt else {
            // The newest, where several run.
            return Ok(attempts.last().cloned());
        };
        let job = match &self.query.job {
            Some(_) => None,
            None => attempts.last().map(|(job, _)| job),
        };
        let mut of_job = attempts
            .iter()
            .filter(|(of, _)| job.is_none_or(|job| of == job));
        if let Some(found) = of_job.clone().find(|(_, attempt)| *attempt == number) {
            return Ok(Some(found.clone()));
        }
        let job = job.map(JobId::as_str).or(self.query.job.as_deref());
        let job = job.unwrap_or("the run");
        Err(LaunchError::NoLog(match of_job.next_back() {
            Some((_, newest)) => {
                format!("{job} has had no attempt {number}; its newest is {newest}")
            }
            None => format!("{job} has had no attempt yet"),
        }))
    }

    /// The attempt that was started after the one that is shown, once that is over: others may run beside it.
    fn after(&self) -> Result<Option<(JobId, u32)>, LaunchError> {
        if self.query.attempt.is_some() {
            return Ok(None);
        }
        let mut attempts = self.attempts()?.into_iter();
        let next = match &self.attempt {
            None => attempts.next(),
            Some(shown) => {
                let is_shown =
                    |(job, attempt, _): &(JobId, u32, bool)| (job, attempt) == (&shown.0, &shown.1);
                let is_over = attempts.find(is_shown).is_none_or(|(.., ended)| ended);
                attempts.next().filter(|_| is_over)
            }
        };
        Ok(next.map(|(job, attempt, _)| (job, attempt)))
    }

    /// The attempts at the job that is asked for, or at any, as they were started, and whether they have ended.
    fn attempts(&self) -> Result<Vec<(JobId, u32, bool)>, LaunchError> {
        let started = Database::open_to_read(&self.dir.database())?.attempts()?;
        let wanted = self.query.job.as_deref();
        let of_plan = started.into_iter().filter_map(|started| {
            let wanted = wanted.is_none_or(|job| job == started.job);
            let job = self.plan.job(&started.job).filter(|_| wanted)?;
            Some((job.id.clone(), started.attempt, started.ended))
        });
        Ok(of_plan.collect())
    }
}

/// Why reading a log stopped before its end.
enum Stop<E> {
    Read(io::Error),
    Shown(E),
}

impl<E> From<io::Error> for Stop<E> {
    fn from(error: io::Error) -> Self {
        Stop::Read(error)
    }
}

/// The rank that `rank3.log` or `rank3.log.1` belongs to.
fn rank_of(name: &str) -> Option<usize> {
    let (rank, rest) = name.strip_prefix("rank")?.split_once(".log")?;
    let is_log = rest.is_empty() || rest.starts_with('.');
    rank.parse().ok().filter(|_| is_log)
}
