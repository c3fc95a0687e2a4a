//! PyTorch's own distributed engine (c10d) and the kernels that tch does not expose, as a safe Rust API.
//!
//! [`Store`] is the rendezvous, [`ProcessGroup`] the collectives, [`Reducer`] the gradient buckets of
//! `DistributedDataParallel`, [`kernels`] the multi-tensor kernels, [`autograd`] functions with a backward pass of their own,
//! [`autocast`] mixed precision, [`tracing`] TorchScript modules, [`cuda`] what loads the GPU half of libtorch. Every call that libtorch can refuse returns a
//! [`CollectiveError`].

pub mod autocast;
pub mod autograd;
pub mod cuda;
mod error;
mod ffi;
pub mod kernels;
mod peer;
mod process_group;
mod reducer;
mod rendezvous;
mod socket;
mod store;
pub mod tracing;

pub use error::{CollectiveError, Result};
pub use peer::Peer;
pub use process_group::{Backend, ProcessGroup, ReduceOp};
pub use reducer::{Reducer, ReducerOptions, backward};
pub use rendezvous::{Place, Rendezvous, Tcp};
pub use store::Store;
