//! The networks and their losses, written for one device; data parallelism is applied from outside.
//!
//! Shape legend, for this whole crate: B batch, S sequence (images of a study), C channels,
//! H height, W width, F features of a backbone, D the LSTM's hidden size.
//!
//! Modules take their parameters from a [`tch::nn::Path`], whose names are timm's (backbones) and
//! PyTorch's (LSTM), so that a state dict loads by name.

mod arch;
mod error;
mod layer;
mod localizer;
mod loss;
mod position;
mod resnest;
mod rnn;
mod slice_model;
mod study_model;

pub use arch::{Backbone, architectures};
pub use error::NnError;
pub use layer::{BatchNorm2d, Conv2d, ConvConfig, Linear};
pub use localizer::{Localizer, Located};
pub use loss::{box_l1, box_rmse, competition_loss, has_box_loss, nonzero_weighted_mse};
pub use position::{POSITION_WIDTH, position_embedding};
pub use resnest::ResNest;
pub use rnn::BiLstm;
pub use slice_model::{SliceHeads, SliceModel, SlicePrediction};
pub use study_model::StudyModel;
