//! Single models, outside of any run: built by name, fed with named tensors.

mod network;
mod tensors;
mod trace;

use std::rc::Rc;

use nn::{Architecture, BackboneConfig, Pass, Taps, architectures};
use tch::nn::VarStore;
use tch::{Device, Tensor};
use train::{Execution, Losses};

use crate::Result;
use network::Network;

pub use network::ModelStage;
pub use tensors::TensorSet;

/// All that makes a model beside its weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Sizes {
    /// timm's name.
    pub arch: String,
    /// C
    pub in_chans: i64,
    pub drop_path: f64,
    pub drop_rate: f64,
    /// D; the features' width, in stage 1b and 2 with the position embedding's, where absent.
    pub lstm_hidden: Option<i64>,
    /// The S that stage 3 brings its sequences to.
    pub max_images: i64,
}

/// A model and its variables.
#[derive(Debug)]
pub struct Model {
    pub store: VarStore,
    network: Network,
}

impl Model {
    /// Makes it with its initial weights, drawn from libtorch's generator.
    pub fn new(stage: Option<ModelStage>, sizes: &Sizes, device: Device) -> Result<Self> {
        let store = VarStore::new(device);
        let network = Network::new(&store, stage, sizes)?;
        Ok(Model { store, network })
    }

    /// One pass without gradients: the outputs by name, then, where asked for, intermediate maps as
    /// `taps.<timm's name of the module>`.
    pub fn outputs(
        &self,
        execution: &Execution,
        input: &TensorSet,
        train: bool,
        taps: bool,
    ) -> Result<Vec<(String, Tensor)>> {
        let recorder = taps.then(|| Rc::new(Taps::default()));
        let outputs = execution.evaluate(|pass| {
            let pass = Pass {
                train,
                taps: recorder.clone(),
                ..pass.clone()
            };
            self.network.forward(execution, input, &pass)
        })?;
        let mut named = outputs.named()?;
        let maps = recorder.map(|taps| taps.take()).unwrap_or_default();
        named.extend(
            maps.into_iter()
                .map(|(name, map)| (format!("taps.{name}"), map)),
        );
        Ok(named)
    }

    /// The stage's loss of one training pass; of a backbone the mean squared error of `features`.
    pub fn loss(
        &self,
        execution: &Execution,
        input: &TensorSet,
        targets: &TensorSet,
    ) -> Result<Losses> {
        let outputs = execution.train(|pass| self.network.forward(execution, input, pass))?;
        outputs.loss(targets)
    }
}

/// What there is to say of an architecture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub name: &'static str,
    /// F
    pub features: i64,
    /// Trainable numbers.
    pub parameters: usize,
    /// GPUs train it faster with channels last.
    pub prefers_channels_last: bool,
}

/// All architectures, each made once to be counted.
pub fn facts() -> Result<Vec<Facts>> {
    let facts_of = |arch: &Architecture| {
        let store = VarStore::new(Device::Cpu);
        let backbone = nn::Backbone::new(&store.root(), &BackboneConfig::of(arch.name))?;
        Ok(Facts {
            name: arch.name,
            features: backbone.features(),
            parameters: store.trainable_variables().iter().map(Tensor::numel).sum(),
            prefers_channels_last: arch.prefers_channels_last(),
        })
    };
    architectures().map(facts_of).collect()
}
