//! An event as a line of `events.jsonl`, and back.

use crate::RunEvent;

/// A line that is not an event, or an event that JSON cannot hold.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    #[error("cannot write an event as JSON: {0}")]
    Encode(#[source] serde_json::Error),
    #[error("this line is not a run event ({source}): {line:.120}")]
    Decode {
        line: String,
        #[source]
        source: serde_json::Error,
    },
}

/// The event as one line of JSON, newline included.
pub fn to_line(event: &RunEvent) -> Result<String, EventError> {
    let mut line = serde_json::to_string(event).map_err(EventError::Encode)?;
    line.push('\n');
    Ok(line)
}

/// Reads a line that [`to_line`] wrote.
pub fn parse_line(line: &str) -> Result<RunEvent, EventError> {
    serde_json::from_str(line).map_err(|source| EventError::Decode {
        line: line.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        EventKind, FailureClass, FailureReport, GpuUse, Histogram, Phase, Picture, Samples, Scores,
        Setting, StepRecord,
    };

    #[test]
    fn every_shape_of_event_survives_the_round_trip() {
        let kinds = [
            EventKind::JobStarted { world_size: 2 },
            EventKind::Heartbeat {
                phase: Phase::AllReduce,
                step: 3,
                sequence: 17,
            },
            EventKind::Pulse(crate::Pulse {
                phase: Phase::Backward,
                step: 3,
                sequence: 17,
                waits: true,
                progress: 90,
                idle_seconds: 0.25,
                local_seconds: None,
                samples: Samples {
                    ids: vec!["1.2.3/41".into()],
                    count: 6,
                },
            }),
            EventKind::GpuUse(GpuUse {
                id: "MIG-11".into(),
                memory_used: Some(1 << 40),
                ..GpuUse::default()
            }),
            EventKind::Step(StepRecord {
                step: 7,
                total_steps: 90,
                loss: 0.1 + 0.2,
                phases: BTreeMap::from([(Phase::DataWait, 0.001)]),
                ..StepRecord::default()
            }),
            EventKind::TrainingStarted {
                settings: BTreeMap::from([
                    ("flip".into(), Setting::Number(0.5)),
                    ("batch".into(), Setting::Number(48.0)),
                    ("ema".into(), Setting::Flag(false)),
                    ("arch".into(), Setting::Text("resnest50d".into())),
                ]),
            },
            EventKind::Picture(Picture {
                step: 3,
                name: "inputs/0".into(),
                path: "jobs/a/pictures/inputs-0-00000003.png".into(),
                caption: "1.2.3, slices 4 to 99".into(),
            }),
            EventKind::Scores(Scores {
                step: 3,
                set: "held_out".into(),
                name: "C3".into(),
                positives: vec![0, 2, 1],
                negatives: vec![7, 0, 0],
            }),
            EventKind::Histogram(Histogram {
                step: 3,
                name: "weights/head.bias".into(),
                edges: vec![-0.5, 0.0, 0.5],
                counts: vec![3, 4],
            }),
            EventKind::RankFailed(FailureReport {
                failed_at: 1.5,
                class: FailureClass::Data,
                message: "bad \"file\"\nwith two lines".into(),
                phase: Some(Phase::DataWait),
                step: None,
                exit: Some("exit 4".into()),
                ..FailureReport::default()
            }),
        ];
        for kind in kinds {
            let event = RunEvent::job("stage2-resnest14d-fold0-seed0", 1, kind);
            let line = to_line(&event).unwrap();
            assert_eq!(line.matches('\n').count(), 1, "one event is one line");
            assert_eq!(parse_line(&line).unwrap(), event);
        }
    }

    #[test]
    fn a_torn_line_is_refused_with_its_text() {
        let error = parse_line("{\"time\":1.0,\"eve").unwrap_err();
        assert!(error.to_string().contains("{\"time\":1.0,\"eve"));
    }
}
