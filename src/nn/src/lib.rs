//! The networks and their losses, written for one device; data parallelism is applied from outside.
//!
//! Shape legend, for this whole crate: B batch, S sequence (images of a study), C channels,
//! H height, W width, F features of a backbone, D the LSTM's hidden size.
//!
//! Modules take their parameters from a [`tch::nn::Path`], whose names are timm's (backbones) and
//! PyTorch's (LSTM), so that a state dict loads by name.

mod arch;
mod block;
mod bottleneck;
mod drop;
mod efficientnet;
mod error;
mod inverted_residual;
mod layer;
mod localizer;
mod loss;
mod pass;
mod position;
mod resnet;
mod rnn;
mod slice_model;
mod split_attention;
mod squeeze;
mod study_model;

pub use arch::{Architecture, Backbone, BackboneConfig, architectures};
pub use error::NnError;
pub use localizer::{Localizer, Located};
pub use loss::{box_l1, box_rmse, competition_loss, has_box_loss, nonzero_weighted_mse};
pub use pass::{Norm, Pass, Recompute, Segment, SyncNorm, Taps};
pub use position::{POSITION_WIDTH, position_embedding};
pub use rnn::BiLstm;
pub use slice_model::{SliceHeads, SliceModel, SlicePrediction};
pub use study_model::StudyModel;
