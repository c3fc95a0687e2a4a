//! A model's report as text.

use std::path::Path;

use plan::model_request::{ModelReport, UpdateRow};

use crate::table::{self, Column};
use crate::units;

/// Tensors that are shown; all of them are in the file.
const TENSORS_SHOWN: usize = 12;

/// The report; `output` is the file that was written.
pub fn report(report: &ModelReport, output: Option<&Path>) -> String {
    let mut parts: Vec<String> = report
        .notes
        .iter()
        .map(|n| format!("weights: {n}"))
        .collect();
    if !report.architectures.is_empty() {
        parts.push(architectures(report));
    }
    if !report.updates.is_empty() {
        parts.push(updates(&report.updates));
    }
    if let Some(output) = output {
        parts.push(written(report, output));
    }
    parts.join("\n")
}

fn architectures(report: &ModelReport) -> String {
    let mut table = table::new(&[
        Column::Text("backbone"),
        Column::Number("features"),
        Column::Number("parameters"),
        Column::Text("layout on GPUs"),
    ]);
    for arch in &report.architectures {
        table.add_row([
            arch.name.clone(),
            arch.features.to_string(),
            format!("{:.1} M", arch.parameters as f64 / 1e6),
            match arch.channels_last_on_gpu {
                true => "channels last",
                false => "contiguous",
            }
            .to_owned(),
        ]);
    }
    table.trim_fmt()
}

fn updates(updates: &[UpdateRow]) -> String {
    let overflow = || "overflow".to_owned();
    let mut table = table::new(&[
        Column::Number("update"),
        Column::Number("loss"),
        Column::Number("gradient norm"),
        Column::Number("seconds"),
    ]);
    for (i, update) in updates.iter().enumerate() {
        table.add_row([
            (i + 1).to_string(),
            update
                .loss
                .map_or_else(overflow, |loss| format!("{loss:.6}")),
            update
                .gradient_norm
                .map_or_else(overflow, |norm| format!("{norm:.4}")),
            format!("{:.3}", update.seconds),
        ]);
    }
    table.trim_fmt()
}

fn written(report: &ModelReport, output: &Path) -> String {
    let shown: Vec<String> = report
        .outputs
        .iter()
        .take(TENSORS_SHOWN)
        .map(|tensor| format!("{} {:?}", tensor.name, tensor.shape))
        .collect();
    let more = match report.outputs.len().saturating_sub(TENSORS_SHOWN) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    let on_gpu = report.peak_device_memory.map_or_else(String::new, |bytes| {
        format!(", {} on the GPU", units::bytes(bytes))
    });
    format!(
        "wrote {}: {}{more} (peak memory {}{on_gpu})",
        output.display(),
        shown.join(", "),
        units::bytes(report.peak_rss)
    )
}
