//! Jobs that a user holds back: recorded in `run.db`, heard of by the launch that is at work, and kept for those that follow.

use std::collections::BTreeSet;
use std::path::Path;

use plan::{JobId, JobState, Plan};
use serde::{Deserialize, Serialize};

use crate::LaunchError;
use crate::database::Database;
use crate::run_dir::RunDir;

/// How much alike a word and a job's name must be for the one to be meant by the other, and how many such names are told.
const ALIKE: f64 = 0.5;
const NAMES: usize = 3;

/// How a job is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hold {
    /// For a while.
    Paused,
    /// For good: what needs it is skipped.
    Cancelled,
}

impl Hold {
    pub fn as_str(self) -> &'static str {
        match self {
            Hold::Paused => "paused",
            Hold::Cancelled => "cancelled",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Hold::Paused, Hold::Cancelled]
            .into_iter()
            .find(|hold| hold.as_str() == text)
    }
}

impl std::fmt::Display for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Holds jobs back, or lets them go on (`None`). When this returns it is durable; a launch that is at work hears of it within half a
/// second, asks those of the jobs that run to save and stop, and starts none of them.
///
/// # Errors
/// All or nothing: `NoJob` for a name that the run has not, `Held` for a job that has succeeded already or is not held.
pub fn hold(run_dir: &Path, jobs: &[String], hold: Option<Hold>) -> Result<(), LaunchError> {
    let dir = RunDir::with_a_run(run_dir)?;
    let plan = plan::read(&dir.plan()).map_err(LaunchError::io("read", &dir.plan()))?;
    let find = |name: &String| match plan.job(name) {
        Some(job) => Ok(job.id.clone()),
        None => Err(LaunchError::NoJob {
            job: name.clone(),
            advice: advice(&plan, name, run_dir),
        }),
    };
    let jobs: Vec<JobId> = jobs.iter().map(find).collect::<Result<_, _>>()?;
    let mut database = Database::open(&dir.database())?;
    let refused = database.set_holds(&jobs, hold, event::now())?;
    match (refused, hold) {
        (None, _) => Ok(()),
        (Some(job), Some(hold)) => Err(LaunchError::Held(format!(
            "job {job} has succeeded: what is done cannot be {hold}"
        ))),
        (Some(job), None) => Err(LaunchError::Held(format!(
            "job {job} is neither paused nor cancelled: there is nothing to take back"
        ))),
    }
}

/// The names that may be meant, else where all are to be found.
fn advice(plan: &Plan, word: &str, run_dir: &Path) -> String {
    let names = plan.jobs.iter().map(|job| job.id.as_str());
    let likeness = |name: &str| strsim::normalized_damerau_levenshtein(word, name);
    let mut near: Vec<(f64, &str)> = names
        .filter(|name| !word.is_empty() && (name.contains(word) || likeness(name) >= ALIKE))
        .map(|name| (likeness(name), name))
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    let near: Vec<String> = near
        .iter()
        .take(NAMES)
        .map(|(_, name)| format!("`{name}`"))
        .collect();
    match near.is_empty() {
        true => format!("`spinectl status {}` lists them", run_dir.display()),
        false => format!("did you mean {}?", near.join(" or ")),
    }
}

/// The jobs that need one of these, directly or not, in the plan's order.
pub(crate) fn descendants(plan: &Plan, of: impl Fn(&JobId) -> bool) -> Vec<&JobId> {
    let mut reached = BTreeSet::new();
    let mut found = Vec::new();
    // Each job comes after those that it needs.
    for job in &plan.jobs {
        let is_one = job
            .needs
            .iter()
            .any(|need| of(need) || reached.contains(need));
        if is_one {
            reached.insert(&job.id);
            found.push(&job.id);
        }
    }
    found
}

/// Whether a job in this state can still be held back.
pub(crate) fn is_open(state: JobState) -> bool {
    state != JobState::Succeeded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    fn run(jobs: usize) -> (tempfile::TempDir, Database) {
        let folder = tempfile::tempdir().unwrap();
        let plan = sample::chain(jobs);
        plan::write(&folder.path().join("plan.json"), &plan).unwrap();
        let mut database = Database::open(&folder.path().join("run.db")).unwrap();
        database.adopt(&plan, 1.0).unwrap();
        (folder, database)
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_hold_is_kept_until_it_is_taken_back() {
        let (folder, database) = run(3);
        hold(folder.path(), &names(&["job0", "job2"]), Some(Hold::Paused)).unwrap();
        hold(folder.path(), &names(&["job2"]), Some(Hold::Cancelled)).unwrap();
        let held = database.holds().unwrap();
        assert_eq!(held["job0"], Hold::Paused);
        assert_eq!(held["job2"], Hold::Cancelled);
        hold(folder.path(), &names(&["job0"]), None).unwrap();
        assert_eq!(database.holds().unwrap().len(), 1);
        let error = hold(folder.path(), &names(&["job2", "job0"]), None).unwrap_err();
        assert!(error.to_string().contains("job job0 is neither"), "{error}");
        assert_eq!(error.exit_code(), 2);
        assert_eq!(database.holds().unwrap().len(), 1, "all or nothing");
    }

    #[test]
    fn what_is_done_cannot_be_held_and_what_succeeds_is_held_no_more() {
        let (folder, mut database) = run(2);
        let job = sample::chain(2).jobs[0].id.clone();
        hold(folder.path(), &names(&["job0"]), Some(Hold::Paused)).unwrap();
        for state in [JobState::Running, JobState::Succeeded] {
            database.record(&job, 1, state, "", 2.0).unwrap();
        }
        assert!(database.holds().unwrap().is_empty());
        let both = names(&["job1", "job0"]);
        let error = hold(folder.path(), &both, Some(Hold::Cancelled)).unwrap_err();
        assert!(error.to_string().contains("cannot be cancelled"), "{error}");
        assert!(database.holds().unwrap().is_empty(), "all or nothing");
    }

    #[test]
    fn a_name_that_is_none_is_told_with_those_that_are_near() {
        let (folder, _) = run(2);
        let told = |name| {
            let error = hold(folder.path(), &names(&[name]), Some(Hold::Paused)).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            error.to_string()
        };
        assert!(
            told("jbo1").contains("did you mean `job1`"),
            "{}",
            told("jbo1")
        );
        assert!(
            told("b0").contains("did you mean `job0`?"),
            "{}",
            told("b0")
        );
        assert!(
            told("summary").contains("spinectl status"),
            "{}",
            told("summary")
        );
    }

    #[test]
    fn descendants_are_all_that_need_a_job() {
        let mut plan = sample::chain(3);
        plan.jobs.push(sample::independent(4).jobs[3].clone());
        let found = descendants(&plan, |job| job.as_str() == "job0");
        let found: Vec<&str> = found.into_iter().map(JobId::as_str).collect();
        assert_eq!(found, ["job1", "job2"]);
    }
}
