use super::*;
use crate::{Timeline, simulate};

fn task(needs: &[usize], widths: &[usize], work: f64) -> Task {
    Task {
        needs: needs.to_vec(),
        widths: widths.to_vec(),
        work,
        memory: 0,
        disk: 0,
    }
}

fn scheduler(tasks: &[Task], limits: Limits) -> Scheduler {
    Scheduler::new(tasks.to_vec(), limits, |_| false).unwrap()
}

fn started(scheduler: &mut Scheduler) -> Vec<(usize, usize)> {
    let starts = scheduler.start().into_iter();
    starts
        .map(|start| (start.task, start.devices.len()))
        .collect()
}

/// A graph of layers, as recipes make them, with jobs of several kinds; every job takes something.
fn random_graph(random: &mut fastrand::Rng, jobs: usize, widths: &[&[usize]]) -> Vec<Task> {
    let layers = random.usize(2..12);
    let layer_of = |task: usize| task * layers / jobs;
    let mut tasks = Vec::with_capacity(jobs);
    for place in 0..jobs {
        let layer = layer_of(place);
        let before: Vec<usize> = match layer {
            0 => Vec::new(),
            _ => {
                let first = (layer - 1) * jobs / layers;
                let last = layer * jobs / layers;
                (0..random.usize(1..4))
                    .map(|_| random.usize(first..last.max(first + 1)).min(place - 1))
                    .collect()
            }
        };
        let mut needs = before;
        needs.sort_unstable();
        needs.dedup();
        let widths = random.choice(widths).copied().unwrap_or(&[1]);
        let work = 60.0 + 3600.0 * random.f64() * widths.len().max(1) as f64;
        tasks.push(task(&needs, widths, work));
    }
    tasks
}

/// max(critical path, work / devices): no schedule is shorter.
fn lower_bound(tasks: &[Task], devices: usize) -> f64 {
    let on_devices = tasks.iter().filter(|task| !task.widths.is_empty());
    let work: f64 = on_devices.map(|task| task.work).sum();
    let (_, path) = critical_path(tasks, devices).unwrap();
    path.max(work / devices as f64)
}

/// Checks a timeline by itself: every job once, after what it needs, on devices that nobody else has, none idle while a job fits.
fn assert_sound(tasks: &[Task], limits: Limits, timeline: &Timeline) {
    let mut spans = vec![None; tasks.len()];
    for span in &timeline.spans {
        assert!(
            spans[span.task].replace(span).is_none(),
            "{} ran twice",
            span.task
        );
    }
    let spans: Vec<_> = spans
        .into_iter()
        .map(|span| span.expect("every job runs"))
        .collect();
    let mut users: Vec<Vec<(f64, f64)>> = vec![Vec::new(); limits.devices];
    for (task, span) in tasks.iter().zip(&spans) {
        for need in &task.needs {
            assert!(spans[*need].ends <= span.begins);
        }
        assert!(task.widths.contains(&span.devices.len()) || task.widths.is_empty());
        for device in &span.devices {
            users[*device].push((span.begins, span.ends));
        }
    }
    for times in &mut users {
        times.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(
            times.windows(2).all(|pair| pair[0].1 <= pair[1].0),
            "two jobs on one device"
        );
    }
    // Between two neighbouring moments nothing changes. Whoever starts at the later one although it was ready at the earlier one
    // had too few idle devices then.
    let mut moments: Vec<f64> = spans
        .iter()
        .flat_map(|span| [span.begins, span.ends])
        .collect();
    moments.sort_by(f64::total_cmp);
    moments.dedup();
    let mut change = vec![0i64; moments.len()];
    let place = |time: f64| moments.partition_point(|moment| *moment < time);
    for span in &spans {
        change[place(span.begins)] += span.devices.len() as i64;
        change[place(span.ends)] -= span.devices.len() as i64;
    }
    let busy: Vec<i64> = change
        .iter()
        .scan(0, |sum, change| {
            *sum += change;
            Some(*sum)
        })
        .collect();
    for (task, span) in tasks.iter().zip(&spans) {
        let Some(least) = task.widths.first() else {
            continue;
        };
        let ready = task
            .needs
            .iter()
            .map(|need| spans[*need].ends)
            .fold(0.0, f64::max);
        for at in place(ready)..place(span.begins) {
            let idle = limits.devices as i64 - busy[at];
            assert!(
                idle < *least as i64,
                "{idle} devices idle at {} s while job {} waits for {least}",
                moments[at],
                span.task
            );
        }
    }
}

#[test]
fn the_longest_way_starts_first_and_gangs_start_whole() {
    // 0 is short, but everything comes after it.
    let tasks = [
        task(&[], &[1], 10.0),
        task(&[], &[1], 50.0),
        task(&[0], &[2], 200.0),
        task(&[], &[], 5.0),
    ];
    let mut scheduler = scheduler(&tasks, Limits::devices(2));
    assert_eq!(started(&mut scheduler), [(0, 1), (1, 1), (3, 0)]);
    scheduler.succeeded(0);
    assert_eq!(started(&mut scheduler), [], "a gang does not start on half");
    scheduler.succeeded(1);
    assert_eq!(started(&mut scheduler), [(2, 2)]);
    assert_eq!(scheduler.devices(2), Some(&[0, 1][..]));
}

#[test]
fn one_that_can_take_more_devices_takes_what_the_others_leave() {
    let any: &[usize] = &[1, 2, 4, 8];
    let alone = [task(&[], any, 1.0)];
    assert_eq!(
        started(&mut scheduler(&alone, Limits::devices(8))),
        [(0, 8)]
    );
    let beside = [
        task(&[], any, 9.0),
        task(&[], &[4], 1.0),
        task(&[], &[1], 0.5),
    ];
    let starts = started(&mut scheduler(&beside, Limits::devices(8)));
    assert_eq!(starts, [(0, 2), (2, 1), (1, 4)]);
    let many = vec![task(&[], any, 1.0); 20];
    let starts = started(&mut scheduler(&many, Limits::devices(8)));
    assert_eq!(starts, (0..8).map(|task| (task, 1)).collect::<Vec<_>>());
}

#[test]
fn idle_devices_join_the_job_that_gains_most() {
    let tasks = [
        task(&[], &[1, 2], 100.0),
        task(&[], &[1, 2], 900.0),
        task(&[], &[1], 10.0),
    ];
    let mut scheduler = scheduler(&tasks, Limits::devices(3));
    assert_eq!(started(&mut scheduler).len(), 3);
    let left = |task| [100.0, 900.0, 10.0][task];
    assert_eq!(scheduler.widen(5.0, left), None, "none is idle");
    scheduler.succeeded(2);
    assert_eq!(scheduler.widen(5.0, left), Some((1, 2)));
    assert_eq!(scheduler.widen(460.0, left), None, "the change costs more");
    scheduler.stopped(1);
    assert_eq!(started(&mut scheduler), [(1, 2)]);
}

#[test]
fn nothing_is_widened_while_another_waits_for_memory() {
    let heavy = |seconds| Task {
        memory: 6,
        ..task(&[], &[1, 2], seconds)
    };
    let limits = Limits {
        memory: 10,
        ..Limits::devices(2)
    };
    let mut scheduler = scheduler(&[heavy(900.0), heavy(100.0)], limits);
    assert_eq!(started(&mut scheduler), [(0, 1)], "a device stays idle");
    // It would be stopped again and again: the other one keeps its share of the devices.
    assert_eq!(scheduler.widen(5.0, |_| 900.0), None);
    scheduler.succeeded(0);
    assert_eq!(started(&mut scheduler), [(1, 2)]);
}

#[test]
fn memory_disk_and_counts_are_kept() {
    let heavy = |memory, disk| Task {
        memory,
        disk,
        ..task(&[], &[1], 1.0)
    };
    let tasks = [heavy(6, 10), heavy(6, 10), heavy(4, 10), heavy(1, 10)];
    let limits = Limits {
        memory: 10,
        disk: 45,
        ..Limits::devices(2)
    };
    let mut scheduler = scheduler(&tasks, limits);
    // 1 has no memory beside 0; a smaller one goes past it.
    assert_eq!(started(&mut scheduler), [(0, 1), (2, 1)]);
    scheduler.succeeded(0);
    assert_eq!(started(&mut scheduler), [(1, 1)]);
    scheduler.stopped(1);
    assert_eq!(started(&mut scheduler), [(1, 1)]);
    scheduler.succeeded(2);
    let last = started(&mut scheduler);
    assert_eq!(last, [(3, 1)], "what was stopped takes its disk once");
    let small = Limits {
        disk: 35,
        ..Limits::devices(4)
    };
    let starts = started(&mut self::scheduler(&tasks, small));
    assert_eq!(starts.len(), 3, "the disk is full");
    let counted = Limits {
        jobs: 2,
        ..Limits::devices(4)
    };
    assert_eq!(started(&mut self::scheduler(&tasks, counted)).len(), 2);
    let hosts = vec![task(&[], &[], 1.0); 3];
    let one = Limits {
        host_jobs: 1,
        ..Limits::devices(0)
    };
    assert_eq!(started(&mut self::scheduler(&hosts, one)), [(0, 0)]);
}

#[test]
fn a_failure_costs_what_needs_it_and_nothing_else() {
    let tasks = [
        task(&[], &[1], 1.0),
        task(&[], &[1], 1.0),
        task(&[0], &[1], 1.0),
        task(&[1], &[1], 1.0),
        task(&[2, 3], &[1], 1.0),
    ];
    let mut scheduler = scheduler(&tasks, Limits::devices(2));
    scheduler.start();
    assert_eq!(scheduler.failed(0), [2, 4]);
    scheduler.succeeded(1);
    assert_eq!(started(&mut scheduler), [(3, 1)]);
    scheduler.succeeded(3);
    assert_eq!(started(&mut scheduler), []);
}

#[test]
fn a_held_job_waits_and_lets_others_pass() {
    let tasks = [task(&[], &[1], 9.0), task(&[], &[1], 1.0)];
    let mut scheduler = scheduler(&tasks, Limits::devices(1));
    scheduler.hold(0, true);
    assert_eq!(started(&mut scheduler), [(1, 1)]);
    scheduler.succeeded(1);
    assert_eq!(started(&mut scheduler), []);
    scheduler.hold(0, false);
    assert_eq!(started(&mut scheduler), [(0, 1)]);
    scheduler.hold(0, true);
    scheduler.stopped(0);
    assert_eq!(started(&mut scheduler), [], "held while it ran");
}

#[test]
fn a_lost_device_is_not_given_out_again() {
    let tasks = vec![task(&[], &[1], 1.0); 4];
    let mut scheduler = scheduler(&tasks, Limits::devices(2));
    scheduler.start();
    scheduler.lose(0);
    scheduler.stopped(0);
    scheduler.succeeded(1);
    let starts = scheduler.start();
    assert_eq!(starts.len(), 1);
    assert_eq!(starts[0].devices, [1]);
}

#[test]
fn what_can_never_start_is_refused() {
    let refused =
        |tasks: &[Task], limits| Scheduler::new(tasks.to_vec(), limits, |_| false).unwrap_err();
    let wide = refused(&[task(&[], &[4, 8], 1.0)], Limits::devices(2));
    assert!(matches!(
        wide,
        ScheduleError::Devices {
            task: 0,
            least: 4,
            devices: 2
        }
    ));
    let fat = Task {
        memory: 9,
        ..task(&[], &[1], 1.0)
    };
    let limits = Limits {
        memory: 8,
        ..Limits::devices(1)
    };
    assert!(matches!(
        refused(&[fat], limits),
        ScheduleError::Memory { task: 0, .. }
    ));
    let ring = [task(&[1], &[1], 1.0), task(&[0], &[1], 1.0)];
    assert!(matches!(
        refused(&ring, Limits::devices(1)),
        ScheduleError::Cycle { .. }
    ));
    let nobody = [task(&[7], &[1], 1.0)];
    assert!(matches!(
        refused(&nobody, Limits::devices(1)),
        ScheduleError::Unknown { need: 7, .. }
    ));
}

#[test]
fn the_critical_path_is_the_longest_chain() {
    let tasks = [
        task(&[], &[], 1.0),
        task(&[0], &[1], 10.0),
        task(&[0], &[2], 30.0),
        task(&[1, 2], &[], 2.0),
    ];
    assert_eq!(critical_path(&tasks, 4).unwrap(), (vec![0, 2, 3], 18.0));
}

/// Random graphs of single devices, gangs and jobs that take any number, beside jobs on the host.
#[test]
fn ten_thousand_jobs_on_64_devices_come_within_a_tenth_of_the_lower_bound() {
    let kinds: &[&[usize]] = &[&[1], &[1], &[2], &[4], &[8], &[1, 2, 4, 8], &[]];
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..3 {
        let tasks = random_graph(&mut random, 10_000, kinds);
        let limits = Limits::devices(64);
        let timeline = simulate(&tasks, limits, |_| false).unwrap();
        assert_sound(&tasks, limits, &timeline);
        let bound = lower_bound(&tasks, 64);
        let ratio = timeline.makespan / bound;
        println!("makespan / lower bound = {ratio:.4}");
        assert!(ratio <= 1.1, "{ratio}, seed {seed}");
    }
}

#[test]
fn small_graphs_are_sound_too() {
    let kinds: &[&[usize]] = &[&[1], &[2], &[1, 2, 3], &[4], &[]];
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..200 {
        let (jobs, devices) = (random.usize(12..60), random.usize(4..9));
        let tasks = random_graph(&mut random, jobs, kinds);
        let limits = Limits::devices(devices);
        let timeline = simulate(&tasks, limits, |_| false).unwrap();
        assert_sound(&tasks, limits, &timeline);
        assert!(timeline.makespan >= lower_bound(&tasks, devices) * (1.0 - 1e-9));
    }
}

#[test]
fn a_job_takes_another_number_of_devices_once_it_is_told_so() {
    // The first waits for both devices; the second runs and loses one.
    let tasks = [task(&[1], &[2], 9.0), task(&[], &[1], 1.0)];
    let mut scheduler = scheduler(&tasks, Limits::devices(2));
    assert_eq!(started(&mut scheduler), [(1, 1)]);
    assert!(scheduler.ready().is_none());
    scheduler.lose(0);
    scheduler.succeeded(1);
    assert_eq!(started(&mut scheduler), [], "too few are left");
    assert!(scheduler.ready().is_some());
    scheduler.reshape(0, vec![1]);
    assert_eq!(started(&mut scheduler), [(0, 1)]);
    assert!(scheduler.ready().is_none());
}
