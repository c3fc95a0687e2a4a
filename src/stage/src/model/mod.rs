//! Single models, outside of any run: built by name, fed with named tensors.

mod network;
mod tensors;

pub use network::{ModelStage, Network, Outputs, Sizes};
pub use tensors::TensorSet;
