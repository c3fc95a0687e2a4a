//! Vertebrae along the spine: ratios, and what of them is fractured, in the studies that the models know best and worst.

use std::fmt::Write as _;

use data::StudyUid;

use super::figure;
use crate::chart::{Axis, Chart, Line};
use crate::evaluation::{Evaluation, RunTables, Slice, Study};
use crate::page::escaped;
use crate::units;

/// A curve is drawn from this height on, and named from that: names of low curves would lie on each other.
const SEEN: f64 = 0.05;
const NAMED: f64 = 0.2;
/// Fractured studies whose curves are drawn: the worst and the best ones.
const DRAWN: usize = 3;

/// The curves of some fractured studies along z: the worst and the best by loss; without stage 3, the first ones.
pub fn section(evaluation: &Evaluation, tables: &RunTables) -> String {
    let chosen: Vec<&StudyUid> = match evaluation.studies.is_empty() {
        false => {
            let fractured: Vec<&Study> = evaluation
                .studies
                .iter()
                .filter(|study| study.truth[0] > 0)
                .collect();
            let best = fractured
                .len()
                .saturating_sub(DRAWN)
                .max(DRAWN.min(fractured.len()));
            let worst = fractured.iter().take(DRAWN);
            let ends = worst.chain(fractured.iter().skip(best));
            ends.map(|study| &study.study).collect()
        }
        true => {
            let fractured = tables.labels.values().filter(|row| row.patient_overall > 0);
            fractured.map(|row| &row.study).take(2 * DRAWN).collect()
        }
    };
    let mut figures = String::new();
    for (number, study) in chosen.into_iter().enumerate() {
        if let (Some(slices), Some(truth)) = (tables.slices.get(study), tables.labels.get(study)) {
            let loss = evaluation.studies.iter().find(|row| row.study == *study);
            let names: Vec<String> = (1..)
                .zip(truth.vertebrae)
                .filter(|(_, label)| *label > 0)
                .map(|(v, _)| format!("C{v}"))
                .collect();
            let loss = loss.map(|row| format!(", loss {}", units::metric(row.loss)));
            let _ = writeln!(
                figures,
                "<h3>{}</h3>\n<p>Fractured: {}{}</p>\n{}",
                escaped(study.as_str()),
                escaped(&names.join(", ")),
                escaped(&loss.unwrap_or_default()),
                curves_of(number, study, slices)
            );
        }
    }
    if figures.is_empty() {
        return String::new();
    }
    format!(
        "<h2>Vertebrae along the spine</h2>\n<p>The worst and the best of the fractured studies, head first. Ratio: how \
         much of a vertebra a slice shows. Fracture: what stage 2 predicts (solid) and what it should (dashed).</p>\n{figures}"
    )
}

fn curves_of(number: usize, study: &StudyUid, slices: &[Slice]) -> String {
    let axis = || {
        let last = slices.len().saturating_sub(1);
        let ticks = (0..=4).map(|quarter| (last * quarter / 4) as f64);
        let mut ticks: Vec<f64> = ticks.collect();
        ticks.dedup();
        Axis {
            name: "slice, head first",
            from: 0.0,
            to: last as f64,
            ticks,
        }
    };
    let line = |v: usize, extra: &str, named: bool, of: &dyn Fn(&Slice) -> Option<f64>| {
        let points = slices.iter().enumerate();
        let points: Vec<(f64, f64)> = points
            .filter_map(|(place, slice)| Some((place as f64, of(slice)?)))
            .collect();
        let peak = points.iter().map(|(_, y)| *y).fold(0.0, f64::max);
        (peak > SEEN).then(|| Line {
            class: format!("c{}{extra}", v + 1),
            points,
            name: (named && peak > NAMED).then(|| format!("C{}", v + 1)),
            marked: false,
        })
    };
    let vertebrae = 0..data::tables::VERTEBRAE;
    let ratios = vertebrae
        .clone()
        .filter_map(|v| line(v, "", true, &|slice| Some(slice.ratio[v])));
    let predicted = vertebrae
        .clone()
        .filter_map(|v| line(v, "", true, &|slice| Some(slice.fracture?[v])));
    let truth = vertebrae.filter_map(|v| line(v, " truth", false, &|slice| Some(slice.target[v])));
    let chart = |what: &str, told: &str, name, lines: Vec<Line>| Chart {
        title: format!("{what} of study {study}"),
        description: told.to_owned(),
        size: (760.0, 210.0),
        x: axis(),
        y: Axis::share(name),
        lines,
    };
    let above = chart(
        "Vertebra ratios",
        "A curve for each vertebra that is seen, from C1 at the head to C7.",
        "ratio",
        ratios.collect(),
    );
    let below = chart(
        "Fractures",
        "Solid: predicted fracture of each vertebra; dashed: the label times the ratio.",
        "fracture",
        truth.chain(predicted).collect(),
    );
    figure(
        &above.svg(&format!("ratio{number}")),
        "Predicted ratio of each vertebra",
    ) + &figure(
        &below.svg(&format!("frac{number}")),
        "Predicted fracture (solid) and truth (dashed)",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn high_curves_are_named_low_ones_drawn_and_others_left_out() {
        let slices: Vec<Slice> = (1..=4)
            .map(|number| Slice {
                number,
                ratio: [0.9, 0.1, 0.01, 0.0, 0.0, 0.0, 0.0],
                target: [0.8, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
                fracture: (number > 1).then_some([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.6]),
            })
            .collect();
        let drawn = curves_of(0, &StudyUid::new("1.2").unwrap(), &slices);
        assert_eq!(crate::page::unbalanced(&drawn), None);
        let (above, below) = drawn.split_once("</figure>").unwrap();
        let lines = |svg: &str| svg.matches("<path class=").count();
        assert_eq!((lines(above), lines(below)), (2, 2), "{drawn}");
        assert!(above.contains(">C1</text>") && !above.contains(">C2</text>"));
        // The truth has no name, and the slice that nothing was predicted for no point.
        assert!(below.contains("class=\"c1 truth\"") && !below.contains(">C1</text>"));
        let predicted = below.split("class=\"c7\" d=\"").nth(1).unwrap();
        let path = predicted.split('"').next().unwrap();
        assert_eq!(path.matches(['M', 'L']).count(), 3, "{path}");
    }
}
