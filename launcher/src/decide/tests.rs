//! The supervisor against a mock clock and ranks that exist in the test alone.

use std::collections::BTreeMap;
use std::time::Duration;

use event::{EventKind, FailureClass, FailureReport, Phase};
use plan::{JobState, Plan, Progress};

use super::{GRACE, Supervisor};
use crate::action::{Action, Event};
use crate::attempt::{Exit, STOPPED};
use crate::{Outcome, sample};

const RANKS: usize = 2;

/// What happens to the ranks, as the pairs below combine it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Blow {
    /// Rank 1 is killed from outside.
    Died,
    /// Rank 1 reports a failure and exits.
    Reported,
    Signal,
    AllDone,
    AllStopped,
}

/// A world in which ranks do as they are told: killed, they end at once.
struct World {
    supervisor: Supervisor,
    now: Duration,
    /// The ranks that are running.
    alive: Vec<usize>,
    started: Vec<(String, u32)>,
    states: BTreeMap<String, JobState>,
    told: Vec<EventKind>,
    reports: Vec<(usize, FailureReport)>,
    asked: usize,
    killed: bool,
    outcome: Option<Outcome>,
}

impl World {
    fn new(plan: Plan) -> Self {
        let progress = plan.jobs.iter().map(|job| Progress {
            id: job.id.clone(),
            state: JobState::Pending,
            attempt: 0,
        });
        let progress = progress.collect();
        let mut world = World {
            supervisor: Supervisor::new(plan, progress, RANKS),
            now: Duration::ZERO,
            alive: Vec::new(),
            started: Vec::new(),
            states: BTreeMap::new(),
            told: Vec::new(),
            reports: Vec::new(),
            asked: 0,
            killed: false,
            outcome: None,
        };
        world.happens(Event::Launched);
        world
    }

    fn happens(&mut self, event: Event<'_>) {
        for action in self.supervisor.step(event, self.now) {
            assert_eq!(
                self.outcome, None,
                "nothing comes after the end: {action:?}"
            );
            match action {
                Action::Record { job, to, .. } => {
                    let from = self.states.insert(job.to_string(), to);
                    let from = from.unwrap_or(JobState::Pending);
                    assert!(from.may_become(to), "{job}: {from} -> {to}");
                }
                Action::Start {
                    job,
                    attempt,
                    world_size,
                } => {
                    assert!(self.alive.is_empty(), "ranks of two attempts at once");
                    assert_eq!(self.states[job.as_str()], JobState::Running);
                    self.alive = (0..world_size).collect();
                    self.started.push((job.to_string(), attempt));
                }
                Action::Report { rank, report } => self.reports.push((rank, report)),
                Action::Tell { kind, .. } => self.told.push(kind),
                Action::Terminate => self.asked += 1,
                Action::Kill => self.killed = true,
                Action::Finish(outcome) => self.outcome = Some(outcome),
                Action::Close { .. } => {}
            }
        }
        if std::mem::take(&mut self.killed) {
            for rank in self.alive.clone() {
                self.ends(rank, Exit::Signal(9));
            }
        }
    }

    fn ends(&mut self, rank: usize, exit: Exit) {
        if let Some(place) = self.alive.iter().position(|alive| *alive == rank) {
            self.alive.remove(place);
            let at = self.now.as_secs_f64();
            self.happens(Event::Ended {
                rank,
                exit,
                at,
                last_words: String::new(),
            });
        }
    }

    fn all_end(&mut self, code: i32) {
        for rank in self.alive.clone() {
            self.ends(rank, Exit::Code(code));
        }
    }

    fn reports(&mut self, rank: usize, class: FailureClass, failed_at: f64, message: &str) {
        let kind = EventKind::RankFailed(FailureReport {
            failed_at,
            class,
            message: message.into(),
            phase: None,
            step: None,
            exit: None,
        });
        self.happens(Event::Said { rank, kind: &kind });
    }

    fn strikes(&mut self, blow: Blow) {
        match blow {
            Blow::Died => self.ends(1, Exit::Signal(11)),
            Blow::Reported if self.alive.contains(&1) => {
                self.reports(1, FailureClass::Other, 1.0, "loss is NaN");
                self.ends(1, Exit::Code(1));
            }
            Blow::Reported => {}
            Blow::Signal => self.happens(Event::Signal(libc::SIGTERM)),
            Blow::AllDone => self.all_end(0),
            Blow::AllStopped => self.all_end(STOPPED),
        }
    }

    /// Time passes until nothing more happens by itself.
    fn settle(&mut self) {
        while self.outcome.is_none() {
            // Patience with silent ranks is none of these tests' time.
            let deadline = self.supervisor.deadline();
            let Some(deadline) = deadline.filter(|due| *due <= self.now + Duration::from_secs(40))
            else {
                break;
            };
            self.now = deadline;
            self.happens(Event::Tick { at: 0.0 });
        }
    }

    fn state(&self, job: &str) -> JobState {
        self.states.get(job).copied().unwrap_or(JobState::Pending)
    }

    fn started(&self) -> Vec<(&str, u32)> {
        let started = self.started.iter();
        started
            .map(|(job, attempt)| (job.as_str(), *attempt))
            .collect()
    }
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
        // A failure ends the others and is tried again; a second one is the first one's consequence.
        ((Died, Died), None, Running, 2),
        ((Died, Reported), None, Running, 2),
        ((Died, Signal), cut.clone(), Stopped, 1),
        ((Died, AllDone), None, Running, 2),
        ((Died, AllStopped), None, Running, 2),
        ((Reported, Died), None, Running, 2),
        ((Reported, Reported), None, Running, 2),
        ((Reported, Signal), cut.clone(), Stopped, 1),
        ((Reported, AllDone), None, Running, 2),
        ((Reported, AllStopped), None, Running, 2),
        // Asked to stop: nothing is tried again, and 75 says that nothing was lost.
        ((Signal, Died), cut.clone(), Stopped, 1),
        ((Signal, Reported), cut.clone(), Stopped, 1),
        ((Signal, Signal), cut.clone(), Stopped, 1),
        ((Signal, AllDone), stopped.clone(), Succeeded, 1),
        ((Signal, AllStopped), stopped.clone(), Stopped, 1),
        // The first job is done and the second event hits the second job.
        ((AllDone, Died), None, Succeeded, 1),
        ((AllDone, Reported), None, Succeeded, 1),
        ((AllDone, Signal), None, Succeeded, 1),
        ((AllDone, AllDone), Some(Outcome::Done), Succeeded, 1),
        ((AllDone, AllStopped), stopped.clone(), Succeeded, 1),
        // Ranks that were asked by somebody else than the launcher: the run is over.
        ((AllStopped, Died), stopped.clone(), Stopped, 1),
        ((AllStopped, Reported), stopped.clone(), Stopped, 1),
        ((AllStopped, Signal), stopped.clone(), Stopped, 1),
        ((AllStopped, AllDone), stopped.clone(), Stopped, 1),
        ((AllStopped, AllStopped), stopped.clone(), Stopped, 1),
    ];
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
        let asked = [first, second].contains(&Signal) && (first, second) != (AllStopped, Signal);
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
    world.now += GRACE;
    world.happens(Event::Tick { at: 0.0 });
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
    world.happens(Event::Said {
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
fn a_silent_rank_is_ended_as_stuck_but_not_before_its_peers_would_notice() {
    let mut world = World::new(sample::chain(1));
    world.now = Duration::from_secs(100);
    let progress = EventKind::Progress {
        what: "w".into(),
        done: 1,
        total: 2,
    };
    world.happens(Event::Said {
        rank: 0,
        kind: &progress,
    });
    let deadline = world.supervisor.deadline().unwrap();
    assert_eq!(
        deadline,
        Duration::from_secs(120),
        "twice the stall timeout"
    );
    world.now = deadline;
    world.happens(Event::Tick { at: 9.0 });
    assert_eq!(world.reports[0].0, 1);
    assert!(
        world.reports[0]
            .1
            .message
            .contains("no sign of life for 120 s")
    );
    assert!(world.alive.is_empty());
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
fn ranks_that_a_stop_finds_in_their_start_up_are_cut_short() {
    let mut world = World::new(sample::chain(1));
    world.strikes(Blow::Signal);
    world.ends(0, Exit::Signal(15));
    world.settle();
    assert_eq!(world.outcome, Some(Outcome::Interrupted { signal: 15 }));
    assert!(world.reports.is_empty(), "what was asked for is no failure");
}

#[test]
fn a_job_whose_ranks_cannot_be_started_has_failed() {
    let mut world = World::new(sample::independent(2));
    world.alive.clear();
    world.happens(Event::NotStarted {
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
    let actions = Supervisor::new(plan, progress, RANKS).step(Event::Launched, Duration::ZERO);
    assert!(matches!(
        actions[..],
        [Action::Tell { .. }, Action::Finish(Outcome::Done)]
    ));
}
