//! Devices that fall idle, in the mock world.

use std::time::Duration;

use event::{EventKind, StepRecord};
use plan::{Elastic, Gpus, JobState};

use super::world::{Blow, World};
use crate::action::Happening;
use crate::exit::STOPPED;
use crate::{Outcome, sample};

/// `job0` and `job1` on a device each, of a recipe that lets ranks come and go, or does not.
fn world(elastic: Option<Elastic>) -> World {
    let mut plan = sample::on(Gpus::Auto, sample::independent(2));
    plan.elastic = elastic;
    World::new(plan)
}

const ELASTIC: Option<Elastic> = Some(Elastic { min: 1, max: 8 });

/// Updates of a job, a second each, the first one after ten seconds.
fn trains(world: &mut World, job: &str, steps: std::ops::RangeInclusive<u64>, total: u64) {
    world.look_at(job);
    for step in steps {
        world.now += Duration::from_secs(if step == 1 { 10 } else { 1 });
        let kind = EventKind::Step(StepRecord {
            step,
            total_steps: total,
            ..StepRecord::default()
        });
        let (rank, kind) = (0, &kind);
        world.meets(Happening::Said { rank, kind });
    }
}

#[test]
fn idle_devices_join_a_job_that_has_long_to_go() {
    let mut world = world(ELASTIC);
    assert_eq!(
        (world.ranks("job0").len(), world.ranks("job1").len()),
        (1, 1)
    );
    trains(&mut world, "job0", 1..=5, 1000);
    assert_eq!(world.asked, 0, "no device is idle");
    world.all_of_end("job1", 0);
    assert_eq!(world.asked, 1);
    trains(&mut world, "job0", 6..=7, 1000);
    assert_eq!(world.asked, 1, "once");
    world.all_of_end("job0", STOPPED);
    assert_eq!(world.started.last(), Some(&("job0".to_owned(), 2)));
    assert_eq!(world.ranks("job0"), [0, 1]);
    assert_eq!(world.state("job0"), JobState::Running);
    world.all_of_end("job0", 0);
    assert_eq!(world.outcome, Some(Outcome::Done));
}

#[test]
fn a_job_is_left_alone_where_it_gains_nothing_or_the_recipe_fixes_its_ranks() {
    // 30 updates are left: half of that is less than two starts.
    for (elastic, total, asked) in [(ELASTIC, 35, 0), (ELASTIC, 60, 1), (None, 1000, 0)] {
        let mut world = world(elastic);
        trains(&mut world, "job0", 1..=5, total);
        world.all_of_end("job1", 0);
        assert_eq!(world.asked, asked, "{elastic:?}, {total} updates");
    }
    // Nothing is known of a job that has done no update.
    let mut world = world(ELASTIC);
    world.all_of_end("job1", 0);
    assert_eq!(world.asked, 0);
}

#[test]
fn a_stop_while_a_job_is_about_to_take_more_devices_is_a_stop() {
    let mut world = world(ELASTIC);
    trains(&mut world, "job0", 1..=5, 1000);
    world.all_of_end("job1", 0);
    world.strikes(Blow::Signal);
    world.all_of_end("job0", STOPPED);
    assert_eq!(world.outcome, Some(Outcome::Stopped));
    assert_eq!(world.started.len(), 2);
}
