//! What the supervisor decides, without a process and without waiting.

mod holds;
mod parallel;
mod verdicts;
mod wider;
mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use event::{EventKind, FailureClass, Phase, StepRecord};
use plan::schedule::Limits;
use plan::{JobState, Progress, Timeouts};

use self::world::{Blow, RANKS, World};
use super::Supervisor;
use crate::action::{Action, Event, Happening};
use crate::exit::{Exit, STOPPED};
use crate::{Outcome, sample};

fn gone() -> Event<'static> {
    Event::Lost {
        message: "runs/a is gone".into(),
    }
}

/// What is left to say of a run whose directory is gone.
fn assert_lost(world: &World, job: &str) {
    let lost = Outcome::Lost {
        reason: "runs/a is gone".into(),
    };
    assert_eq!(world.outcome, Some(lost));
    assert_eq!(world.state(job), JobState::Failed);
    assert!(world.alive.is_empty());
    assert!(world.reports.is_empty(), "no rank is to blame");
}

#[test]
fn a_run_whose_directory_is_gone_ends_at_once_whatever_is_left() {
    for blows in [&[][..], &[Blow::AllDone], &[Blow::Signal]] {
        let mut world = World::new(sample::chain(2));
        blows.iter().for_each(|blow| world.strikes(*blow));
        let job = world.started.last().unwrap().0.clone();
        let started = world.started.len();
        world.happens(gone());
        assert_lost(&world, &job);
        assert_eq!(world.started.len(), started, "nothing is tried again");
    }
}

#[test]
fn a_directory_that_is_gone_ends_a_wait_for_the_next_attempt() {
    let mut world = World::new(sample::chain(1));
    world.strikes(Blow::Died);
    assert!(world.alive.is_empty(), "it waits");
    world.reports.clear();
    world.happens(gone());
    assert_lost(&world, "job0");
}

/// Every ordered pair of events on a job of two ranks that a second job waits for.
#[test]
fn every_pair_of_events_has_its_end() {
    use Blow::*;
    use JobState::*;
    let stopped = Some(Outcome::Stopped);
    let cut = Some(Outcome::Interrupted { signal: 15 });
    // First and second event; what the run has come to when both have had their effect; the state
    // of the first job; how often it was tried.
    let table = [
        // A failure ends the others at once and is tried again; nobody is left whom a second blow could hit.
        ((Died, Died), None, Running, 2),
        ((Died, Reported), None, Running, 2),
        ((Died, Signal), stopped.clone(), Stopped, 1),
        ((Died, TwoSignals), stopped.clone(), Stopped, 1),
        ((Died, AllDone), None, Running, 2),
        ((Died, AllStopped), None, Running, 2),
        ((Reported, Died), None, Running, 2),
        ((Reported, Reported), None, Running, 2),
        ((Reported, Signal), stopped.clone(), Stopped, 1),
        ((Reported, TwoSignals), stopped.clone(), Stopped, 1),
        ((Reported, AllDone), None, Running, 2),
        ((Reported, AllStopped), None, Running, 2),
        // Asked to stop: nothing is tried again, and 75 says that nothing was lost.
        ((Signal, Died), stopped.clone(), Stopped, 1),
        ((Signal, Reported), stopped.clone(), Stopped, 1),
        ((Signal, Signal), cut.clone(), Stopped, 1),
        ((Signal, TwoSignals), cut.clone(), Stopped, 1),
        ((Signal, AllDone), stopped.clone(), Succeeded, 1),
        ((Signal, AllStopped), stopped.clone(), Stopped, 1),
        // A second signal leaves no rank to which anything could happen.
        ((TwoSignals, Died), cut.clone(), Stopped, 1),
        ((TwoSignals, Reported), cut.clone(), Stopped, 1),
        ((TwoSignals, Signal), cut.clone(), Stopped, 1),
        ((TwoSignals, TwoSignals), cut.clone(), Stopped, 1),
        ((TwoSignals, AllDone), cut.clone(), Stopped, 1),
        ((TwoSignals, AllStopped), cut.clone(), Stopped, 1),
        // The first job is done and the second event hits the second job.
        ((AllDone, Died), None, Succeeded, 1),
        ((AllDone, Reported), None, Succeeded, 1),
        ((AllDone, Signal), None, Succeeded, 1),
        ((AllDone, TwoSignals), cut.clone(), Succeeded, 1),
        ((AllDone, AllDone), Some(Outcome::Done), Succeeded, 1),
        ((AllDone, AllStopped), stopped.clone(), Succeeded, 1),
        // Ranks that were asked by somebody else than the launcher: the run is over.
        ((AllStopped, Died), stopped.clone(), Stopped, 1),
        ((AllStopped, Reported), stopped.clone(), Stopped, 1),
        ((AllStopped, Signal), stopped.clone(), Stopped, 1),
        ((AllStopped, TwoSignals), stopped.clone(), Stopped, 1),
        ((AllStopped, AllDone), stopped.clone(), Stopped, 1),
        ((AllStopped, AllStopped), stopped.clone(), Stopped, 1),
    ];
    assert_eq!(table.len(), 36);
    for ((first, second), outcome, state, attempts) in table {
        let mut world = World::new(sample::chain(2));
        world.strikes(first);
        world.strikes(second);
        world.settle();
        let pair = format!("{first:?}, then {second:?}");
        assert_eq!(world.outcome, outcome, "{pair}");
        assert_eq!(world.state("job0"), state, "{pair}");
        let tries = world.started.iter().filter(|(job, _)| job == "job0");
        assert_eq!(tries.count(), attempts, "{pair}");
        let is_over = world.outcome.is_some();
        assert!(!is_over || world.alive.is_empty(), "{pair}: ranks are left");
        let signalled = |blow| matches!(blow, Signal | TwoSignals);
        let runs = !matches!(first, AllStopped | Died | Reported);
        let asked = signalled(first) || (signalled(second) && runs);
        assert_eq!(world.asked > 0, asked, "{pair}");
    }
}

#[test]
fn jobs_run_one_after_another_in_the_plans_order() {
    let mut world = World::new(sample::chain(3));
    for _ in 0..3 {
        world.all_end(0);
    }
    assert_eq!(world.outcome, Some(Outcome::Done));
    assert_eq!(world.started(), [("job0", 1), ("job1", 1), ("job2", 1)]);
}

#[test]
fn what_cannot_be_cured_is_not_tried_again_and_only_its_descendants_wait() {
    let mut plan = sample::chain(2);
    let mut alone = sample::independent(3).jobs.remove(2);
    alone.id = plan::JobId::new("alone").unwrap();
    plan.jobs.push(alone);
    let mut world = World::new(plan);
    world.reports(0, FailureClass::Data, 1.0, "study 1.2.3 has no slices");
    world.ends(0, Exit::Code(4));
    world.settle();
    assert_eq!(world.started(), [("job0", 1), ("alone", 1)]);
    world.all_end(0);
    let outcome = world.outcome.clone().unwrap();
    assert_eq!(outcome.exit_code(), 4);
    let Outcome::Failed { job, reason, .. } = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(
        (job.as_str(), reason.as_str()),
        ("job0", "rank 0: study 1.2.3 has no slices")
    );
    assert_eq!(world.state("job1"), JobState::Pending);
}

#[test]
fn retries_wait_longer_each_time_and_end() {
    let mut plan = sample::chain(1);
    plan.retries = 7;
    let mut world = World::new(plan);
    let mut waits = Vec::new();
    while world.outcome.is_none() {
        world.all_end(1);
        if let Some(until) = world.supervisor.deadline() {
            waits.push((until - world.now).as_secs());
        }
        world.settle();
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
    assert_eq!(world.started.last(), Some(&("job0".to_owned(), 8)));
    assert_eq!(world.outcome.unwrap().exit_code(), 1);
}

#[test]
fn the_earliest_failure_that_is_not_the_loss_of_a_peer_is_the_cause() {
    let mut world = World::new(sample::chain(1));
    world.reports(
        0,
        FailureClass::Collective,
        1.0,
        "connection reset by rank 1",
    );
    assert_eq!(world.alive, [0, 1], "the cause may still be on its way");
    world.reports(1, FailureClass::Other, 2.0, "loss is NaN");
    world.now += Timeouts::of(60.0).grace;
    world.happens(Event::Tick);
    assert!(
        world.alive.is_empty(),
        "ranks that hang after their report are killed"
    );
    let Some(EventKind::JobRetried { reason, .. }) = world.told.last() else {
        panic!("{:?}", world.told);
    };
    assert_eq!(reason, "rank 1: loss is NaN");
}

#[test]
fn a_stall_names_the_rank_that_did_not_arrive() {
    let mut world = World::new(sample::chain(1));
    let kind = EventKind::Heartbeat {
        phase: Phase::DataWait,
        step: 7,
        sequence: 40,
    };
    world.meets(Happening::Said {
        rank: 1,
        kind: &kind,
    });
    world.reports(0, FailureClass::Collective, 1.0, "all-reduce timed out");
    world.settle();
    let told = format!("{:?}", world.told);
    let expected =
        "rank 0: all-reduce timed out; rank 1 did not arrive, it was last in data wait at step 7";
    assert!(told.contains(expected), "{told}");
}

#[test]
fn a_death_without_a_word_gets_its_report() {
    let mut world = World::new(sample::chain(1));
    world.ends(1, Exit::Signal(9));
    world.settle();
    let [(1, report)] = &world.reports[..] else {
        panic!(
            "only rank 1 failed; rank 0 was stopped: {:?}",
            world.reports
        );
    };
    assert_eq!(report.class, FailureClass::Killed);
    assert_eq!(report.exit.as_deref(), Some("signal 9"));
}

#[test]
fn exit_codes_stand_for_their_class_where_nothing_was_reported() {
    for (code, class, exit_code) in [
        (4, FailureClass::Data, 4),
        (3, FailureClass::Setup, 3),
        (101, FailureClass::Other, 1),
    ] {
        assert_eq!(Exit::Code(code).class(), class);
        assert_eq!(class.exit_code(), exit_code);
    }
}

#[test]
fn ranks_that_end_differently_have_failed() {
    let mut world = World::new(sample::chain(1));
    world.ends(0, Exit::Code(0));
    world.ends(1, Exit::Code(STOPPED));
    assert!(
        matches!(world.told.last(), Some(EventKind::JobRetried { reason, .. })
            if reason.contains("exit 0, exit 75")),
        "{:?}",
        world.told
    );
}

#[test]
fn a_stop_during_back_off_loses_nothing() {
    let mut world = World::new(sample::chain(1));
    world.all_end(1);
    assert!(world.started.len() == 1 && world.outcome.is_none());
    world.strikes(Blow::Signal);
    assert_eq!(world.outcome, Some(Outcome::Stopped));
    assert_eq!(world.state("job0"), JobState::Stopped);
}

#[test]
fn a_stop_that_ranks_cannot_heed_is_a_cut_only_where_an_update_is_lost() {
    for (steps, outcome) in [
        (0, Outcome::Stopped),
        (1, Outcome::Interrupted { signal: 15 }),
    ] {
        let mut world = World::new(sample::chain(1));
        for step in 1..=steps {
            let record = StepRecord {
                step,
                ..StepRecord::default()
            };
            let kind = EventKind::Step(record);
            world.meets(Happening::Said {
                rank: 0,
                kind: &kind,
            });
        }
        world.strikes(Blow::Signal);
        // As a process ends that has no handler yet.
        world.ends(0, Exit::Signal(15));
        world.settle();
        assert_eq!(world.outcome, Some(outcome), "after {steps} updates");
        assert!(world.reports.is_empty(), "what was asked for is no failure");
    }
}

#[test]
fn a_job_whose_ranks_cannot_be_started_has_failed() {
    let mut world = World::new(sample::independent(2));
    world.alive.clear();
    world.meets(Happening::NotStarted {
        class: FailureClass::Setup,
        message: "no such program".into(),
    });
    assert_eq!(world.started(), [("job0", 1), ("job1", 1)]);
    world.all_end(0);
    assert_eq!(world.outcome.unwrap().exit_code(), 3);
}

#[test]
fn a_run_of_which_nothing_is_left_to_do_starts_nothing() {
    let plan = sample::chain(2);
    let progress = plan.jobs.iter().map(|job| Progress {
        id: job.id.clone(),
        state: JobState::Succeeded,
        attempt: 1,
    });
    let progress = progress.collect();
    let actions = Supervisor::new(plan, progress, Limits::devices(RANKS), &[], BTreeMap::new())
        .unwrap()
        .step(Event::Holds(&BTreeMap::new()), Duration::ZERO);
    assert!(matches!(
        actions[..],
        [Action::Tell { .. }, Action::Finish(Outcome::Done)]
    ));
}
