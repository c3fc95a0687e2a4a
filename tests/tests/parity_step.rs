//! Updates of the stages' models against PyTorch's and timm's optimizers: the loss and the gradient's norm of each of ten
//! updates, and every weight and running statistic after them.
//!
//! Rounding errors grow from update to update, the faster the higher the learning rate; the rates here are those at which the
//! same ten updates in PyTorch alone, on one thread and on two, stay well within the bounds. What the bounds are worth is
//! tested too: PyTorch with something changed in the update has to be outside of them.

use std::path::PathBuf;

use serde_json::{Map, Value, json};
use spinectl_tests::parity::{Files, Tensors, read, reference};
use tempfile::TempDir;

/// Of the loss of each update.
const LOSS: f64 = 1e-4;
/// Of the gradient's norm of each update.
const GRADIENT_NORM: f64 = 5e-3;
/// Of a tensor's change over all updates, in the L2 norm: of all parameters together, and of each.
const CHANGE: f64 = 5e-3;
const CHANGE_OF_EACH: f64 = 0.2;
/// Of a running statistic's change.
const STATISTICS: f64 = 5e-3;

/// A convolution's bias before a batch norm: in exact arithmetic it has no gradient, so that an adaptive optimizer moves it by
/// what rounding leaves.
const WITHOUT_GRADIENT: &str = ".fc1.bias";

/// Settings of an update, by the keys of tests/python/parity/step_cases.py.
#[derive(Clone)]
struct Update {
    name: String,
    keys: Map<String, Value>,
}

impl Update {
    fn new(name: &str, keys: Value) -> Self {
        let Value::Object(keys) = keys else {
            panic!("{keys} is no object");
        };
        Update {
            name: name.into(),
            keys,
        }
    }

    /// The same with more settings.
    fn with(&self, name: &str, more: Value) -> Self {
        let mut changed = Update::new(&format!("{} {name}", self.name), more);
        let own = self.keys.clone().into_iter();
        for (key, value) in own {
            changed.keys.entry(key).or_insert(value);
        }
        changed
    }

    /// As spinectl's flags.
    fn flags(&self) -> Vec<String> {
        let flag = |(key, value): (&String, &Value)| {
            let name = format!("--{}", key.replace('_', "-"));
            match value {
                Value::Bool(true) => vec![name],
                Value::String(text) => vec![name, text.clone()],
                other => vec![name, other.to_string()],
            }
        };
        self.keys.iter().flat_map(flag).collect()
    }

    fn request(&self) -> Value {
        let mut keys = self.keys.clone();
        keys.insert("name".into(), json!(self.name));
        Value::Object(keys)
    }
}

/// PyTorch's results of updates of some models, in a folder.
struct References {
    folder: TempDir,
}

impl References {
    fn new(models: &[&str], updates: &[Update]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let updates: Vec<Value> = updates.iter().map(Update::request).collect();
        let requests: Vec<Value> = models
            .iter()
            .map(|model| json!({"model": model, "hidden": 24, "updates": updates}))
            .collect();
        let requests = Value::from(requests).to_string();
        reference(
            "step_cases.py",
            [folder.path().as_os_str(), requests.as_ref()],
        );
        References { folder }
    }

    fn of<'a>(&'a self, model: &'a str) -> Reference<'a> {
        Reference {
            place: self.folder.path().join(model.replace(':', "-")),
            model,
            faults: Vec::new(),
        }
    }
}

/// A model with PyTorch's results of its updates.
struct Reference<'a> {
    place: PathBuf,
    model: &'a str,
    faults: Vec<String>,
}

impl Reference<'_> {
    fn file(&self, name: &str) -> Tensors {
        read(&self.place.join(format!("{name}.safetensors")))
    }

    /// spinectl's results with the update's flags and more.
    fn step(&self, update: &Update, more: &[&str]) -> Tensors {
        let place = |name: &str| self.place.join(format!("{name}.safetensors"));
        let mut flags = update.flags();
        flags.extend([
            "--steps".to_owned(),
            "10".to_owned(),
            "--targets".to_owned(),
        ]);
        flags.push(place("targets").display().to_string());
        flags.extend(more.iter().map(|word| (*word).to_owned()));
        let files = Files {
            weights: &place("weights"),
            input: &place("input"),
            output: &place("found"),
        };
        files.outputs("step", self.model, &flags)
    }

    /// Holds spinectl's results with `more` flags against PyTorch's without them.
    fn agrees(&mut self, update: &Update, more: &[&str]) -> Tensors {
        let found = self.step(update, more);
        let faults = distance(&found, &self.file(&update.name), &self.file("weights")).faults();
        let place = format!("{} {} {}", self.model, update.name, more.join(" "));
        self.faults
            .extend(faults.iter().map(|fault| format!("{place}: {fault}")));
        found
    }

    fn verdict(self) {
        assert!(self.faults.is_empty(), "{}", self.faults.join("\n"));
    }

    /// PyTorch's results of an update that is wrong are outside of the bounds.
    fn notices(&mut self, found: &Tensors, wrong: &Update) {
        let distance = distance(found, &self.file(&wrong.name), &self.file("weights"));
        if distance.faults().is_empty() {
            let fault = format!("{} would go unnoticed: {distance:?}", wrong.name);
            self.faults.push(fault);
        }
    }
}

/// How far two results are apart.
#[derive(Debug, Default)]
struct Distance {
    /// Names that one side alone has.
    other_names: Vec<String>,
    /// Largest over updates, relative.
    loss: f64,
    gradient_norm: f64,
    /// Of all parameters together, over their change; those without a gradient are left out.
    change: f64,
    /// The parameter and the statistic that are farthest, over their own change.
    parameter: (f64, String),
    statistic: (f64, String),
}

impl Distance {
    fn faults(&self) -> Vec<String> {
        let mut faults = self.other_names.clone();
        for (what, value, bound) in [
            ("a loss", self.loss, LOSS),
            ("a gradient's norm", self.gradient_norm, GRADIENT_NORM),
            ("the change of all parameters", self.change, CHANGE),
            (&self.parameter.1, self.parameter.0, CHANGE_OF_EACH),
            (&self.statistic.1, self.statistic.0, STATISTICS),
        ] {
            if value > bound || value.is_nan() {
                faults.push(format!("{what} is {value:.1e} off"));
            }
        }
        faults
    }
}

/// Where `found` is from `expected`; `initial` are the weights before the updates.
fn distance(found: &Tensors, expected: &Tensors, initial: &Tensors) -> Distance {
    let mut distance = Distance::default();
    let one_sided = found.keys().filter(|name| !expected.contains_key(*name));
    distance.other_names = one_sided
        .map(|name| format!("{name} is ours alone"))
        .collect();
    let (mut difference, mut change) = (0.0, 0.0);
    for (name, expected) in expected {
        let Some(found) = found.get(name).filter(|t| t.shape == expected.shape) else {
            distance
                .other_names
                .push(format!("{name} is PyTorch's alone"));
            continue;
        };
        let Some(variable) = name.strip_prefix("final.") else {
            let errors = found.values.iter().zip(&expected.values);
            let largest = errors.fold(0.0f64, |max, (a, b)| max.max(((a - b) / b).abs()));
            match name.as_str() {
                "loss" => distance.loss = largest,
                _ => distance.gradient_norm = largest,
            }
            continue;
        };
        let (own_difference, own_change) = (
            found.minus(expected).norm(),
            expected.minus(&initial[variable]).norm(),
        );
        // What stays (a frozen backbone, a count) stays exactly.
        let share = if own_difference == 0.0 {
            0.0
        } else {
            own_difference / own_change
        };
        let statistic = variable.contains("running_") || variable.ends_with("num_batches_tracked");
        let worst = match statistic {
            true => &mut distance.statistic,
            false if variable.ends_with(WITHOUT_GRADIENT) => continue,
            false => {
                difference += own_difference * own_difference;
                change += own_change * own_change;
                &mut distance.parameter
            }
        };
        if share >= worst.0 || share.is_nan() {
            *worst = (share, variable.to_owned());
        }
    }
    distance.change = (difference / change).sqrt();
    distance
}

/// What is tried with each optimizer on stage 2: the update by itself, clipped, accumulated, and both.
fn variants(plain: &Update) -> [Update; 4] {
    let clip = json!({"clip_norm": 2.0});
    let accumulate = json!({"accumulation": 2});
    let clipped = plain.with("clipped", clip.clone());
    [
        plain.clone(),
        plain.with("accumulated", accumulate.clone()),
        clipped.with("accumulated", accumulate),
        clipped,
    ]
}

const STAGE2: &str = "stage2:resnest14d";

fn adamw() -> Update {
    Update::new(
        "adamw",
        json!({"optimizer": "adamw", "learning_rate": 3e-5, "weight_decay": 0.5}),
    )
}

#[test]
fn stage2_with_adamw() {
    let plain = adamw();
    let updates = variants(&plain);
    let wrong = [
        plain.with("other beta1", json!({"betas": [0.85, 0.999]})),
        plain.with("other beta2", json!({"betas": [0.9, 0.99]})),
        plain.with("no decay", json!({"weight_decay": 0.0})),
        plain.with("all decay", json!({"decay_all": true})),
    ];
    let references = References::new(&[STAGE2], &[&updates[..], &wrong[..]].concat());
    let mut reference = references.of(STAGE2);
    let mut found: Vec<Tensors> = Vec::new();
    for update in &updates {
        found.push(reference.agrees(update, &[]));
    }
    for wrong in &wrong {
        reference.notices(&found[0], wrong);
    }
    // Clipping and accumulation make a difference.
    for other in &updates[1..] {
        reference.notices(&found[0], other);
    }
    reference.verdict();
}

/// The ways of computing the same update, and what else an update may have.
#[test]
fn stage2_with_adamw_in_other_ways() {
    let plain = adamw();
    let dropping = plain.with(
        "dropping",
        json!({"drop_path": 0.3, "drop_rate": 0.2, "seed": 5}),
    );
    let rates = plain.with("rates", json!({"backbone_learning_rate": 3e-6}));
    let everything = plain.with("everything", json!({"decay_all": true}));
    let average = plain.with("average", json!({"ema": 0.8}));
    let updates = [&plain, &dropping, &rates, &everything, &average].map(Update::clone);
    let references = References::new(&[STAGE2], &updates);
    let mut reference = references.of(STAGE2);
    for flags in [
        &["--channels-last"][..],
        &["--gradient-checkpointing"],
        &["--loss-scale", "1024"],
    ] {
        reference.agrees(&plain, flags);
    }
    // What is dropped is dropped again when activations are computed anew.
    let found = reference.agrees(&dropping, &["--gradient-checkpointing"]);
    reference.notices(&found, &plain);
    for update in [&dropping, &rates, &everything, &average] {
        let found = reference.agrees(update, &[]);
        reference.notices(&found, &plain);
    }
    reference.verdict();
}

#[test]
fn stage2_with_sgd() {
    let plain = Update::new(
        "sgd",
        json!({"optimizer": "sgd", "learning_rate": 1e-4, "momentum": 0.9, "weight_decay": 0.5}),
    );
    let updates = variants(&plain);
    let still = plain.with("without momentum", json!({"momentum": 0.0}));
    let wrong = [
        plain.with("without nesterov", json!({"nesterov": false})),
        plain.with("no decay", json!({"weight_decay": 0.0})),
        still.clone(),
    ];
    let references = References::new(&[STAGE2], &[&updates[..], &wrong[..]].concat());
    let mut reference = references.of(STAGE2);
    let found = reference.agrees(&updates[0], &[]);
    for wrong in &wrong {
        reference.notices(&found, wrong);
    }
    for update in updates[1..].iter().chain([&still]) {
        reference.agrees(update, &[]);
    }
    reference.verdict();
}

#[test]
fn stage2_with_lamb() {
    let plain = Update::new(
        "lamb",
        json!({"optimizer": "lamb", "learning_rate": 3e-4, "weight_decay": 0.5}),
    );
    let updates = variants(&plain);
    let wrong = [
        plain.with("other beta1", json!({"betas": [0.85, 0.999]})),
        plain.with("no decay", json!({"weight_decay": 0.0})),
        plain.with("all decay", json!({"decay_all": true})),
        plain.with("adamw", json!({"optimizer": "adamw"})),
    ];
    let references = References::new(&[STAGE2], &[&updates[..], &wrong[..]].concat());
    let mut reference = references.of(STAGE2);
    let found = reference.agrees(&updates[0], &[]);
    for wrong in &wrong {
        reference.notices(&found, wrong);
    }
    for update in &updates[1..] {
        reference.agrees(update, &[]);
    }
    reference.verdict();
}

#[test]
fn the_other_stages_and_a_bare_backbone() {
    let models = [
        "stage1a:resnest14d",
        "stage1b:resnest14d",
        "stage3:resnest14d",
        "efficientnet_b0",
    ];
    let [plain, _, both, _] = variants(&adamw());
    let references = References::new(&models, &[plain.clone(), both.clone()]);
    for model in models {
        let mut reference = references.of(model);
        let found = reference.agrees(&plain, &[]);
        reference.notices(&found, &both);
        reference.agrees(&both, &[]);
        reference.verdict();
    }
}
