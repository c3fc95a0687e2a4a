//! The settings of a training as people compare models by them.

use std::collections::BTreeMap;

use event::Setting;
use serde::Serialize;
use serde_json::Value;

use crate::run::{Settings, Stage};

/// What models of a stage differ by: the recipe's numbers by their keys, and how this machine runs them. Files have no place
/// in it.
pub(crate) fn shown_settings(settings: &Settings, world_size: usize) -> BTreeMap<String, Setting> {
    let fold = match settings.fold.held_out() {
        Some(fold) => Setting::Number(fold as f64),
        None => Setting::Text("all".to_owned()),
    };
    let mut shown = BTreeMap::from([
        ("fold".to_owned(), fold),
        ("seed".to_owned(), Setting::Number(settings.seeds.1 as f64)),
        ("ranks".to_owned(), Setting::Number(world_size as f64)),
        (
            "accumulation".to_owned(),
            Setting::Number(settings.accumulation as f64),
        ),
    ]);
    add("", settings.training, &mut shown);
    let stage = match settings.stage {
        Stage::Stage1a { box_loss } => {
            add("box_loss", &box_loss, &mut shown);
            "1a"
        }
        Stage::Stage1b { sequence, crop } => {
            add("sequence", sequence, &mut shown);
            shown.insert("crop".to_owned(), Setting::Flag(crop));
            "1b"
        }
        Stage::Stage2 { sequence } => {
            add("sequence", sequence, &mut shown);
            "2"
        }
        Stage::Stage3 { study, .. } => {
            add("study", study, &mut shown);
            "3"
        }
    };
    shown.insert("stage".to_owned(), Setting::Text(stage.to_owned()));
    let micro_batch = Setting::Number(settings.micro_batch as f64);
    shown.insert("micro_batch".to_owned(), micro_batch);
    let pretrained = Setting::Flag(settings.training.pretrained.is_some());
    shown.insert("pretrained".to_owned(), pretrained);
    // All seeds of the stage; this model's is there.
    shown.remove("seeds");
    shown
}

/// A part of the recipe under the key that leads to it.
fn add(path: &str, part: &impl Serialize, into: &mut BTreeMap<String, Setting>) {
    // What JSON cannot hold has been refused long before.
    let part = serde_json::to_value(part).unwrap_or_default();
    flatten(path, &part, into);
}

/// The values in a tree by their dotted keys; what is not set is left out.
fn flatten(path: &str, value: &Value, into: &mut BTreeMap<String, Setting>) {
    let setting = match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                let inner = match path {
                    "" => key.clone(),
                    path => format!("{path}.{key}"),
                };
                flatten(&inner, value, into);
            }
            return;
        }
        Value::Null => return,
        Value::Bool(flag) => Setting::Flag(*flag),
        Value::Number(number) => Setting::Number(number.as_f64().unwrap_or(f64::NAN)),
        Value::String(text) => Setting::Text(text.clone()),
        Value::Array(_) => Setting::Text(value.to_string()),
    };
    into.insert(path.to_owned(), setting);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use recipe::{Checkpointing, Fold};
    use train::Resume;

    use super::*;

    #[test]
    fn settings_are_told_by_their_keys_and_name_no_file() {
        let source = recipe::Source {
            name: "r.yaml".into(),
            text: "data: {root: d}\nstage2: {training: {pretrained: /home/a/w.safetensors, batch: 12}}\n".into(),
        };
        let stage2 = recipe::parse(&source, &[]).unwrap().stage2.unwrap();
        let resume = Resume::Auto;
        let settings = Settings {
            job: "stage2-resnest50d-fold1-seed4",
            hash: "",
            stage: Stage::Stage2 {
                sequence: &stage2.sequence,
            },
            fold: Fold::HeldOut(1),
            seeds: (9, 4),
            training: &stage2.training,
            start: None,
            pretrained_sha256: None,
            micro_batch: 3,
            accumulation: 2,
            checkpointing: &Checkpointing::default(),
            patience: Duration::ZERO,
            replica_check: 0,
            histograms: false,
            resume: &resume,
        };
        let shown = shown_settings(&settings, 2);
        let number = |n: f64| Some(Setting::Number(n));
        for (key, value) in [
            ("batch", number(12.0)),
            ("micro_batch", number(3.0)),
            ("ranks", number(2.0)),
            ("fold", number(1.0)),
            ("seed", number(4.0)),
            ("augment.flip", number(stage2.training.augment.flip)),
            ("sequence.images", number(32.0)),
            ("stage", Some(Setting::Text("2".into()))),
            ("pretrained", Some(Setting::Flag(true))),
            ("seeds", None),
        ] {
            assert_eq!(shown.get(key), value.as_ref(), "{key}");
        }
        assert!(!format!("{shown:?}").contains("safetensors"));
    }
}
