//! What a sample costs from 8-bit slices to the normalised, changed images, by kind of change: CPU-seconds and wall time,
//! and how far that is from writing as many bytes. `cargo run --release -p spinectl-data --example augment_cost -- [THREADS]`

use std::time::Instant;

use data::augment::{Augmentation, Distortion, Normalization, Renderer, Sample, Strength};

const SIDE: usize = 512;
const SLICES: usize = 96;
const ROUNDS: u64 = 48;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let threads = std::env::args().nth(1).map_or(Ok(1), |n| n.parse())?;
    let renderer = Renderer::new(threads, Normalization::PUBLISHED)?;
    let pixels: Vec<u8> = (0..SLICES * SIDE * SIDE)
        .map(|i| ((i * 2_654_435_761) >> 7) as u8)
        .collect();
    let mut out = vec![0.0_f32; pixels.len()];

    let floor = time(|round| out.fill(round as f32));
    println!(
        "{:24} {:7.1} ms CPU {:7.1} ms wall",
        "plain fill", floor.0, floor.1
    );
    let strength = |flip, probability, distortion| Strength {
        flip,
        probability,
        distortion,
        ..Strength::PUBLISHED
    };
    type Wanted = fn(&Augmentation) -> bool;
    let cases: [(&str, Strength, Wanted); 6] = [
        ("no change", strength(0.0, 0.0, 0.0), |_| true),
        ("mirror", strength(1.0, 0.0, 0.0), |_| true),
        ("shift, scale, rotate", strength(0.5, 1.0, 0.0), |_| true),
        ("with a grid", strength(0.5, 1.0, 1.0), |c| {
            matches!(c.distortion, Distortion::Grid(_))
        }),
        ("with an elastic field", strength(0.5, 1.0, 1.0), |c| {
            matches!(c.distortion, Distortion::Elastic(_))
        }),
        ("the pipeline's mix", strength(0.5, 0.75, 0.5), |_| true),
    ];
    for (name, strength, wanted) in cases {
        let changes: Vec<Augmentation> = (0..)
            .map(|sample| Augmentation::draw(&strength, 1, 0, sample))
            .filter(wanted)
            .take(ROUNDS as usize)
            .collect();
        let cost = time(|round| {
            let change = Some(&changes[round as usize % changes.len()]);
            let sample = Sample {
                pixels: &pixels,
                change,
            };
            renderer.render(&[sample], SIDE, &mut out).expect("fits");
        });
        println!("{name:24} {:7.1} ms CPU {:7.1} ms wall", cost.0, cost.1);
    }
    // What a process pays that gives its memory back each time: a rank does not (src/rank/src/memory.rs).
    let fresh = time(|_| {
        let sample = Sample {
            pixels: &pixels,
            change: None,
        };
        let mut out = vec![0.0_f32; pixels.len()];
        renderer.render(&[sample], SIDE, &mut out).expect("fits");
    });
    println!(
        "{:24} {:7.1} ms CPU {:7.1} ms wall",
        "no change, fresh memory", fresh.0, fresh.1
    );
    Ok(())
}

/// Milliseconds of a round, of all threads and on the clock.
fn time(mut round: impl FnMut(u64)) -> (f64, f64) {
    round(0);
    let (cpu, wall) = (cpu_seconds(), Instant::now());
    (0..ROUNDS).for_each(&mut round);
    let rounds = ROUNDS as f64;
    (
        1e3 * (cpu_seconds() - cpu) / rounds,
        1e3 * wall.elapsed().as_secs_f64() / rounds,
    )
}

/// User and system time of this process so far, from /proc/self/stat, in ticks of 10 ms.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = |field: usize| -> f64 {
        let value = after_name.split_whitespace().nth(field);
        value.and_then(|v| v.parse().ok()).unwrap_or(0.0)
    };
    (ticks(11) + ticks(12)) / 100.0
}
