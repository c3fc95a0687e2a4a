//! What users hold back. Others than the launcher write it, so the launcher looks at it again and again.

use std::collections::BTreeMap;

use plan::JobId;
use rusqlite::{OptionalExtension, params};

use super::{Database, job_row};
use crate::LaunchError;
use crate::holds::{Hold, is_open};

/// Made where it is not there: records of earlier versions lack it.
pub(super) const TABLE: &str = "
CREATE TABLE IF NOT EXISTS holds (job TEXT PRIMARY KEY, how TEXT NOT NULL, at REAL NOT NULL) STRICT;
";

impl Database {
    /// Holds jobs, or lets them go on: all of them or none. Returns one for which it cannot be: it has succeeded, or is not held.
    pub fn set_holds(
        &mut self,
        jobs: &[JobId],
        hold: Option<Hold>,
        now: f64,
    ) -> Result<Option<JobId>, LaunchError> {
        self.write("record what is held", |transaction| {
            for job in jobs {
                let id = job.as_str();
                let known: Option<String> = transaction
                    .query_row("SELECT how FROM holds WHERE job = ?1", [id], |row| {
                        row.get(0)
                    })
                    .optional()?;
                let state = job_row(transaction, id)?.map(|(_, state, _)| state);
                let may_be = match hold {
                    Some(_) => state.is_none_or(is_open),
                    None => known.is_some(),
                };
                if !may_be {
                    return Ok(Some(job.clone()));
                }
            }
            for job in jobs {
                match hold {
                    Some(hold) => transaction.execute(
                        "INSERT OR REPLACE INTO holds VALUES (?1, ?2, ?3)",
                        params![job.as_str(), hold.as_str(), now],
                    )?,
                    None => {
                        transaction.execute("DELETE FROM holds WHERE job = ?1", [job.as_str()])?
                    }
                };
            }
            Ok(None)
        })
    }

    /// What is held, by the names of jobs.
    pub fn holds(&self) -> Result<BTreeMap<String, Hold>, LaunchError> {
        self.read("read what is held", |connection| {
            // Whoever only reads cannot make the table.
            let there =
                "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'holds'";
            if connection.query_row(there, [], |row| row.get::<_, i64>(0))? == 0 {
                return Ok(BTreeMap::new());
            }
            let mut statement = connection.prepare("SELECT job, how FROM holds")?;
            let rows =
                statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))?;
            let mut holds = BTreeMap::new();
            for row in rows {
                let (job, how) = row?;
                if let Some(hold) = Hold::parse(&how) {
                    holds.insert(job, hold);
                }
            }
            Ok(holds)
        })
    }
}
