//! A backbone or a stage's model by its name, fed with named tensors.

use nn::{
    Backbone, BackboneConfig, Localizer, Located, Pass, SliceHeads, SliceModel, SlicePrediction,
    StudyModel,
};
use recipe::BoxLoss;
use tch::Tensor;
use tch::nn::VarStore;
use train::{Execution, Losses, full};

use crate::Result;
use crate::finished::freeze_backbone;
use crate::losses::{localizer_loss, slice_loss, study_loss};
use crate::model::Sizes;
use crate::model::tensors::TensorSet;

/// The stage whose heads a model has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelStage {
    Stage1a,
    Stage1b,
    Stage2,
    Stage3,
}

/// What is run.
#[derive(Debug)]
pub(crate) enum Network {
    Backbone(Backbone),
    Localizer(Localizer),
    Slices(SliceModel),
    Study { model: StudyModel, max_images: i64 },
}

/// What came out, under the names by which it is written.
pub(crate) enum Outputs {
    /// (B, F)
    Features(Tensor),
    Located(Located),
    Slices(SlicePrediction),
    /// (B, 8)
    Logits(Tensor),
}

impl Network {
    /// Makes the model with its initial weights; stage 3's CNN is frozen.
    pub fn new(store: &VarStore, stage: Option<ModelStage>, sizes: &Sizes) -> Result<Self> {
        let path = store.root();
        let backbone = &BackboneConfig {
            arch: sizes.arch.clone(),
            in_chans: sizes.in_chans,
            drop_path: sizes.drop_path,
            drop_rate: sizes.drop_rate,
        };
        let slices = |heads| SliceModel::new(&path, backbone, sizes.lstm_hidden, heads);
        Ok(match stage {
            None => Network::Backbone(Backbone::new(&path, backbone)?),
            Some(ModelStage::Stage1a) => Network::Localizer(Localizer::new(&path, backbone)?),
            Some(ModelStage::Stage1b) => Network::Slices(slices(SliceHeads::Ratio)?),
            Some(ModelStage::Stage2) => Network::Slices(slices(SliceHeads::Fracture)?),
            Some(ModelStage::Stage3) => {
                let max_images = sizes.max_images;
                let model = StudyModel::new(&path, backbone, sizes.lstm_hidden, max_images)?;
                freeze_backbone(store);
                Network::Study { model, max_images }
            }
        })
    }

    /// One pass over `input`.
    pub fn forward(
        &self,
        execution: &Execution,
        input: &TensorSet,
        pass: &Pass,
    ) -> Result<Outputs> {
        let image = |shape| execution.images(input.get("image", shape)?);
        Ok(match self {
            Network::Backbone(net) => Outputs::Features(net.forward(&image("B, C, H, W")?, pass)?),
            Network::Localizer(net) => Outputs::Located(net.forward(&image("B, C, H, W")?, pass)?),
            Network::Slices(net) => {
                let image = image("B, S, C, H, W")?;
                let position = input.get("position", "B, S")?;
                if position.size() != image.size()[..2] {
                    return Err(input.fault(format!(
                        "`position` has the shape {:?} and `image` {:?}: both begin with (B, S)",
                        position.size(),
                        image.size()
                    )));
                }
                Outputs::Slices(net.forward(&image, &position, pass)?)
            }
            Network::Study { model, max_images } => {
                let (features, mask) = study_features(model, *max_images, execution, input)?;
                Outputs::Logits(model.forward(&features, &mask, pass)?)
            }
        })
    }
}

impl Outputs {
    /// The stage's loss; of features the mean squared error.
    pub fn loss(self, targets: &TensorSet) -> Result<Losses> {
        match self {
            Outputs::Features(features) => {
                let features = full(&features)?;
                let target = same_shape(targets, "features", "B, F", &features)?;
                Ok(Losses {
                    total: features.f_mse_loss(&target, tch::Reduction::Mean)?,
                    parts: Vec::new(),
                    images: features.size()[0] as usize,
                })
            }
            Outputs::Located(located) => {
                let bounds = same_shape(targets, "box", "B, 4", &located.bounds)?;
                let has_box = same_shape(targets, "has_box", "B", &located.has_box)?;
                localizer_loss(&located, &bounds, &has_box, BoxLoss::Rmse)
            }
            Outputs::Slices(slices) => {
                let ratio = same_shape(targets, "ratio", "B, S, 7", &slices.ratio)?;
                let fracture = match &slices.fracture {
                    Some(head) => Some(same_shape(targets, "fracture", "B, S, 7", head)?),
                    None => None,
                };
                slice_loss(&slices, &ratio, fracture.as_ref())
            }
            Outputs::Logits(logits) => {
                let label = same_shape(targets, "label", "B, 8", &logits)?;
                study_loss(&logits, &label, logits.size()[0] as usize)
            }
        }
    }

    /// Each output in f32 under its name.
    pub fn named(self) -> Result<Vec<(String, Tensor)>> {
        let named = match self {
            Outputs::Features(features) => vec![("features", features)],
            Outputs::Located(Located { bounds, has_box }) => {
                vec![("box", bounds), ("has_box", has_box)]
            }
            Outputs::Slices(SlicePrediction {
                ratio,
                fracture,
                any,
            }) => {
                let mut named = vec![("ratio", ratio)];
                named.extend(fracture.map(|tensor| ("fracture", tensor)));
                named.extend(any.map(|tensor| ("any", tensor)));
                named
            }
            Outputs::Logits(logits) => vec![("logits", logits)],
        };
        named
            .into_iter()
            .map(|(name, tensor)| Ok((name.to_owned(), full(&tensor)?)))
            .collect()
    }
}

/// A target of the output's shape.
fn same_shape(targets: &TensorSet, name: &str, shape: &str, output: &Tensor) -> Result<Tensor> {
    let target = targets.get(name, shape)?;
    if target.size() != output.size() {
        return Err(targets.fault(format!(
            "`{name}` has the shape {:?}, the model's output {:?}",
            target.size(),
            output.size()
        )));
    }
    Ok(target)
}

/// Stage 3's sequences of features and their masks, (B, S, F) and (B, S), from images or from features.
fn study_features(
    model: &StudyModel,
    max_images: i64,
    execution: &Execution,
    input: &TensorSet,
) -> Result<(Tensor, Tensor)> {
    let mask = input.get("mask", "B, S")?;
    let (all, images) = match input.has("features") {
        true => (input.get("features", "B, S, F")?, false),
        false => (input.get("image", "B, S, C, H, W")?, true),
    };
    if all.size()[..2] != mask.size() {
        return Err(input.fault(format!(
            "`mask` has the shape {:?}, what it belongs to {:?}: both begin with (B, S)",
            mask.size(),
            all.size()
        )));
    }
    let (mut features, mut masks) = (Vec::new(), Vec::new());
    for study in 0..mask.size()[0] {
        let there = mask.f_select(0, study)?.f_gt(0.0)?;
        let there = there.f_nonzero()?.f_view(-1)?;
        if there.numel() == 0 {
            return Err(input.fault(format!("`mask` is 0 for all images of study {study}")));
        }
        let mut own = all.f_select(0, study)?.f_index_select(0, &there)?;
        if images {
            own = full(&model.features(&execution.images(own)?)?)?;
        } else if own.size()[1] != model.width() {
            return Err(input.fault(format!(
                "`features` are {} wide, this backbone's {}",
                own.size()[1],
                model.width()
            )));
        }
        let (fitted, mask) = StudyModel::fit(&own, max_images)?;
        features.push(fitted);
        masks.push(mask);
    }
    Ok((Tensor::f_stack(&features, 0)?, Tensor::f_stack(&masks, 0)?))
}
