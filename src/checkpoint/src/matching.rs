//! Which tensor of a file goes where in a model: prefixes, classifiers, types, the first convolution.
//!
//! Names, types and shapes alone decide; no value is touched here. What is brought into line is what PyTorch's and
//! timm's own habits produce: DataParallel's `module.`, a CNN inside a model, a classifier that the model has no use
//! for, half-precision files, files from before `num_batches_tracked`, images of other than three channels.

use std::collections::{BTreeMap, BTreeSet};

use crate::Dtype;
use crate::fit_report::{FitReport, Note};
use crate::keys::{TensorSpec, diff};

/// Where a model keeps its CNN.
pub(crate) const BACKBONE: &str = "backbone.";

/// What wrappers put before every name: DataParallel, Lightning, torch.compile.
const WRAPPERS: [&str; 3] = ["module.", "model.", "_orig_mod."];

/// The classifier in timm's ResNets and EfficientNets.
pub(crate) const CLASSIFIER: [&str; 4] = [
    "fc.weight",
    "fc.bias",
    "classifier.weight",
    "classifier.bias",
];

/// The first convolution: of deep stems, of plain ResNets, of EfficientNets.
pub(crate) const FIRST_CONVOLUTIONS: [&str; 3] =
    ["conv1.0.weight", "conv1.weight", "conv_stem.weight"];

/// Channels of the images that published weights are made for.
const RGB: usize = 3;

/// Which of a model's tensors a file must bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of them.
    Whole,
    /// Those of its CNN; the others keep their initial values.
    Backbone,
}

/// What a file brings to a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fit {
    /// In the order of the model's names.
    pub assignments: Vec<Assignment>,
    pub report: FitReport,
}

/// One tensor of the file and its place in the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Its place in the list of the file's tensors.
    pub source: usize,
    /// Its name in the model.
    pub target: String,
    /// The channels to bring its filters to, where they are other than the file's three: (O, 3, K, K) ->
    /// (O, channels, K, K), the sum over the three for one channel, else repeated and scaled by 3 / channels.
    pub channels: Option<usize>,
}

/// Finds the place of every tensor of a file. What has none, and what nothing is found for, is in the report.
pub fn fit(expected: &[TensorSpec], found: &[TensorSpec], part: Part) -> Fit {
    let model = Model::new(expected, part);
    let mut notes = Vec::new();
    let names = unwrap(found, &mut notes);
    let names = model.place(names, found, &mut notes);
    let names = model.drop_classifier(names, found, &mut notes);

    let mut assignments = Vec::new();
    // The file's tensors as they will be in the model.
    let mut brought = Vec::new();
    let mut original = BTreeMap::new();
    let mut conversions: BTreeMap<(Dtype, Dtype), usize> = BTreeMap::new();
    for Named { source, name } in names {
        let theirs = TensorSpec {
            name: name.clone(),
            ..found[source].clone()
        };
        original.insert(name.clone(), source);
        let Some(ours) = model.wanted.get(name.as_str()) else {
            brought.push(theirs);
            continue;
        };
        let channels = adapted_channels(ours, &theirs);
        let shape_fits = theirs.shape == ours.shape || channels.is_some();
        if !(shape_fits && converts(theirs.dtype, ours.dtype)) {
            brought.push(theirs);
            continue;
        }
        if theirs.dtype != ours.dtype {
            *conversions.entry((theirs.dtype, ours.dtype)).or_default() += 1;
        }
        if let Some(to) = channels {
            let name = name.clone();
            notes.push(Note::Channels { name, to });
        }
        brought.push((*ours).clone());
        assignments.push(Assignment {
            source,
            target: name,
            channels,
        });
    }
    for ((from, to), tensors) in conversions {
        notes.push(Note::Converted { from, to, tensors });
    }

    let required = model.required(expected, &mut notes);
    let mut keys = diff(&required, &brought);
    // Whoever reads of a tensor without a place looks for the name that the file has.
    for spec in &mut keys.unexpected {
        if let Some(source) = original.get(&spec.name) {
            *spec = found[*source].clone();
        }
    }
    let missing = keys.missing.len();
    keys.missing.retain(|spec| !is_counter(&spec.name));
    if keys.missing.len() < missing {
        notes.push(Note::NoCounters {
            names: missing - keys.missing.len(),
        });
    }
    assignments.sort_by(|a, b| a.target.cmp(&b.target));
    Fit {
        report: FitReport {
            loaded: assignments.len(),
            expected: required.len(),
            notes,
            keys,
        },
        assignments,
    }
}

/// A tensor of the file, by its place there, under the name that it has by now.
struct Named {
    source: usize,
    name: String,
}

/// Whether this is the name of the convolution that looks at the image, in a CNN or in a model's.
pub fn is_first_convolution(name: &str) -> bool {
    let inner = name.strip_prefix(BACKBONE).unwrap_or(name);
    FIRST_CONVOLUTIONS.contains(&inner)
}

/// Tensors under their names without wrappers' prefixes.
pub fn unwrapped(mut specs: Vec<TensorSpec>) -> Vec<TensorSpec> {
    let names = unwrap(&specs, &mut Vec::new());
    for (spec, named) in specs.iter_mut().zip(names) {
        spec.name = named.name;
    }
    specs
}

/// Takes wrappers' prefixes off, as long as no two names become one.
fn unwrap(found: &[TensorSpec], notes: &mut Vec<Note>) -> Vec<Named> {
    let mut names: Vec<String> = found.iter().map(|spec| spec.name.clone()).collect();
    let mut going_on = true;
    while going_on {
        going_on = false;
        for prefix in WRAPPERS {
            let count = names.iter().filter(|name| name.starts_with(prefix)).count();
            let bare: Vec<String> = names
                .iter()
                .map(|name| name.strip_prefix(prefix).unwrap_or(name).to_owned())
                .collect();
            let distinct = bare.iter().collect::<BTreeSet<_>>().len() == bare.len();
            if count > 0 && distinct {
                notes.push(Note::Unwrapped {
                    prefix,
                    names: count,
                });
                names = bare;
                going_on = true;
            }
        }
    }
    let names = names.into_iter().enumerate();
    names.map(|(source, name)| Named { source, name }).collect()
}

struct Model<'a> {
    wanted: BTreeMap<&'a str, &'a TensorSpec>,
    /// Whether its CNN is below `backbone.`; else it is a CNN itself.
    has_backbone: bool,
    part: Part,
}

impl<'a> Model<'a> {
    fn new(expected: &'a [TensorSpec], part: Part) -> Self {
        let has_backbone = expected.iter().any(|spec| spec.name.starts_with(BACKBONE));
        Model {
            wanted: expected
                .iter()
                .map(|spec| (spec.name.as_str(), spec))
                .collect(),
            has_backbone,
            part,
        }
    }

    /// Brings a CNN's names into a model's `backbone.`, or out of it.
    fn place(&self, names: Vec<Named>, found: &[TensorSpec], notes: &mut Vec<Note>) -> Vec<Named> {
        let file_has_backbone = names.iter().any(|named| named.name.starts_with(BACKBONE));
        match (self.has_backbone, file_has_backbone) {
            (true, false) => {
                let (known, mut others): (Vec<_>, Vec<_>) = names
                    .into_iter()
                    .partition(|named| self.wanted.contains_key(named.name.as_str()));
                notes.push(Note::IntoBackbone {
                    names: others.len(),
                });
                for named in &mut others {
                    named.name.insert_str(0, BACKBONE);
                }
                known.into_iter().chain(others).collect()
            }
            (has_backbone, true) if !has_backbone || self.part == Part::Backbone => {
                let (mut inside, others): (Vec<_>, Vec<_>) = names
                    .into_iter()
                    .partition(|named| named.name.starts_with(BACKBONE));
                if !has_backbone {
                    for named in &mut inside {
                        named.name.drain(..BACKBONE.len());
                    }
                }
                let name_of = |named: &Named| found[named.source].name.clone();
                notes.push(Note::BackboneOf {
                    others: others.iter().map(name_of).collect(),
                });
                inside
            }
            _ => names,
        }
    }

    fn drop_classifier(
        &self,
        names: Vec<Named>,
        found: &[TensorSpec],
        notes: &mut Vec<Note>,
    ) -> Vec<Named> {
        let is_classifier = |named: &Named| {
            let inner = match self.has_backbone {
                true => named.name.strip_prefix(BACKBONE),
                false => Some(named.name.as_str()),
            };
            inner.is_some_and(|inner| CLASSIFIER.contains(&inner))
                && !self.wanted.contains_key(named.name.as_str())
        };
        let (dropped, kept): (Vec<_>, Vec<_>) = names.into_iter().partition(is_classifier);
        if !dropped.is_empty() {
            let specs = dropped.iter().map(|named| found[named.source].clone());
            notes.push(Note::Classifier {
                dropped: specs.collect(),
            });
        }
        kept
    }

    /// The tensors that the file must bring.
    fn required(&self, expected: &[TensorSpec], notes: &mut Vec<Note>) -> Vec<TensorSpec> {
        if !self.has_backbone || self.part == Part::Whole {
            return expected.to_vec();
        }
        let (required, others): (Vec<_>, Vec<_>) = expected
            .iter()
            .cloned()
            .partition(|spec| spec.name.starts_with(BACKBONE));
        notes.push(Note::Initial {
            names: others.into_iter().map(|spec| spec.name).collect(),
        });
        required
    }
}

fn is_counter(name: &str) -> bool {
    name.ends_with(".num_batches_tracked")
}

/// Whether values of one type may be turned into another: floats into floats, integers into integers.
fn converts(from: Dtype, to: Dtype) -> bool {
    let is_integer = |dtype| matches!(dtype, Dtype::I64 | Dtype::I32 | Dtype::U8);
    from == to || (from.is_float() && to.is_float()) || (is_integer(from) && is_integer(to))
}

/// The model's channels where this is its first convolution, and the file's is the same for three.
fn adapted_channels(ours: &TensorSpec, theirs: &TensorSpec) -> Option<usize> {
    let (&[filters, to, height, width], &[a, RGB, b, c]) = (&ours.shape[..], &theirs.shape[..])
    else {
        return None;
    };
    let fits =
        to != RGB && is_first_convolution(&ours.name) && [filters, height, width] == [a, b, c];
    fits.then_some(to)
}
