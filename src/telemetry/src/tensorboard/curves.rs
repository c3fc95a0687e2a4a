//! What of an update, and of a GPU between two of them, is a curve.

use event::{GpuUse, Phase, StepRecord};

/// The curves of an update by their tags; `world_size`: ranks, where that is known.
pub(super) fn of_update(record: &StepRecord, world_size: Option<usize>) -> Vec<(String, f64)> {
    let mut values = Vec::with_capacity(16);
    let mut add = |tag: &str, value: f64| values.push((format!("train/{tag}"), value));
    add("loss", record.loss);
    for (part, loss) in &record.losses {
        add(&format!("loss/{part}"), *loss);
    }
    add("learning_rate", record.learning_rate);
    for (group, rate) in &record.learning_rates {
        add(&format!("learning_rate/{group}"), *rate);
    }
    add("gradient_norm", record.gradient_norm);
    if let Some(norm) = record.clipped_norm {
        add("gradient_norm_clipped", norm);
    }
    if let Some(scale) = record.loss_scale {
        add("loss_scale", scale);
    }
    if record.seconds > 0.0 {
        let per_second = |count: u64| count as f64 / record.seconds;
        add("samples_per_second", per_second(record.samples));
        add("images_per_second", per_second(record.images));
        if let Some(ranks) = world_size.filter(|ranks| *ranks > 0) {
            let each = |rate: f64| rate / ranks as f64;
            add(
                "samples_per_second_per_rank",
                each(per_second(record.samples)),
            );
            add(
                "images_per_second_per_rank",
                each(per_second(record.images)),
            );
        }
        if let Some(wait) = record.phases.get(&Phase::DataWait) {
            add("data_wait_share", wait / record.seconds);
        }
    }
    let memory = [
        ("host_memory_gib", record.host_memory),
        ("device_memory_peak_gib", record.device_memory),
    ];
    for (tag, bytes) in memory {
        if let Some(bytes) = bytes {
            add(tag, gib(bytes));
        }
    }
    values
}

/// The curves of the GPU that a rank has.
pub(super) fn of_gpu(rank: usize, gpu: &GpuUse) -> Vec<(String, f64)> {
    let values = [
        ("utilization", gpu.utilization),
        ("memory_used_gib", gpu.memory_used.map(gib)),
    ];
    let values = values
        .into_iter()
        .filter_map(|(name, value)| Some((format!("gpu/{rank}/{name}"), value?)));
    values.collect()
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / (1u64 << 30) as f64
}
