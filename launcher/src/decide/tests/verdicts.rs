//! Ranks that come no further, and failures of every class, in the mock world.

use std::time::Duration;

use event::{EventKind, FailureClass, FailureReport, Phase, Pulse, Samples, StepRecord};
use plan::Timeouts;

use super::world::{World, death};
use crate::action::{Death, Event, Happening};
use crate::exit::Exit;
use crate::{Outcome, sample};

/// Of the sample's plan.
const STALL: Duration = Duration::from_secs(60);

fn pulse(phase: Phase, sequence: u64, idle: f64) -> EventKind {
    EventKind::Pulse(Pulse {
        phase,
        step: 7,
        sequence,
        waits: phase.waits_for_others(),
        progress: 90,
        idle_seconds: idle,
        local_seconds: None,
        samples: samples(sequence),
    })
}

/// What a rank works on when it has issued so many collectives.
fn samples(sequence: u64) -> Samples {
    Samples {
        ids: vec![format!("1.2.3/{sequence}")],
        count: 6,
    }
}

fn says(world: &mut World, rank: usize, kind: &EventKind) {
    world.meets(Happening::Said { rank, kind });
}

/// Time passes with a heartbeat of both ranks each second, in the same places, up to the report.
fn until_a_report(world: &mut World, places: [Option<(Phase, u64)>; 2]) -> (usize, FailureReport) {
    let began = world.now;
    while world.reports.is_empty() {
        assert!(world.now - began < 3 * STALL, "no verdict");
        let idle = world.now - began;
        for (rank, place) in places.iter().enumerate() {
            // A rank without a place spoke once, at the beginning.
            let spoken = place.or(idle.is_zero().then_some((Phase::Forward, 40)));
            if let Some((phase, sequence)) = spoken {
                says(world, rank, &pulse(phase, sequence, idle.as_secs_f64()));
            }
        }
        let next = world.now + Duration::from_secs(1);
        if let Some(due) = world.supervisor.deadline().filter(|due| *due <= next) {
            world.now = due.max(world.now);
            world.happens(Event::Tick);
        } else {
            world.now = next;
        }
    }
    let limit = Timeouts::of(60.0);
    let took = world.now - began;
    assert!(
        took >= STALL && took <= STALL + limit.examination,
        "{took:?}"
    );
    assert!(world.alive.is_empty(), "all are ended");
    assert!(world.asked_for_stack);
    world.reports[0].clone()
}

#[test]
fn a_frozen_rank_is_named_though_the_other_one_waits_in_a_collective() {
    let mut world = World::new(sample::chain(1));
    world.now = Duration::from_secs(100);
    world.facts.state = Some('T');
    let (rank, report) = until_a_report(&mut world, [Some((Phase::AllReduce, 41)), None]);
    assert_eq!((rank, report.class), (1, FailureClass::Stalled));
    assert!(report.message.contains("is stopped"), "{}", report.message);
    assert!(
        report
            .message
            .contains("rank 0 waits in all-reduce at step 7"),
        "{}",
        report.message
    );
    assert_eq!((report.phase, report.step), (Some(Phase::Forward), Some(7)));
    assert_eq!(report.sequence, Some(40));
    assert_eq!(report.samples, samples(40));
}

#[test]
fn a_rank_that_spins_is_told_from_one_that_sleeps() {
    for (ticks, word) in [(70, "spins"), (0, "sleeps")] {
        let mut world = World::new(sample::chain(1));
        world.facts.ticks = Some(ticks);
        let places = [Some((Phase::Backward, 41)), Some((Phase::DataWait, 41))];
        let (rank, report) = until_a_report(&mut world, places);
        assert_eq!(rank, 1);
        assert!(report.message.contains(word), "{}", report.message);
    }
}

#[test]
fn a_stuck_collective_names_who_is_behind_or_the_network() {
    for (sequences, rank, word) in [([41, 40], 1, "did not arrive"), ([41, 41], 0, "network")] {
        let mut world = World::new(sample::chain(1));
        let places = sequences.map(|sequence| Some((Phase::AllReduce, sequence)));
        let (named, report) = until_a_report(&mut world, places);
        assert_eq!(named, rank);
        assert!(report.message.contains(word), "{}", report.message);
    }
}

#[test]
fn a_rank_that_goes_on_while_it_is_looked_at_is_left_alone() {
    let mut world = World::new(sample::chain(1));
    for rank in 0..2 {
        says(&mut world, rank, &pulse(Phase::Forward, 40, 0.0));
    }
    world.now = STALL;
    for rank in 0..2 {
        says(&mut world, rank, &pulse(Phase::Forward, 40, 60.0));
    }
    world.happens(Event::Tick);
    assert!(world.asked_for_stack && world.reports.is_empty());
    world.now += Duration::from_millis(100);
    for rank in 0..2 {
        says(&mut world, rank, &pulse(Phase::Backward, 40, 0.0));
    }
    world.now = world.supervisor.deadline().unwrap();
    world.happens(Event::Tick);
    assert!(world.reports.is_empty() && world.alive.len() == 2);
}

#[test]
fn a_silent_death_ends_the_others_at_once() {
    let mut world = World::new(sample::chain(1));
    world.ends(1, Exit::Signal(9));
    assert!(world.alive.is_empty(), "no time passed");
    let [(1, report)] = &world.reports[..] else {
        panic!("{:?}", world.reports);
    };
    assert!(
        report.message.contains("from outside"),
        "{}",
        report.message
    );
    assert_eq!(report.class, FailureClass::Killed);
}

#[test]
fn a_kill_for_want_of_memory_is_told_from_one_from_outside() {
    let mut world = World::new(sample::chain(1));
    world.alive.retain(|rank| *rank != 1);
    let death = Death {
        oom_kill: true,
        ..death(Exit::Signal(9), 1.0)
    };
    world.meets(Happening::Ended { rank: 1, death });
    let (_, report) = &world.reports[0];
    assert_eq!(report.class, FailureClass::HostMemory);
    assert!(
        report.message.contains("by the kernel"),
        "{}",
        report.message
    );
    world.settle();
    assert!(
        world.shrunk.is_empty(),
        "the micro-batch need not be the cause"
    );
    assert_eq!(world.started.len(), 2);
}

#[test]
fn too_little_device_memory_halves_the_micro_batch_until_it_cannot() {
    let mut plan = sample::chain(1);
    plan.retries = 9;
    if let plan::JobKind::Train { training, .. } = &mut plan.jobs[0].kind {
        (training.batch, training.micro_batch) = (16, 8);
    }
    let mut world = World::new(plan);
    let mut taken = vec![world.micro_batch];
    while world.outcome.is_none() {
        world.reports(1, FailureClass::DeviceMemory, 1.0, "CUDA out of memory");
        world.ends(1, Exit::Code(1));
        world.settle();
        if world.outcome.is_none() {
            taken.push(world.micro_batch);
        }
    }
    // Stage 1a has one image a sample, and batch normalisation needs two.
    assert_eq!(taken, [None, Some(4), Some(2)]);
    let job = "job0".to_owned();
    assert_eq!(world.shrunk, [(job.clone(), 4), (job, 2)]);
    let told = world.told.iter().any(|kind| {
        matches!(kind, EventKind::Warning { message } if message.contains("takes 4 samples at once and adds 2"))
    });
    assert!(told, "{:?}", world.told);
    let Some(Outcome::Failed { class, reason, .. }) = world.outcome else {
        panic!("{:?}", world.outcome);
    };
    assert_eq!(class, FailureClass::DeviceMemory);
    assert!(reason.contains("cannot be halved any further"), "{reason}");
}

#[test]
fn the_first_retry_after_progress_is_immediate_and_the_third_death_at_one_update_the_last() {
    let mut plan = sample::chain(1);
    plan.retries = 9;
    let mut world = World::new(plan);
    for attempt in 1..=3 {
        let step = EventKind::Step(StepRecord {
            step: 5,
            ..StepRecord::default()
        });
        says(&mut world, 0, &step);
        world.ends(1, Exit::Signal(11));
        if attempt < 3 {
            assert_eq!(
                world.supervisor.deadline(),
                Some(world.now),
                "attempt {attempt}"
            );
        }
        world.settle();
    }
    assert_eq!(world.started.len(), 3);
    let Some(Outcome::Failed { reason, .. }) = world.outcome else {
        panic!("{:?}", world.outcome);
    };
    assert!(reason.contains("no further than update 5"), "{reason}");
}

#[test]
fn a_rank_that_begins_to_die_is_judged_before_it_is_gone_and_only_once() {
    let mut world = World::new(sample::chain(1));
    says(&mut world, 1, &pulse(Phase::Forward, 40, 0.0));
    let death = death(Exit::Signal(libc::SIGSEGV), 5.0);
    world.meets(Happening::Dying { rank: 1, death });
    let [(1, report)] = &world.reports[..] else {
        panic!("{:?}", world.reports);
    };
    assert_eq!(
        (report.class, report.failed_at),
        (FailureClass::Killed, 5.0)
    );
    assert_eq!(report.exit.as_deref(), Some("signal 11"));
    assert!(world.alive.is_empty(), "the others are ended");
    let retried = world.told.iter().find_map(|kind| match kind {
        EventKind::JobRetried { reason, .. } => Some(reason),
        _ => None,
    });
    let reason = retried.expect("a retry");
    for part in [
        "rank 1, forward at step 7",
        "samples in work: 1.2.3/40 and 5 more",
    ] {
        assert!(reason.contains(part), "{part}: {reason}");
    }
}

#[test]
fn a_slow_rank_is_told_once_and_ends_nothing() {
    let mut world = World::new(sample::chain(1));
    for step in 1..=100 {
        for (rank, seconds) in [(0, 0.1), (1, 0.4)] {
            let EventKind::Pulse(pulse) = pulse(Phase::Forward, step, 0.0) else {
                panic!("a pulse");
            };
            let kind = EventKind::Pulse(Pulse {
                step,
                local_seconds: Some(seconds),
                ..pulse
            });
            says(&mut world, rank, &kind);
        }
    }
    let warnings: Vec<_> = world
        .told
        .iter()
        .filter(|kind| matches!(kind, EventKind::Warning { .. }))
        .collect();
    let [EventKind::Warning { message }] = warnings[..] else {
        panic!("{warnings:?}");
    };
    assert!(
        message.contains("rank 1 is slow") && message.contains("4.0 times"),
        "{message}"
    );
    assert_eq!(world.alive.len(), 2);
}

#[test]
fn a_lost_device_leaves_an_elastic_job_the_others_and_ends_a_rigid_one() {
    for elastic in [None, Some(plan::Elastic { min: 1, max: 8 })] {
        let mut plan = sample::chain(2);
        plan.elastic = elastic;
        let mut world = World::new(plan);
        let message = "CUDA error: uncorrectable ECC error encountered";
        world.reports(0, FailureClass::DeviceLost, 1.0, message);
        world.ends(0, Exit::Code(3));
        world.settle();
        match elastic {
            Some(_) => {
                assert_eq!(world.alive, [0]);
                assert_eq!(
                    world.devices,
                    vec![1],
                    "rank 0 now has the device of rank 1"
                );
                world.all_end(0);
                assert_eq!(world.alive, [0], "the next job has no more either");
            }
            None => {
                let outcome = world.outcome.unwrap();
                assert_eq!(outcome.exit_code(), 3);
                assert!(format!("{outcome:?}").contains("elastic"), "{outcome:?}");
            }
        }
    }
}
