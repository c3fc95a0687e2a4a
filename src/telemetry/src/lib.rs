//! What others see of a run: this crate reads [`event::RunEvent`]s and writes nothing that a run reads.

mod measures;
mod meter;
mod observer;
pub mod otel;
mod prometheus;
pub mod tensorboard;
mod worker;

pub use observer::Observer;
