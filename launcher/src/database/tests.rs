//! What `run.db` keeps, refuses and survives.

use super::*;
use crate::holds::Hold;
use crate::sample;

fn open(folder: &tempfile::TempDir) -> Database {
    Database::open(&folder.path().join("run.db")).unwrap()
}

fn states(progress: &[Progress]) -> Vec<&'static str> {
    progress.iter().map(|job| job.state.as_str()).collect()
}

#[test]
fn what_is_acknowledged_is_there_after_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let plan = sample::chain(3);
    let [first, second, third] = [0, 1, 2].map(|job| plan.jobs[job].id.clone());
    let mut database = open(&folder);
    database.adopt(&plan, 1.0).unwrap();
    database
        .record(&first, 1, JobState::Running, "", 2.0)
        .unwrap();
    // With the job its attempt: nothing can come between the two.
    database
        .record(&first, 1, JobState::Succeeded, "", 4.0)
        .unwrap();
    database
        .record(&second, 1, JobState::Running, "", 5.0)
        .unwrap();
    // Nothing is closed in order: the launcher is gone.
    std::mem::forget(database);

    let mut database = open(&folder);
    let (progress, void) = database.adopt(&plan, 9.0).unwrap();
    assert_eq!(states(&progress), ["succeeded", "pending", "pending"]);
    assert_eq!(
        progress.iter().map(|job| job.attempt).collect::<Vec<_>>(),
        [1, 1, 0]
    );
    assert!(void.is_empty());
    let rows = database.jobs(100.0).unwrap();
    assert_eq!(rows[first.as_str()].seconds, 2.0);
    assert_eq!(
        rows[second.as_str()].seconds,
        4.0,
        "a lost attempt ends at the next launch"
    );
    assert_eq!(
        rows[second.as_str()].why.as_deref(),
        Some("its launcher died")
    );
    assert_eq!(rows[third.as_str()].why, None);
}

#[test]
fn a_job_whose_hash_has_changed_is_done_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut plan = sample::chain(2);
    let first = plan.jobs[0].id.clone();
    let mut database = open(&folder);
    database.adopt(&plan, 1.0).unwrap();
    database
        .record(&first, 1, JobState::Running, "", 2.0)
        .unwrap();
    database
        .record(&first, 1, JobState::Succeeded, "", 3.0)
        .unwrap();
    for job in &mut plan.jobs {
        job.hash.push('x');
    }
    let (progress, void) = database.adopt(&plan, 4.0).unwrap();
    assert_eq!(states(&progress), ["pending", "pending"]);
    assert_eq!(void, [first], "a job that never ran has nothing to lose");
    let (_, void) = database.adopt(&plan, 5.0).unwrap();
    assert!(void.is_empty(), "said once");
}

#[test]
fn a_transition_that_a_jobs_course_does_not_allow_is_refused_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let plan = sample::chain(1);
    let job = &plan.jobs[0].id;
    let mut database = open(&folder);
    database.adopt(&plan, 1.0).unwrap();
    let error = database
        .record(job, 1, JobState::Succeeded, "", 2.0)
        .unwrap_err();
    assert!(matches!(error, LaunchError::Transition { .. }), "{error}");
    assert_eq!(
        database.jobs(2.0).unwrap()[job.as_str()].state,
        JobState::Pending
    );
}

#[test]
fn a_reader_sees_the_newest_state_and_cannot_write() {
    let folder = tempfile::tempdir().unwrap();
    let plan = sample::chain(1);
    let job = &plan.jobs[0].id;
    let mut writer = open(&folder);
    writer.adopt(&plan, 1.0).unwrap();
    let mut reader = Database::open_to_read(&folder.path().join("run.db")).unwrap();
    writer.record(job, 1, JobState::Running, "", 2.0).unwrap();
    assert_eq!(
        reader.jobs(3.0).unwrap()[job.as_str()].state,
        JobState::Running
    );
    assert!(reader.record(job, 1, JobState::Failed, "", 3.0).is_err());
}

#[test]
fn a_database_of_another_version_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let database = open(&folder);
    database
        .connection
        .pragma_update(None, "user_version", 7)
        .unwrap();
    drop(database);
    let error = Database::open(&folder.path().join("run.db")).unwrap_err();
    assert!(
        matches!(error, LaunchError::Schema { found: 7, .. }),
        "{error}"
    );
}

#[test]
fn two_that_write_at_once_wait_for_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let plan = sample::chain(40);
    open(&folder).adopt(&plan, 1.0).unwrap();
    let hold = |every: usize| {
        let mut database = open(&folder);
        for job in plan.jobs.iter().skip(every).step_by(2) {
            let jobs = std::slice::from_ref(&job.id);
            let refused = database.set_holds(jobs, Some(Hold::Paused), 2.0);
            assert_eq!(refused.unwrap(), None);
        }
    };
    std::thread::scope(|scope| {
        for every in [0, 1] {
            let hold = &hold;
            scope.spawn(move || hold(every));
        }
    });
    assert_eq!(open(&folder).holds().unwrap().len(), 40);
}
