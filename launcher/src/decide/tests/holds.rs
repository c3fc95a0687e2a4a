//! Jobs that a user holds back, in the mock world.

use std::collections::BTreeMap;

use event::{EventKind, FailureClass};
use plan::{Gpus, JobKind, JobState};

use super::world::{Blow, World};
use crate::action::Event;
use crate::exit::{Exit, STOPPED};
use crate::holds::Hold;
use crate::{Outcome, sample};

/// `job0 -> job1`, and the same again on the other device: `job2 -> job3`. A micro-batch can be halved.
fn world() -> World {
    let mut plan = sample::on(Gpus::Count(1), sample::chain(4));
    plan.jobs[2].needs.clear();
    for job in &mut plan.jobs {
        if let JobKind::Train { training, .. } = &mut job.kind {
            training.micro_batch = 4;
        }
    }
    World::new(plan)
}

fn hold(world: &mut World, holds: &[(&str, Hold)]) {
    let holds: BTreeMap<String, Hold> = holds
        .iter()
        .map(|(job, hold)| ((*job).to_owned(), *hold))
        .collect();
    world.happens(Event::Holds(&holds));
}

fn held(paused: &[&str], cancelled: &[&str]) -> Option<Outcome> {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Some(Outcome::Held {
        paused: names(paused),
        cancelled: names(cancelled),
    })
}

#[test]
fn a_paused_job_gives_its_device_up_and_goes_on_when_it_is_let_go() {
    let mut world = world();
    hold(&mut world, &[("job0", Hold::Paused)]);
    assert_eq!(world.asked, 1, "job0 alone");
    hold(&mut world, &[("job0", Hold::Paused)]);
    assert_eq!(world.asked, 1, "once");
    world.all_of_end("job0", STOPPED);
    assert_eq!(world.state("job0"), JobState::Stopped);
    assert_eq!(world.ranks("job2"), [0], "it goes on");
    world.all_of_end("job2", 0);
    assert_eq!(world.ranks("job3"), [0]);
    hold(&mut world, &[]);
    assert_eq!(world.started.last(), Some(&("job0".to_owned(), 2)));
    for job in ["job3", "job0", "job1"] {
        assert_eq!(world.outcome, None);
        world.all_of_end(job, 0);
    }
    assert_eq!(world.outcome, Some(Outcome::Done));
}

#[test]
fn a_cancelled_job_takes_those_along_that_need_it_and_the_run_ends_without_them() {
    let mut world = world();
    hold(&mut world, &[("job0", Hold::Cancelled)]);
    let told = EventKind::JobCancelled {
        skipped: vec!["job1".into()],
    };
    assert!(world.told.contains(&told), "{:?}", world.told);
    world.all_of_end("job0", STOPPED);
    world.all_of_end("job2", 0);
    world.all_of_end("job3", 0);
    assert_eq!(world.outcome, held(&[], &["job0"]));
    assert_eq!(world.outcome.as_ref().unwrap().exit_code(), 1);
    assert_eq!(world.state("job1"), JobState::Pending);
}

#[test]
fn what_is_held_is_not_started_and_a_launch_of_nothing_else_ends() {
    let mut world = world();
    hold(
        &mut world,
        &[("job1", Hold::Paused), ("job3", Hold::Cancelled)],
    );
    assert_eq!(world.asked, 0);
    world.all_of_end("job0", 0);
    world.all_of_end("job2", 0);
    assert_eq!(world.started.len(), 2);
    assert_eq!(world.outcome, held(&["job1"], &["job3"]));
}

#[test]
fn a_job_that_is_let_go_while_it_stops_starts_again() {
    let mut world = world();
    hold(&mut world, &[("job0", Hold::Paused)]);
    hold(&mut world, &[]);
    world.all_of_end("job0", STOPPED);
    assert_eq!(world.started.last(), Some(&("job0".to_owned(), 2)));
    world.all_of_end("job2", STOPPED);
    assert_eq!(world.asked, 2, "that one nobody held: the run stops");
}

#[test]
fn a_paused_job_that_fails_is_not_tried_again_before_it_is_let_go() {
    for class in [FailureClass::Other, FailureClass::DeviceMemory] {
        let mut world = world();
        hold(&mut world, &[("job0", Hold::Paused)]);
        world.look_at("job0");
        world.reports(0, class, 1.0, "no more");
        world.ends(0, Exit::Code(1));
        world.settle();
        assert_eq!(world.state("job0"), JobState::Stopped, "{class:?}");
        assert_eq!(world.started.len(), 2, "{class:?}");
        assert_eq!(world.outcome, None);
    }
    // So it is where it waits for its next attempt already.
    let mut world = world();
    world.look_at("job0");
    world.ends(0, Exit::Signal(11));
    hold(&mut world, &[("job0", Hold::Paused)]);
    world.settle();
    assert_eq!(world.started.len(), 2);
    assert_eq!(world.state("job0"), JobState::Stopped);
}

#[test]
fn a_stop_of_the_run_is_one_whatever_is_paused() {
    let mut world = world();
    hold(&mut world, &[("job0", Hold::Paused)]);
    world.strikes(Blow::Signal);
    assert_eq!(world.asked, 2);
    world.all_of_end("job0", STOPPED);
    world.all_of_end("job2", STOPPED);
    assert_eq!(world.outcome, Some(Outcome::Stopped));

    let mut world = self::world();
    hold(&mut world, &[("job0", Hold::Paused)]);
    world.all_of_end("job0", STOPPED);
    world.look_at("job2");
    world.reports(0, FailureClass::Data, 1.0, "study 1.2.3 has no slices");
    world.ends(0, Exit::Code(4));
    assert_eq!(
        world.outcome.unwrap().exit_code(),
        4,
        "a failure is told first"
    );
}
