//! What others see of a run: this crate reads [`event::RunEvent`]s and writes nothing that a run reads.

mod measures;
mod observer;
pub mod otel;
mod prometheus;
pub mod tensorboard;

pub use observer::Observer;
