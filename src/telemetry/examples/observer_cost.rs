//! What it costs the thread that follows a run to observe an update, with a collector that never answers.
//!
//! ```text
//! cargo run --release -p spinectl-telemetry --example observer_cost [UPDATES]
//! ```

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::time::Instant;

use event::{EventKind, Phase, RunEvent, StepRecord};
use telemetry::Observer;
use telemetry::otel::Settings;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let updates: u64 = match std::env::args().nth(1) {
        Some(updates) => updates.parse()?,
        None => 100_000,
    };
    // The kernel takes connections; nobody reads from them.
    let collector = TcpListener::bind("127.0.0.1:0")?;
    let endpoint = format!("http://{}", collector.local_addr()?);
    let source = recipe::Source {
        name: "example".to_owned(),
        text: "data: {root: scans}\nstage1a: {}\n".to_owned(),
    };
    let recipe = recipe::parse(&source, &[])?;
    for (name, sampler) in [
        ("every update traced", "always_on"),
        ("none traced", "always_off"),
    ] {
        let (settings, _) = Settings::resolve(&recipe, &|variable| match variable {
            "OTEL_EXPORTER_OTLP_ENDPOINT" => Some(endpoint.clone()),
            "OTEL_TRACES_SAMPLER" => Some(sampler.to_owned()),
            _ => None,
        });
        let mut observer = Observer::start(settings).ok_or("nothing to observe")?;
        for event in begin() {
            observer.take(&event);
        }
        let began = Instant::now();
        for step in 1..=updates {
            observer.take(&update(step));
        }
        let seconds = began.elapsed().as_secs_f64();
        println!("{name}: {:.1} us an update", seconds * 1e6 / updates as f64);
        for notice in observer.end() {
            println!("  {notice}");
        }
    }
    Ok(())
}

fn begin() -> [RunEvent; 2] {
    [
        RunEvent::run(EventKind::RunStarted {
            plan_hash: "0".to_owned(),
            jobs: 1,
            done: 0,
            device: "cpu".to_owned(),
            ranks: 1,
        }),
        RunEvent::job("job", 1, EventKind::JobStarted { world_size: 1 }),
    ]
}

fn update(step: u64) -> RunEvent {
    let phases = [
        Phase::DataWait,
        Phase::Forward,
        Phase::Backward,
        Phase::AllReduce,
        Phase::Optimizer,
    ];
    let record = StepRecord {
        step,
        epoch: step / 1000,
        loss: 0.5,
        losses: BTreeMap::from([("box".to_owned(), 0.25), ("ratio".to_owned(), 0.25)]),
        samples: 48,
        images: 1536,
        seconds: 0.3,
        phases: phases.map(|phase| (phase, 0.06)).into(),
        ..StepRecord::default()
    };
    RunEvent {
        rank: Some(0),
        ..RunEvent::job("job", 1, EventKind::Step(record))
    }
}
