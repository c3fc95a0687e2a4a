//! What others see of a run: this crate reads [`event::RunEvent`]s and writes nothing that a run reads.

pub mod tensorboard;
