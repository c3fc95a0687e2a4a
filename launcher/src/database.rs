//! `run.db`: where each job is, kept so that a transition that was acknowledged survives any crash.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use event::FailureClass;
use plan::{JobId, JobState, Plan, Progress};
use rusqlite::{
    Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params,
};

use crate::LaunchError;

const SCHEMA: &str = "
CREATE TABLE jobs (
    id TEXT PRIMARY KEY, hash TEXT NOT NULL, state TEXT NOT NULL, attempt INTEGER NOT NULL
) STRICT;
CREATE TABLE attempts (
    job TEXT NOT NULL, attempt INTEGER NOT NULL, started REAL NOT NULL, ended REAL,
    outcome TEXT, class TEXT, message TEXT, PRIMARY KEY (job, attempt)
) STRICT;
CREATE TABLE transitions (
    at REAL NOT NULL, job TEXT NOT NULL, \"from\" TEXT NOT NULL, \"to\" TEXT NOT NULL, why TEXT NOT NULL
) STRICT;
CREATE INDEX transitions_of_job ON transitions (job);
";
/// Made where it is not there: records of earlier versions lack it.
const MICRO_BATCHES: &str = "
CREATE TABLE IF NOT EXISTS micro_batches (
    job TEXT PRIMARY KEY, hash TEXT NOT NULL, micro_batch INTEGER NOT NULL
) STRICT;
";
const SCHEMA_VERSION: i64 = 1;
/// How long another may write: a command that was stopped in the middle of it must not end a run at once.
const PATIENCE: Duration = Duration::from_secs(30);

/// A job's row, with what its attempts and transitions come to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub state: JobState,
    pub attempt: u32,
    pub seconds: f64,
    /// Why it went into its state; none where it has never left the first.
    pub why: Option<String>,
}

/// An attempt that was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Started {
    pub job: String,
    pub attempt: u32,
    /// Its end is on record.
    pub ended: bool,
}

/// An attempt that ended otherwise than well or on request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Broken {
    pub attempt: u32,
    pub at: f64,
    /// As [`FailureClass`] is written; none where its launcher died.
    pub class: Option<String>,
    pub message: String,
}

#[derive(Debug)]
pub(crate) struct Database {
    connection: Connection,
    path: PathBuf,
}

impl Database {
    /// Opens the database to write, and makes it where it is not there. Several may write at once: each waits for the other.
    pub fn open(path: &Path) -> Result<Self, LaunchError> {
        let connect = || {
            let connection = Connection::open(path)?;
            connection.busy_timeout(PATIENCE)?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            Ok(connection)
        };
        let mut database = Self::new(path, connect())?;
        if database.version()? == 0 {
            database.write("make the tables", |transaction| {
                transaction.execute_batch(SCHEMA)?;
                transaction.pragma_update(None, "user_version", SCHEMA_VERSION)
            })?;
        }
        let mut database = database.check()?;
        database.write("make the newer tables", |transaction| {
            transaction.execute_batch(MICRO_BATCHES)?;
            transaction.execute_batch(holds::TABLE)
        })?;
        Ok(database)
    }

    /// Makes it durable that a job's memory was too small for a larger micro-batch.
    pub fn set_micro_batch(&mut self, job: &JobId, micro_batch: u64) -> Result<(), LaunchError> {
        let micro_batch = i64::try_from(micro_batch).unwrap_or(i64::MAX);
        self.write("record a smaller micro-batch", |transaction| {
            transaction.execute(
                "INSERT OR REPLACE INTO micro_batches SELECT id, hash, ?2 FROM jobs WHERE id = ?1",
                params![job.as_str(), micro_batch],
            )?;
            Ok(())
        })
    }

    /// What earlier attempts at the plan's jobs, as it describes them now, had to take for a micro-batch.
    pub fn micro_batches(&self, plan: &Plan) -> Result<BTreeMap<JobId, u64>, LaunchError> {
        let known = self.read("read the micro-batches", |connection| {
            let mut statement =
                connection.prepare("SELECT job, hash, micro_batch FROM micro_batches")?;
            let rows = statement.query_map([], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get::<_, i64>(2)?))
            })?;
            rows.collect::<rusqlite::Result<Vec<(String, String, i64)>>>()
        })?;
        let of_plan = known.into_iter().filter_map(|(job, hash, micro_batch)| {
            let spec = plan.job(&job).filter(|spec| spec.hash == hash)?;
            Some((spec.id.clone(), u64::try_from(micro_batch).ok()?))
        });
        Ok(of_plan.collect())
    }

    /// Opens the database to read, also while a launcher writes it.
    pub fn open_to_read(path: &Path) -> Result<Self, LaunchError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        // SQLite reads a WAL through shared memory beside it, which a reader may have to make.
        let connect = || {
            let connection = Connection::open_with_flags(path, flags)?;
            connection.pragma_update(None, "query_only", true)?;
            Ok(connection)
        };
        Self::new(path, connect())?.check()
    }

    fn new(path: &Path, connection: rusqlite::Result<Connection>) -> Result<Self, LaunchError> {
        let connection = connection.map_err(|source| LaunchError::Database {
            doing: "open the run's records",
            path: path.to_owned(),
            source,
        })?;
        Ok(Database {
            connection,
            path: path.to_owned(),
        })
    }

    fn check(self) -> Result<Self, LaunchError> {
        let found = self.version()?;
        if found != SCHEMA_VERSION {
            return Err(LaunchError::Schema {
                path: self.path,
                found,
                expected: SCHEMA_VERSION,
            });
        }
        Ok(self)
    }

    fn version(&self) -> Result<i64, LaunchError> {
        self.read("read the schema's version", |connection| {
            connection.pragma_query_value(None, "user_version", |row| row.get(0))
        })
    }

    /// Takes a plan over: jobs that have succeeded under the same hash stay so, all others wait.
    ///
    /// Returns the plan's jobs in its order, none of them running or failed, and those whose earlier
    /// work is void because the plan has changed.
    pub fn adopt(
        &mut self,
        plan: &Plan,
        now: f64,
    ) -> Result<(Vec<Progress>, Vec<JobId>), LaunchError> {
        self.write("take the plan over", |transaction| {
            let mut progress = Vec::new();
            let mut void = Vec::new();
            for job in &plan.jobs {
                let id = job.id.as_str();
                let Some((hash, state, attempt)) = job_row(transaction, id)? else {
                    transaction.execute(
                        "INSERT INTO jobs VALUES (?1, ?2, ?3, 0)",
                        params![id, job.hash, JobState::Pending.as_str()],
                    )?;
                    progress.push(Progress {
                        id: job.id.clone(),
                        state: JobState::Pending,
                        attempt: 0,
                    });
                    continue;
                };
                transaction.execute(
                    "UPDATE attempts SET ended = ?2, outcome = 'lost', message = 'its launcher died' \
                     WHERE job = ?1 AND ended IS NULL",
                    params![id, now],
                )?;
                let changed = hash != job.hash;
                let why = match state {
                    _ if changed && attempt > 0 => Some("the plan has changed"),
                    JobState::Running => Some("its launcher died"),
                    JobState::Failed => Some("launched again"),
                    _ => None,
                };
                if changed {
                    transaction.execute(
                        "UPDATE jobs SET hash = ?2 WHERE id = ?1",
                        params![id, job.hash],
                    )?;
                    if attempt > 0 {
                        void.push(job.id.clone());
                    }
                }
                let state = match why {
                    Some(why) => {
                        move_job(transaction, id, attempt, state, JobState::Pending, why, now)?;
                        JobState::Pending
                    }
                    None => state,
                };
                progress.push(Progress {
                    id: job.id.clone(),
                    state,
                    attempt,
                });
            }
            Ok((progress, void))
        })
    }

    /// Makes a transition durable; it is refused where a job's course does not allow it. With a job's success its attempt ends, in
    /// one: there is no moment at which the one is on record and the other is not. Nor is it held any more.
    pub fn record(
        &mut self,
        job: &JobId,
        attempt: u32,
        to: JobState,
        why: &str,
        now: f64,
    ) -> Result<(), LaunchError> {
        let from = self.write("record a transition", |transaction| {
            let from = job_row(transaction, job.as_str())?.map(|(_, state, _)| state);
            if let Some(from) = from.filter(|from| from.may_become(to)) {
                move_job(transaction, job.as_str(), attempt, from, to, why, now)?;
                if to == JobState::Running {
                    transaction.execute(
                        "INSERT INTO attempts (job, attempt, started) VALUES (?1, ?2, ?3)",
                        params![job.as_str(), attempt, now],
                    )?;
                }
                if to == JobState::Succeeded {
                    transaction.execute(
                        "UPDATE attempts SET ended = ?3, outcome = 'succeeded', message = '' WHERE job = ?1 AND attempt = ?2",
                        params![job.as_str(), attempt, now],
                    )?;
                    transaction.execute("DELETE FROM holds WHERE job = ?1", [job.as_str()])?;
                }
            }
            Ok(from)
        })?;
        match from {
            Some(from) if from.may_become(to) => Ok(()),
            from => Err(LaunchError::Transition {
                job: job.to_string(),
                from: from.map_or("nowhere".into(), |state| state.to_string()),
                to: to.to_string(),
            }),
        }
    }

    /// Makes the end of an attempt durable that did not succeed.
    pub fn close(
        &mut self,
        job: &JobId,
        attempt: u32,
        outcome: &str,
        class: Option<FailureClass>,
        message: &str,
        now: f64,
    ) -> Result<(), LaunchError> {
        let class = class
            .and_then(|class| serde_json::to_value(class).ok())
            .and_then(|class| class.as_str().map(str::to_owned));
        self.write("record the end of an attempt", |transaction| {
            transaction.execute(
                "UPDATE attempts SET ended = ?3, outcome = ?4, class = ?5, message = ?6 \
                 WHERE job = ?1 AND attempt = ?2",
                params![job.as_str(), attempt, now, outcome, class, message],
            )?;
            Ok(())
        })
    }

    /// All jobs by name; attempts that run count up to `now`.
    pub fn jobs(&self, now: f64) -> Result<BTreeMap<String, Row>, LaunchError> {
        self.read("read the jobs", |connection| {
            let mut statement = connection.prepare(
                "SELECT id, state, attempt, \
                 (SELECT total(coalesce(ended, ?1) - started) FROM attempts WHERE job = id), \
                 (SELECT why FROM transitions WHERE job = id ORDER BY rowid DESC LIMIT 1) \
                 FROM jobs",
            )?;
            let rows = statement.query_map([now], |row| {
                let known = Row {
                    state: state(row, 1)?,
                    attempt: row.get(2)?,
                    seconds: row.get::<_, f64>(3)?.max(0.0),
                    why: row.get(4)?,
                };
                Ok((row.get(0)?, known))
            })?;
            rows.collect()
        })
    }

    /// All attempts, as they were started.
    pub fn attempts(&self) -> Result<Vec<Started>, LaunchError> {
        self.read("read the attempts", |connection| {
            let mut statement = connection
                .prepare("SELECT job, attempt, ended IS NOT NULL FROM attempts ORDER BY rowid")?;
            let rows = statement.query_map([], |row| {
                Ok(Started {
                    job: row.get(0)?,
                    attempt: row.get(1)?,
                    ended: row.get(2)?,
                })
            })?;
            rows.collect()
        })
    }

    /// The newest attempt of each job that failed.
    pub fn broken(&self) -> Result<BTreeMap<String, Broken>, LaunchError> {
        self.read("read the failures", |connection| {
            let mut statement = connection.prepare(
                "SELECT job, attempt, ended, class, coalesce(message, '') FROM attempts \
                 WHERE ended IS NOT NULL AND outcome NOT IN ('succeeded', 'stopped') ORDER BY rowid",
            )?;
            let rows = statement.query_map([], |row| {
                let broken = Broken {
                    attempt: row.get(1)?,
                    at: row.get(2)?,
                    class: row.get(3)?,
                    message: row.get(4)?,
                };
                Ok((row.get(0)?, broken))
            })?;
            rows.collect()
        })
    }

    fn read<T>(
        &self,
        doing: &'static str,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, LaunchError> {
        query(&self.connection).map_err(|source| LaunchError::Database {
            doing,
            path: self.path.clone(),
            source,
        })
    }

    /// One transaction, durable when this returns.
    fn write<T>(
        &mut self,
        doing: &'static str,
        change: impl FnOnce(&Transaction) -> rusqlite::Result<T>,
    ) -> Result<T, LaunchError> {
        let run = || {
            // Taken at once: where it is only read first, what another has written meanwhile would make the write fail.
            let behavior = TransactionBehavior::Immediate;
            let transaction = self.connection.transaction_with_behavior(behavior)?;
            let value = change(&transaction)?;
            transaction.commit()?;
            Ok(value)
        };
        run().map_err(|source| LaunchError::Database {
            doing,
            path: self.path.clone(),
            source,
        })
    }
}

/// Hash, state and newest attempt of a job.
fn job_row(
    transaction: &Transaction,
    id: &str,
) -> rusqlite::Result<Option<(String, JobState, u32)>> {
    transaction
        .query_row(
            "SELECT hash, state, attempt FROM jobs WHERE id = ?1",
            [id],
            |row| Ok((row.get(0)?, state(row, 1)?, row.get(2)?)),
        )
        .optional()
}

fn state(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<JobState> {
    let text: String = row.get(column)?;
    JobState::parse(&text).ok_or_else(|| {
        let fault = format!("`{text}` is no state of a job");
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, fault.into())
    })
}

fn move_job(
    transaction: &Transaction,
    id: &str,
    attempt: u32,
    from: JobState,
    to: JobState,
    why: &str,
    now: f64,
) -> rusqlite::Result<()> {
    transaction.execute(
        "UPDATE jobs SET state = ?2, attempt = ?3 WHERE id = ?1",
        params![id, to.as_str(), attempt],
    )?;
    transaction.execute(
        "INSERT INTO transitions VALUES (?1, ?2, ?3, ?4, ?5)",
        params![now, id, from.as_str(), to.as_str(), why],
    )?;
    Ok(())
}

mod holds;
#[cfg(test)]
mod tests;
