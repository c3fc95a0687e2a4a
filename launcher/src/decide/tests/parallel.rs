//! Several jobs at once, on parts of the devices, in the mock world.

use event::{EventKind, FailureClass, StepRecord};
use plan::schedule::Limits;
use plan::{Gpus, JobId, JobKind, JobState, Plan};

use super::gone;
use super::world::{Blow, World};
use crate::action::Happening;
use crate::exit::{Exit, STOPPED};
use crate::room::Demand;
use crate::{Outcome, sample};

/// `job0`, `job1`, and `job2` that needs `job1`, of one device each; and tables without a device.
fn plan() -> Plan {
    let mut plan = sample::on(Gpus::Count(1), sample::independent(3));
    plan.jobs[2].needs = vec![JobId::new("job1").unwrap()];
    let mut tables = plan.jobs[0].clone();
    tables.id = JobId::new("tables").unwrap();
    tables.kind = JobKind::Labels;
    plan.jobs.push(tables);
    plan
}

fn names(world: &World) -> Vec<String> {
    let mut names: Vec<String> = world.started.iter().map(|(job, _)| job.clone()).collect();
    names.sort();
    names
}

#[test]
fn jobs_run_side_by_side_on_devices_of_their_own_and_tables_beside_them() {
    let mut world = World::new(plan());
    assert_eq!(names(&world), ["job0", "job1", "tables"]);
    for job in ["job0", "job1", "tables"] {
        assert_eq!(world.ranks(job), [0]);
    }
    world.all_of_end("job1", 0);
    assert_eq!(world.ranks("job2"), [0], "what it waited for is there");
    assert!(!world.devices.is_empty());
    for job in ["job0", "tables", "job2"] {
        assert_eq!(world.outcome, None);
        world.all_of_end(job, 0);
    }
    assert_eq!(world.outcome, Some(Outcome::Done));
}

#[test]
fn a_failed_job_leaves_its_descendants_and_nobody_else() {
    let mut world = World::new(plan());
    world.look_at("job1");
    world.reports(0, FailureClass::Data, 1.0, "study 1.2.3 has no slices");
    world.ends(0, Exit::Code(4));
    assert_eq!(world.state("job1"), JobState::Failed);
    assert_eq!(world.ranks("job0"), [0], "it goes on");
    world.all_of_end("tables", 0);
    assert_eq!(world.outcome, None);
    world.all_of_end("job0", 0);
    assert_eq!(world.outcome.clone().unwrap().exit_code(), 4);
    assert_eq!(world.state("job2"), JobState::Pending);
    assert_eq!(names(&world), ["job0", "job1", "tables"]);
}

#[test]
fn a_job_that_waits_for_its_next_attempt_keeps_its_device_and_disturbs_no_other() {
    let mut plan = plan();
    plan.jobs[2].needs.clear();
    let mut world = World::new(plan);
    world.look_at("job1");
    world.ends(0, Exit::Signal(11));
    assert_eq!(names(&world), ["job0", "job1", "tables"], "job2 waits");
    world.settle();
    assert_eq!(world.started.last(), Some(&("job1".to_owned(), 2)));
    assert_eq!(world.ranks("job0"), [0]);
    world.all_of_end("job1", 0);
    assert_eq!(world.ranks("job2"), [0]);
}

#[test]
fn a_stop_waits_for_all_and_one_that_was_cut_outweighs_those_that_saved() {
    for (second, outcome) in [
        (Exit::Code(STOPPED), Outcome::Stopped),
        (Exit::Signal(9), Outcome::Stopped),
    ] {
        let mut world = World::new(plan());
        world.strikes(Blow::Signal);
        assert_eq!(world.asked, 3);
        world.all_of_end("job0", STOPPED);
        world.all_of_end("tables", 0);
        assert_eq!(world.outcome, None, "job1 still saves");
        world.ends_of("job1", 0, second);
        assert_eq!(world.outcome, Some(outcome));
        assert_eq!(world.state("job0"), JobState::Stopped);
        assert_eq!(world.state("tables"), JobState::Succeeded);
        assert_eq!(world.state("job1"), JobState::Stopped);
        assert_eq!(names(&world), ["job0", "job1", "tables"], "nothing new");
    }
    let cut = Some(Outcome::Interrupted { signal: 15 });
    let mut world = World::new(plan());
    world.all_of_end("tables", 0);
    world.strikes(Blow::Signal);
    world.all_of_end("job0", STOPPED);
    world.strikes(Blow::Signal);
    assert_eq!(world.outcome, cut, "a second signal kills the rest");

    let mut world = World::new(plan());
    world.all_of_end("tables", 0);
    world.look_at("job0");
    let step = EventKind::Step(StepRecord {
        step: 1,
        ..StepRecord::default()
    });
    let (rank, kind) = (0, &step);
    world.meets(Happening::Said { rank, kind });
    world.strikes(Blow::Signal);
    world.ends(0, Exit::Signal(9));
    world.all_of_end("job1", STOPPED);
    assert_eq!(world.outcome, cut, "job0 has lost an update");
}

#[test]
fn ranks_that_somebody_else_stopped_stop_the_run_with_all_its_jobs() {
    let mut world = World::new(plan());
    world.all_of_end("job0", STOPPED);
    assert_eq!((world.asked, &world.outcome), (2, &None));
    world.all_of_end("tables", STOPPED);
    world.all_of_end("job1", STOPPED);
    assert_eq!(world.outcome, Some(Outcome::Stopped));
    assert_eq!(world.state("job2"), JobState::Pending);
}

#[test]
fn a_lost_device_is_nobodys_any_more_and_a_job_of_one_takes_another() {
    let mut world = World::new(plan());
    let message = "CUDA error: uncorrectable ECC error encountered";
    world.look_at("job0");
    world.reports(0, FailureClass::DeviceLost, 1.0, message);
    world.ends(0, Exit::Code(3));
    assert_eq!(world.ranks("job1"), [0], "it has another device");
    assert_eq!(world.state("job0"), JobState::Stopped);
    assert_eq!(world.started.len(), 3, "no device is free");
    world.all_of_end("job1", 0);
    let on_device = world.devices.clone();
    assert_eq!(world.started.len(), 4);
    world.all_of_end("tables", 0);
    let (next, _) = world.started[3].clone();
    world.all_of_end(&next, 0);
    assert_eq!(world.devices, on_device, "only one is left");
    let (last, _) = world.started[4].clone();
    world.all_of_end(&last, 0);
    assert_eq!(world.outcome, Some(Outcome::Done));
    assert!(world.started.contains(&("job0".to_owned(), 2)));
}

#[test]
fn a_gang_that_has_too_few_devices_left_is_given_up_before_it_starts() {
    let mut plan = sample::on(Gpus::Count(1), sample::independent(2));
    if let JobKind::Train { training, .. } = &mut plan.jobs[1].kind {
        training.gpus = Gpus::All;
    }
    let mut world = World::new(plan);
    assert_eq!(names(&world), ["job0"], "no room for both devices of job1");
    world.reports(
        0,
        FailureClass::DeviceLost,
        1.0,
        "the GPU has fallen off the bus",
    );
    world.ends(0, Exit::Code(3));
    let told = format!("{:?}", world.told);
    assert!(told.contains("a device is lost, and"), "{told}");
    world.all_of_end("job0", 0);
    assert_eq!(
        world.outcome.clone().map(|of| of.exit_code()),
        Some(3),
        "{:?}",
        world.told
    );
    assert_eq!(names(&world), ["job0", "job0"]);
}

#[test]
fn auto_shares_what_is_free_and_all_takes_turns() {
    for (gpus, side_by_side) in [(Gpus::Auto, true), (Gpus::All, false)] {
        let world = World::with(
            sample::on(gpus, sample::independent(2)),
            Limits::devices(4),
            Demand::default(),
        );
        let ranks = [world.ranks("job0").len(), world.ranks("job1").len()];
        match side_by_side {
            true => assert_eq!(ranks, [2, 2]),
            false => assert_eq!(ranks.iter().sum::<usize>(), 4),
        }
        assert_eq!(world.started.len(), 1 + usize::from(side_by_side));
    }
}

#[test]
fn a_run_whose_directory_is_gone_ends_every_job() {
    let mut world = World::new(plan());
    world.look_at("job1");
    world.ends(0, Exit::Signal(11));
    world.happens(gone());
    let lost = Outcome::Lost {
        reason: "runs/a is gone".into(),
    };
    assert_eq!(world.outcome, Some(lost));
    for job in ["job0", "job1", "tables"] {
        assert_eq!(world.state(job), JobState::Failed);
        assert!(world.ranks(job).is_empty());
    }
    let failed = |kind: &&EventKind| matches!(kind, EventKind::JobFailed { .. });
    assert_eq!(world.told.iter().filter(failed).count(), 3);
}

#[test]
fn a_job_waits_where_host_memory_would_not_hold_it_beside_the_others() {
    let plan = || sample::on(Gpus::Count(1), sample::independent(3));
    let limits = Limits {
        memory: 20,
        ..Limits::devices(3)
    };
    let of = |memory| Demand {
        memory,
        ..Demand::default()
    };
    let mut world = World::with(plan(), limits, of(10));
    assert_eq!(names(&world), ["job0", "job1"], "a device stays free");
    world.all_of_end("job0", 0);
    assert_eq!(world.ranks("job2"), [0]);
    // One that may take more than there is has it to itself.
    let mut world = World::with(plan(), limits, of(30));
    for job in ["job0", "job1", "job2"] {
        assert_eq!(world.started.last().unwrap().0, job);
        world.all_of_end(job, 0);
    }
    assert_eq!(world.outcome, Some(Outcome::Done));
}

#[test]
fn a_job_that_finds_no_room_on_the_disk_is_told_once_the_others_are_done() {
    let limits = Limits {
        disk: 20,
        ..Limits::devices(3)
    };
    let demand = Demand {
        disk: 10,
        ..Demand::default()
    };
    let plan = sample::on(Gpus::Count(1), sample::independent(3));
    let mut world = World::with(plan, limits, demand);
    world.all_of_end("job0", 0);
    world.all_of_end("job1", 0);
    assert_eq!(names(&world), ["job0", "job1"]);
    assert_eq!(world.outcome.as_ref().unwrap().exit_code(), 3);
    assert_eq!(world.state("job2"), JobState::Pending);
}

#[test]
fn no_more_jobs_run_at_once_than_are_asked_for() {
    let limits = Limits {
        jobs: 1,
        ..Limits::devices(3)
    };
    let plan = sample::on(Gpus::Count(1), sample::independent(2));
    let mut world = World::with(plan, limits, Demand::default());
    assert_eq!(names(&world), ["job0"]);
    world.all_of_end("job0", 0);
    assert_eq!(names(&world), ["job0", "job1"]);
}
