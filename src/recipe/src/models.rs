//! Several models a stage: each entry of its list `models` lies over the stage's `training`.

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value as Json};

use crate::Recipe;
use crate::model::Training;
use crate::section::Section;
use crate::tree::Node;

/// One of several models that a stage trains, with each of its seeds.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// What job names call it; its architecture where absent.
    pub name: Option<String>,
    /// The stage's `training` with what this entry lays over it.
    pub training: Training,
    /// In what the two differ. A resolved recipe says no more than this, so that what is laid over `training` later reaches
    /// every model.
    differs: Map<String, Json>,
}

impl Model {
    /// None, and a fault at the model's section, where JSON cannot hold a setting.
    pub(crate) fn new(
        section: &Section,
        name: Option<String>,
        base: &Training,
        training: Training,
    ) -> Option<Self> {
        let both = keys(base).and_then(|base| Ok((base, keys(&training)?)));
        match both {
            Ok((base, own)) => Some(Model {
                name,
                training,
                differs: difference(&base, &own),
            }),
            Err(error) => {
                section.refuse(
                    "arch",
                    format!("these settings cannot be written down: {error}"),
                    "write finite numbers".into(),
                );
                None
            }
        }
    }

    /// What job names call it.
    pub fn label(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.training.arch)
    }
}

fn keys(training: &Training) -> serde_json::Result<Map<String, Json>> {
    Ok(match serde_json::to_value(training)? {
        Json::Object(keys) => keys,
        _ => Map::new(),
    })
}

/// What, laid over `base`, makes `own` of it; nothing takes a key away.
fn difference(base: &Map<String, Json>, own: &Map<String, Json>) -> Map<String, Json> {
    let mut differs = Map::new();
    for (key, value) in own {
        let differing = match (base.get(key), value) {
            (Some(below), value) if below == value => continue,
            (Some(Json::Object(below)), Json::Object(value)) => {
                Json::Object(difference(below, value))
            }
            _ => value.clone(),
        };
        differs.insert(key.clone(), differing);
    }
    for key in base.keys().filter(|key| !own.contains_key(*key)) {
        differs.insert(key.clone(), Json::Null);
    }
    differs
}

impl Serialize for Model {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let entries = self.differs.len() + usize::from(self.name.is_some());
        let mut map = serializer.serialize_map(Some(entries))?;
        if let Some(name) = &self.name {
            map.serialize_entry("name", name)?;
        }
        for (key, value) in &self.differs {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// A stage's list of models; empty where there is none, and then the stage trains what `base` says.
///
/// `read` takes an entry laid over the stage's `training`, with the name that the entry gives.
pub(crate) fn models(
    stage: &Section,
    base: &Training,
    read: impl Fn(&Section, Option<&str>) -> Training,
) -> Vec<Model> {
    let Some(entries) = stage.list("models", "models, each a section", "[{arch: resnest50d}]")
    else {
        return Vec::new();
    };
    let mut models: Vec<Model> = Vec::with_capacity(entries.len());
    for (number, entry) in entries.iter().enumerate() {
        let merged = match stage.get("training") {
            Some(training) => training.clone().overlaid(entry.clone()),
            None => entry.clone(),
        };
        let section = stage.item(&merged, &format!("models.{number}"));
        let name = name(&section);
        let training = read(&section, name.as_deref());
        if let Some(model) = Model::new(&section, name, base, training) {
            refuse_second(stage, entry, number, &model, &models);
            models.push(model);
        }
        section.finish();
    }
    models
}

/// The name that an entry gives its model, of what a folder's name may hold.
fn name(section: &Section) -> Option<String> {
    let name = section.optional_text("name")?;
    let safe = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
    if name.is_empty() || !name.chars().all(safe) {
        section.refuse(
            "name",
            format!("`{name}` cannot be part of a job's name"),
            "write lower-case letters, digits, hyphens, underscores and dots".into(),
        );
    }
    Some(name)
}

/// Two models of one name would be one job.
fn refuse_second(stage: &Section, entry: &Node, number: usize, model: &Model, before: &[Model]) {
    let label = model.label();
    if let Some(first) = before.iter().position(|other| other.label() == label) {
        stage.fault(
            &entry.place,
            &format!("models.{number}"),
            format!("it is called `{label}`, as models.{first} is, and jobs are named by that"),
            format!("give it a name of its own, as in `name: {label}-b`"),
        );
    }
}

/// A model that a stage trains with each of its seeds.
#[derive(Clone, Debug, PartialEq)]
pub struct StageModel<'r> {
    /// Where its settings stand: `stage2.training`, or `stage2.models.1`.
    pub path: String,
    /// What job names call it: its name, or its architecture.
    pub label: &'r str,
    pub training: &'r Training,
}

impl Recipe {
    /// The models of a stage (`1a`, `1b`, `2`, `3`) in the order of the recipe; none where it has no such section.
    pub fn models(&self, stage: &str) -> Vec<StageModel<'_>> {
        let found = match stage {
            "1a" => self.stage1a.as_ref().map(|s| (&s.training, &s.models)),
            "1b" => self.stage1b.as_ref().map(|s| (&s.training, &s.models)),
            "2" => self.stage2.as_ref().map(|s| (&s.training, &s.models)),
            "3" => self.stage3.as_ref().map(|s| (&s.training, &s.models)),
            _ => None,
        };
        let Some((training, models)) = found else {
            return Vec::new();
        };
        if models.is_empty() {
            return vec![StageModel {
                path: format!("stage{stage}.training"),
                label: &training.arch,
                training,
            }];
        }
        let numbered = models.iter().enumerate();
        numbered
            .map(|(number, model)| StageModel {
                path: format!("stage{stage}.models.{number}"),
                label: model.label(),
                training: &model.training,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
